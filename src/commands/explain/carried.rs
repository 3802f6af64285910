//! Routes that lead nowhere from here: those of requests that a proxy forwards.

use http::request::Parts;

use crate::proxy::gateway::Gateway;
use crate::proxy::request::Target;
use crate::token::Mint;

/// What is to be said where such a route alone would take the request.
pub(super) fn note<M: Mint>(gateway: &Gateway<M>, head: &Parts, target: &Target<'_>) -> Option<String> {
    let plans = &gateway.plans;
    let route = plans.router.find(target.listener, target.host.as_str(), target.path, &head.method).ok()?;
    let route = &plans.routes[route.index()].route;
    route.upstream.is_none().then(|| {
        format!("the route {} has no upstream: it is for requests about which a proxy asks at [authz]", route.name)
    })
}
