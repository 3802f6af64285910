//! A scripted issuer and ready-made keys, for the tests of this folder.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::{self, MintKind, MintSpec, Rate, TemplateName};
use crate::metrics::{Metrics, Names, TemplateId};
use crate::session::{SessionId, UserId};
use crate::token::spent::Spent;
use crate::token::{Issuer, Mint, MintError, MintRequest, Scope, Token, TokenKey, Urgency};

type Answer = Pin<Box<dyn Future<Output = Result<Token, MintError>> + Send>>;

/// Answers by a function of the number of the call (from 0) and the request.
pub(crate) struct Fake {
    calls: AtomicUsize,
    busy: AtomicUsize,
    most_busy: AtomicUsize,
    script: Box<dyn Fn(usize, MintRequest) -> Answer + Send + Sync>,
}

struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Fake {
    pub(crate) fn new<F, A>(script: F) -> Arc<Self>
    where
        F: Fn(usize, MintRequest) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Token, MintError>> + Send + 'static,
    {
        Arc::new(Self {
            calls: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            most_busy: AtomicUsize::new(0),
            script: Box::new(move |call, request| Box::pin(script(call, request))),
        })
    }

    /// Answers with tokens of `life` seconds, each after `latency`.
    pub(crate) fn healthy(clock: &Clock, life: u64, latency: Duration) -> Arc<Self> {
        let clock = clock.clone();
        Self::new(move |call, request| {
            let clock = clock.clone();
            async move {
                let sent = clock.now();
                tokio::time::sleep(latency).await;
                let name = request.key.parts().sid.as_str().to_owned();
                let exp = sent.wall.plus(Duration::from_secs(life));
                Ok(Token::new(&format!("{name}.{call}"), sent.mono).unwrap().dated(exp, Some(sent.wall), sent.wall, 0))
            }
        })
    }

    /// Fails every call at once.
    pub(crate) fn failing(error: MintError) -> Arc<Self> {
        Self::new(move |_, _| {
            let error = error.clone();
            async move { Err(error) }
        })
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// The most calls that were under way at once.
    pub(crate) fn most_busy(&self) -> usize {
        self.most_busy.load(Ordering::SeqCst)
    }
}

impl Mint for Fake {
    async fn mint(&self, request: MintRequest) -> Result<Token, MintError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let busy = self.busy.fetch_add(1, Ordering::SeqCst) + 1;
        let _busy = Busy(&self.busy);
        self.most_busy.fetch_max(busy, Ordering::SeqCst);
        (self.script)(call, request).await
    }
}

pub(crate) fn unavailable() -> MintError {
    MintError::Unavailable { retry_after: Duration::from_secs(1), source: None }
}

pub(crate) fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(Names { templates: vec!["t".to_owned()], ..Names::default() }))
}

pub(crate) fn spec(template: &str, expires_in: Option<u32>) -> MintSpec {
    let kind = MintKind::Template(TemplateName::new(template).unwrap());
    MintSpec { id: TemplateId::new(0), kind, expires_in, expect: Vec::new(), vary: Vec::new() }
}

/// Clerk's of a production instance, with what is the default beside it.
pub(crate) fn budget() -> config::Budget {
    config::Budget {
        requests: 1000,
        per: Duration::from_secs(10),
        share: 0.8,
        replicas: 1,
        reserve: 0.2,
        per_session: Rate { count: 20, per: Duration::from_secs(10) },
        max_concurrent: 32,
        max_waiting: 1024,
    }
}

/// The key of session `sess_{number}` of user `user_{number}`.
pub(crate) fn key(number: usize) -> TokenKey {
    let sid = SessionId::new(&format!("sess_{number}")).unwrap();
    let sub = UserId::new(&format!("user_{number}")).unwrap();
    TokenKey::new(Issuer::new("https://api.test", "i"), sid, Some(sub), &spec("t", None), Scope::Neutral, Vec::new())
}

/// A request that waits for 5 s at most.
pub(crate) fn request(key: &TokenKey) -> MintRequest {
    MintRequest {
        key: key.clone(),
        template: TemplateId::new(0),
        urgency: Urgency::Waiting,
        forced: false,
        trace: None,
        credential_issued_at: None,
        spent: Spent::default(),
        deadline: Instant::now() + Duration::from_secs(5),
    }
}
