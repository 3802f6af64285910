//! What a WebSocket begins with, where its route has a say in that: the caller's first message waits for its token, and may
//! have to say whose session it is.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::clock::Now;
use crate::config::{CloseAt, ConnectionInit, InPayload, OnMintError, WebSocket};
use crate::metrics::{RouteId, Verdict};
use crate::proxy::admit;
use crate::proxy::error::{Code, Error};
use crate::proxy::gateway::{Gateway, Plan, VerifyError};
use crate::proxy::inject::{Injected, Slot};
use crate::proxy::owner::{Owner, Whose};
use crate::proxy::tokens;
use crate::proxy::upgrade::first::{First, Status, Wrong};
use crate::proxy::upgrade::frames;
use crate::proxy::upgrade::init::{self, BadInit, Presented};
use crate::proxy::upgrade::registry::{Dialect, Expiry, Farewell, Member};
use crate::proxy::upgrade::tunnel::{Ending, Tunnel};
use crate::proxy::worker::{Snapshot, Worker};
use crate::record::{Caller, CredentialKind, Record};
use crate::session::SessionError;
use crate::session::credential::{TokenText, behind};
use crate::session::memory::Remembered;
use crate::token::Mint;
use crate::token::freshness::Border;

/// How long a caller has to say whose session it is.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The close code of `graphql-transport-ws` for a message that is not as it should be.
const BAD_MESSAGE: u16 = 4400;

/// What will end the tunnel beside its two ends.
pub fn member<M: Mint>(
    gateway: &Gateway<M>,
    plan: &Plan,
    rules: WebSocket,
    session: Option<&Remembered>,
    injected: &mut Injected,
    now: Now,
) -> Member {
    let expires = session.and_then(|remembered| match rules.close_at {
        CloseAt::Never => None,
        CloseAt::Token => tokens::first_expiry(gateway, plan, remembered, injected, now)
            .map(|Border { mono, wall }| Expiry { mono, wall, farewell: Farewell::TokenExpired }),
        CloseAt::Session => {
            // As long as a request with this token would be let in.
            let wall = remembered.session.expires_at.plus(gateway.sessions.skew);
            let mono = now.mono.checked_add(wall.since(now.wall))?;
            Some(Expiry { mono, wall, farewell: Farewell::SessionExpired })
        }
    });
    let whose = session.map(|remembered| (remembered.session.sid.clone(), remembered.session.sub.clone()));
    let oldest = rules.max_lifetime.and_then(|limit| now.mono.checked_add(limit));
    Member::new(whose, expires, oldest)
}

/// What the first message of a tunnel waits for.
#[derive(Debug)]
pub struct Opening<M: Mint> {
    worker: Arc<Worker<M>>,
    snapshot: Arc<Snapshot<M>>,
    route: RouteId,
}

/// What a caller has said first.
enum Heard {
    /// A message.
    Message(String),
    /// None that could be passed on.
    Wrong(Wrong),
    /// Farewell.
    Closed,
}

/// What is passed on in the place of the message.
struct Passed {
    frame: Vec<u8>,
    /// What ends the tunnel from now on; `None`: what did before.
    member: Option<Arc<Member>>,
}

/// Why the message is not passed on.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// It did not come.
    #[error("no first message came in time")]
    Late,
    /// The caller has closed instead.
    #[error("the caller closed before its first message")]
    Closed,
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

    /// Holds the first message back. Before the tunnel is carried. Where the session comes in it, nothing passes either way
    /// until then.
    pub fn begin<C, U>(&self, tunnel: &mut Tunnel<C, U>) {
        let late = self.plan().route.late_session().is_some();
        tunnel.hold(First::new(late), late);
    }

    /// Carries the tunnel until its first message is passed on or refused. `whose`: the session of the upgrade. Returns how
    /// the tunnel ended, where it did so before.
    pub async fn run<C, U>(&self, tunnel: &mut Tunnel<C, U>, whose: &Whose, record: &mut Record) -> Option<Ending>
    where
        C: AsyncRead + AsyncWrite + Unpin,
        U: AsyncRead + AsyncWrite + Unpin,
    {
        let (place, dialect) = (self.plan().route.late_session(), tunnel.dialect());
        let judged = match self.heard(tunnel, place.is_some()).await {
            Err(ending) => return Some(ending),
            Ok(Err(refusal)) => Err(refusal),
            Ok(Ok(message)) => {
                let judging = async {
                    match place {
                        Some(place) => self.admit(&message, place, dialect, record).await,
                        None => self.rewrite(&message, whose.owner(), record).await,
                    }
                };
                match alongside(tunnel, judging).await {
                    Err(ending) => return Some(ending),
                    Ok(judged) => judged,
                }
            }
        };
        match judged {
            Ok(Passed { frame, member }) => tunnel.pass(&frame, member),
            Err(refusal) => {
                let (code, reason) = refusal.close(place.is_some(), dialect);
                record.cause(&refusal);
                tunnel.refuse(code, reason);
            }
        }
        None
    }

    /// The first message; of who has still to say whose session it is, within [`PATIENCE`].
    async fn heard<C, U>(&self, tunnel: &mut Tunnel<C, U>, late: bool) -> Result<Result<String, Refusal>, Ending>
    where
        C: AsyncRead + AsyncWrite + Unpin,
        U: AsyncRead + AsyncWrite + Unpin,
    {
        let heard = if late {
            match tokio::time::timeout(PATIENCE, first(tunnel, true)).await {
                Ok(heard) => heard?,
                Err(_) => return Ok(Err(Refusal::Late)),
            }
        } else {
            first(tunnel, false).await?
        };
        Ok(match heard {
            Heard::Message(message) => Ok(message),
            Heard::Wrong(wrong) => Err(Refusal::Wrong(wrong)),
            Heard::Closed => Err(Refusal::Closed),
        })
    }

    fn plan(&self) -> &Plan {
        &self.snapshot.gateway.plans.routes[self.route.index()]
    }

    /// The frame that the upstream gets: the token in it is alive now, whatever has become of the upgrade's.
    async fn rewrite(&self, message: &str, owner: Option<Owner<'_>>, record: &mut Record) -> Result<Passed, Refusal> {
        let plan = self.plan();
        let Some((init, slot)) = plan.connection_init() else { return Err(BadInit::NotInit.into()) };
        // Before a token is asked for: a message that is none costs nothing.
        init::rewritten(message, &init.token, None, |_| false)?;
        let token = match owner {
            // The session token that `on_mint_error = "session"` puts in its place is not at hand any more.
            Some(owner) => self.token(plan, slot, owner, None, record).await?,
            None => None,
        };
        Ok(Passed { frame: framed(message, plan, init, token.as_deref())?, member: None })
    }

    /// The frame that the upstream gets where the session comes in the message: verified as a bearer token is.
    async fn admit(
        &self,
        message: &str,
        place: &InPayload,
        dialect: Dialect,
        record: &mut Record,
    ) -> Result<Passed, Refusal> {
        let (gateway, plan, clock) = (&self.snapshot.gateway, self.plan(), self.worker.clock());
        let Some((init, slot)) = plan.connection_init() else { return Err(BadInit::NotInit.into()) };
        record.credential(CredentialKind::ConnectionInit);
        let presented = match init::presented(message, place)? {
            Presented::Nothing => Err(SessionError::Missing),
            Presented::Several => Err(SessionError::Ambiguous),
            Presented::One(text) => Ok(text),
        };
        let mut now = clock.now();
        let verified = match presented.as_deref().map_err(|error| *error).and_then(|text| behind(text, &place.prefix)) {
            Ok(credential) => {
                let tag = gateway.sessions.memory.tag(credential.token.as_bytes());
                gateway.verify(&credential, tag, plan, clock, &mut now).await.map(|session| (credential, session))
            }
            Err(error) => Err(VerifyError::Session(error)),
        };
        let (credential, session) = verified.map_err(|error| admit::judged(error, record))?;
        record.verdict(Verdict::Valid);
        let caller: Arc<dyn Caller> = Arc::<Remembered>::clone(&session);
        record.caller(caller);
        let token = self.token(plan, slot, Owner::Verified(&session), Some(credential.token), record).await?;
        let frame = framed(message, plan, init, token.as_deref())?;
        let Some(rules) = plan.route.websocket else { return Err(BadInit::NotInit.into()) };
        // What ends with its token ends with this one: its header is all that is looked at.
        let mut injected = Injected::from_iter([(slot.header.clone(), HeaderValue::from_static(""))]);
        let member = member(gateway, plan, rules, Some(&session), &mut injected, clock.now());
        Ok(Passed { frame, member: Some(self.worker.tunnels().add(member.speaking(dialect))) })
    }

    /// The session's token; `None`: there is none, and the route wants the message to go without.
    async fn token(
        &self,
        plan: &Plan,
        slot: &Slot,
        owner: Owner<'_>,
        session: Option<TokenText<'_>>,
        record: &mut Record,
    ) -> Result<Option<String>, Error> {
        let (gateway, clock, origin) = (&self.snapshot.gateway, self.worker.clock(), record.origin());
        let asked = std::slice::from_ref(slot);
        let found = tokens::minted(gateway, asked, Some(owner), clock, None, origin.as_deref()).await;
        let Some((lookup, minted)) = found.into_iter().find_map(|(_, found)| found) else { return Ok(None) };
        record.looked_up(lookup);
        match minted {
            Ok(token) => Ok(token.bare().to_str().ok().map(str::to_owned)),
            Err(error) if tokens::is_issuers_failure(&error) => {
                let instead = match plan.route.on_mint_error {
                    OnMintError::Pass if !slot.required => None,
                    OnMintError::Session if !owner.has_expired(clock.wall()) => match session {
                        Some(text) => Some(text.as_str().to_owned()),
                        None => return Err(error.into()),
                    },
                    OnMintError::Fail | OnMintError::Pass | OnMintError::Session => return Err(error.into()),
                };
                record.degraded();
                Ok(instead)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn framed(message: &str, plan: &Plan, init: &ConnectionInit, token: Option<&str>) -> Result<Vec<u8>, Refusal> {
    let message = init::rewritten(message, &init.token, token, |name| plan.cleaner.takes(name))?;
    frames::masked_text(&message).ok_or(Refusal::NoMask)
}

/// Carries the tunnel until the first message is whole, or is none, or the tunnel has ended. `closes`: a farewell counts as
/// the first word; else it passes as in every tunnel.
async fn first<C, U>(tunnel: &mut Tunnel<C, U>, closes: bool) -> Result<Heard, Ending>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    std::future::poll_fn(|cx| {
        if let Poll::Ready(ending) = Pin::new(&mut *tunnel).poll(cx) {
            return Poll::Ready(Err(ending));
        }
        match tunnel.first() {
            Some(Status::Whole) => Poll::Ready(Ok(Heard::Message(tunnel.take_message().unwrap_or_default()))),
            Some(Status::Wrong(wrong)) => Poll::Ready(Ok(Heard::Wrong(wrong))),
            Some(Status::Closed) if closes => Poll::Ready(Ok(Heard::Closed)),
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
    /// The code of the close frame, and its reason. `late`: the message should have said whose session it is.
    fn close(&self, late: bool, dialect: Dialect) -> (u16, &'static str) {
        let missing = (Code::SessionMissing.close(), Code::SessionMissing.as_str());
        match self {
            Self::Late => missing,
            Self::Closed => (1000, ""),
            Self::Wrong(wrong) => match wrong.close() {
                Some(close) => close,
                None if late => missing,
                None => (BAD_MESSAGE, "the first message is not connection_init"),
            },
            Self::Init(_) if late => missing,
            Self::Init(BadInit::NotJson) => (BAD_MESSAGE, "the first message is not one JSON object"),
            Self::Init(BadInit::NotInit) => (BAD_MESSAGE, "the first message is not connection_init"),
            Self::Init(BadInit::Payload) => (BAD_MESSAGE, "the payload of connection_init is not as it should be"),
            Self::Token(error) if error.code() == Code::SessionExpired => (dialect.expired(), error.code().as_str()),
            Self::Token(error) => (error.code().close(), error.code().as_str()),
            Self::NoMask => (1011, "internal error"),
        }
    }
}
