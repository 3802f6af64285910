//! The permissions that a session has in its organization, in their long form: `org:billing:manage`.

use smallvec::SmallVec;

/// A set of permissions.
#[derive(Default)]
pub(super) struct Permissions {
    /// All of them, in one piece of memory.
    text: String,
    /// Where each begins and ends.
    bounds: Vec<(usize, usize)>,
}

// === impl Permissions ===

impl Permissions {
    /// The long form of version 2's permissions. What does not unpack still tells sessions apart: it stands for itself.
    pub(super) fn unpacked(features: &str, names: &str, maps: &str) -> Self {
        // Room for a few, so that it seldom grows.
        let mut permissions = Self { text: String::with_capacity(256), bounds: Vec::with_capacity(16) };
        if permissions.unpack(features, names, maps).is_none() {
            permissions = Self::default();
            for packed in [features, names, maps] {
                permissions.add(&[packed]);
            }
        }
        permissions
    }

    /// Adds one that consists of these pieces.
    pub(super) fn add(&mut self, pieces: &[&str]) {
        let begin = self.text.len();
        for piece in pieces {
            self.text.push_str(piece);
        }
        self.bounds.push((begin, self.text.len()));
    }

    /// Each once, in order.
    pub(super) fn each_once(&mut self) -> impl Iterator<Item = &str> {
        let Self { text, bounds } = self;
        let text = &**text;
        let one = move |&(begin, end): &(usize, usize)| &text[begin..end];
        bounds.sort_unstable_by(|a, b| one(a).cmp(one(b)));
        bounds.dedup_by(|a, b| one(a) == one(b));
        bounds.iter().map(one)
    }

    /// As Clerk's SDK unpacks it: the features of `fea` that an organization has (`o:billing`), and for each a number in
    /// `fpm` whose bits name permissions of `per`. `None` when they do not fit together.
    fn unpack(&mut self, features: &str, names: &str, maps: &str) -> Option<()> {
        let names: SmallVec<[&str; 16]> = names.split(',').map(str::trim).collect();
        let features = features.split(',').filter_map(|feature| feature.trim().split_once(':'));
        let features = features.filter(|(scope, _)| scope.contains('o')).map(|(_, feature)| feature);
        for (feature, map) in features.zip(maps.split(',')) {
            let map: u64 = map.trim().parse().ok()?;
            if names.len() < 64 && map >> names.len() != 0 {
                return None;
            }
            for (_, name) in names.iter().take(64).enumerate().filter(|(bit, _)| map >> bit & 1 == 1) {
                self.add(&["org:", feature, ":", name]);
            }
        }
        Some(())
    }
}
