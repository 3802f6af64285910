//! `[authz]`, `[token_api]` and `[webhooks]`: where they listen, who may ask there, and what is shown.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::address::ListenAddress;
use crate::config::raw;
use crate::config::raw::problem::Span;
use crate::config::raw::reader::{At, Field, Table};
use crate::config::raw::shapes::{OneOrMany, SecretRef};
use crate::config::{Admin, ApiCaller, Authz, Server, TemplateName, TokenApi, Trusted, Way, Webhooks};
use crate::secret::Secret;

use super::context::Context;
use super::names::{LABEL, is_label};
use super::{listen, net};

/// How Clerk's signing secrets begin.
const SIGNING: &str = "whsec_";

/// Where Clerk sends to when nobody says where.
const PATH: &str = "/webhooks/clerk";

/// What the sections share, in the order in which they are read.
pub(crate) struct Ways {
    /// Where something listens already, and what that is.
    taken: Vec<(ListenAddress, &'static str)>,
    /// The place of what needs the secret key.
    pub(crate) mint: Option<Span>,
}

// === impl Ways ===

impl Ways {
    /// Beside the listeners that were read before.
    pub(crate) fn beside(server: &Server, admin: Option<&Admin>) -> Self {
        let data = server.listen.iter().map(|listen| (listen.address.clone(), "[server]"));
        let admin = admin.into_iter().flat_map(|admin| {
            let control = admin.control.iter().map(|control| (control.listen.clone(), "`admin.control`"));
            [(admin.listen.clone(), "[admin]")].into_iter().chain(control)
        });
        Self { taken: data.chain(admin).collect(), mint: None }
    }

    /// `[authz]`
    pub(crate) fn authz(&mut self, field: &Field<raw::Authz>, cx: &mut Context<'_>) -> Option<Authz> {
        let raw = field.get()?;
        let way = self.way("[authz]", raw, &raw.listen, &raw.tls, cx);
        let allow_from = if raw.allow_from.is_absent() {
            let networks = net::networks("loopback").unwrap_or_default();
            Trusted { networks, unix: true }
        } else {
            listen::trusted(&raw.allow_from, cx)
        };
        if let Some(at) = raw.allow_from.get().filter(|at| at.is_empty()) {
            cx.error(&at.span, "nobody could ask").advice("leave it out for this machine, or list who may ask");
        }
        if let (Some(at), Some(way)) = (raw.listen.get(), &way)
            && clear(way, &raw.tls)
            && allow_from.networks.iter().any(|network| !network.addr().to_canonical().is_loopback())
        {
            cx.problems
                .warning(&at.span, "minted tokens pass in clear text, where other machines listen")
                .label("the answers hold them")
                .advice("add tls = { cert = \"cert.pem\", key = \"key.pem\" }, or have the proxy ask over loopback");
        }
        Some(Authz { way: way?, allow_from })
    }

    /// `[token_api]`
    pub(crate) fn token_api(
        &mut self,
        field: &Field<raw::TokenApi>,
        secret_keys: &[Secret],
        cx: &mut Context<'_>,
    ) -> Option<TokenApi> {
        let raw = field.get()?;
        let way = self.way("[token_api]", raw, &raw.listen, &raw.tls, cx);
        if let (Some(at), Some(way)) = (raw.listen.get(), &way)
            && clear(way, &raw.tls)
        {
            cx.error(&at.span, "secret keys and tokens would pass in clear text, where other machines listen")
                .advice("add tls = { cert = \"cert.pem\", key = \"key.pem\" }, or listen on a loopback address");
        }
        let callers = callers(&raw.callers, secret_keys, cx);
        self.mint = Some(field.get().and_then(|at| at.listen.get()).map_or(raw.span.clone(), |at| at.span.clone()));
        Some(TokenApi { way: way?, callers })
    }

    /// `[webhooks]`; `shared`: whether the other replicas hear what one of them hears.
    pub(crate) fn webhooks(
        &mut self,
        field: &Field<raw::Webhooks>,
        shared: bool,
        cx: &mut Context<'_>,
    ) -> Option<Webhooks> {
        let raw = field.get()?;
        let way = self.way("[webhooks]", raw, &raw.listen, &raw.tls, cx);
        let signing_secrets = signing_secrets(raw, cx);
        if let Some(at) = raw.path.get()
            && let Err(bad) = net::path(at)
        {
            cx.error(&at.span, bad.to_string()).advice(format!("write \"{PATH}\""));
        }
        if !shared {
            cx.problems
                .warning(raw.listen.get().map_or(&raw.span, |at| &at.span), "webhooks reach this process only")
                .label("Clerk sends each event once")
                .advice("without [cache.shared], other replicas go on taking a revoked session until it expires");
        }
        Some(Webhooks { way: way?, path: raw.path.or(PATH.to_owned()), signing_secrets })
    }

    fn way<T: Table>(
        &mut self,
        section: &'static str,
        raw: &At<T>,
        listen: &Field<String>,
        tls: &Field<raw::ListenTls>,
        cx: &mut Context<'_>,
    ) -> Option<Way> {
        if listen.is_absent() && !raw.reported() {
            cx.error(&raw.span, format!("{section} needs a `listen`"))
                .advice("it has no usual address: write listen = \"127.0.0.1:PORT\" or \"unix:/path\"");
        }
        let at = listen.get()?;
        let address = listen::address(at, cx)?;
        if let Some((_, other)) = self.taken.iter().find(|(own, _)| listen::same(own, &address)) {
            cx.error(&at.span, format!("{other} listens on this address too"))
                .advice("give each an address of its own");
        }
        self.taken.push((address.clone(), section));
        Some(Way { tls: listen::tls(tls, &[&address], cx), listen: address })
    }
}

/// Whether what passes can be read by other machines. By what is written: under `check` a certificate may be absent.
fn clear(way: &Way, tls: &Field<raw::ListenTls>) -> bool {
    tls.is_absent() && way.listen.is_exposed()
}

fn callers(field: &Field<Vec<At<raw::ApiCaller>>>, secret_keys: &[Secret], cx: &mut Context<'_>) -> Vec<ApiCaller> {
    let mut found: Vec<(ApiCaller, Span)> = Vec::new();
    let mut names: Vec<&At<String>> = Vec::new();
    for raw in field.get().into_iter().flat_map(|list| &list.value) {
        for (key, absent) in
            [("name", raw.name.is_absent()), ("token", raw.token.is_absent()), ("templates", raw.templates.is_absent())]
        {
            if absent && !raw.reported() {
                cx.error(&raw.span, format!("a caller needs `{key}`")).advice(
                    "{ name = \"billing\", token = { file = \"billing-token\" }, templates = [\"custom_hasura\"] }",
                );
            }
        }
        if let Some(name) = raw.name.get() {
            if !is_label(name) {
                cx.error(&name.span, "not a name").advice(LABEL);
            } else if let Some(first) = names.iter().find(|own| own.value == name.value) {
                cx.error(&name.span, "two callers have the same name").also(first.span.clone(), "the first one");
            }
            names.push(name);
        }
        let templates = templates(&raw.templates, cx);
        let token = raw.token.get().and_then(|at| Some((caller_token(at, cx)?, &at.span)));
        let (Some(name), Some((token, span))) = (raw.name.get(), token) else { continue };
        if let Some((_, first)) = found.iter().find(|(own, _)| own.token == token) {
            cx.error(span, "two callers show the same token").also(first.clone(), "the first one");
        }
        if secret_keys.contains(&token) {
            cx.error(span, "this is `clerk.secret_key` itself, which opens everything")
                .advice("make a token of its own for the caller: openssl rand -hex 32");
        }
        found.push((ApiCaller { name: name.value.clone(), token, templates }, span.clone()));
    }
    found.into_iter().map(|(caller, _)| caller).collect()
}

fn templates(field: &Field<Vec<At<String>>>, cx: &mut Context<'_>) -> Vec<TemplateName> {
    let Some(list) = field.get() else { return Vec::new() };
    if list.is_empty() {
        cx.error(&list.span, "this caller may ask for nothing").advice("list the JWT templates that it needs");
    }
    let mut found = Vec::new();
    for at in &list.value {
        match TemplateName::new(at) {
            Ok(name) => found.push(name),
            Err(bad) => {
                cx.error(&at.span, bad.to_string());
            }
        }
    }
    found
}

/// What can be shown as a bearer.
fn caller_token(at: &At<SecretRef>, cx: &mut Context<'_>) -> Option<Secret> {
    let token = cx.secret(at)?;
    if token.expose().contains(char::is_whitespace) || token.header("Bearer ").is_err() {
        cx.error(&at.span, "no request could show this token").advice("it is one word of visible ASCII characters");
        return None;
    }
    Some(token)
}

fn signing_secrets(raw: &At<raw::Webhooks>, cx: &mut Context<'_>) -> Vec<Secret> {
    let field: &Field<OneOrMany<SecretRef>> = &raw.signing_secret;
    if field.is_absent() && !raw.reported() {
        cx.error(&raw.span, "webhooks need a `signing_secret`").advice(
            "signing_secret = { env = \"CLERK_WEBHOOK_SIGNING_SECRET\" }, from the endpoint's page of the dashboard",
        );
    }
    let Some(list) = field.get() else { return Vec::new() };
    if list.0.is_empty() {
        cx.error(&list.span, "the list of signing secrets is empty");
    }
    let mut found = Vec::new();
    for at in &list.0 {
        let Some(secret) = cx.secret(at) else { continue };
        let key = secret.expose().strip_prefix(SIGNING).and_then(|key| BASE64_STANDARD.decode(key).ok());
        if key.is_none_or(|key| key.is_empty()) {
            cx.error(&at.span, "not a signing secret")
                .advice("copy it from the endpoint's page of the dashboard: `whsec_` and base64");
            continue;
        }
        found.push(secret);
    }
    found
}
