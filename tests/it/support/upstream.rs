//! An HTTP/1.1 upstream that keeps the exact bytes of what it was sent and answers by a script.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mintgate::lifecycle::Spawner;

use super::doors::Door;
use super::eventually;
use super::wire::{Message, NotStrict, Wire};

/// The shortest good answer.
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// The upstream.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<Result<Message, NotStrict>>>,
}

/// One connection to the upstream, for a script.
pub(crate) struct Visit {
    pub(crate) wire: Wire,
    /// Which connection this is, from 0.
    pub(crate) number: usize,
    seen: Arc<Seen>,
}

// === impl Upstream ===

impl Upstream {
    /// Gives every request this answer.
    pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::scripted(move |mut visit| {
            let answer = Arc::clone(&answer);
            async move {
                while visit.request().await.is_some() {
                    visit.wire.send(&answer).await;
                }
            }
        })
        .await
    }

    /// Answers nobody before it is told to.
    pub(crate) async fn holding() -> (Self, tokio::sync::watch::Sender<bool>) {
        let (go, gone) = tokio::sync::watch::channel(false);
        let upstream = Self::scripted(move |mut visit| {
            let mut gone = gone.clone();
            async move {
                while visit.request().await.is_some() {
                    gone.wait_for(|gone| *gone).await.unwrap();
                    visit.wire.send(OK).await;
                }
            }
        });
        (upstream.await, go)
    }

    /// Runs the script on every connection; the connection is closed at the script's end.
    pub(crate) async fn scripted<F, Fut>(script: F) -> Self
    where
        F: Fn(Visit) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::behind(Door::tcp().await, script)
    }

    /// The same, behind that door.
    pub(crate) fn behind<F, Fut>(door: Door, script: F) -> Self
    where
        F: Fn(Visit) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (address, seen, tasks) = (door.address(), Arc::<Seen>::default(), Spawner::current());
        let (here, spawner, script) = (Arc::clone(&seen), tasks.clone(), Arc::new(script));
        drop(tasks.spawn(async move {
            while let Some(guest) = door.guest().await {
                let number = here.connections.fetch_add(1, Ordering::SeqCst);
                let (seen, script) = (Arc::clone(&here), Arc::clone(&script));
                drop(spawner.spawn(async move {
                    if let Some(stream) = guest.stream().await {
                        script(Visit { wire: Wire::over(stream), number, seen }).await;
                    }
                }));
            }
        }));
        Self { address, seen }
    }

    /// Gives every request `ok`, behind that door.
    pub(crate) fn ok(door: Door) -> Self {
        Self::behind(door, |mut visit| async move {
            while visit.request().await.is_some() {
                visit.wire.send(OK).await;
            }
        })
    }

    /// `http://127.0.0.1:...`
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request that has come.
    ///
    /// # Panics
    /// When one of them was not strict HTTP.
    pub(crate) fn requests(&self) -> Vec<Message> {
        let seen = self.seen.requests.lock().unwrap();
        seen.iter().map(|read| read.clone().unwrap_or_else(|error| panic!("not strict: {error:?}"))).collect()
    }

    /// Every request that has come whole; those that broke off are left out.
    ///
    /// # Panics
    /// When one of them was not strict HTTP.
    pub(crate) fn whole(&self) -> Vec<Message> {
        let seen = self.seen.requests.lock().unwrap();
        let whole = seen.iter().filter(|read| !read.as_ref().is_err_and(NotStrict::is_cut));
        whole.map(|read| read.clone().unwrap_or_else(|error| panic!("not strict: {error:?}"))).collect()
    }

    /// Requests that have come, whole ones and others.
    pub(crate) fn count(&self) -> usize {
        self.seen.requests.lock().unwrap().len()
    }

    /// The one request that has come.
    ///
    /// # Panics
    /// When it is not one.
    pub(crate) fn only(&self) -> Message {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }

    /// The request that came last.
    pub(crate) fn last(&self) -> Message {
        self.requests().pop().unwrap()
    }

    /// Connections that were opened.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Waits until so many requests have come.
    pub(crate) async fn received(&self, count: usize) {
        eventually("the upstream receives the request", || self.count() >= count).await;
    }
}

// === impl Visit ===

impl Visit {
    /// The next request, which is kept. `None`: there is none, or it is not HTTP that everybody reads alike.
    pub(crate) async fn request(&mut self) -> Option<Message> {
        let read = self.wire.request().await.transpose()?;
        self.seen.requests.lock().unwrap().push(read.clone());
        read.ok()
    }
}
