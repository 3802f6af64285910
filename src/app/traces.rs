//! What makes spans and sends them, from one configuration to the next.

use std::sync::Arc;

use http::Uri;
use tokio::time::timeout;

use crate::app::issuance::Means;
use crate::clock::Clock;
use crate::config::{ApiUrl, Config};
use crate::lifecycle::{Shutdown, Spawner};
use crate::metrics::Common;
use crate::traces::Tracer;
use crate::traces::client::{BuildError, Collector};
use crate::traces::context::TraceId;
use crate::traces::export::Export;
use crate::traces::otlp::{KeyValue, Resource};
use crate::version;

/// What every configuration's traces are made with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tracing {
    clock: Clock,
    counts: Arc<Common>,
    /// Send batches; the end waits for these.
    exports: Spawner,
    /// Carry connections; nobody waits for these.
    connections: Spawner,
    /// Draining: what is left is sent.
    ending: Shutdown,
    /// Tells this process from the others of its service.
    instance: TraceId,
}

// === impl Tracing ===

impl Tracing {
    /// Nothing is sent yet.
    pub fn new(means: &Means) -> Self {
        Self {
            clock: means.clock.clone(),
            counts: means.metrics.control().common(),
            exports: means.tasks.sibling(),
            connections: means.tasks.sibling(),
            ending: Shutdown::new(),
            instance: TraceId::random(),
        }
    }

    /// For the first configuration; none where it has no `[traces]`. Spans are sent until nobody can make one any more.
    ///
    /// # Errors
    /// When there is no way to the collector.
    pub fn begin(&self, config: &Config) -> Result<Option<Arc<Tracer>>, BuildError> {
        let Some(traces) = &config.traces else { return Ok(None) };
        let collector = Collector::new(traces, self.clock.clone(), self.connections.clone())?;
        let issuer = host(&config.clerk.api_url);
        let (tracer, queue) = Tracer::new(traces.sample, &issuer, traces.timeout, Arc::clone(&self.counts));
        let resource = Resource {
            attributes: vec![
                KeyValue::new("service.name", traces.service.as_str()),
                KeyValue::new("service.version", version::VERSION),
                KeyValue::new("service.instance.id", self.instance.to_string()),
            ],
        };
        let export = Export::new(queue, collector, resource, Arc::clone(&self.counts), self.ending.clone());
        drop(self.exports.spawn(export.run()));
        Ok(Some(tracer))
    }

    /// For the next one. What has not changed goes on.
    ///
    /// # Errors
    /// As before.
    pub fn next(
        &self,
        old: &Config,
        new: &Config,
        current: Option<Arc<Tracer>>,
    ) -> Result<Option<Arc<Tracer>>, BuildError> {
        let same = old.traces == new.traces && old.clerk.api_url == new.clerk.api_url;
        if same { Ok(current) } else { self.begin(new) }
    }

    /// Sends what is left, within the time that the configuration gives for it. Nobody makes spans any more.
    pub async fn end(&self, tracer: &Tracer) {
        self.ending.drain();
        if timeout(tracer.patience, self.exports.idle()).await.is_err() {
            tracing::warn!("the last spans are lost: the collector does not take them in time");
        }
    }
}

fn host(url: &ApiUrl) -> String {
    url.as_str().parse::<Uri>().ok().and_then(|url| Some(url.host()?.to_owned())).unwrap_or_default()
}
