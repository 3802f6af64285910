//! `[token_api]`: Clerk's own API, with the tokens of templates out of the cache.
//!
//! An application's SDK asks here instead of there. What it asks for beside a template's token is passed on uncached,
//! where it shows the secret key itself; a caller that does not hold it reaches the tokens of its templates and what a
//! gateway needs that stands behind this one. No route is involved, and what is minted here is shared with none.

mod answer;
mod call;
mod callers;
mod passing;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::ORIGIN;
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::timeout;

use self::answer::{MAX_BODY, NoToken, Refusal, minted};
use self::call::{Call, Wanted, is_forced};
use self::callers::{Caller, Callers};
use self::passing::{date, pass, read};
use crate::clock::Clock;
use crate::config::{Config, MintKind, MintSpec, TemplateName};
use crate::live::Live;
use crate::metrics::{Shard, TemplateId};
use crate::proxy::gateway::Gateway;
use crate::proxy::owner::is_revoked_users;
use crate::revocation::{Ended, Revocation, Whom};
use crate::session::SessionId;
use crate::token::budget::Limiter;
use crate::token::clerk::ClerkClient;
use crate::token::spent::Spent;
use crate::token::{Mint, MintRequest, Scope, TokenKey, Urgency};

/// For the body of a mint, which has a few bytes.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// The API.
pub struct TokenApi<M> {
    /// What calls are answered with.
    pub current: Live<Snapshot<M>>,
    /// Ends the sessions whose revocation passes through here.
    pub revocation: Revocation,
    /// The clocks.
    pub clock: Clock,
}

/// What one configuration answers with.
pub struct Snapshot<M> {
    gateway: Arc<Gateway<M>>,
    client: Arc<ClerkClient>,
    limiter: Arc<Limiter>,
    callers: Callers,
    /// Look-ups belong to no route. The control runtime's thread alone writes it.
    shard: Arc<Shard>,
}

/// A template's token that somebody asks for.
struct Asked {
    sid: SessionId,
    template: TemplateName,
    expires_in: Option<u32>,
    forced: bool,
}

// === impl TokenApi ===

impl<M: Mint> TokenApi<M> {
    /// The one route. The listener, its limits and its drain are not its concern.
    pub fn router(self) -> Router {
        Router::new().fallback(serve::<M>).with_state(Arc::new(self))
    }
}

async fn serve<M: Mint>(State(api): State<Arc<TokenApi<M>>>, request: Request) -> Response {
    let snapshot = api.current.current();
    let mut answer = snapshot.answer(request, &api).await.unwrap_or_else(|refusal| refusal.answer());
    let offset_ms = snapshot.gateway.metrics.control().issuer_clock_offset_ms.get();
    date(answer.headers_mut(), api.clock.wall().shifted(offset_ms).to_system());
    answer
}

// === impl Snapshot ===

impl<M: Mint> Snapshot<M> {
    /// For a configuration, with what was built from it.
    pub fn new(config: &Config, gateway: &Arc<Gateway<M>>, client: &Arc<ClerkClient>, limiter: &Arc<Limiter>) -> Self {
        Self {
            gateway: Arc::clone(gateway),
            client: Arc::clone(client),
            limiter: Arc::clone(limiter),
            callers: Callers::new(config),
            shard: gateway.metrics.shard(),
        }
    }

    /// Who may not ask learns nothing of what was asked for; what is odd is not looked at further; what was revoked has
    /// no tokens, whoever asks.
    async fn answer(&self, request: Request, api: &TokenApi<M>) -> Result<Response, Refusal> {
        let clock = &api.clock;
        let (head, body) = request.into_parts();
        if head.headers.contains_key(ORIGIN) {
            return Err(Refusal::Page);
        }
        let caller = self.callers.find(&head.headers)?;
        let call = Call::of(&head.method, &head.uri)?;
        if let Some(sid) = call.minting()
            && self.gateway.sessions.revoked.refuses(sid, None, clock.now().mono)
        {
            return Err(Refusal::NoSession(sid.as_str().to_owned()));
        }
        match (call, caller) {
            (Call::Token(sid, template), caller) => self.token(sid, template, caller, head, body, clock).await,
            (Call::Revoke(sid), Caller::KeyHolder) => self.revoke(sid, head, body, &api.revocation).await,
            (Call::Jwks, Caller::KeyHolder) => pass(&self.client, head, body).await,
            (_, Caller::KeyHolder) => self.pass(head, body).await,
            // Clerk does not count it.
            (Call::Jwks, Caller::Local(_)) => read(&self.client, head.uri.path()).await,
            (Call::Session, Caller::Local(_)) => {
                self.limiter.spare().map_err(Refusal::Throttled)?;
                read(&self.client, head.uri.path()).await
            }
            (Call::SessionToken(_) | Call::Revoke(_) | Call::Other, Caller::Local(own)) => {
                tracing::info!(caller = own.name, "a caller of the token API asked for what only the secret key opens");
                Err(Refusal::NotForCaller)
            }
        }
    }

    /// A template's token. What this does not know is not cached: it is passed on for who holds the key.
    async fn token(
        &self,
        sid: SessionId,
        template: TemplateName,
        caller: Caller<'_>,
        head: Parts,
        body: Body,
        clock: &Clock,
    ) -> Result<Response, Refusal> {
        if let Caller::Local(own) = caller
            && !own.templates.contains(&template)
        {
            let template_name = template.as_str();
            tracing::info!(
                caller = own.name,
                template = template_name,
                "a caller asked for a template that is not its"
            );
            return Err(Refusal::NotItsTemplate(template));
        }
        let body = whole(body).await?;
        let expires_in = match Wanted::of(&head.uri, &head.headers, &body)? {
            Wanted::Token(expires_in) => expires_in,
            Wanted::Unknown(_) if caller.holds_key() => return self.pass(head, Body::from(body)).await,
            Wanted::Unknown(name) => return Err(Refusal::Unknown(name)),
        };
        let forced = is_forced(&head.headers);
        self.minted(Asked { sid, template, expires_in, forced }, clock).await
    }

    async fn minted(&self, asked: Asked, clock: &Clock) -> Result<Response, Refusal> {
        let (gateway, Asked { sid, template, expires_in, forced }) = (&self.gateway, asked);
        let id = self.id(&template);
        let kind = MintKind::Template(template.clone());
        let spec = MintSpec { id, kind, expires_in, expect: Vec::new(), vary: Vec::new() };
        let request = MintRequest {
            key: TokenKey::new(gateway.issuer, sid.clone(), None, &spec, Scope::Neutral, Vec::new()),
            template: id,
            urgency: Urgency::Waiting,
            forced,
            credential_issued_at: None,
            spent: Spent::default(),
            deadline: clock.now().mono + gateway.mint_timeout,
            trace: None,
        };
        let (lookup, token) = gateway.tokens.get(request, &gateway.mint).await;
        self.shard.lookups(gateway.metrics.no_route(), lookup).bump();
        let (revoked, now) = (&gateway.sessions.revoked, || clock.now().mono);
        match token {
            // It may have been revoked during the wait; and who its user is, the token alone tells.
            Ok(token) if revoked.refuses(&sid, None, now()) || is_revoked_users(&token, &sid, revoked, now()) => {
                Err(Refusal::NoSession(sid.as_str().to_owned()))
            }
            Ok(token) => Ok(minted(&token)),
            Err(error) => Err(NoToken { sid, template, error }.into()),
        }
    }

    /// Its place in the metrics, where it is known at load.
    fn id(&self, template: &TemplateName) -> TemplateId {
        let metrics = &self.gateway.metrics;
        let known = metrics.names().templates.iter().position(|name| name == template.as_str());
        known.map_or_else(|| metrics.other_template(), TemplateId::new)
    }

    /// What the key's holder asks for, and the issuer counts.
    async fn pass(&self, head: Parts, body: Body) -> Result<Response, Refusal> {
        self.limiter.spend();
        pass(&self.client, head, body).await
    }

    /// A revocation that the issuer has taken counts here at once.
    async fn revoke(
        &self,
        sid: SessionId,
        head: Parts,
        body: Body,
        revocation: &Revocation,
    ) -> Result<Response, Refusal> {
        let answer = self.pass(head, body).await?;
        if answer.status().is_success() {
            let Ended { tokens, websockets } = revocation.revoke(&Whom::Session(sid));
            tracing::info!(tokens, websockets, "a session was revoked through the token API");
        }
        Ok(answer)
    }
}

/// A body that is small and comes soon.
async fn whole(body: Body) -> Result<Bytes, Refusal> {
    match timeout(BODY_PATIENCE, Limited::new(body, MAX_BODY).collect()).await {
        Err(_) => Err(Refusal::BodyLate),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::BodyTooLarge),
        Ok(Err(_)) => Err(Refusal::Body),
    }
}
