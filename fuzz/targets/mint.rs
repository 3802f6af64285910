//! Answers of the issuer to a mint, through the judge and the cache: a token is given out when, and only when, a slow
//! reading of the answer says so, it can stand in a header as it is, and it has life left; every other answer is the error
//! that the design's table names.
//!
//! An input is an answer, and after the byte 0x1e the answer to the question for the session. Its first line: the status,
//! letters (`s`: a session token is asked for; `i`: the issuer is not known; `e`: the token must name the organization),
//! the milliseconds that it takes, those after which the token is looked for again, and those by which the clock is set.
//! Then headers, an empty line and the body: `@` and claims, `=` and a token, or the bytes themselves.
#![no_main]

use std::cell::RefCell;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use libfuzzer_sys::fuzz_target;
use mintgate::clock::{Clock, Wall};
use mintgate::config::{Cache, Claim, Expectation, MintKind, MintSpec, TemplateName};
use mintgate::lifecycle::Spawner;
use mintgate::metrics::{Metrics, Names, TemplateId};
use mintgate::secret::Digest;
use mintgate::session::{KeyId, Org, Session, SessionId, UserId};
use mintgate::token::cache::TokenCache;
use mintgate::token::clerk::Answer;
use mintgate::token::clerk::judge::{self, Judge, Minted};
use mintgate::token::freshness::{Freshness, Jitter};
use mintgate::token::spent::Spent;
use mintgate::token::{Issuer, Mint, MintError, MintRequest, Token, TokenKey, Urgency};
use mintgate_fuzz::json::{self, Json};
use mintgate_fuzz::{base64url, unbase64url};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, advance, sleep};

const SID: &str = "sess_1";
const SUB: &str = "user_2abc";
const ORG: &str = "org_1";
const ISSUER: &str = "https://clerk.example.com";
/// Fri, 15 Jan 2027 08:00:00 GMT.
const START: Wall = Wall::from_millis(1_800_000_000_000);
const MIN_REMAINING: i128 = 5_000;
const MAX_LIFETIME: i128 = 3_600_000;
/// The timer counts in milliseconds.
const UNSURE: i128 = 2;

static METRICS: LazyLock<Arc<Metrics>> =
    LazyLock::new(|| Arc::new(Metrics::new(Names { templates: vec!["t".to_owned()], ..Names::default() })));

thread_local! {
    static RUNTIME: RefCell<Runtime> =
        RefCell::new(Builder::new_current_thread().enable_time().start_paused(true).build().unwrap());
}

struct Case {
    answer: Said,
    session: Said,
    session_token: bool,
    knows_issuer: bool,
    expects: bool,
    took: u64,
    later: u64,
    step: i64,
}

/// What the issuer says.
#[derive(Clone)]
struct Said {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// A token as the slow reading takes it.
#[derive(Debug, Clone)]
struct Slow {
    jwt: String,
    /// `exp` and `iat` in milliseconds; `Err`: a number whose last digit two readers may take for two.
    exp: Option<Result<i128, ()>>,
    iat: Option<Result<i128, ()>>,
    /// Our wall clock when it was asked for, and the issuer's minus ours.
    sent: i128,
    offset: i128,
    fits: bool,
}

/// What an error is, with its status or its milliseconds.
type Failure = (&'static str, u128);

#[derive(Debug, PartialEq)]
enum State {
    Alive,
    Dead,
    Unsure,
}

/// Reads what the input says, both ways.
struct Issuing {
    case: Arc<Case>,
    clock: Clock,
    offset: Mutex<i64>,
    read: Mutex<Vec<Result<Slow, Failure>>>,
}

impl Mint for Issuing {
    async fn mint(&self, request: MintRequest) -> Result<Token, MintError> {
        let case = &self.case;
        let sent = self.clock.now();
        sleep(Duration::from_millis(case.took)).await;
        let answer = |said: &Said| Answer {
            status: said.status,
            headers: said.headers.clone(),
            body: Bytes::from(said.body.clone()),
            sent,
            took: Duration::from_millis(case.took),
        };
        let mut offset = self.offset.lock().unwrap();
        let slow_offset = case.answer.offset(sent.wall, case.took).unwrap_or((*offset).into());
        let answered = answer(&case.answer);
        *offset = judge::clock_offset(&answered).unwrap_or(*offset);
        assert_eq!(i128::from(*offset), slow_offset);
        self.read.lock().unwrap().push(case.read(sent.wall, slow_offset));
        let issuer = case.knows_issuer.then_some(ISSUER);
        let judge = Judge { key: &request.key, issuer, offset_ms: *offset };
        match judge.minted(&answered)? {
            Minted::Token(token) => Ok(token),
            Minted::Unsettled => Err(judge.settled(&answer(&case.session))),
        }
    }
}

// === the slow reading ===

impl Said {
    fn line(&self, name: HeaderName) -> Option<&str> {
        let line = self.headers.get(name)?.as_bytes();
        let plain = line.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        plain.then(|| std::str::from_utf8(line).unwrap())
    }

    /// The smallest offset with which the issuer wrote its `Date` while the call was under way.
    fn offset(&self, sent: Wall, took: u64) -> Option<i128> {
        let date = date(self.line(header::DATE)?)?;
        let (sent, received) = (i128::from(sent.as_millis()), i128::from(sent.as_millis()) + i128::from(took));
        Some(0.clamp(date - received, date + 999 - sent))
    }

    fn is_json(&self) -> bool {
        let is = |line: &HeaderValue| {
            let line = line.as_bytes();
            let kind = line.split(|&byte| byte == b';').next().unwrap().trim_ascii();
            line.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
                && kind.eq_ignore_ascii_case(b"application/json")
        };
        self.headers.get_all(header::CONTENT_TYPE).iter().all(is)
            && self.headers.get_all(header::CONTENT_ENCODING).iter().all(|line| line == "identity")
    }

    fn json(&self) -> Option<Json> {
        json::read(std::str::from_utf8(&self.body).ok()?)
    }

    /// Milliseconds after which the issuer may be asked again.
    fn retry_after(&self, received: i128) -> Option<u128> {
        let text = self.line(header::RETRY_AFTER)?.trim_matches([' ', '\t']);
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(u128::from(text.parse::<u64>().unwrap_or(u32::MAX.into())) * 1000);
        }
        Some(u128::try_from(date(text)? - received).unwrap_or(0))
    }

    fn whatever_was_asked(&self, received: i128) -> Option<Failure> {
        let after = self.retry_after(received);
        match self.status.as_u16() {
            401 => Some(("rejected", 0)),
            429 => Some(("throttled", after.unwrap_or(0).max(1000))),
            500.. => Some(("unavailable", after.unwrap_or(1000))),
            _ => None,
        }
    }

    /// Whether an error speaks of a thing.
    fn names(&self, what: &str) -> bool {
        let Some(Json::List(errors)) = self.json().and_then(|body| body.get("errors").cloned()) else { return false };
        errors.iter().flat_map(|error| ["message", "long_message"].map(|name| error.get(name))).any(|text| {
            let text = text.and_then(Json::text).unwrap_or_default().to_ascii_lowercase();
            text.split("session token").collect::<String>().contains(what)
        })
    }
}

fn date(text: &str) -> Option<i128> {
    let since = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(i128::try_from(since.as_millis()).unwrap())
}

impl Case {
    /// The design's table, row by row.
    fn read(&self, sent: Wall, offset: i128) -> Result<Slow, Failure> {
        let sent = i128::from(sent.as_millis());
        let received = sent + i128::from(self.took) + offset;
        let said = &self.answer;
        if let Some(failure) = said.whatever_was_asked(received) {
            return Err(failure);
        }
        match said.status.as_u16() {
            200 => {
                let body = said.json().filter(|_| said.is_json());
                let jwt = body.as_ref().and_then(|body| body.get("jwt")?.text()).filter(|jwt| !jwt.is_empty());
                self.token(jwt.ok_or(("malformed", 0))?, sent, offset)
            }
            201..300 => Err(("malformed", 0)),
            404 if said.names("jwt template") => Err(("template", 0)),
            403 | 404 | 422 if said.names("session") && !said.names("jwt template") => Err(("ended", 0)),
            404 => Err(self.settled(received)),
            status => Err(("refused", status.into())),
        }
    }

    fn settled(&self, received: i128) -> Failure {
        let said = &self.session;
        if let Some(failure) = said.whatever_was_asked(received) {
            return failure;
        }
        let body = said.json().filter(|_| said.is_json());
        let status = body.as_ref().and_then(|body| body.get("status")?.text());
        match (said.status.as_u16(), status) {
            (200, Some("active")) if self.session_token => ("refused", 404),
            (200, Some("active")) => ("template", 0),
            (200, Some(_)) | (404, _) => ("ended", 0),
            (200, None) => ("malformed", 0),
            (status, _) => ("refused", status.into()),
        }
    }

    fn token(&self, jwt: &str, sent: i128, offset: i128) -> Result<Slow, Failure> {
        let parts: Vec<&str> = jwt.split('.').collect();
        let payload = (parts.len() == 3).then(|| unbase64url(parts[1].trim_end_matches('='))).flatten();
        let claims = payload.and_then(|bytes| json::read_lax(std::str::from_utf8(&bytes).ok()?));
        let text = |name| claims.as_ref().and_then(|claims| claims.get(name)?.text());
        let real = |id: &str| {
            let rest = id.strip_prefix("user_").unwrap_or("");
            rest.len() >= 4 && rest.chars().all(|one| one.is_ascii_alphanumeric())
        };
        let foreign = text("sid").is_some_and(|sid| sid != SID)
            || text("sub").is_some_and(|sub| sub != SUB && real(sub))
            || (self.knows_issuer && text("iss").is_some_and(|iss| iss != ISSUER));
        if foreign {
            return Err(("malformed", 0));
        }
        let bytes = jwt.as_bytes();
        let space = |byte: &u8| matches!(byte, b' ' | b'\t');
        if !bytes.iter().all(|byte| byte.is_ascii_graphic() || space(byte))
            || bytes.first().is_some_and(space)
            || bytes.last().is_some_and(space)
        {
            return Err(("unfit", 0));
        }
        let time = |name| claims.as_ref().and_then(|claims| milliseconds(claims.get(name)?));
        let org = claims.as_ref().and_then(|claims| claims.get("org_id"));
        Ok(Slow {
            jwt: jwt.to_owned(),
            exp: time("exp"),
            iat: time("iat"),
            sent,
            offset,
            fits: !self.expects || org.and_then(Json::text) == Some(ORG),
        })
    }
}

fn milliseconds(value: &Json) -> Option<Result<i128, ()>> {
    let Json::Number(digits) = value else { return None };
    let bounded = |seconds: i128| seconds.saturating_mul(1000).clamp(i64::MIN.into(), i64::MAX.into());
    if let Ok(whole) = digits.parse::<i128>() {
        return Some(Ok(bounded(whole)));
    }
    // A double has 15 digits that all readers agree on.
    if digits.bytes().filter(u8::is_ascii_digit).count() > 15 {
        return Some(Err(()));
    }
    let seconds = digits.parse::<f64>().unwrap().floor();
    Some(if seconds.abs() < 1e15 { Ok(bounded(seconds as i128)) } else { Err(()) })
}

impl Slow {
    /// What the token is when this much time has passed on each clock; `None`: it does not say when it ends.
    fn state(&self, elapsed: i128, wall: i128) -> Option<State> {
        let exp = self.exp?;
        let iat = self.iat.unwrap_or(Ok(i128::MIN / 2));
        let (Ok(exp), Ok(iat)) = (exp, iat) else { return Some(State::Unsure) };
        let sent = self.sent + self.offset;
        let life = (exp - sent).min(exp - iat).max(0);
        // A wall clock of 64 bits ends somewhere.
        if [exp, iat.max(i128::from(i64::MIN)), sent].iter().any(|at| at.abs() > 1_000_000_000_000_000) {
            return Some(if life == 0 { State::Dead } else { State::Unsure });
        }
        let floor = MIN_REMAINING.min(life / 4);
        let least = [
            // On the clock that is never set.
            (life - floor).min(MAX_LIFETIME) - elapsed,
            // By what the token says of its end, and by when its life began.
            exp - floor - (wall + self.offset),
            exp - life + MAX_LIFETIME - (wall + self.offset),
        ];
        let least = *least.iter().min().unwrap();
        Some(match least {
            _ if life == 0 => State::Dead,
            UNSURE.. => State::Alive,
            _ if least <= -UNSURE => State::Dead,
            _ => State::Unsure,
        })
    }
}

// === reading the input ===

fn said(bytes: &[u8]) -> Option<(Said, Vec<String>)> {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let first = String::from_utf8_lossy(lines.next()?).into_owned();
    let words: Vec<String> = first.split_ascii_whitespace().map(str::to_owned).collect();
    let status = StatusCode::from_bytes(words.first()?.as_bytes()).ok()?;
    let mut headers = HeaderMap::new();
    let mut body: Vec<&[u8]> = Vec::new();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            body.extend(lines.by_ref());
        } else if let Some(colon) = line.iter().position(|&byte| byte == b':') {
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                headers.append(name, value);
            }
        }
    }
    let body = body.join(&b'\n');
    let body = match body.split_first() {
        Some((b'@', claims)) => format!(r#"{{"object":"token","jwt":"e30.{}.c2ln"}}"#, base64url(claims)).into_bytes(),
        Some((b'=', jwt)) => serde_json::json!({ "jwt": String::from_utf8_lossy(jwt) }).to_string().into_bytes(),
        _ => body,
    };
    Some((Said { status, headers, body }, words))
}

fn case(data: &[u8]) -> Option<Case> {
    let (answer, session) = match data.iter().position(|&byte| byte == 0x1e) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &b"404"[..]),
    };
    let (answer, words) = said(answer)?;
    let (session, _) = said(session)?;
    let letters = words.get(1).map_or("", String::as_str);
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<i64>().ok()).unwrap_or(0);
    Some(Case {
        answer,
        session,
        session_token: letters.contains('s'),
        knows_issuer: !letters.contains('i'),
        expects: letters.contains('e'),
        took: number(2).unsigned_abs() % 1900,
        later: number(3).unsigned_abs() % 10_000_000,
        step: number(4) % 10_000_000,
    })
}

fn key(case: &Case, sid: &str) -> TokenKey {
    let session = Session {
        sid: SessionId::new(sid).unwrap(),
        sub: UserId::new(SUB).unwrap(),
        expires_at: START,
        not_before: None,
        issued_at: None,
        azp: None,
        pending: false,
        impersonated: false,
        org: Some(Org { id: ORG.into(), role: None, slug: None }),
        scope: Digest::of_parts([b"scope".as_slice()]),
        claims: None,
        key: KeyId::new("key"),
    };
    let kind = if case.session_token { MintKind::Session } else { MintKind::Template(TemplateName::new("t").unwrap()) };
    let expect = Expectation { pointer: "/org_id".to_owned(), claim: Claim::OrgId };
    let expect = if case.expects { vec![expect] } else { Vec::new() };
    let spec = MintSpec { id: TemplateId::new(0), kind, expires_in: None, expect, vary: Vec::new() };
    TokenKey::of(Issuer::new("https://api.example.com", "i"), &session, &spec)
}

fn failure(error: &MintError) -> Failure {
    match error {
        MintError::TemplateUnknown => ("template", 0),
        MintError::SessionEnded => ("ended", 0),
        MintError::RejectedKey => ("rejected", 0),
        MintError::Unavailable { retry_after, .. } => ("unavailable", retry_after.as_millis()),
        MintError::Malformed(_) => ("malformed", 0),
        MintError::Refused(status) => ("refused", (*status).into()),
        MintError::Throttled { retry_after } => ("throttled", retry_after.as_millis()),
        MintError::Unfit => ("unfit", 0),
        MintError::Stale => ("stale", 0),
        MintError::Timeout | MintError::Revoked => ("", 0),
    }
}

async fn run(case: Case) {
    let case = Arc::new(case);
    let clock = Clock::following(START);
    let config = Cache {
        max_bytes: 1 << 16,
        max_session_bytes: 0,
        min_remaining: Duration::from_millis(MIN_REMAINING as u64),
        max_lifetime: Duration::from_millis(MAX_LIFETIME as u64),
        refresh_at: Some(0.8),
        missing_ttl: None,
    };
    let cache = TokenCache::new(&config, clock.clone(), Spawner::current(), Jitter::fixed(0.5), Arc::clone(&METRICS));
    let issuing = Arc::new(Issuing {
        case: Arc::clone(&case),
        clock: clock.clone(),
        offset: Mutex::new(0),
        read: Mutex::default(),
    });
    let request = MintRequest {
        key: key(&case, SID),
        template: TemplateId::new(0),
        urgency: Urgency::Waiting,
        forced: false,
        credential_issued_at: None,
        spent: Spent::default(),
        deadline: Instant::now() + Duration::from_secs(60),
        trace: None,
    };
    let given = cache.get(request.clone(), &issuing).await.1;
    let read = issuing.read.lock().unwrap().clone();
    let expected = match read.as_slice() {
        [Ok(token)] if token.fits => Ok(token),
        [Err(failure)] => Err(*failure),
        [Ok(first), Ok(token)] if !first.fits && token.fits => Ok(token),
        [Ok(first), Ok(second)] if !first.fits && !second.fits => Err(("stale", 0)),
        [Ok(first), Err(failure)] if !first.fits => Err(*failure),
        other => panic!("asked {} times: {other:?}", other.len()),
    };
    let state = |token: &Slow, sent: Instant| {
        let now = clock.now();
        token.state(now.mono.duration_since(sent).as_millis() as i128, now.wall.as_millis().into())
    };
    match (&given, expected) {
        (Ok(token), Ok(slow)) => {
            assert_eq!(token.bare(), slow.jwt.as_str());
            assert_eq!(token.bearer().as_bytes(), format!("Bearer {}", slow.jwt).as_bytes());
            assert!(token.bare().is_sensitive() && token.bearer().is_sensitive());
            assert_ne!(state(slow, token.sent_at), Some(State::Dead), "{slow:?}");
            advance(Duration::from_millis(case.later)).await;
            clock.step(case.step);
            let kept = cache.get_fresh(&request.key, clock.now());
            match state(slow, token.sent_at) {
                Some(State::Alive) => assert!(kept.is_some(), "lost: {slow:?}"),
                Some(State::Dead) | None => assert!(kept.is_none(), "kept too long: {slow:?}"),
                Some(State::Unsure) => {}
            }
            if let Some((again, freshness)) = kept {
                assert_eq!(again.bare(), token.bare());
                assert_ne!(freshness, Freshness::Dead);
            }
        }
        (Err(error), Err(slow)) => assert_eq!(failure(error), slow, "{error}"),
        (Err(MintError::Malformed(_)), Ok(slow)) => {
            let sent = i128::from(clock.now().wall.as_millis()) - slow.sent;
            let state = slow.state(sent, clock.now().wall.as_millis().into());
            assert!(matches!(state, Some(State::Dead | State::Unsure)), "not dead on arrival: {slow:?}");
        }
        _ => panic!("{given:?} instead of {expected:?}"),
    }
    if given.is_err() {
        assert!(cache.get_fresh(&request.key, clock.now()).is_none());
    }
    assert!(cache.get_fresh(&key(&case, "sess_2"), clock.now()).is_none(), "another session's");
}

fuzz_target!(|data: &[u8]| {
    if data.len() > 4096 {
        return;
    }
    let Some(case) = case(data) else { return };
    RUNTIME.with_borrow(|runtime| runtime.block_on(run(case)));
});
