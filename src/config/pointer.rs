//! JSON pointers (RFC 6901), read once.

/// Names that a pointer may have at most: whoever follows it goes no deeper.
const MAX_STEPS: usize = 64;

/// A JSON pointer (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Box<[Step]>);

/// One step of a pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The name of a member, `~0` and `~1` read.
    pub name: Box<str>,
    /// Its place, where what it leads into is a list; `None`: a list has no such place.
    pub index: Option<usize>,
}

/// Why a text is no pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPointer {
    /// It does not begin with a slash.
    #[error("not a JSON pointer: it begins with `/`")]
    Relative,
    /// A `~` that stands before neither 0 nor 1.
    #[error("not a JSON pointer: `~` stands for itself only as `~0`")]
    Tilde,
    /// It has too many names.
    #[error("the JSON pointer goes too deep")]
    Deep,
}

// === impl BadPointer ===

impl BadPointer {
    /// What to write instead.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Relative => "write the names from the outermost on: \"/errors/0/extensions/code\"",
            Self::Tilde => "write `~` as `~0` and a `/` inside a name as `~1`",
            Self::Deep => "at most 64 names",
        }
    }
}

// === impl Pointer ===

impl Pointer {
    /// Reads one; the empty text points to the whole.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, BadPointer> {
        if !text.is_empty() && !text.starts_with('/') {
            return Err(BadPointer::Relative);
        }
        // RFC 6901 section 3: `~` stands only before 0 or 1.
        if !text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1'])) {
            return Err(BadPointer::Tilde);
        }
        let steps: Box<[Step]> = text.split('/').skip(1).map(Step::read).collect();
        if steps.len() > MAX_STEPS { Err(BadPointer::Deep) } else { Ok(Self(steps)) }
    }

    /// Its steps, from the outermost value on.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}

// === impl Step ===

impl Step {
    /// Reads what stands between two slashes of a pointer.
    pub fn read(text: &str) -> Self {
        // In this order: `~01` is `~1`, and no slash.
        let name = text.replace("~1", "/").replace("~0", "~").into_boxed_str();
        // RFC 6901 section 4: no leading zeros, no sign, and `-` is the place behind the last.
        let place = name.bytes().all(|byte| byte.is_ascii_digit()) && (&*name == "0" || !name.starts_with('0'));
        let index = name.parse().ok().filter(|_| place);
        Self { name, index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails where `~0` is read before `~1`, and where a place may have leading zeros or a sign.
    #[test]
    fn a_pointer_is_read_as_its_specification_says() {
        for (text, steps) in [
            ("", &[][..]),
            ("/", &[("", None)]),
            ("/errors/0/extensions/code", &[("errors", None), ("0", Some(0)), ("extensions", None), ("code", None)]),
            ("/a~1b/c~0d/~01/~10", &[("a/b", None), ("c~d", None), ("~1", None), ("/0", None)]),
            (
                "/10/01/00/-/+1/-1/1e1/ 1",
                &[
                    ("10", Some(10)),
                    ("01", None),
                    ("00", None),
                    ("-", None),
                    ("+1", None),
                    ("-1", None),
                    ("1e1", None),
                    (" 1", None),
                ],
            ),
            ("/99999999999999999999999", &[("99999999999999999999999", None)]),
        ] {
            let read = Pointer::parse(text).unwrap();
            let read: Vec<_> = read.steps().iter().map(|step| (&*step.name, step.index)).collect();
            assert_eq!(read, steps, "{text}");
        }
        for (text, error) in [
            ("errors", BadPointer::Relative),
            ("#/errors", BadPointer::Relative),
            ("/a~", BadPointer::Tilde),
            ("/a~2", BadPointer::Tilde),
            ("/~~0", BadPointer::Tilde),
        ] {
            assert_eq!(Pointer::parse(text), Err(error), "{text}");
        }
        assert!(Pointer::parse(&"/a".repeat(64)).is_ok());
        assert_eq!(Pointer::parse(&"/a".repeat(65)), Err(BadPointer::Deep));
    }
}
