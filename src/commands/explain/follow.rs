//! Which errors a request that is explained may still meet.

use crate::config::{Config, MintKind, OnMintError, Source};
use crate::proxy::admit::{Admitted, Found};
use crate::proxy::error::Code;

/// The codes that the request may still meet.
pub(super) fn may_follow(admitted: &Admitted<'_, '_>, config: &Config) -> Vec<Code> {
    let route = &admitted.plan.route;
    let minted = || {
        route.inject.iter().filter_map(|injection| match &injection.source {
            Source::Minted(spec) => Some(spec),
            _ => None,
        })
    };
    let mut codes = Vec::new();
    if matches!(admitted.caller, Found::Session(..) | Found::Named(_)) && minted().next().is_some() {
        // An application of Clerk's is asked as nobody then.
        codes.extend((!route.clerk_app).then_some(Code::SessionEnded));
        codes.push(Code::TokenUnfit);
        if minted().any(|spec| !spec.expect.is_empty()) {
            codes.push(Code::SessionStale);
        }
        if route.on_mint_error == OnMintError::Fail {
            if minted().any(|spec| matches!(spec.kind, MintKind::Template(_))) {
                codes.push(Code::TemplateUnknown);
            }
            codes.extend([
                Code::IssuerRejectedKey,
                Code::IssuerMalformed,
                Code::IssuerRefused,
                Code::IssuerUnavailable,
                Code::IssuerThrottled,
                Code::IssuerTimeout,
            ]);
        }
    }
    if config.server.limits.request_body.is_some() {
        codes.push(Code::BodyTooLarge);
    }
    codes.extend([Code::RequestTimeout, Code::UpstreamUnreachable, Code::UpstreamBroken, Code::UpstreamTimeout]);
    codes
}
