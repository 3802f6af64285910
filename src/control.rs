//! The control listener's answers: what changes a gateway that runs. It has a socket of its own, off unless configured.
//!
//! A web page in a browser on this machine can send a POST to a loopback port. So whatever carries an `Origin` is refused, and
//! on TCP every request shows a token; on a Unix socket the file's mode says who may ask.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::post;
use tokio::sync::Notify;

use crate::revocation::{Revocation, Whom};
use crate::secret::Secret;
use crate::session::{SessionId, UserId};
use crate::surface::text;
use crate::token::cache::PurgeScope;

/// Bytes of a request's body, such as a log filter.
const LONGEST_BODY: usize = 4096;

/// How a body names what is meant.
const SESSION: &str = "session=";
const USER: &str = "user=";
const ALL: &str = "all";

/// Replaces the log filter.
pub type SetFilter = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What of the process may be moved from outside.
#[derive(Clone)]
pub struct Levers {
    /// Ends the process as SIGTERM does.
    pub quit: Arc<Notify>,
    /// `POST /log`
    pub filter: SetFilter,
}

/// What the control listener does.
pub struct Control {
    /// What it moves.
    pub levers: Levers,
    /// What a request must show, where not everybody who reaches the listener may ask.
    pub token: Option<Secret>,
    /// Ends sessions and forgets tokens.
    pub revocation: Revocation,
}

/// Why a request is refused before it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("only POST is answered here")]
    Method,
    #[error("web pages may not ask here")]
    Origin,
    #[error("show the token of admin.token: Authorization: Bearer ...")]
    Token,
}

// === impl Control ===

impl Control {
    /// The routes. The listener, its limits and its drain are not their concern.
    pub fn router(self) -> Router {
        let control = Arc::new(self);
        Router::new()
            .route("/log", post(log))
            .route("/quit", post(quit))
            .route("/revoke", post(revoke))
            .route("/purge", post(purge))
            .fallback(async || text(StatusCode::NOT_FOUND, "there is POST /revoke, /purge, /log and /quit\n"))
            .layer(DefaultBodyLimit::max(LONGEST_BODY))
            .layer(middleware::from_fn_with_state(Arc::clone(&control), guard))
            .with_state(control)
    }

    fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
        if headers.contains_key(header::ORIGIN) {
            return Err(Refusal::Origin);
        }
        if let Some(token) = &self.token {
            let shown = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
            if !shown.and_then(|value| value.strip_prefix(b"Bearer ")).is_some_and(|shown| token.matches(shown)) {
                return Err(Refusal::Token);
            }
        }
        if *method == Method::POST { Ok(()) } else { Err(Refusal::Method) }
    }
}

async fn guard(State(control): State<Arc<Control>>, request: Request, next: Next) -> Response {
    match control.check(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.answer(),
    }
}

async fn log(State(control): State<Arc<Control>>, filter: String) -> Response {
    let filter = filter.trim();
    if filter.is_empty() {
        return text(StatusCode::BAD_REQUEST, "send a filter, such as info,mintgate::token=debug\n");
    }
    match (control.levers.filter)(filter) {
        Ok(()) => {
            tracing::info!(filter, "the log filter was changed through the control listener");
            text(StatusCode::OK, format!("log filter: {filter}\n"))
        }
        Err(problem) => text(StatusCode::BAD_REQUEST, format!("the log filter stays as it is: {problem}\n")),
    }
}

async fn quit(State(control): State<Arc<Control>>) -> Response {
    tracing::info!("told to end through the control listener");
    control.levers.quit.notify_one();
    text(StatusCode::ACCEPTED, "ending\n")
}

/// A session, or a user with every session, is refused; the tokens are forgotten and the WebSockets closed.
async fn revoke(State(control): State<Arc<Control>>, body: String) -> Response {
    let whom = match scope(&body) {
        Ok(PurgeScope::Session(sid)) => Whom::Session(sid),
        Ok(PurgeScope::User(sub)) => Whom::User(sub),
        Ok(PurgeScope::All) => {
            let problem = "to refuse everybody would refuse those too who sign in next: POST /purge takes all\n";
            return text(StatusCode::BAD_REQUEST, problem);
        }
        Err(problem) => return text(StatusCode::BAD_REQUEST, problem),
    };
    let ended = control.revocation.revoke(&whom);
    tracing::info!(?whom, tokens = ended.tokens, websockets = ended.websockets, "revoked through the control listener");
    let (tokens, websockets) = (ended.tokens, ended.websockets);
    text(StatusCode::OK, format!("revoked: {tokens} tokens forgotten, {websockets} WebSockets closed\n"))
}

/// The tokens are forgotten; nobody is refused.
async fn purge(State(control): State<Arc<Control>>, body: String) -> Response {
    let scope = match scope(&body) {
        Ok(scope) => scope,
        Err(problem) => return text(StatusCode::BAD_REQUEST, problem),
    };
    let tokens = control.revocation.purge(&scope);
    tracing::info!(?scope, tokens, "purged through the control listener");
    text(StatusCode::OK, format!("purged: {tokens} tokens forgotten\n"))
}

/// Whose tokens a body means: `session=ID`, `user=ID` or `all`, as `curl -d` sends it.
fn scope(body: &str) -> Result<PurgeScope, &'static str> {
    let body = body.trim();
    if let Some(id) = body.strip_prefix(SESSION) {
        let bad = "not the id of a session: it has 1 to 128 of the characters A-Z a-z 0-9 _ -\n";
        return SessionId::new(id).map(PurgeScope::Session).map_err(|_| bad);
    }
    if let Some(id) = body.strip_prefix(USER) {
        let fits = id.bytes().all(|byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'&' | b'=' | b'%'));
        let id = UserId::new(id).ok().filter(|_| fits);
        return id.map(PurgeScope::User).ok_or("not the id of a user: it is one word, such as user_2abc\n");
    }
    if body == ALL {
        return Ok(PurgeScope::All);
    }
    Err("send session=ID or user=ID, or to /purge: all\n")
}

// === impl Refusal ===

impl Refusal {
    fn answer(self) -> Response {
        let (status, also) = match self {
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, Some((header::ALLOW, "POST"))),
            Self::Origin => (StatusCode::FORBIDDEN, None),
            Self::Token => (StatusCode::UNAUTHORIZED, Some((header::WWW_AUTHENTICATE, "Bearer"))),
        };
        let mut answer = text(status, format!("{self}\n"));
        if let Some((name, value)) = also {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::clock::Clock;
    use crate::revocation::testing;

    /// The status and the text of an answer, and what was moved: filters that were set, tunnels that were ended.
    async fn asked(token: Option<&str>, request: http::request::Builder, body: &str) -> (u16, String, Vec<String>) {
        let (revocation, moved) = testing::revocation(Clock::system());
        let seen = Arc::clone(&moved);
        let filter: SetFilter = Arc::new(move |filter| {
            if filter == "bad" {
                return Err("no filter".to_owned());
            }
            seen.lock().unwrap().push(filter.to_owned());
            Ok(())
        });
        let quit = Arc::new(Notify::new());
        let levers = Levers { quit: Arc::clone(&quit), filter };
        let revoked = Arc::clone(&revocation.revoked);
        let router = Control { levers, token: token.map(Secret::new), revocation }.router();
        let answer = router.oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        if quit.notified().now_or_never().is_some() {
            moved.lock().unwrap().push("quit".to_owned());
        }
        let mut moved = moved.lock().unwrap().clone();
        moved.extend((0..revoked.len()).map(|_| "tombstone".to_owned()));
        (status, String::from_utf8(text.to_vec()).unwrap(), moved)
    }

    fn post(path: &str) -> http::request::Builder {
        http::Request::post(path)
    }

    #[tokio::test]
    async fn a_filter_is_set_and_a_bad_one_changes_nothing() {
        let (status, _, set) = asked(None, post("/log"), " debug\n").await;
        assert_eq!((status, set), (200, vec!["debug".to_owned()]));
        for body in ["bad", "", &"x".repeat(LONGEST_BODY + 1)] {
            let (status, text, set) = asked(None, post("/log"), body).await;
            assert!((400..=413).contains(&status) && set.is_empty(), "{status} {text}");
        }
    }

    #[tokio::test]
    async fn the_process_is_told_to_end() {
        let (status, text, set) = asked(None, post("/quit"), "").await;
        assert_eq!((status, text.as_str(), set), (202, "ending\n", vec!["quit".to_owned()]));
    }

    /// Fails without the looks at `Origin`, the method and the token.
    #[tokio::test]
    async fn no_page_nobody_without_the_token_and_no_get_moves_anything() {
        let get = http::Request::get("/quit");
        for (token, request, expected) in [
            (None, post("/quit").header("origin", "http://127.0.0.1:6469"), 403),
            (None, post("/quit").header("origin", "null"), 403),
            (None, get, 405),
            (Some("token"), post("/quit"), 401),
            (Some("token"), post("/quit").header("authorization", "Bearer tokem"), 401),
            (Some("token"), post("/quit").header("authorization", "token"), 401),
            (None, post("/other"), 404),
        ] {
            let (status, text, set) = asked(token, request, "").await;
            assert_eq!((status, set), (expected, vec![]), "{text}");
        }
        let shown = post("/quit").header("authorization", "Bearer token");
        assert_eq!(asked(Some("token"), shown, "").await.0, 202);
    }

    #[tokio::test]
    async fn a_session_or_a_user_is_revoked_and_a_purge_refuses_nobody() {
        for (path, body, says, moved) in [
            (
                "/revoke",
                "session=sess_1",
                "revoked: 0 tokens forgotten, 1 WebSockets closed\n",
                &["sess_1 4403", "tombstone"][..],
            ),
            (
                "/revoke",
                "user=user_1\n",
                "revoked: 0 tokens forgotten, 1 WebSockets closed\n",
                &["user_1 4403", "tombstone"],
            ),
            ("/purge", "session=sess_1", "purged: 0 tokens forgotten\n", &[]),
            ("/purge", "user=user_1", "purged: 0 tokens forgotten\n", &[]),
            ("/purge", "all", "purged: 0 tokens forgotten\n", &[]),
        ] {
            let (status, text, did) = asked(None, post(path), body).await;
            assert_eq!(
                (status, text.as_str(), did.iter().map(String::as_str).collect()),
                (200, says, moved.to_vec()),
                "{path} {body}"
            );
        }
    }

    #[tokio::test]
    async fn what_names_nobody_moves_nothing_and_is_told_why() {
        for (path, body, says) in [
            ("/revoke", "", "send session=ID"),
            ("/purge", "", "send session=ID"),
            ("/revoke", "all", "POST /purge takes all"),
            ("/revoke", "sess_1", "send session=ID"),
            ("/revoke", "session=", "not the id of a session"),
            ("/revoke", "session=a b", "not the id of a session"),
            ("/purge", "session=sess_1&user=user_1", "not the id of a session"),
            ("/purge", "user=", "not the id of a user"),
            ("/revoke", "user=user_1&user=user_2", "not the id of a user"),
            ("/revoke", "user=a%20b", "not the id of a user"),
            ("/purge", "ALL", "send session=ID"),
        ] {
            let (status, text, moved) = asked(None, post(path), body).await;
            assert!(
                status == 400 && text.contains(says) && moved.is_empty(),
                "{path} {body}: {status} {text} {moved:?}"
            );
        }
    }
}
