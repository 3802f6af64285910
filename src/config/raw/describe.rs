//! What the tables of the file take, as data: the JSON Schema and the reference are made of it, out of the very tables that
//! read the file.

/// What a value may be.
pub(crate) enum Shape {
    /// A string.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Integer,
    /// A part: a number from 0 to 1.
    Part,
    /// Where a secret is kept.
    Secret,
    /// A table of any content.
    Anything,
    /// A list of them.
    List(Box<Shape>),
    /// One, or a list.
    OneOrMany(Box<Shape>),
    /// A table whose keys are names.
    Named(Box<Shape>),
    /// A table of these keys.
    Table(TableShape),
    /// One of two.
    Either(Box<Shape>, Box<Shape>),
}

/// A table of known keys.
pub(crate) struct TableShape {
    /// As the reader calls it: `clerk.budget`, `upstreams.*`, `routes[]`.
    pub(crate) at: &'static str,
    /// What it is for; the lines of its comment.
    pub(crate) about: &'static [&'static str],
    /// In the order of the reader.
    pub(crate) keys: Vec<Key>,
}

/// A key of a table.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// What it means; the lines of its comment.
    pub(crate) about: &'static [&'static str],
    pub(crate) default: Preset,
    /// What a text or a number in it may be.
    pub(crate) form: Form,
    pub(crate) shape: Shape,
}

/// What holds when a key is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Preset {
    /// Nothing, or what its description says.
    Absent,
    /// It cannot be left out.
    Required,
    /// This, as it would be written. It is JSON too.
    Value(&'static str),
}

/// What a text or a number may be. A test holds each against the validation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Whatever the validation takes.
    Free,
    /// `"30s"`
    Duration,
    /// `"30s"`, or `"off"`.
    Limit,
    /// `"64KiB"`
    Size,
    /// `"64KiB"`, or `"off"`.
    SizeLimit,
    /// `"20/10s"`
    Rate,
    /// One of these words.
    Words(&'static [&'static str]),
    /// From the one to the other.
    Count(i64, i64),
}

/// A value of the file that says what it takes.
pub(crate) trait Describe {
    /// What it takes.
    fn shape() -> Shape;
}

// === impl Shape ===

impl Shape {
    /// The tables within, each before those of its keys.
    pub(crate) fn tables(&self) -> Vec<&TableShape> {
        match self {
            Self::Table(table) => {
                [table].into_iter().chain(table.keys.iter().flat_map(|key| key.shape.tables())).collect()
            }
            Self::List(inner) | Self::OneOrMany(inner) | Self::Named(inner) => inner.tables(),
            Self::Either(one, other) => one.tables().into_iter().chain(other.tables()).collect(),
            Self::Text | Self::Flag | Self::Integer | Self::Part | Self::Secret | Self::Anything => Vec::new(),
        }
    }
}

/// A comment's lines as one text.
pub(crate) fn text(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}
