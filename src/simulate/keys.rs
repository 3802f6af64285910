//! The keys of simulated sessions, made when they are needed.

use crate::config::{MintKind, MintSpec, TemplateName};
use crate::metrics::TemplateId;
use crate::session::{SessionId, UserId};
use crate::token::{Issuer, Scope, TokenKey};

/// Makes them.
#[derive(Debug)]
pub(super) struct Keys {
    issuer: Issuer,
    specs: Vec<MintSpec>,
}

// === impl Keys ===

impl Keys {
    #[expect(clippy::expect_used, reason = "the names are made of letters and digits")]
    pub(super) fn new(templates: u32) -> Self {
        let spec = |number: u32| {
            let name = TemplateName::new(&template(number)).expect("a name");
            let id = TemplateId::new(usize::try_from(number).unwrap_or(0));
            MintSpec { id, kind: MintKind::Template(name), expires_in: None, expect: Vec::new(), vary: Vec::new() }
        };
        Self { issuer: Issuer::new("https://simulated", "i"), specs: (0..templates).map(spec).collect() }
    }

    /// As long as one of Clerk's, so that it weighs the same.
    #[expect(clippy::expect_used, reason = "the ids are made of letters and digits")]
    pub(super) fn of(&self, session: u64, template: u32) -> TokenKey {
        let sid = SessionId::new(&format!("sess_{session:027}")).expect("an id");
        let sub = UserId::new(&format!("user_{session:027}")).expect("an id");
        let spec = &self.specs[usize::try_from(template).unwrap_or(0)];
        let hash = mixed(session.wrapping_mul(self.specs.len() as u64).wrapping_add(u64::from(template)));
        TokenKey::new(self.issuer, sid, Some(sub), spec, Scope::Neutral, Vec::new()).placed(hash)
    }

    pub(super) fn template(&self, template: u32) -> TemplateId {
        self.specs[usize::try_from(template).unwrap_or(0)].id
    }
}

/// The name of a simulated template.
pub(super) fn template(number: u32) -> String {
    format!("template{number}")
}

/// Spreads a number over all bits (splitmix64).
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
