//! Shapes of values that are more than a scalar, a list or a table: secrets, one or many, tables of names.

use toml::Spanned;
use toml::de::DeValue;

use super::describe::{Describe, Shape};
use super::expand;
use super::reader::{At, Field, Read, Reader};

/// Where a secret is kept: never in the file itself.
pub(crate) enum SecretRef {
    /// The name of an environment variable.
    Env(At<String>),
    /// The path of a file.
    File(At<String>),
}

/// One, or a list.
pub(crate) struct OneOrMany<T>(pub(crate) Vec<At<T>>);

/// A table whose keys are names, in the order of the file.
pub(crate) struct Named<T>(pub(crate) Vec<(At<String>, At<T>)>);

/// A number, or a word in its place.
pub(crate) enum NumberOrWord {
    Number(f64),
    Word(String),
}

/// A text, a whole number, `true` or `false`.
pub(crate) enum Scalar {
    Text(String),
    Integer(i64),
    Flag(bool),
}

/// `true` or `false`, or a table that says more than `true`.
pub(crate) enum Toggle<T> {
    Flag(bool),
    Table(T),
}

// === impl Read ===

impl<T: Read> Read for Toggle<T> {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(Self::Flag(*flag)),
            DeValue::Table(_) => T::read(value, reader).map(Self::Table),
            _ => {
                reader.wrong_type(value, "a table, true or false");
                None
            }
        }
    }
}

impl Read for NumberOrWord {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) => reader.text(text, &value.span()).map(Self::Word),
            _ => f64::read(value, reader).map(Self::Number),
        }
    }
}

impl Read for Scalar {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) => reader.text(text, &value.span()).map(Self::Text),
            DeValue::Boolean(flag) => Some(Self::Flag(*flag)),
            DeValue::Integer(_) => i64::read(value, reader).map(Self::Integer),
            _ => {
                reader.wrong_type(value, "a text, a whole number, true or false");
                None
            }
        }
    }
}

impl<T: Read> Read for OneOrMany<T> {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Array(_) => Vec::read(value, reader).map(Self),
            _ => T::read(value, reader).map(|one| Self(vec![At { value: one, span: value.span() }])),
        }
    }
}

impl<T: Read> Read for Named<T> {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            reader.wrong_type(value, "a table");
            return None;
        };
        let mut named = Vec::new();
        for (key, value) in table {
            if let Some(read) = T::read(value, reader) {
                let name = At { value: key.get_ref().to_string(), span: key.span() };
                named.push((name, At { value: read, span: value.span() }));
            }
        }
        named.sort_by_key(|(name, _)| name.span.start);
        Some(Self(named))
    }
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl Read for SecretRef {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        let advice = "write { env = \"NAME\" } or { file = \"path\" }";
        let DeValue::Table(_) = value.get_ref() else {
            reader.hide(value);
            reader
                .problems
                .error(&value.span(), "a secret is never written in the configuration")
                .label("not shown")
                .advice(advice);
            return None;
        };
        let (table, reported) = reader.table(value, &["env", "file"])?;
        match (reader.field::<String>(table, "env"), reader.field::<String>(table, "file")) {
            (Field::Good(name), Field::Absent) => {
                if expand::is_name(&name) {
                    return Some(Self::Env(name));
                }
                reader.problems.hide(&name.span);
                reader.problems.error(&name.span, "not the name of an environment variable").advice(advice);
                None
            }
            (Field::Absent, Field::Good(path)) => Some(Self::File(path)),
            (Field::Bad, _) | (_, Field::Bad) => None,
            (Field::Absent, Field::Absent) if reported => None,
            _ => {
                reader.problems.error(&value.span(), "a secret has one source").advice(advice);
                None
            }
        }
    }
}

// === impl Describe ===

impl<T: Describe> Describe for Toggle<T> {
    fn shape() -> Shape {
        Shape::Either(Box::new(Shape::Flag), Box::new(T::shape()))
    }
}

impl Describe for NumberOrWord {
    fn shape() -> Shape {
        Shape::Either(Box::new(Shape::Part), Box::new(Shape::Text))
    }
}

impl Describe for Scalar {
    fn shape() -> Shape {
        let unquoted = Shape::Either(Box::new(Shape::Integer), Box::new(Shape::Flag));
        Shape::Either(Box::new(Shape::Text), Box::new(unquoted))
    }
}

impl<T: Describe> Describe for OneOrMany<T> {
    fn shape() -> Shape {
        Shape::OneOrMany(Box::new(T::shape()))
    }
}

impl<T: Describe> Describe for Named<T> {
    fn shape() -> Shape {
        Shape::Named(Box::new(T::shape()))
    }
}

impl Describe for SecretRef {
    fn shape() -> Shape {
        Shape::Secret
    }
}
