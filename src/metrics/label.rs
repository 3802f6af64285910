//! The closed sets of label values.

/// Declares a closed set of label values.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// Every value, in the order of its index.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The label's text.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            /// The position in [`Self::ALL`].
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

pub(crate) use labels;

labels!(
    /// Where a token came from.
    Lookup {
        /// A live token was in memory.
        Hit = "hit",
        /// A mint was under way already.
        Wait = "wait",
        /// The shared cache had it.
        Shared = "shared",
        /// This request began the mint.
        Mint = "mint",
        /// 'No such session' or 'no such template' was remembered.
        Missing = "missing",
    }
);

labels!(
    /// What a session check found. The second half are the reasons of `session-invalid`.
    Verdict {
        /// A good session.
        Valid = "valid",
        /// Named by a trusted program, and verified by nobody here.
        Unverified = "unverified",
        /// No credential.
        Missing = "missing",
        /// Past its `exp`.
        Expired = "expired",
        /// Revoked by a tombstone.
        Revoked = "revoked",
        /// `sts: pending`.
        Pending = "pending",
        /// Two credentials where one may be.
        Ambiguous = "ambiguous",
        /// Not what the route asks for.
        Forbidden = "forbidden",
        /// Not a JWS in compact form, or its JSON is not what RFC 7515 and 7519 say.
        Malformed = "malformed",
        /// Not RS256, or a `crit` header.
        Algorithm = "algorithm",
        /// No such `kid`.
        UnknownKey = "unknown-key",
        /// The signature does not fit.
        Signature = "signature",
        /// `cat` says that it is another kind of token.
        Category = "category",
        /// A claim is missing or of the wrong type.
        Claims = "claims",
        /// Another issuer.
        Issuer = "issuer",
        /// `azp` is not allowed.
        Azp = "azp",
        /// `nbf` or `iat` lies in the future.
        NotYetValid = "not-yet-valid",
        /// A cookie older than `__client_uat`, or without one.
        OutdatedCookie = "outdated-cookie",
        /// An API key, OAuth or machine token.
        NotASessionToken = "not-a-session-token",
    }
);

labels!(
    /// How a mint or a refresh ended.
    MintResult {
        /// A token.
        Ok = "ok",
        /// No such template.
        TemplateUnknown = "template-unknown",
        /// No such session, or not active.
        SessionEnded = "session-ended",
        /// The secret key was refused.
        RejectedKey = "issuer-rejected-key",
        /// Connect failures and 5xx to the end, or the breaker was open.
        Unavailable = "issuer-unavailable",
        /// The deadline passed.
        Timeout = "issuer-timeout",
        /// A 200 that made no sense.
        Malformed = "issuer-malformed",
        /// Any other 3xx or 4xx.
        Refused = "issuer-refused",
        /// A 429, or the budget's line was full.
        Throttled = "issuer-throttled",
        /// The token cannot stand in a header.
        Unfit = "token-unfit",
        /// Purged while the mint was under way.
        Purged = "purged",
        /// The token did not say what the route expects.
        Stale = "session-stale",
    }
);

labels!(
    /// How a JWKS fetch ended.
    Fetch {
        /// A key set with at least one usable key.
        Ok = "ok",
        /// No answer, or one that is not a key set.
        Failed = "failed",
    }
);

labels!(
    /// The two maps.
    CacheName {
        /// Minted tokens.
        Tokens = "tokens",
        /// Verified sessions.
        Sessions = "sessions",
    }
);

labels!(
    /// What a webhook tells.
    WebhookType {
        /// A session is over, as the user wanted.
        SessionEnded = "session.ended",
        /// A session was taken off its client.
        SessionRemoved = "session.removed",
        /// A session was revoked.
        SessionRevoked = "session.revoked",
        /// A session has open tasks.
        SessionPending = "session.pending",
        /// A user has changed.
        UserUpdated = "user.updated",
        /// A user is gone.
        UserDeleted = "user.deleted",
        /// A user has come into an organization.
        MembershipCreated = "organizationMembership.created",
        /// A user's part in an organization has changed.
        MembershipUpdated = "organizationMembership.updated",
        /// A user has left an organization.
        MembershipDeleted = "organizationMembership.deleted",
        /// Any other, and whatever cannot be believed.
        Other = "other",
    }
);

labels!(
    /// What became of a webhook.
    WebhookResult {
        /// A session or a user is refused from now on.
        Revoked = "revoked",
        /// Tokens were forgotten.
        Purged = "purged",
        /// It is nothing to us.
        Ignored = "ignored",
        /// It has come before.
        Repeated = "repeated",
        /// Nobody who holds a signing secret has sent it, or not just now.
        Refused = "refused",
        /// It is signed, and not what such an event is.
        Malformed = "malformed",
    }
);

labels!(
    /// What became of spans that were sent.
    Exported {
        /// The collector has taken them.
        Ok = "ok",
        /// It has taken the others of its batch.
        Rejected = "rejected",
        /// It was not there, or refused the batch.
        Failed = "failed",
    }
);

labels!(
    /// What the shared cache was asked.
    SharedOperation {
        /// Whether it has a token.
        Look = "look",
        /// Whether another replica's mint has left its token there.
        Wait = "wait",
        /// For the right to mint it.
        Lease = "lease",
        /// To keep it.
        Put = "put",
        /// To take the right back.
        Release = "release",
        /// To forget the tokens of somebody.
        Renew = "renew",
        /// To tell the other replicas whom this one has purged or refused.
        Publish = "publish",
        /// What they have told.
        Follow = "follow",
        /// For a unit of the budget of all.
        Budget = "budget",
        /// To have nothing sent for a while, because the issuer said so.
        Pause = "pause",
    }
);

labels!(
    /// What came of it.
    SharedResult {
        /// A token that serves.
        Hit = "hit",
        /// No token, or none that serves.
        Miss = "miss",
        /// Something that no replica has sealed for this place.
        Unreadable = "unreadable",
        /// It was done.
        Ok = "ok",
        /// Another replica has it.
        Held = "held",
        /// No answer in time.
        Timeout = "timeout",
        /// No connection.
        Lost = "lost",
        /// It answers, and is of no use: the password is wrong, or it loads its data.
        Unusable = "unusable",
        /// It takes no writes, has no room, or forbids the command.
        Refused = "refused",
        /// Not asked: it is down, or there was no time left.
        Skipped = "skipped",
    }
);
