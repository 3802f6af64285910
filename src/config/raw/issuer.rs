//! `[clerk]` as it is written: the issuer, and how much of its rate limit is ours.

use super::describe::Form::{Count, Duration, Rate};
use super::reader::{At, Field, Read, Reader, Table, tables};
use super::shapes::{OneOrMany, SecretRef};

tables! {
    /// The Clerk instance: how its sessions are verified and its tokens minted.
    Clerk at "clerk" {
        /// The instance's secret key, or a list during rotation: the first that is not refused is used. Needed where a route
        /// mints, and to download the verification keys.
        secret_key: OneOrMany<SecretRef>,
        /// The instance's publishable key. It gives the issuer's URL, and the suffix of the session cookie.
        publishable_key: String,
        /// Where your application is served from: the `azp` that session tokens may have, and the origins that a session
        /// cookie is taken from.
        authorized_parties: Vec<At<String>> = [],
        /// The Frontend API's URL, which `iss` of session tokens must equal. Left out, it is taken from `publishable_key`.
        issuer: String,
        /// `aud` of session tokens must hold one of these. Empty, it is not looked at.
        audience: Vec<At<String>> = [],
        /// The instance's public key (PEM): sessions are verified with it alone, whatever `kid` they name, and no JWKS is
        /// downloaded.
        jwt_key: SecretRef,
        /// Where the verification keys are downloaded from. Left out, `{api_url}/v1/jwks`. The secret key is sent to URLs
        /// below `api_url` alone.
        jwks_url: String,
        /// How often the verification keys are downloaded. An unknown `kid` has them downloaded sooner.
        jwks_refresh: String = "5m" as Duration,
        /// Clerk's Backend API, without `/v1`; `http` to loopback addresses alone.
        api_url: String = "https://api.clerk.com",
        /// Sent to the Backend API as `Clerk-API-Version`.
        api_version: String = "2026-05-12",
        /// Tolerance for `exp`, `nbf` and `iat` of session tokens; at most 5 minutes.
        clock_skew: String = "5s" as Duration,
        /// To a TCP and TLS connection with the issuer.
        connect_timeout: String = "2s" as Duration,
        /// One mint with its retries and its waiting, whole.
        timeout: String = "5s" as Duration,
        /// Certificates (PEM) that the issuer's may be signed by, beside those that the machine trusts.
        ca_file: String,
        /// How much of the instance's rate limit is ours.
        budget: Budget,
    }

    /// The instance's rate limit, and the part of it that this gateway uses.
    Budget at "clerk.budget" {
        /// Calls that Clerk allows the instance in `per`. Left out, 1000, or 100 for a key that begins with `sk_test_`.
        requests: i64 as Count(1, 1_000_000_000),
        /// The time that `requests` holds for.
        per: String = "10s" as Duration,
        /// The part of the limit that all gateways together may use.
        share: f64 = 0.8,
        /// How many gateways divide that part among them; with `[cache.shared]` while Redis is down alone.
        replicas: i64 = 1 as Count(1, 100_000),
        /// The part of a gateway's own that renewals in the background leave to requests that wait.
        reserve: f64 = 0.2,
        /// Mints of one session, so that one user cannot use up the limit of all.
        per_session: String = "20/10s" as Rate,
        /// Mints under way at one time.
        max_concurrent: i64 = 32 as Count(1, 100_000),
        /// Mints in line; beyond it the answer is `issuer-throttled` at once.
        max_waiting: i64 = 1024 as Count(1, 10_000_000),
    }
}
