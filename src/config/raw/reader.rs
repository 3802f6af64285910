//! Walks a parsed TOML document into typed fields with positions, and reports everything that has the wrong shape
//! instead of stopping at the first.

use std::ops::Deref;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::describe::{Describe, Shape};
use super::expand::{self, ExpandError};
use super::problem::{Problem, Problems, Span, looks_secret, nearest};

/// A value and where it stands.
#[derive(Clone)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

/// A key of a table.
#[derive(Default)]
pub(crate) enum Field<T> {
    /// Not written.
    #[default]
    Absent,
    /// Written, and already reported.
    Bad,
    /// Written and well shaped.
    Good(At<T>),
}

/// What a walk needs and collects.
pub(crate) struct Reader<'a> {
    pub(crate) problems: Problems,
    /// Looks an environment variable up.
    pub(crate) var: &'a dyn Fn(&str) -> Option<String>,
}

/// A shape that a TOML value may have.
pub(crate) trait Read: Sized {
    /// Reads the value; `None` when it was reported instead.
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self>;
}

/// A table that was read.
pub(crate) trait Table {
    /// Whether a key of it was reported: then what is missing may be meant by that one.
    fn reported(&self) -> bool;
}

// === impl At ===

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

// === impl Field ===

impl<T> Field<T> {
    pub(crate) fn get(&self) -> Option<&At<T>> {
        match self {
            Self::Good(at) => Some(at),
            Self::Absent | Self::Bad => None,
        }
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// The value, or the given one when it is absent or bad.
    pub(crate) fn or(&self, default: T) -> T
    where
        T: Clone,
    {
        self.get().map_or(default, |at| at.value.clone())
    }

    /// The value, or an empty one.
    pub(crate) fn or_default(self) -> T
    where
        T: Default,
    {
        match self {
            Self::Good(at) => at.value,
            Self::Absent | Self::Bad => T::default(),
        }
    }
}

// === impl Reader ===

impl Reader<'_> {
    /// The table behind a value, once its keys are known to be good or reported, and whether one had to be.
    pub(crate) fn table<'v, 'i>(
        &mut self,
        value: &'v Spanned<DeValue<'i>>,
        known: &[&str],
    ) -> Option<(&'v DeTable<'i>, bool)> {
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(value, "a table");
            return None;
        };
        Some((table, self.check_keys(table, known)))
    }

    /// Reports every key that is unknown, and says whether there was one.
    pub(crate) fn check_keys(&mut self, table: &DeTable<'_>, known: &[&str]) -> bool {
        let mut reported = false;
        for (key, value) in table {
            let text: &str = key.get_ref();
            if known.contains(&text) {
                continue;
            }
            reported = true;
            self.hide(value);
            let shown: String = text.chars().take(64).flat_map(char::escape_debug).collect();
            let problem = self.problems.error(&key.span(), format!("unknown key `{shown}`"));
            match nearest(text, known.iter().copied()) {
                Some(near) => problem.label(format!("did you mean `{near}`?")),
                None => problem.label("unknown key").advice(format!(
                    "the keys here are {}",
                    known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
                )),
            };
        }
        reported
    }

    /// One key of a table.
    pub(crate) fn field<T: Read>(&mut self, table: &DeTable<'_>, key: &str) -> Field<T> {
        match table.get(key) {
            None => Field::Absent,
            Some(value) => match T::read(value, self) {
                Some(read) => Field::Good(At { value: read, span: value.span() }),
                None => Field::Bad,
            },
        }
    }

    /// A string, expanded.
    pub(crate) fn text(&mut self, text: &str, span: &Span) -> Option<String> {
        match expand::expand(text, self.var) {
            Ok(expanded) => {
                if looks_secret(text) {
                    self.problems.hide(span);
                }
                Some(expanded.into_owned())
            }
            Err(error) => {
                let advice = match error {
                    ExpandError::Lone => "write `$$` for a dollar, `${NAME}` for an environment variable",
                    ExpandError::Open | ExpandError::Name => "write `${NAME}` or `${NAME:-default}`",
                    ExpandError::Unset => {
                        "set it, name a file that has it (--env-file), or give a default: `${NAME:-default}`"
                    }
                };
                self.problems.error(span, error.to_string()).advice(advice);
                None
            }
        }
    }

    /// Reports a value of another type than the key takes.
    pub(crate) fn wrong_type(&mut self, value: &Spanned<DeValue<'_>>, expected: &str) -> &mut Problem {
        let found = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.problems
            .error(&value.span(), format!("expected {expected}, found {found}"))
            .label(format!("not {expected}"))
    }

    /// Blots out every scalar of a value of which nothing is known.
    pub(crate) fn hide(&mut self, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Array(_) | DeValue::Table(_) => self.hide_nested(value),
            _ => self.problems.hide(&value.span()),
        }
    }

    fn hide_nested(&mut self, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Array(items) => items.iter().for_each(|item| self.hide(item)),
            DeValue::Table(table) => table.values().for_each(|item| self.hide(item)),
            _ => {}
        }
    }
}

// === impl Read ===

impl Read for String {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::String(text) = value.get_ref() else {
            let problem = reader.wrong_type(value, "a string");
            if matches!(value.get_ref(), DeValue::Integer(_) | DeValue::Float(_)) {
                problem.advice("write it in quotes; durations and sizes have a unit: \"30s\", \"64KiB\"");
            }
            return None;
        };
        reader.text(text, &value.span())
    }
}

impl Read for bool {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        let found = value.get_ref().as_bool();
        if found.is_none() {
            reader.wrong_type(value, "true or false");
        }
        found
    }
}

impl Read for i64 {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::Integer(integer) = value.get_ref() else {
            reader.wrong_type(value, "an integer");
            return None;
        };
        let parsed = Self::from_str_radix(integer.as_str(), integer.radix()).ok();
        if parsed.is_none() {
            reader.problems.error(&value.span(), "the number is too large");
        }
        parsed
    }
}

impl Read for f64 {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        let parsed = match value.get_ref() {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().parse().ok(),
            _ => None,
        };
        let finite = parsed.filter(|number: &Self| number.is_finite());
        if finite.is_none() {
            reader.wrong_type(value, "a number");
        }
        finite
    }
}

impl<T: Read> Read for Vec<At<T>> {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::Array(items) = value.get_ref() else {
            let problem = reader.wrong_type(value, "a list");
            match value.get_ref() {
                DeValue::Table(_) => problem.advice("a list of tables is written with two brackets: `[[...]]`"),
                _ => problem.advice("put it in brackets: [ ... ]"),
            };
            return None;
        };
        let read = |item: &Spanned<DeValue<'_>>| Some(At { value: T::read(item, reader)?, span: item.span() });
        let read: Vec<Option<At<T>>> = items.iter().map(read).collect();
        // Whole or not at all: what remains of a broken list would be judged as if it had been meant.
        read.into_iter().collect()
    }
}

// === impl Describe ===

impl Describe for String {
    fn shape() -> Shape {
        Shape::Text
    }
}

impl Describe for bool {
    fn shape() -> Shape {
        Shape::Flag
    }
}

impl Describe for i64 {
    fn shape() -> Shape {
        Shape::Integer
    }
}

impl Describe for f64 {
    fn shape() -> Shape {
        Shape::Part
    }
}

impl<T: Describe> Describe for Vec<At<T>> {
    fn shape() -> Shape {
        Shape::List(Box::new(T::shape()))
    }
}

/// Declares tables: their fields, their keys, how they are read, and what is said of them elsewhere. A field is
/// `name: Type = default as Form`, its comment says what it means; `= required` for one that cannot be left out.
macro_rules! tables {
    ($($(#[doc = $doc:literal])* $name:ident at $at:literal { $(
        $(#[doc = $about:literal])*
        $field:ident $(as $key:literal)? : $type:ty $(= $default:tt)? $(as $form:expr)?
    ),* $(,)? })*) => {$(
        $(#[doc = $doc])*
        #[derive(Default)]
        pub(crate) struct $name {
            $($(#[doc = $about])* pub(crate) $field: Field<$type>,)*
            reported: bool,
        }

        impl Table for $name {
            fn reported(&self) -> bool {
                self.reported
            }
        }

        impl $name {
            const KEYS: &'static [&'static str] = &[$(tables!(@key $field $($key)?)),*];

            fn from_table(table: &toml::de::DeTable<'_>, reported: bool, reader: &mut Reader<'_>) -> Self {
                Self { $($field: reader.field(table, tables!(@key $field $($key)?)),)* reported }
            }
        }

        impl Read for $name {
            fn read(value: &toml::Spanned<toml::de::DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
                let (table, reported) = reader.table(value, Self::KEYS)?;
                Some(Self::from_table(table, reported, reader))
            }
        }

        impl $crate::config::raw::describe::Describe for $name {
            fn shape() -> $crate::config::raw::describe::Shape {
                $crate::config::raw::describe::Shape::Table($crate::config::raw::describe::TableShape {
                    at: $at,
                    about: &[$($doc),*],
                    keys: vec![$($crate::config::raw::describe::Key {
                        name: tables!(@key $field $($key)?),
                        about: &[$($about),*],
                        default: tables!(@default $($default)?),
                        form: tables!(@form $($form)?),
                        shape: <$type as $crate::config::raw::describe::Describe>::shape(),
                    }),*],
                })
            }
        }
    )*
    };
    (@key $field:ident $key:literal) => { $key };
    (@key $field:ident) => { stringify!($field) };
    (@default) => { $crate::config::raw::describe::Preset::Absent };
    (@default required) => { $crate::config::raw::describe::Preset::Required };
    (@default $default:tt) => { $crate::config::raw::describe::Preset::Value(stringify!($default)) };
    (@form) => { $crate::config::raw::describe::Form::Free };
    (@form $form:expr) => { $form };
}
pub(crate) use tables;
