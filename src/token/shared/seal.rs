//! The names and the sealed values of the shared level. Who reads the store learns neither tokens nor whose they are; who
//! writes to it can make a value be missed, and nothing else.
//!
//! A name is a keyed digest. A value is sealed under a key of its own, made of the digest, with the whole name as
//! associated data: at another name, under another key, cut or changed it does not open. Each name begins with the
//! version of the format, so that gateways of different releases miss instead of misreading.

use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{constant_time, hmac};

use crate::clock::Wall;
use crate::config::MintKind;
use crate::config::shared::CacheKey;
use crate::session::{SessionId, UserId};
use crate::token::scope::PurgeScope;
use crate::token::{Scope, TokenKey};

/// What the values of a session, of a user or of everybody are good under. A purge sets it anew, and what was made under
/// another one counts for nothing.
pub type Epoch = [u8; 16];

/// Tells a word of the stream from every other one.
pub type Mark = [u8; 16];

/// Of the session, of its user, and of everybody.
pub const EPOCHS: usize = 3;

/// Of the format of names and values: another one shares nothing with this.
const VERSION: &str = "1";

/// The longest sealed value: the issuer's answers are shorter. A store is asked for no more than this.
pub const LONGEST_VALUE: usize = 96 << 10;

/// Before the token in an opened value: the epochs, its end and its life.
const HEAD: usize = EPOCHS * size_of::<Epoch>() + 16;

/// What a word is about has a stream of its own: many of one kind push none of the other out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Who is refused, or let in again. Whoever starts has to know all of it.
    Refusals,
    /// Whose tokens are forgotten. Whoever starts has none.
    Purges,
}

/// One key: its names, and what it seals.
pub struct Seal {
    prefix: String,
    names: hmac::Key,
    seals: hmac::Key,
    words: hmac::Key,
}

/// Where everything of one token is kept.
#[derive(Debug, Clone)]
pub struct Names {
    /// Its value.
    pub value: String,
    /// Its lease.
    pub lease: String,
    /// The epochs of its session, of its user, and of everybody.
    pub epochs: [String; EPOCHS],
    digest: [u8; 32],
}

/// The names of the bucket of all, and of the pause that one of them was told of.
#[derive(Debug, Clone)]
pub struct FundNames {
    /// The bucket.
    pub bucket: String,
    /// The pause; in the same place of a cluster.
    pub pause: String,
}

/// What is sealed: a token and what its life is judged by.
#[derive(Clone, PartialEq, Eq)]
pub struct Value {
    /// Those that were read before its mint began.
    pub epochs: [Epoch; EPOCHS],
    /// `exp`, in the issuer's time.
    pub expires_at: Wall,
    /// Its whole life, or the longest that tokens are kept.
    pub life: Duration,
    /// The token.
    pub jwt: String,
}

/// What is sealed cannot be opened here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a value of this name and key")]
pub struct Unreadable;

/// There is no randomness, or the value is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the value cannot be sealed")]
pub struct Unsealable;

// === impl Seal ===

impl Seal {
    /// Every name begins with `prefix`.
    pub fn new(key: &CacheKey, prefix: &str) -> Self {
        let master = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
        let derived = |label: &str| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&master, label.as_bytes()).as_ref());
        Self {
            prefix: prefix.to_owned(),
            names: derived("mintgate 1 names of the shared cache"),
            seals: derived("mintgate 1 seals of the shared cache"),
            words: derived("mintgate 1 words of the shared cache"),
        }
    }

    /// The names of a token. Those of one session share the part in braces, and so their place in a cluster.
    pub fn names(&self, key: &TokenKey) -> Names {
        let parts = key.parts();
        let (kind, template) = match &parts.kind {
            MintKind::Template(name) => (&b"template"[..], name.as_str()),
            MintKind::Session => (&b"session"[..], ""),
        };
        let expires_in = parts.expires_in.map(u32::to_be_bytes);
        let (scope, claims) = match &parts.scope {
            Scope::Claims(digest) => (&b"claims"[..], &digest.as_bytes()[..]),
            Scope::Neutral => (&b"neutral"[..], &[][..]),
        };
        // What may be absent is told from what is empty by the number that goes before it.
        let digest = self.digest(&[
            b"token",
            parts.issuer.as_bytes(),
            parts.sid.as_str().as_bytes(),
            &[u8::from(parts.sub.is_some())],
            parts.sub.as_ref().map_or(&[], |sub| sub.as_str().as_bytes()),
            kind,
            template.as_bytes(),
            &[u8::from(expires_in.is_some())],
            expires_in.as_ref().map_or(&[], |seconds| &seconds[..]),
            scope,
            claims,
        ]);
        let session = self.tag(&[b"session", parts.sid.as_str().as_bytes()]);
        let at = hex(&digest);
        Names {
            value: format!("{session}:t:{at}"),
            lease: format!("{session}:l:{at}"),
            epochs: [format!("{session}:e"), self.user(parts.sub.as_ref()), self.all()],
            digest,
        }
    }

    /// The epoch of a session.
    pub fn session(&self, sid: &SessionId) -> String {
        format!("{}:e", self.tag(&[b"session", sid.as_str().as_bytes()]))
    }

    /// The epoch of a user; `None`: of every token that names no user, and may be anybody's.
    pub fn user(&self, sub: Option<&UserId>) -> String {
        match sub {
            Some(sub) => format!("{}:e", self.tag(&[b"user", sub.as_str().as_bytes()])),
            None => format!("{}:e", self.tag(&[b"nobody"])),
        }
    }

    /// The epoch of everybody.
    pub fn all(&self) -> String {
        format!("{}:e", self.tag(&[b"all"]))
    }

    /// The epochs that end with a purge of this scope.
    pub fn ending(&self, scope: &PurgeScope) -> Vec<String> {
        match scope {
            PurgeScope::Session(sid) => vec![self.session(sid)],
            PurgeScope::User(sub) => vec![self.user(Some(sub)), self.user(None)],
            PurgeScope::All => vec![self.all()],
        }
    }

    /// Where the budget of all is.
    pub fn fund(&self) -> FundNames {
        let tag = self.tag(&[b"fund"]);
        FundNames { bucket: format!("{tag}:b"), pause: format!("{tag}:p") }
    }

    /// A pause that nobody else can put there: its end by the store's clock, in milliseconds.
    pub fn seal_pause(&self, at: &str, until: u64) -> Vec<u8> {
        [&until.to_be_bytes()[..], &self.digest(&[b"pause", at.as_bytes(), &until.to_be_bytes()])].concat()
    }

    /// When such a pause ends.
    pub fn open_pause(&self, at: &str, sealed: &[u8]) -> Option<u64> {
        let (until, _) = sealed.split_first_chunk::<8>()?;
        let until = u64::from_be_bytes(*until);
        let same = constant_time::verify_slices_are_equal(sealed, &self.seal_pause(at, until)).is_ok();
        same.then_some(until)
    }

    /// Where it is told who was refused, or whose tokens were purged.
    pub fn stream(&self, channel: Channel) -> String {
        let part: &[u8] = match channel {
            Channel::Refusals => b"stream",
            Channel::Purges => b"purges",
        };
        format!("{}:s", self.tag(&[part]))
    }

    /// Seals a word for its stream. Its mark tells it from every other one.
    ///
    /// # Errors
    /// See [`Unsealable`].
    pub fn seal_word(&self, channel: Channel, mark: &Mark, word: &[u8]) -> Result<Vec<u8>, Unsealable> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| Unsealable)?;
        let mut sealed = [&mark[..], &nonce].concat();
        let (key, mut plain) = (word_key(&self.words, mark).ok_or(Unsealable)?, word.to_vec());
        let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), self.stream(channel));
        key.seal_in_place_append_tag(nonce, Aad::from(aad.as_bytes()), &mut plain).map_err(|_| Unsealable)?;
        sealed.extend(plain);
        Ok(sealed)
    }

    /// Opens a word of a stream.
    ///
    /// # Errors
    /// When it was sealed under another key or for another stream, or not left as it was.
    pub fn open_word(&self, channel: Channel, sealed: &[u8]) -> Result<(Mark, Vec<u8>), Unreadable> {
        let (mark, rest) = sealed.split_first_chunk::<{ size_of::<Mark>() }>().ok_or(Unreadable)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or(Unreadable)?;
        let (key, mut sealed) = (word_key(&self.words, mark).ok_or(Unreadable)?, sealed.to_vec());
        let (nonce, aad) = (Nonce::assume_unique_for_key(*nonce), self.stream(channel));
        let word = key.open_in_place(nonce, Aad::from(aad.as_bytes()), &mut sealed).map_err(|_| Unreadable)?;
        Ok((*mark, word.to_vec()))
    }

    /// Seals a value for its place.
    ///
    /// # Errors
    /// See [`Unsealable`].
    pub fn seal(&self, at: &Names, value: &Value) -> Result<Vec<u8>, Unsealable> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| Unsealable)?;
        let mut sealed = nonce.to_vec();
        let mut plain = value.encode();
        let (key, nonce) = (self.key_of(at).ok_or(Unsealable)?, Nonce::assume_unique_for_key(nonce));
        key.seal_in_place_append_tag(nonce, Aad::from(at.value.as_bytes()), &mut plain).map_err(|_| Unsealable)?;
        sealed.extend(plain);
        if sealed.len() > LONGEST_VALUE { Err(Unsealable) } else { Ok(sealed) }
    }

    /// Opens what was kept in a place.
    ///
    /// # Errors
    /// When it was sealed under another key or for another place, or not left as it was.
    pub fn open(&self, at: &Names, sealed: &[u8]) -> Result<Value, Unreadable> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(Unreadable)?;
        let (key, mut sealed) = (self.key_of(at).ok_or(Unreadable)?, sealed.to_vec());
        let aad = Aad::from(at.value.as_bytes());
        let plain = key.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut sealed);
        Value::decode(plain.map_err(|_| Unreadable)?)
    }

    /// A key for each place, so that no two values of a fleet meet the same key and nonce.
    fn key_of(&self, at: &Names) -> Option<LessSafeKey> {
        let key = hmac::sign(&self.seals, &at.digest);
        UnboundKey::new(&AES_256_GCM, key.as_ref()).ok().map(LessSafeKey::new)
    }

    /// Each part behind its length, so that no two lists of parts share a digest.
    fn digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.names);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    fn tag(&self, parts: &[&[u8]]) -> String {
        format!("{}{VERSION}:{{{}}}", self.prefix, hex(&self.digest(parts)))
    }
}

/// A key for each word, as for each value.
fn word_key(words: &hmac::Key, mark: &Mark) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, hmac::sign(words, mark).as_ref()).ok().map(LessSafeKey::new)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // A `String` takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

// === impl Value ===

impl Value {
    fn encode(&self) -> Vec<u8> {
        let life = u64::try_from(self.life.as_millis()).unwrap_or(u64::MAX);
        let mut plain = Vec::with_capacity(HEAD + self.jwt.len() + AES_256_GCM.tag_len());
        self.epochs.iter().for_each(|epoch| plain.extend(epoch));
        plain.extend(self.expires_at.as_millis().to_be_bytes());
        plain.extend(life.to_be_bytes());
        plain.extend(self.jwt.as_bytes());
        plain
    }

    fn decode(plain: &[u8]) -> Result<Self, Unreadable> {
        let (epochs, rest) = plain.split_at_checked(EPOCHS * size_of::<Epoch>()).ok_or(Unreadable)?;
        let (expires_at, rest) = rest.split_first_chunk::<8>().ok_or(Unreadable)?;
        let (life, jwt) = rest.split_first_chunk::<8>().ok_or(Unreadable)?;
        let mut value = Self {
            epochs: [[0; 16]; EPOCHS],
            expires_at: Wall::from_millis(i64::from_be_bytes(*expires_at)),
            life: Duration::from_millis(u64::from_be_bytes(*life)),
            jwt: String::from_utf8(jwt.to_vec()).map_err(|_| Unreadable)?,
        };
        for (into, from) in value.epochs.iter_mut().zip(epochs.chunks_exact(size_of::<Epoch>())) {
            into.copy_from_slice(from);
        }
        Ok(value)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value").field("jwt", &"[secret]").field("life", &self.life).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
