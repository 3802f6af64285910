//! An upgrade on its way: asks the upstream, and joins both connections when it agrees.
//!
//! Nothing of what the caller sends after its head leaves the caller's connection before the caller has got the 101: the
//! connection stays an HTTP connection until then, and reads no further than its buffer; a stream of HTTP/2, no further than
//! its window.

use std::sync::Arc;
use std::time::Duration;

use http::header;
use http::request::Parts;
use http::{Request, Response, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::listener::connection::Connection;
use crate::listener::opened::Opened;
use crate::listener::rest::Rest;
use crate::metrics::RouteId;
use crate::proxy::aging::Waiting;
use crate::proxy::error::Error;
use crate::proxy::finish::{Body, Finish};
use crate::proxy::forward::{Answer, ForwardError};
use crate::proxy::inject::{self, Injected, Slot};
use crate::proxy::opening::{self, Opening};
use crate::proxy::owner::Aging;
use crate::proxy::pool::Place;
use crate::proxy::pool::exchange::Want;
use crate::proxy::upgrade::handshake::{self, BadAgreement, Handshake, Wish};
use crate::proxy::upgrade::registry::{Dialect, Member};
use crate::proxy::upgrade::tunnel::{Broken, Ending, Tunnel};
use crate::proxy::worker::{Snapshot, Worker};
use crate::proxy::{clean, error};
use crate::record::{Outcome, Record};
use crate::token::Mint;
use crate::transport::body::{RequestBody, ResponseBody};

/// How long a caller whose upgrade was refused may still send what it had begun to.
const LINGER: Duration = Duration::from_secs(1);

/// What came of asking.
#[derive(Debug)]
pub enum Asked {
    /// An answer like any other. Its connection serves no further request.
    Refused(Box<Answer>),
    /// A valid 101.
    Agreed(Box<Agreed>),
}

/// An upstream that has agreed.
#[derive(Debug)]
pub struct Agreed {
    /// The head of its 101.
    pub response: Response<()>,
    /// Its connection, as soon as HTTP is over on it.
    pub connection: OnUpgrade,
    /// That connection's place in its pool.
    pub place: Place,
    /// The route, where it has a say in the first message.
    pub opens: Option<RouteId>,
}

/// Sends the handshake on a connection of its own, and judges the answer.
///
/// # Errors
/// When there is no answer, or one that neither agrees to the handshake nor refuses it.
pub async fn ask<M: Mint>(
    waiting: Waiting<'_, M>,
    handshake: &Handshake,
    mut head: Parts,
    member: &mut Member,
    record: &mut Record,
) -> Result<Asked, Error> {
    let exchange = waiting.exchange;
    let (mut lease, renewed) = waiting.lease(Want::Own, &mut head, record).await?;
    if renewed && let Some(rules) = waiting.plan.route.websocket {
        let Waiting { plan, gateway, clock, aging, .. } = waiting;
        let sent = |slot: &Slot| Some((slot.header.clone(), head.headers.get(&slot.header)?.clone()));
        let mut injected: Injected = plan.slots.iter().filter_map(sent).collect();
        let session = aging.whose.verified().map(|session| &**session);
        // The tunnel ends with what is sent, not with what has died.
        *member = opening::member(gateway, plan, rules, session, &mut injected, clock.now());
        inject::inject(&mut head.headers, injected);
    }
    exchange.aim.at(&lease, &mut head)?;
    let sent = lease.send(Request::from_parts(head, RequestBody::empty()));
    let mut response =
        exchange.in_time(sent, Instant::now()).await?.map_err(|error| ForwardError::Broken(error.error))?;
    if !handshake.is_agreed(&response).map_err(ForwardError::from)? {
        return Ok(Asked::Refused(Box::new(exchange.accept(response, lease)?)));
    }
    let route = &waiting.plan.route;
    let opens = route.connection_init.is_some().then_some(route.id);
    if opens.is_some() && response.headers().contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
        return Err(ForwardError::from(BadAgreement::EXTENSION).into());
    }
    let connection = hyper::upgrade::on(&mut response);
    Ok(Asked::Agreed(Box::new(Agreed { response: response.map(drop), connection, place: lease.into_place(), opens })))
}

/// Tells the caller of the upstream's agreement. The tunnel begins when that is written; the record and its connection's
/// count go with it.
pub fn open<M: Mint>(
    worker: &Arc<Worker<M>>,
    snapshot: &Arc<Snapshot<M>>,
    connection: &Connection,
    wish: Wish,
    agreed: Agreed,
    member: Member,
    mut finish: Box<Finish>,
) -> Response<Body> {
    let Agreed { mut response, connection: upstream, place, opens } = agreed;
    clean::response(response.headers_mut(), &snapshot.gateway.plans.response);
    handshake::agree(&mut response, wish.is_stream);
    *response.version_mut() = Version::HTTP_11;
    let status = response.status();
    finish.record.responds(Outcome { id: error::upstream_outcome(status), status, reason: None });
    finish.record.opens_tunnel();
    let member = worker.tunnels().add(member.speaking(Dialect::of(response.headers())));
    // Not the whole wish: its key is a part of the buffer from which the head was read.
    let Wish { connection: caller, is_stream, .. } = wish;
    let opening = opens.map(|route| Box::new(Opening::new(worker, snapshot, route)));
    connection.sequel.leave(async move {
        let on = is_stream.then(|| Arc::clone(&finish.connection));
        let ending = join(caller, on.as_deref(), upstream, place, member, opening, &mut finish).await;
        finish.tunnel_ends(ending);
    });
    response.map(|()| ResponseBody::nothing())
}

/// Carries the tunnel from the moment that HTTP is over at both ends to its own end. `on`: the connection of HTTP/2 on which
/// the caller's end is a stream.
async fn join<M: Mint>(
    caller: OnUpgrade,
    on: Option<&Connection>,
    upstream: OnUpgrade,
    place: Place,
    member: Arc<Member>,
    opening: Option<Box<Opening<M>>>,
    finish: &mut Finish,
) -> Ending {
    let broken = |by| Ending { sent: 0, received: 0, broken: Some(by), rest: Rest::UNKNOWN };
    let Ok(caller) = caller.await else { return broken(Broken::Caller) };
    let Ok(upstream) = upstream.await else { return broken(Broken::Upstream) };
    let (caller, upstream) = (TokioIo::new(caller), TokioIo::new(upstream));
    let ending = match on {
        None => carry(caller, upstream, member, opening, finish).await,
        // What waits for an upstream that takes nothing holds up the other streams of the caller's connection.
        Some(on) => carry(Opened::new(caller, on), Opened::new(upstream, on), member, opening, finish).await,
    };
    drop(place);
    ending
}

/// From the first frame to the last.
async fn carry<C, U, M>(
    caller: C,
    upstream: U,
    member: Arc<Member>,
    opening: Option<Box<Opening<M>>>,
    finish: &mut Finish,
) -> Ending
where
    C: AsyncRead + AsyncWrite + Unpin + Send,
    U: AsyncRead + AsyncWrite + Unpin + Send,
    M: Mint,
{
    let mut tunnel = Tunnel::new(caller, upstream, member);
    if let Some(opening) = opening {
        opening.begin(&mut tunnel);
        let Finish { aging, record, .. } = finish;
        // Over soon, and big: boxed, so that an open tunnel holds nothing of it.
        if let Some(ending) = Box::pin(opening.run(&mut tunnel, &aging.whose, record)).await {
            return ending;
        }
        finish.aging = Aging::NONE;
    }
    // Where it is: to move it would keep it twice.
    (&mut tunnel).await
}

/// The answer is not a 101. Says whether the connection ends with it, so that nothing which the caller took for frames is
/// read as its next request.
pub fn refuse(connection: &Connection, wish: Wish) -> bool {
    if wish.is_stream {
        // Whatever it sent too early ends with its stream.
        connection.leave_unread(Rest::UNKNOWN);
        return false;
    }
    let closes = wish.closes_when_refused();
    connection.sequel.leave(linger(wish.connection));
    closes
}

/// Ends the connection of a caller whose upgrade was refused: what it sent too early is read and thrown away, or it would
/// reset the connection and take the answer with it.
async fn linger(caller: OnUpgrade) {
    let Ok(caller) = caller.await else { return };
    let mut caller = TokioIo::new(caller);
    let mut scratch = [0; 1024];
    let end = async {
        caller.shutdown().await?;
        while caller.read(&mut scratch).await? > 0 {}
        std::io::Result::Ok(())
    };
    // A caller that breaks off here has got all that there was for it.
    let _ = tokio::time::timeout(LINGER, end).await;
}
