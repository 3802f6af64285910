//! Parameters of a call: the JSON body, and the query of a list.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde_json::{Map, Value, json};

use crate::emulator::error::ApiError;
use crate::emulator::model::Change;

/// The members of a JSON body. Every SDK writes 'no parameters' in its own way: nothing at all, `{}` or `null`
/// (contract section 6.2).
#[derive(Debug)]
pub(crate) struct Params(Map<String, Value>);

/// The query, each name once.
#[derive(Debug)]
pub(crate) struct QueryParams(HashMap<String, String>);

// === impl Params ===

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind =
            request.headers().get(CONTENT_TYPE).map(|kind| String::from_utf8_lossy(kind.as_bytes()).into_owned());
        let body = Bytes::from_request(request, state).await.map_err(|refused| match refused.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::BodyTooLarge,
            _ => ApiError::Body,
        })?;
        if body.is_empty() {
            return Ok(Self(Map::new()));
        }
        if let Some(kind) = kind.filter(|kind| !is_json(kind)) {
            return Err(ApiError::ContentType(kind));
        }
        Self::parse(&body)
    }
}

fn is_json(kind: &str) -> bool {
    kind.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

impl Params {
    /// Out of the bytes of a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => Ok(Self(members)),
            Ok(Value::Null) => Ok(Self(Map::new())),
            Ok(_) | Err(_) => Err(ApiError::Body),
        }
    }

    /// Takes a member out; null is as good as none.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// Whether the body names it, and not as null.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_null())
    }

    /// Takes a member that null empties, and that stays when it is not named.
    pub(crate) fn nullable<T>(
        &mut self,
        param: &'static str,
        read: impl FnOnce(&mut Self, &'static str) -> Result<Option<T>, ApiError>,
    ) -> Result<Change<T>, ApiError> {
        if self.0.contains_key(param) { read(self, param).map(Change::To) } else { Ok(Change::Keep) }
    }

    /// A list of texts that are not empty.
    pub(crate) fn texts(&mut self, param: &'static str) -> Result<Option<Vec<String>>, ApiError> {
        let wrong = || ApiError::ParamType { param, expected: "array of strings" };
        let Some(value) = self.take(param) else { return Ok(None) };
        let Value::Array(items) = value else { return Err(wrong()) };
        let texts = items.into_iter().map(|item| match item {
            Value::String(text) if !text.is_empty() => Ok(text),
            _ => Err(wrong()),
        });
        texts.collect::<Result<_, _>>().map(Some)
    }

    /// An integer in this range.
    pub(crate) fn integer(&mut self, param: &'static str, range: RangeInclusive<u32>) -> Result<Option<u32>, ApiError> {
        let Some(value) = self.take(param) else { return Ok(None) };
        if !value.is_i64() && !value.is_u64() {
            return Err(ApiError::ParamType { param, expected: "integer" });
        }
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.filter(|number| range.contains(number)).map(Some).ok_or(ApiError::ParamInvalid(param))
    }

    /// A text that is not empty.
    pub(crate) fn text(&mut self, param: &'static str) -> Result<Option<String>, ApiError> {
        match self.take(param) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Err(ApiError::ParamInvalid(param)),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ApiError::ParamType { param, expected: "string" }),
        }
    }

    /// True or false.
    pub(crate) fn flag(&mut self, param: &'static str) -> Result<Option<bool>, ApiError> {
        let Some(value) = self.take(param) else { return Ok(None) };
        value.as_bool().map(Some).ok_or(ApiError::ParamType { param, expected: "boolean" })
    }

    /// A JSON object.
    pub(crate) fn object(&mut self, param: &'static str) -> Result<Option<Map<String, Value>>, ApiError> {
        match self.take(param) {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(members)),
            Some(_) => Err(ApiError::ParamType { param, expected: "object" }),
        }
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), ApiError> {
        self.0.into_iter().next().map_or(Ok(()), |(name, _)| Err(ApiError::ParamUnknown(name)))
    }
}

// === impl QueryParams ===

impl<S: Send + Sync> FromRequestParts<S> for QueryParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::from_request_parts(parts, state).await.map_err(|_| ApiError::Query)?;
        Ok(Self(pairs))
    }
}

impl QueryParams {
    /// The value of a name; an empty one is as good as none.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A whole number in this range.
    pub(crate) fn number(&self, param: &'static str, range: RangeInclusive<u32>) -> Result<Option<u32>, ApiError> {
        let Some(text) = self.text(param) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.map(Some).ok_or(ApiError::ParamInvalid(param))
    }

    /// One page of a list: an array, or `{data, total_count}` with `paginated=true`.
    pub(crate) fn page(&self, items: Vec<Value>) -> Result<Value, ApiError> {
        let limit = self.number("limit", 1..=500)?.unwrap_or(10);
        let offset = self.number("offset", 0..=u32::MAX)?.unwrap_or(0);
        let total = items.len();
        let index = |number| usize::try_from(number).unwrap_or(usize::MAX);
        let page: Vec<Value> = items.into_iter().skip(index(offset)).take(index(limit)).collect();
        match self.text("paginated") {
            Some("true") => Ok(json!({ "data": page, "total_count": total })),
            None | Some("false") => Ok(page.into()),
            Some(_) => Err(ApiError::ParamInvalid("paginated")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RANGE: RangeInclusive<u32> = 30..=315_360_000;

    fn expires_in(body: &str) -> Result<Option<u32>, ApiError> {
        let mut params = Params::parse(body.as_bytes())?;
        let expires_in = params.integer("expires_in_seconds", RANGE)?;
        params.end().map(|()| expires_in)
    }

    #[test]
    fn every_way_to_say_nothing_is_nothing() {
        for body in ["{}", "null", r#"{"expires_in_seconds":null}"#] {
            assert_eq!(expires_in(body).unwrap(), None, "{body}");
        }
    }

    #[test]
    fn life_times_outside_of_the_range_are_refused() {
        assert_eq!(expires_in(r#"{"expires_in_seconds":30}"#).unwrap(), Some(30));
        assert_eq!(expires_in(r#"{"expires_in_seconds":315360000}"#).unwrap(), Some(315_360_000));
        for bad in ["29", "0", "-1", "315360001", "99999999999999999999"] {
            assert!(expires_in(&format!(r#"{{"expires_in_seconds":{bad}}}"#)).is_err(), "{bad}");
        }
        for bad in ["\"60\"", "60.5", "true", "[]"] {
            let refused = expires_in(&format!(r#"{{"expires_in_seconds":{bad}}}"#)).unwrap_err();
            assert!(matches!(refused, ApiError::ParamType { .. }), "{bad}");
        }
    }

    #[test]
    fn what_is_not_an_object_is_no_body() {
        for body in ["[]", "1", "\"\"", "{", "{}{}", "\u{feff}{}"] {
            assert!(matches!(Params::parse(body.as_bytes()), Err(ApiError::Body)), "{body}");
        }
        assert!(matches!(expires_in(r#"{"x":1}"#), Err(ApiError::ParamUnknown(name)) if name == "x"));
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            drop(Params::parse(&body));
        }
    }
}
