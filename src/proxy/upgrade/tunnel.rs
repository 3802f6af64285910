//! An open WebSocket: bytes both ways, until an end closes it or it is told to end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use super::first::{First, Status};
use super::flow::{Failure, Flow};
use super::frames;
use super::registry::{Dialect, Member};
use crate::listener::rest::Rest;

/// How long both ends have to answer a close frame of ours; and the other end, once one has ended, for each step that it
/// is still behind.
pub const PARTING: Duration = Duration::from_secs(5);

/// A tunnel. It is over when both ends are, or have had their time.
#[derive(Debug)]
pub struct Tunnel<C, U> {
    caller: C,
    upstream: U,
    /// From the upstream to the caller.
    down: Flow,
    /// From the caller to the upstream.
    up: Flow,
    member: Arc<Member>,
    /// Nothing of the upstream passes yet.
    silent: bool,
    /// It was told to end.
    parting: bool,
    caller_done: bool,
    upstream_done: bool,
    /// Armed only once something has ended.
    timer: Option<Pin<Box<Sleep>>>,
    /// What had passed when it was armed.
    progress: u64,
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Bytes that reached the caller.
    pub sent: u64,
    /// Bytes that reached the upstream.
    pub received: u64,
    /// Who broke it, if anybody did.
    pub broken: Option<Broken>,
    /// What the caller may still send.
    pub rest: Rest,
}

/// Which end of a tunnel broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The caller went away.
    Caller,
    /// The upstream broke off.
    Upstream,
}

// === impl Tunnel ===

impl<C, U> Tunnel<C, U> {
    /// Between these two.
    pub fn new(caller: C, upstream: U, member: Arc<Member>) -> Self {
        Self {
            caller,
            upstream,
            down: Flow::default(),
            up: Flow::heard_out(),
            member,
            silent: false,
            parting: false,
            caller_done: false,
            upstream_done: false,
            timer: None,
            progress: 0,
        }
    }

    /// Holds the caller's first message back, before anything has come. `silent`: as all that the upstream says, until then.
    pub fn hold(&mut self, first: First, silent: bool) {
        self.up.hold(first);
        self.silent = silent;
    }

    /// How far the message is that is held back; `None`: none is.
    pub fn first(&self) -> Option<Status> {
        self.up.first()
    }

    /// What its ends speak.
    pub fn dialect(&self) -> Dialect {
        self.member.dialect()
    }

    /// Takes out the message that is whole. It is held back all the same.
    pub fn take_message(&mut self) -> Option<String> {
        self.up.take_message()
    }

    /// Passes on this frame in the place of the message, and then whatever comes either way. `member`: what ends the tunnel
    /// from now on, where that is another one.
    pub fn pass(&mut self, message: &[u8], member: Option<Arc<Member>>) {
        self.up.pass(message);
        self.silent = false;
        if let Some(member) = member {
            self.member = member;
        }
    }

    /// Tells the caller why its message is not passed on, and the upstream that there is no more. It ends with that.
    pub fn refuse(&mut self, code: u16, reason: &str) {
        if !self.parting {
            self.part(frames::close(code, reason), frames::masked_close(1001, "the caller was not let in"));
        }
    }

    fn part(&mut self, caller: Vec<u8>, upstream: Option<Vec<u8>>) {
        (self.parting, self.silent, self.timer) = (true, false, None);
        self.down.part(Some(caller));
        self.up.part(upstream);
    }

    fn ending(&self) -> Ending {
        let broken = match (self.down.failure(), self.up.failure()) {
            (Some(Failure::Source), _) | (_, Some(Failure::Sink)) => Some(Broken::Upstream),
            (Some(Failure::Sink), _) | (_, Some(Failure::Source)) => Some(Broken::Caller),
            (None, None) => None,
        };
        let rest = match (self.up.has_ended(), self.up.has_heard()) {
            (true, _) => Rest::NONE,
            // After a close frame nothing but the end.
            (false, true) => Rest::ARRIVES_WITH_ITS_HEAD,
            (false, false) => Rest::UNKNOWN,
        };
        Ending { sent: self.down.passed(), received: self.up.passed(), broken, rest }
    }

    fn passed(&self) -> u64 {
        self.down.passed() + self.up.passed()
    }

    /// Whether the time of what is left is over. While it only finishes, each step that it makes gives it more.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let passed = self.passed();
            let timer = match &mut self.timer {
                Some(timer) => timer,
                none => {
                    self.progress = passed;
                    none.insert(Box::pin(tokio::time::sleep(PARTING)))
                }
            };
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.parting || passed == self.progress {
                return Poll::Ready(());
            }
            self.progress = passed;
            timer.as_mut().reset(Instant::now() + PARTING);
        }
    }
}

impl<C, U> Future for Tunnel<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    type Output = Ending;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        let this = self.get_mut();
        if !this.parting
            && let Some(farewell) = this.member.told(cx)
        {
            let (code, reason) = farewell.close(this.member.dialect());
            this.part(frames::close(code, reason), frames::masked_close(code, reason));
        }
        let down = !this.silent && this.down.poll(cx, &mut this.upstream, &mut this.caller).is_ready();
        let up = this.up.poll(cx, &mut this.caller, &mut this.upstream).is_ready();
        // Each end that has been told and has answered is let go, the caller by its server first (RFC 6455 section 7.1.1).
        if !this.caller_done && this.down.has_said() && this.up.has_heard() {
            this.caller_done = Pin::new(&mut this.caller).poll_shutdown(cx).is_ready();
        }
        if !this.upstream_done && this.up.has_said() && this.down.has_heard() {
            this.upstream_done = Pin::new(&mut this.upstream).poll_shutdown(cx).is_ready();
        }
        if down && up && this.caller_done && this.upstream_done {
            return Poll::Ready(this.ending());
        }
        let closed = this.down.has_heard() && this.up.has_heard();
        if (this.parting || down || up || closed) && this.poll_timer(cx).is_ready() {
            // Best effort: what follows is the end of both sockets.
            let _ = Pin::new(&mut this.caller).poll_shutdown(cx);
            let _ = Pin::new(&mut this.upstream).poll_shutdown(cx);
            return Poll::Ready(this.ending());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};

    use super::*;
    use crate::proxy::upgrade::registry::Tunnels;

    /// An upstream that has said all it had to say and hears nothing any more.
    struct Gone {
        says: Vec<u8>,
        at: usize,
    }

    impl AsyncRead for Gone {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let count = buf.remaining().min(self.says.len() - self.at);
            buf.put_slice(&self.says[self.at..self.at + count]);
            self.at += count;
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Gone {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// To let go of a socket with something unread resets it, and takes with it what is on its way to that end: so the
    /// caller is heard out.
    #[tokio::test(start_paused = true)]
    async fn the_last_words_of_an_upstream_reach_a_caller_that_goes_on_sending() {
        let (mut caller, here) = tokio::io::duplex(1024);
        let member = Tunnels::default().add(Member::default());
        let upstream = Gone { says: vec![0; 100_000], at: 0 };
        let tunnel = Tunnel::new(here, upstream, member);
        let exchange = async {
            let (mut reader, mut writer) = tokio::io::split(&mut caller);
            let send = async {
                for _ in 0..100 {
                    writer.write_all(&[0x82, 0x80, 0, 0, 0, 0].repeat(100)).await?;
                }
                writer.shutdown().await
            };
            let mut heard = Vec::new();
            let (sent, read) = tokio::join!(send, reader.read_to_end(&mut heard));
            (sent.map_err(|error| error.kind()), read.map_err(|error| error.kind()))
        };
        let (ending, heard) = tokio::join!(tunnel, exchange);
        assert_eq!(heard, (Ok(()), Ok(100_000)));
        assert_eq!(ending.broken, Some(Broken::Upstream));
    }
}
