//! What a WebSocket begins with, where its route has a say in that: the caller's first message waits for its token.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::{ConnectionInit, OnMintError};
use crate::metrics::RouteId;
use crate::proxy::error::Error;
use crate::proxy::gateway::Plan;
use crate::proxy::inject::Slot;
use crate::proxy::owner::{Owner, Whose};
use crate::proxy::tokens;
use crate::proxy::upgrade::first::{First, Status, Wrong};
use crate::proxy::upgrade::frames;
use crate::proxy::upgrade::init::{self, BadInit};
use crate::proxy::upgrade::tunnel::{Ending, Tunnel};
use crate::proxy::worker::{Snapshot, Worker};
use crate::record::Record;
use crate::token::Mint;

/// The close code of `graphql-transport-ws` for a message that is not as it should be.
const BAD_MESSAGE: u16 = 4400;

/// What the first message of a tunnel waits for.
#[derive(Debug)]
pub struct Opening<M: Mint> {
    worker: Arc<Worker<M>>,
    snapshot: Arc<Snapshot<M>>,
    route: RouteId,
}

/// Why the message is not passed on.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// The caller breaks the protocol, or its limit.
    #[error("the first message cannot be read")]
    Wrong(Wrong),
    /// It is another message.
    #[error(transparent)]
    Init(#[from] BadInit),
    /// There is no token for it.
    #[error(transparent)]
    Token(#[from] Error),
    /// The frame has no mask.
    #[error("the system has no random numbers")]
    NoMask,
}

// === impl Opening ===

impl<M: Mint> Opening<M> {
    /// On this route, which has a say in it.
    pub fn new(worker: &Arc<Worker<M>>, snapshot: &Arc<Snapshot<M>>, route: RouteId) -> Self {
        Self { worker: Arc::clone(worker), snapshot: Arc::clone(snapshot), route }
    }

    /// Holds the first message back. Before the tunnel is carried.
    pub fn begin<C, U>(&self, tunnel: &mut Tunnel<C, U>) {
        tunnel.hold(First::new(false), false);
    }

    /// Carries the tunnel until its first message is passed on or refused. `whose`: the session of the upgrade. Returns how
    /// the tunnel ended, where it did so before.
    pub async fn run<C, U>(&self, tunnel: &mut Tunnel<C, U>, whose: &Whose, record: &mut Record) -> Option<Ending>
    where
        C: AsyncRead + AsyncWrite + Unpin,
        U: AsyncRead + AsyncWrite + Unpin,
    {
        let judged = match message(tunnel).await {
            Err(ending) => return Some(ending),
            Ok(Err(wrong)) => Err(Refusal::Wrong(wrong)),
            Ok(Ok(message)) => match alongside(tunnel, self.rewrite(&message, whose.owner(), record)).await {
                Err(ending) => return Some(ending),
                Ok(judged) => judged,
            },
        };
        match judged {
            Ok(frame) => tunnel.pass(&frame, None),
            Err(refusal) => {
                let (code, reason) = refusal.close();
                record.cause(&refusal);
                tunnel.refuse(code, reason);
            }
        }
        None
    }

    fn plan(&self) -> &Plan {
        &self.snapshot.gateway.plans.routes[self.route.index()]
    }

    /// The frame that the upstream gets: the token in it is alive now, whatever has become of the upgrade's.
    async fn rewrite(&self, message: &str, owner: Option<Owner<'_>>, record: &mut Record) -> Result<Vec<u8>, Refusal> {
        let plan = self.plan();
        let Some((init, slot)) = plan.connection_init() else { return Err(BadInit::NotInit.into()) };
        // Before a token is asked for: a message that is none costs nothing.
        init::rewritten(message, &init.token, None, |_| false)?;
        let token = match owner {
            Some(owner) => self.token(plan, slot, owner, record).await?,
            None => None,
        };
        framed(message, plan, init, token.as_deref())
    }

    /// The session's token; `None`: there is none, and the route wants the message to go without.
    async fn token(
        &self,
        plan: &Plan,
        slot: &Slot,
        owner: Owner<'_>,
        record: &mut Record,
    ) -> Result<Option<String>, Error> {
        let (gateway, clock, origin) = (&self.snapshot.gateway, self.worker.clock(), record.origin());
        let asked = std::slice::from_ref(slot);
        let found = tokens::minted(gateway, asked, Some(owner), clock, None, origin.as_deref()).await;
        let Some((lookup, minted)) = found.into_iter().find_map(|(_, found)| found) else { return Ok(None) };
        record.looked_up(lookup);
        match minted {
            Ok(token) => Ok(token.bare().to_str().ok().map(str::to_owned)),
            // The session token that `session` puts in its place is not at hand any more.
            Err(error)
                if plan.route.on_mint_error == OnMintError::Pass
                    && !slot.required
                    && tokens::is_issuers_failure(&error) =>
            {
                record.degraded();
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn framed(message: &str, plan: &Plan, init: &ConnectionInit, token: Option<&str>) -> Result<Vec<u8>, Refusal> {
    let message = init::rewritten(message, &init.token, token, |name| plan.cleaner.takes(name))?;
    frames::masked_text(&message).ok_or(Refusal::NoMask)
}

/// Carries the tunnel until the first message is whole, or is none, or the tunnel has ended.
async fn message<C, U>(tunnel: &mut Tunnel<C, U>) -> Result<Result<String, Wrong>, Ending>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    std::future::poll_fn(|cx| {
        if let Poll::Ready(ending) = Pin::new(&mut *tunnel).poll(cx) {
            return Poll::Ready(Err(ending));
        }
        match tunnel.first() {
            Some(Status::Whole) => Poll::Ready(Ok(Ok(tunnel.take_message().unwrap_or_default()))),
            Some(Status::Wrong(wrong)) => Poll::Ready(Ok(Err(wrong))),
            Some(Status::Awaited | Status::Closed) | None => Poll::Pending,
        }
    })
    .await
}

/// Waits for what the message waits for, while the tunnel is carried.
async fn alongside<C, U, T>(tunnel: &mut Tunnel<C, U>, judging: impl Future<Output = T>) -> Result<T, Ending>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut judging = pin!(judging);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(judged) = judging.as_mut().poll(cx) {
            return Poll::Ready(Ok(judged));
        }
        Pin::new(&mut *tunnel).poll(cx).map(Err)
    })
    .await
}

// === impl Refusal ===

impl Refusal {
    /// The code of the close frame, and its reason.
    fn close(&self) -> (u16, &'static str) {
        match self {
            Self::Wrong(wrong) => wrong.close().unwrap_or((BAD_MESSAGE, "the first message is not connection_init")),
            Self::Init(BadInit::NotJson) => (BAD_MESSAGE, "the first message is not one JSON object"),
            Self::Init(BadInit::NotInit) => (BAD_MESSAGE, "the first message is not connection_init"),
            Self::Init(BadInit::Payload) => (BAD_MESSAGE, "the payload of connection_init is not as it should be"),
            Self::Token(error) => (error.code().close(), error.code().as_str()),
            Self::NoMask => (1011, "internal error"),
        }
    }
}
