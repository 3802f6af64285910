//! A slow reader of JSON (RFC 8259): no number beyond a double, and where it is strict no name twice in an object.

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Null,
    Bool,
    /// As it is written.
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Values within values that are read.
const DEEPEST: usize = 127;

struct Reader<'a> {
    rest: &'a str,
    strict: bool,
}

/// The text's one value, if it has no name twice in an object.
pub fn read(text: &str) -> Option<Json> {
    whole(text, true)
}

/// The text's one value. Of two members with one name the later one counts.
pub fn read_lax(text: &str) -> Option<Json> {
    whole(text, false)
}

fn whole(text: &str, strict: bool) -> Option<Json> {
    let mut reader = Reader { rest: text, strict };
    let value = reader.value(0)?;
    reader.space();
    reader.rest.is_empty().then_some(value)
}

// === impl Json ===

impl Json {
    /// A member of an object.
    pub fn get(&self, name: &str) -> Option<&Json> {
        let Json::Object(members) = self else { return None };
        members.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }

    pub fn text(&self) -> Option<&str> {
        if let Json::Text(text) = self { Some(text) } else { None }
    }

    /// A whole number of 64 bits that is written as one.
    pub fn integer(&self) -> Option<i64> {
        let Json::Number(digits) = self else { return None };
        if digits == "-0" { None } else { digits.parse().ok() }
    }
}

// === impl Reader ===

impl Reader<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, word: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        self.space();
        match self.rest.chars().next()? {
            'n' => self.take("null").map(|()| Json::Null),
            't' => self.take("true").map(|()| Json::Bool),
            'f' => self.take("false").map(|()| Json::Bool),
            '"' => self.text().map(Json::Text),
            '[' | '{' if depth >= DEEPEST => None,
            '[' => self.list(depth),
            '{' => self.object(depth),
            _ => self.number(),
        }
    }

    fn list(&mut self, depth: usize) -> Option<Json> {
        self.take("[")?;
        let mut values = Vec::new();
        self.space();
        if self.take("]").is_some() {
            return Some(Json::List(values));
        }
        loop {
            values.push(self.value(depth + 1)?);
            self.space();
            if self.take("]").is_some() {
                return Some(Json::List(values));
            }
            self.take(",")?;
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        self.take("{")?;
        let mut members: Vec<(String, Json)> = Vec::new();
        self.space();
        if self.take("}").is_some() {
            return Some(Json::Object(members));
        }
        loop {
            self.space();
            let name = self.text()?;
            self.space();
            self.take(":")?;
            let value = self.value(depth + 1)?;
            if let Some(twin) = members.iter().position(|(own, _)| *own == name) {
                if self.strict {
                    return None;
                }
                members.remove(twin);
            }
            members.push((name, value));
            self.space();
            if self.take("}").is_some() {
                return Some(Json::Object(members));
            }
            self.take(",")?;
        }
    }

    fn number(&mut self) -> Option<Json> {
        let end =
            self.rest.find(|one: char| !one.is_ascii_digit() && !"+-.eE".contains(one)).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(a, b)| (a, Some(b)));
        let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(a, b)| (a, Some(b)));
        let whole = whole.strip_prefix('-').unwrap_or(whole);
        let fits = digits(whole)
            && (whole == "0" || !whole.starts_with('0'))
            && fraction.is_none_or(digits)
            && exponent.is_none_or(|text| digits(text.strip_prefix(['+', '-']).unwrap_or(text)));
        (fits && text.parse::<f64>().ok()?.is_finite()).then(|| Json::Number(text.to_owned()))
    }

    fn text(&mut self) -> Option<String> {
        self.take("\"")?;
        let mut out = String::new();
        loop {
            let one = self.rest.chars().next()?;
            self.rest = &self.rest[one.len_utf8()..];
            match one {
                '"' => return Some(out),
                '\\' => out.push(self.escape()?),
                '\0'..='\x1f' => return None,
                other => out.push(other),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let one = self.rest.chars().next()?;
        self.rest = &self.rest[one.len_utf8()..];
        Some(match one {
            '"' | '\\' | '/' => one,
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let high = self.unit()?;
                if !(0xd800..0xdc00).contains(&high) {
                    return char::from_u32(high);
                }
                self.take("\\u")?;
                let low = self.unit().filter(|low| (0xdc00..0xe000).contains(low))?;
                char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))?
            }
            _ => return None,
        })
    }

    fn unit(&mut self) -> Option<u32> {
        let digits = self.rest.get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        self.rest = &self.rest[4..];
        u32::from_str_radix(digits, 16).ok()
    }
}
