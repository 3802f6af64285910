//! A publishable key for a configuration that takes it from a variable which is not set.

use std::io;
use std::path::Path;

use crate::config::validate::Environment;

/// A publishable key that is good and nobody's.
const PLACE_OF_KEY: &str = "pk_test_Y2xlcmsuZXhhbXBsZS5jb20k";

/// The environment, with a publishable key where the configuration takes it from a variable that is not set: the
/// emulator's stands in its place.
pub(super) struct WithKey<'a> {
    environment: &'a dyn Environment,
    variable: Option<String>,
}

// === impl WithKey ===

impl<'a> WithKey<'a> {
    pub(super) fn new(text: &str, environment: &'a dyn Environment) -> Self {
        let file: Option<toml::Table> = text.parse().ok();
        let key = file.as_ref().and_then(|file| file.get("clerk")?.get("publishable_key")?.as_str());
        let name = key.and_then(|key| key.strip_prefix("${")?.strip_suffix('}'));
        let variable = name.filter(|name| environment.var(name).is_none()).map(str::to_owned);
        Self { environment, variable }
    }
}

impl Environment for WithKey<'_> {
    fn var(&self, name: &str) -> Option<String> {
        let absent = self.variable.as_deref() == Some(name);
        if absent { Some(PLACE_OF_KEY.to_owned()) } else { self.environment.var(name) }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.environment.read(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.environment.exists(path)
    }
}
