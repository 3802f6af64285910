//! The surfaces that the control runtime serves, beside the workers: probes and metrics, control, and the other ways in.

use axum::Router;

use super::start::StartError;
use crate::address::{BoundAddress, ListenAddress};
use crate::config::{Config, Way};
use crate::lifecycle::{Shutdown, Spawner};
use crate::listener::bound::{Bound, Inherited};
use crate::live::Live;
use crate::surface;
use crate::transport::tls::server::ServerTls;

/// Which surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `[admin]`
    Admin,
    /// `admin.control`
    Control,
    /// `[token_api]`
    TokenApi,
    /// `[webhooks]`
    Webhooks,
}

/// One that is bound and serves nothing yet.
struct Surface {
    kind: Kind,
    bound: Bound,
    router: Router,
    tls: Option<Live<ServerTls>>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Surfaces(Vec<Surface>);

// === impl Surfaces ===

impl Surfaces {
    /// Binds one in clear text.
    pub(super) fn plain(
        &mut self,
        kind: Kind,
        listen: &ListenAddress,
        router: &Router,
        inherited: &mut Inherited,
    ) -> Result<(), StartError> {
        self.bind(kind, listen, router, None, inherited)
    }

    /// Binds the other ways in, with the TLS of each; `tls` is in the order of [`Config::listener_tls`].
    pub(super) fn ways(
        &mut self,
        config: &Config,
        token_api: &Router,
        webhooks: &Router,
        [_, _, api_tls, webhooks_tls]: &[Option<Live<ServerTls>>; 4],
        inherited: &mut Inherited,
    ) -> Result<(), StartError> {
        let mut bind = |kind, way: Option<&Way>, router: &Router, tls: &Option<_>| match way {
            Some(way) => self.bind(kind, &way.listen, router, tls.as_ref(), inherited),
            None => Ok(()),
        };
        bind(Kind::TokenApi, config.token_api.as_ref().map(|api| &api.way), token_api, api_tls)?;
        bind(Kind::Webhooks, config.webhooks.as_ref().map(|webhooks| &webhooks.way), webhooks, webhooks_tls)
    }

    fn bind(
        &mut self,
        kind: Kind,
        listen: &ListenAddress,
        router: &Router,
        tls: Option<&Live<ServerTls>>,
        inherited: &mut Inherited,
    ) -> Result<(), StartError> {
        let bound = match kind {
            Kind::Control => Bound::private(listen, inherited),
            Kind::Admin | Kind::TokenApi | Kind::Webhooks => Bound::listen(listen, inherited),
        };
        for bound in bound.map_err(|source| StartError::Bind { address: listen.clone(), source })? {
            // Of a socket of systemd's the validation does not know where it is.
            if kind == Kind::TokenApi && tls.is_none() && !bound.address().is_local() {
                return Err(StartError::Exposed(bound.address().clone()));
            }
            self.0.push(Surface { kind, bound, router: router.clone(), tls: tls.cloned() });
        }
        Ok(())
    }

    /// Where each is.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (Kind, &BoundAddress)> {
        self.0.iter().map(|surface| (surface.kind, surface.bound.address()))
    }

    /// Serves them. Probes, metrics and control are there to the end of a drain; of the others it has to wait for what
    /// is under way: for the tasks of these spawners.
    pub(super) fn serve(self, background: &Spawner, shutdown: &Shutdown) -> Vec<Spawner> {
        let mut awaited = Vec::new();
        for Surface { kind, bound, router, tls } in self.0 {
            let (tasks, shutdown) = (background.sibling(), shutdown.clone());
            let told = move |served: std::io::Result<()>| {
                if let Err(error) = served {
                    tracing::error!(%error, ?kind, "a listener has ended");
                }
            };
            match kind {
                Kind::Admin | Kind::Control => {
                    let ending = Shutdown::new();
                    drop(background.spawn(async move {
                        told(surface::serve(bound, router, tls, tasks, ending.clone(), shutdown.stopped()).await);
                        shutdown.stopped().await;
                        ending.stop();
                    }));
                }
                Kind::TokenApi | Kind::Webhooks => {
                    awaited.push(tasks.clone());
                    let serving = tasks.clone();
                    drop(tasks.spawn(async move {
                        let draining = shutdown.draining();
                        told(surface::serve(bound, router, tls, serving, shutdown, draining).await);
                    }));
                }
            }
        }
        awaited
    }
}
