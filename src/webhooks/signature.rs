//! Svix's signatures: an HMAC over the id, the time and the body (contract section 5).

use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue};

use crate::clock::Wall;
use crate::secret::Secret;

/// How far the time of a signature may be from ours, either way.
pub const TOLERANCE: Duration = Duration::from_mins(5);

/// Bytes of an id.
const LONGEST_ID: usize = 256;

/// Signatures of one event: more than an endpoint has secrets.
const MOST_SIGNATURES: usize = 32;

/// What a request says of its event. Nothing of it is true before [`Claimed::check`].
#[derive(Debug)]
pub struct Claimed<'a> {
    id: &'a str,
    time: &'a str,
    signatures: &'a str,
}

/// Why it is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    /// Not what Svix sends.
    #[error("svix-id, svix-timestamp and svix-signature do not stand there, once each, as Svix writes them")]
    Headers,
    /// Too old, or of the future.
    #[error("the event was not signed just now")]
    Time,
    /// By nobody who holds a secret.
    #[error("the signature is not one of this endpoint")]
    Signature,
}

// === impl Claimed ===

impl<'a> Claimed<'a> {
    /// Out of the headers; `now` judges the time.
    ///
    /// # Errors
    /// When a signature could not be right, whatever the body.
    pub fn of(headers: &'a HeaderMap, now: Wall) -> Result<Self, Unsigned> {
        let id = one(headers, "svix-id")?;
        // A dot would let the parts of what is signed be read in two ways.
        if !(1..=LONGEST_ID).contains(&id.len()) || !id.bytes().all(|byte| matches!(byte, b'!'..=b'~') && byte != b'.')
        {
            return Err(Unsigned::Headers);
        }
        let time = one(headers, "svix-timestamp")?;
        let digits = (1..=15).contains(&time.len()) && time.bytes().all(|byte| byte.is_ascii_digit());
        let seconds: i64 = time.parse().ok().filter(|_| digits).ok_or(Unsigned::Headers)?;
        let signatures = one(headers, "svix-signature")?;
        let apart = Duration::from_secs(now.as_seconds().abs_diff(seconds));
        if apart > TOLERANCE {
            return Err(Unsigned::Time);
        }
        Ok(Self { id, time, signatures })
    }

    /// What all attempts at one event have in common.
    pub fn id(&self) -> &'a str {
        self.id
    }

    /// Whether one of the signatures was made with one of the secrets. They are compared in constant time.
    ///
    /// # Errors
    /// When none was.
    pub fn check(&self, body: &[u8], secrets: &[Secret]) -> Result<(), Unsigned> {
        let shown: Vec<Vec<u8>> = self
            .signatures
            .split(' ')
            .filter_map(|signature| BASE64_STANDARD.decode(signature.strip_prefix("v1,")?).ok())
            .take(MOST_SIGNATURES)
            .collect();
        let fits = secrets.iter().filter_map(key).any(|key| {
            let mut signing = hmac::Context::with_key(&key);
            for part in [self.id.as_bytes(), b".", self.time.as_bytes(), b".", body] {
                signing.update(part);
            }
            let tag = signing.sign();
            shown.iter().any(|shown| constant_time::verify_slices_are_equal(tag.as_ref(), shown).is_ok())
        });
        if fits { Ok(()) } else { Err(Unsigned::Signature) }
    }
}

/// The header's value, where it stands there once.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Unsigned> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next().filter(|_| lines.next().is_none()).map(HeaderValue::to_str);
    line.and_then(Result::ok).ok_or(Unsigned::Headers)
}

/// What a secret of the configuration, which was checked there, signs with.
fn key(secret: &Secret) -> Option<hmac::Key> {
    let key = BASE64_STANDARD.decode(secret.expose().strip_prefix("whsec_")?).ok().filter(|key| !key.is_empty())?;
    Some(hmac::Key::new(hmac::HMAC_SHA256, &key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const NOW: i64 = 1_614_265_330;
    /// Svix's own test vector.
    const GOOD: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    /// Of the same with the secret `whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX`, as Python's hmac has it.
    const OTHER: &str = "v1,/485aUtxlie+TIScVpHggMfqOB4so2KWb7+Gf727B44=";

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn svix(signatures: &str) -> HeaderMap {
        headers(&[
            ("svix-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("svix-timestamp", "1614265330"),
            ("svix-signature", signatures),
        ])
    }

    fn judged(headers: &HeaderMap, body: &[u8], secrets: &[&str], now: i64) -> Result<(), Unsigned> {
        let secrets: Vec<Secret> = secrets.iter().map(|secret| Secret::new(*secret)).collect();
        Claimed::of(headers, Wall::from_seconds(now))?.check(body, &secrets)
    }

    #[test]
    fn a_signature_is_one_over_id_time_and_body() {
        assert_eq!(judged(&svix(GOOD), BODY, &[SECRET], NOW), Ok(()));
        let mut otherwise = svix(GOOD);
        otherwise.insert("svix-id", HeaderValue::from_static("msg_p5jXN8AQM9LWM0D4loKWxJel"));
        let mut later = svix(GOOD);
        later.insert("svix-timestamp", HeaderValue::from_static("1614265331"));
        for (headers, body) in [(otherwise, BODY), (later, BODY), (svix(GOOD), &BODY[1..])] {
            assert_eq!(judged(&headers, body, &[SECRET], NOW), Err(Unsigned::Signature));
        }
    }

    #[test]
    fn one_of_several_signatures_and_one_of_several_secrets_is_enough() {
        let rotated = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
        for (signatures, secrets, fits) in [
            (format!("v1,AAAA {GOOD}"), &[SECRET][..], true),
            (format!("v2,AAAA v1a,AAAA {OTHER} {GOOD}"), &[SECRET], true),
            (GOOD.to_owned(), &[rotated, SECRET], true),
            (OTHER.to_owned(), &[SECRET, rotated], true),
            (OTHER.to_owned(), &[SECRET], false),
            (GOOD.to_owned(), &[rotated], false),
            (GOOD.to_owned(), &[], false),
            (GOOD.replace("v1,", "v2,"), &[SECRET], false),
            (GOOD.replace("v1,", ""), &[SECRET], false),
            (GOOD.replace("v1,g", "v1,h"), &[SECRET], false),
            (GOOD.replace('=', ""), &[SECRET], false),
            ("v1,".to_owned(), &[SECRET], false),
            (String::new(), &[SECRET], false),
            (format!("{} {GOOD}", ["v1,AAAA"; MOST_SIGNATURES].join(" ")), &[SECRET], false),
        ] {
            let expected = if fits { Ok(()) } else { Err(Unsigned::Signature) };
            assert_eq!(judged(&svix(&signatures), BODY, secrets, NOW), expected, "{signatures} {}", secrets.len());
        }
    }

    /// Fails without the look at the time, at either side of it.
    #[test]
    fn a_signature_is_good_for_five_minutes_either_way() {
        for (apart, fresh) in [(0, true), (300, true), (-300, true), (301, false), (-301, false), (1_000_000, false)] {
            let expected = if fresh { Ok(()) } else { Err(Unsigned::Time) };
            assert_eq!(judged(&svix(GOOD), BODY, &[SECRET], NOW + apart), expected, "{apart}");
        }
        let mut far = svix(GOOD);
        far.insert("svix-timestamp", HeaderValue::from_static("999999999999999"));
        assert_eq!(judged(&far, BODY, &[SECRET], i64::MIN), Err(Unsigned::Time));
    }

    #[test]
    fn each_header_stands_there_once_and_is_plain() {
        for (name, value) in [("svix-id", "another"), ("svix-timestamp", "1614265330"), ("svix-signature", GOOD)] {
            let mut twice = svix(GOOD);
            twice.append(name, value.parse().unwrap());
            assert_eq!(judged(&twice, BODY, &[SECRET], NOW), Err(Unsigned::Headers), "{name}");
            let mut without = svix(GOOD);
            without.remove(name);
            assert_eq!(judged(&without, BODY, &[SECRET], NOW), Err(Unsigned::Headers), "{name}");
        }
        for (name, value) in [
            ("svix-id", ""),
            ("svix-id", "msg.1614265330"),
            ("svix-id", "a b"),
            ("svix-id", &"x".repeat(LONGEST_ID + 1)),
            ("svix-timestamp", "+1614265330"),
            ("svix-timestamp", "-1"),
            ("svix-timestamp", ""),
            ("svix-timestamp", "1614265330.0"),
            ("svix-timestamp", "99999999999999999999"),
        ] {
            let mut bad = svix(GOOD);
            bad.insert(name, value.parse().unwrap());
            assert_eq!(judged(&bad, BODY, &[SECRET], NOW), Err(Unsigned::Headers), "{name}: {value}");
        }
    }
}
