//! A map from texts that never changes once it is built.

/// Values by text, sorted by length and then by bytes: a look-up compares numbers, and bytes only with texts of the same
/// length. Most configurations have a few routes, where hashing a text costs more than that; with a thousand it is ten
/// steps, whatever the callers send.
#[derive(Debug)]
pub(super) struct ByText<V>(Vec<(Box<str>, V)>);

// === impl ByText ===

impl<V> Default for ByText<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> ByText<V> {
    /// Whether it holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a text.
    pub(super) fn get(&self, text: &str) -> Option<&V> {
        self.search(text).ok().map(|at| &self.0[at].1)
    }

    fn search(&self, text: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(own, _)| own.len().cmp(&text.len()).then_with(|| (**own).cmp(text)))
    }
}

impl<V: Default> ByText<V> {
    /// The value of a text, the default one if there was none.
    pub(super) fn entry(&mut self, text: &str) -> &mut V {
        let at = match self.search(text) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (text.into(), V::default()));
                at
            }
        };
        &mut self.0[at].1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_finds_what_a_hash_map_finds(
            put in proptest::collection::vec(("[a-c/]{0,4}", any::<u8>()), 0..40),
            asked in proptest::collection::vec("[a-c/]{0,4}", 0..20),
        ) {
            let (mut own, mut other) = (ByText::<u8>::default(), HashMap::new());
            for (text, value) in &put {
                *own.entry(text) = *value;
                other.insert(text.clone(), *value);
            }
            prop_assert_eq!(own.is_empty(), other.is_empty());
            for text in asked.iter().chain(other.keys()) {
                prop_assert_eq!(own.get(text), other.get(text));
            }
        }
    }
}
