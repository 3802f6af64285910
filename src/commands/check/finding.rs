//! What was found, and how bad it is.

use crate::token::capacity::Capacity;

/// Something that the issuer or Redis says, or that it could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) text: String,
    pub(super) advice: Option<&'static str>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// It is as it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Probably not meant.
    Warning,
    /// It will not work.
    Error,
    /// Nobody knows: it was not reached.
    Unknown,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) list: Vec<Finding>,
    /// What the tokens cost, where all their lifetimes are known.
    pub(super) capacity: Option<Capacity>,
}

// === impl Level ===

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Unknown => "unknown",
        }
    }
}

// === impl Findings ===

impl Findings {
    pub(super) fn any(&self, level: Level) -> bool {
        self.list.iter().any(|finding| finding.level == level)
    }

    pub(super) fn add(&mut self, level: Level, text: String) {
        self.list.push(Finding { level, text, advice: None });
    }

    pub(super) fn advise(&mut self, level: Level, text: String, advice: &'static str) {
        self.list.push(Finding { level, text, advice: Some(advice) });
    }
}
