//! What is left to do when an answer, or the tunnel in its place, has ended.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use crate::listener::connection::{Connection, Version};
use crate::listener::rest::Rest;
use crate::proxy::grpc;
use crate::proxy::owner::Aging;
use crate::proxy::pool::Lease;
use crate::proxy::upgrade::tunnel::{self, Broken};
use crate::record::{BodyEnd, Record};
use crate::transport::body::ahead::Ahead;
use crate::transport::body::{AnswerError, BodyFate, Ending, ResponseBody};

/// The body of every answer.
pub type Body = ResponseBody<Box<Finish>>;

/// What is left to do at the end of an answer. Dropped early, it was the caller who went away.
#[derive(Debug)]
pub struct Finish {
    /// Counts it and logs it.
    pub record: Record,
    /// The upstream's connection. The request's body must be over too before it serves again.
    pub lease: Option<Lease>,
    /// What was read of the answer's body before it is passed on.
    pub ahead: Option<Box<Ahead>>,
    /// What has become of the request's body, where there is one and the upstream is asked.
    pub body: Option<Arc<BodyFate>>,
    /// The caller's.
    pub connection: Arc<Connection>,
    /// What ages in the request until it is sent. Here, where it makes the future of no request larger.
    pub aging: Aging,
    /// What the answer says of the request's tokens, where its route wants that.
    pub shown: Option<HeaderValue>,
    ended: Option<Instant>,
    /// Whether a broken answer ends in trailers, as gRPC on HTTP/2 has it.
    grpc: bool,
}

// === impl Finish ===

impl Finish {
    /// Of a request whose head has just been read.
    pub fn new(record: Record, connection: &Arc<Connection>, grpc: bool) -> Box<Self> {
        // Boxed: it goes through several hands on its way into the answer's body.
        let connection = Arc::clone(connection);
        Box::new(Self {
            record,
            lease: None,
            ahead: None,
            body: None,
            connection,
            aging: Aging::NONE,
            shown: None,
            ended: None,
            grpc,
        })
    }

    /// Whether the request's body has gone to the upstream to its end: nothing of it is left to come then.
    pub fn has_taken_the_body(&self) -> bool {
        self.body.as_deref().is_some_and(BodyFate::is_whole)
    }

    /// The tunnel that the request became is over.
    pub fn tunnel_ends(mut self: Box<Self>, ending: tunnel::Ending) {
        let now = Instant::now();
        self.ended = Some(now);
        self.record.tunnelled(ending.sent, ending.received);
        if self.connection.version() == Version::Http2 {
            self.connection.leave_unread(ending.rest);
        }
        let end = match ending.broken {
            None => BodyEnd::Complete,
            Some(Broken::Caller) => BodyEnd::Cut,
            Some(Broken::Upstream) => BodyEnd::Broken,
        };
        self.record.body_ends(end, now);
    }
}

impl Ending for Finish {
    fn passed(&mut self, bytes: usize, end: Option<Instant>) {
        self.record.sent(bytes);
        self.connection.gave(end);
    }

    fn waits(&mut self) {
        self.connection.waits_for_upstream();
    }

    fn complete(&mut self) {
        let now = Instant::now();
        self.ended = Some(now);
        self.record.body_ends(BodyEnd::Complete, now);
        if let Some(lease) = self.lease.take() {
            if self.body.as_deref().is_none_or(BodyFate::is_whole) {
                lease.finish(now);
            } else {
                self.connection.leave_unread(Rest::UNKNOWN);
            }
        }
    }

    fn broken(&mut self, error: &AnswerError) -> Option<HeaderMap> {
        self.record.body_ends(BodyEnd::Broken, Instant::now());
        if self.grpc { grpc::broken(error) } else { None }
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        self.connection.end_request(self.ended.unwrap_or_else(Instant::now));
    }
}
