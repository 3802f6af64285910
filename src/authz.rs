//! Decisions for proxies that forward by themselves: whether a request may pass, and what has to be done to it.
//!
//! The decision is the one of [`proxy`](crate::proxy), made about the request that the question describes. Only who asks
//! differs: a proxy that has to be in `allow_from`, since the answer holds a token.

pub mod answer;
pub mod changes;
pub mod dialect;
pub mod grpc;
pub mod message;

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use self::changes::Changes;
use self::dialect::{Dialect, Saying, SchemeName};
use crate::grpc::STATUS;
use crate::listener::connection::Connection;
use crate::listener::rest::Rest;
use crate::proxy::error::{Asked, Error, upstream_outcome};
use crate::proxy::finish::{Body, Finish};
use crate::proxy::forward::ForwardError;
use crate::proxy::gateway::Plans;
use crate::proxy::owner::Whose;
use crate::proxy::upgrade::handshake::wishes_websocket;
use crate::proxy::worker::{Snapshot, Worker};
use crate::proxy::{decide, refusal, refuse, request};
use crate::record::{Caller, Outcome, Peer, Record};
use crate::route::RouteError;
use crate::token::Mint;
use crate::transport::body::{Ending as _, ResponseBody};

/// A question is small and comes as a whole: one that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a question over gRPC beside the head of the request that it is about.
const BESIDE: usize = 64 * 1024;

/// Answers one question.
pub async fn handle<M: Mint>(
    worker: Arc<Worker<M>>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Response<Body> {
    connection.begin_request();
    // A reload never changes a question that is under way.
    let snapshot = worker.snapshot();
    let asker = Asker { worker: &worker, snapshot: &snapshot, connection: &connection };
    let (head, body) = request.into_parts();
    let rest = Rest::of(&body);
    let dialect = if snapshot.gateway.plans.allow_from.trusts(connection.ends.peer) {
        Dialect::of(head.uri.path()).ok_or(Error::Route(RouteError::NoRoute))
    } else {
        Err(Error::NotAnAsker)
    };
    let (mut answer, unread) = match dialect {
        Ok(Dialect::Grpc) if head.version == Version::HTTP_2 => (asker.answer_grpc(head, body).await, Rest::NONE),
        Ok(Dialect::Grpc) => (asker.refuse(head, &Error::Malformed("gRPC is spoken over HTTP/2")), rest),
        Ok(dialect) => (asker.answer_http(dialect, head).await, rest),
        Err(error) => (asker.refuse(head, &error), rest),
    };
    connection.leave_unread(unread);
    if connection.says_goodbye(unread) {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// Whom an answer is for, and with what it is found.
struct Asker<'a, M: Mint> {
    worker: &'a Worker<M>,
    snapshot: &'a Snapshot<M>,
    connection: &'a Arc<Connection>,
}

// === impl Asker ===

impl<M: Mint> Asker<'_, M> {
    async fn answer_http(&self, dialect: Dialect, mut head: Parts) -> Response<Body> {
        let read = match dialect {
            Dialect::Headers(saying) => saying.read(&mut head),
            Dialect::Envoy | Dialect::Grpc => dialect::read_envoy(&mut head),
        };
        let (mut head, mut finish) = self.begin(head);
        let asked = passed_on(&head, self.plans());
        let decided = match read {
            Ok(scheme) => self.decide(&mut head, scheme, &mut finish.record).await,
            Err(error) => Err(error),
        };
        match decided {
            // Caddy and Traefik remove what their own configuration names, whatever the answer says.
            Ok((changes, _)) if changes.respelt && dialect == Dialect::Headers(Saying::Forwarded) => {
                let error = Error::Malformed("a header is another spelling of one that only the gateway may set");
                refuse(&error, &asked, finish)
            }
            Ok((changes, _)) => {
                let answer = match dialect {
                    Dialect::Headers(_) => answer::in_headers(changes),
                    Dialect::Envoy | Dialect::Grpc => answer::for_envoy(changes),
                };
                // Told now: hyper does not poll a body that is over before it began.
                finish.complete();
                answer.map(|_| ResponseBody::empty(finish))
            }
            Err(error) => refuse(&error, &asked, finish),
        }
    }

    /// Over gRPC a question that was understood is always answered, and the answer may be no.
    async fn answer_grpc(&self, head: Parts, body: Incoming) -> Response<Body> {
        let request = match self.message(body).await {
            Ok(request) => request,
            Err(error) => {
                // What was not read of it may still come.
                self.connection.leave_unread(Rest::UNKNOWN);
                let (_, finish) = self.begin(head);
                return refuse(&error, &Asked { grpc: true, ..Asked::default() }, finish);
            }
        };
        let (finish, message) = match grpc::head(request) {
            Ok((original, scheme)) => {
                let (mut original, mut finish) = self.begin(original);
                let asked = passed_on(&original, self.plans());
                let message = match self.decide(&mut original, scheme, &mut finish.record).await {
                    Ok((changes, whose)) => grpc::allowed(&changes, caller(&whose)),
                    Err(error) => grpc::denied(error.code(), refusal(&error, &asked, &mut finish.record)),
                };
                (finish, message)
            }
            Err(error) => {
                let (_, mut finish) = self.begin(head);
                let answer = refusal(&error, &Asked::default(), &mut finish.record);
                (finish, grpc::denied(error.code(), answer))
            }
        };
        let trailers = HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]);
        let mut answer = Response::new(ResponseBody::with_trailers(message, trailers, finish));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        answer
    }

    async fn message(&self, body: Incoming) -> Result<message::HttpRequest, Error> {
        let limit = self.plans().max_header_bytes.saturating_mul(2).saturating_add(BESIDE);
        let read = tokio::time::timeout(PATIENCE, Limited::new(body, limit).collect()).await;
        let read = read.map_err(|_| Error::Forward(ForwardError::BodyStalled))?;
        // It is too long, or breaks off, and then nobody hears what is said of it.
        grpc::decode(read.map_err(|_| Error::BodyTooLarge)?.to_bytes())
    }

    /// The decision about the request with this head, and what follows from it.
    async fn decide(
        &self,
        head: &mut Parts,
        scheme: SchemeName,
        record: &mut Record,
    ) -> Result<(Changes, Whose), Error> {
        let gateway = &self.snapshot.gateway;
        let target = request::carried(head, &gateway.plans, scheme, self.connection.ends.listener)?;
        // Its host and its scheme are those of the dialect; no other header says them.
        let mut decision = decide(self.worker, gateway, head, &target, false, record).await?;
        if decision.plan.route.websocket.is_none() && wishes_websocket(&head.headers) {
            // The gateway would forward it as no more than a GET. Whether the proxy does, nobody knows.
            return Err(Error::Malformed("the route opens no WebSockets"));
        }
        head.headers.remove(header::UPGRADE);
        let whose = std::mem::replace(&mut decision.aging.whose, Whose::Nobodys);
        let changes = Changes::of(&mut head.headers, decision, &gateway.plans.targets)?;
        record.responds(Outcome { id: upstream_outcome(StatusCode::OK), status: StatusCode::OK, reason: None });
        Ok((changes, whose))
    }

    /// The record of the request with this head begins.
    fn begin(&self, head: Parts) -> (Parts, Box<Finish>) {
        let address = self.connection.ends.peer;
        // The scheme of the request is not that of the question.
        let peer = Peer { address, trusted: self.plans().trusted.trusts(address), scheme: "" };
        let request = Request::from_parts(head, ());
        let record = self.snapshot.recorder.begin(&request, peer);
        (request.into_parts().0, Finish::new(record, self.connection, false))
    }

    /// Answers a question that is none.
    fn refuse(&self, head: Parts, error: &Error) -> Response<Body> {
        let (_, finish) = self.begin(head);
        refuse(error, &Asked::default(), finish)
    }

    fn plans(&self) -> &Plans {
        &self.snapshot.gateway.plans
    }
}

/// Whose the request is, where that was verified.
fn caller(whose: &Whose) -> Option<&dyn Caller> {
    match whose {
        Whose::Verified(remembered) => Some(&**remembered),
        Whose::Named(_) | Whose::Nobodys => None,
    }
}

/// How an error is answered that the proxy passes on to the caller: never with a status that would let the request pass, as
/// the one of gRPC would, and without a word about the connection, which is not the caller's.
fn passed_on(head: &Parts, plans: &Plans) -> Asked {
    Asked { grpc: false, closes: false, ..Asked::of(head, &plans.parties) }
}
