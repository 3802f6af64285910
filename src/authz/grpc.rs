//! Envoy's gRPC service: a question out of a message, and a decision into one.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response};
use prost::Message as _;

use crate::authz::changes::Changes;
use crate::authz::dialect::{self, SchemeName};
use crate::authz::message::{
    Allowed, CheckRequest, CheckResponse, Denied, Field, Http, HttpRequest, HttpStatus, OVERWRITE, Status, Struct,
    Value,
};
use crate::authz::message::{HeaderValue as Header, HeaderValueOption};
use crate::grpc;
use crate::proxy::error::{Code, Error};
use crate::record::Caller;

/// A question that is none.
const NOT_ONE: Error = Error::Malformed("the body is not one CheckRequest");

/// The message in a body.
///
/// # Errors
/// When it is not one, whole and uncompressed: that was not agreed to.
pub fn decode(body: Bytes) -> Result<HttpRequest, Error> {
    let message = grpc::unframed(body).ok_or(NOT_ONE)?;
    let request = CheckRequest::decode(message).map_err(|_| NOT_ONE)?;
    Ok(request
        .attributes
        .and_then(|attributes| attributes.request)
        .and_then(|request| request.http)
        .unwrap_or_default())
}

/// The head of the request that is asked about.
///
/// # Errors
/// When method, host or path are missing, or not what they should be.
pub fn head(request: HttpRequest) -> Result<(Parts, SchemeName), Error> {
    let scheme = if request.scheme.is_empty() { "" } else { dialect::scheme(&request.scheme)? };
    // An empty one is none in each of the three.
    let method = Method::from_bytes(&request.method).map_err(|_| Error::Malformed("not a method"))?;
    let uri = dialect::uri(&request.host, &request.path)?;
    let (mut parts, ()) = Request::new(()).into_parts();
    (parts.method, parts.uri) = (method, uri);
    let raw = request.header_map.into_iter().flat_map(|map| map.headers).map(|line| {
        let value = if line.raw_value.is_empty() { line.value } else { line.raw_value };
        (line.key, value)
    });
    for (name, value) in request.headers.into_iter().map(|entry| (entry.key, entry.value)).chain(raw) {
        if name.starts_with(b":") {
            continue;
        }
        let bad = Error::Malformed("a header of the request is not one");
        match (HeaderName::from_bytes(&name), HeaderValue::from_maybe_shared(value)) {
            (Ok(name), Ok(value)) => parts.headers.append(name, value),
            _ => return Err(bad),
        };
    }
    dialect::no_other_protocol(&parts.headers)?;
    dialect::without_hop(&mut parts.headers);
    Ok((parts, scheme))
}

/// The message that lets a request pass, and says whose it is.
pub fn allowed(changes: &Changes, caller: Option<&dyn Caller>) -> Bytes {
    let known = caller.map(|caller| [("sid", Some(caller.sid())), ("sub", caller.sub()), ("org", caller.org())]);
    let fields = known.into_iter().flatten().filter_map(|(key, text)| {
        let value = Value { text: text?.to_owned() };
        Some(Field { key: key.to_owned(), value: Some(value) })
    });
    encode(&CheckResponse {
        status: Some(Status { code: 0 }),
        dynamic_metadata: caller.is_some().then(|| Struct { fields: fields.collect() }),
        http: Some(Http::Allowed(Allowed {
            headers: changes.set.iter().map(|(name, value)| option(name, value)).collect(),
            headers_to_remove: changes.removed.iter().map(ToString::to_string).collect(),
        })),
    })
}

/// The message with what the caller is answered instead.
pub fn denied(code: Code, answer: Response<Bytes>) -> Bytes {
    let (head, body) = answer.into_parts();
    encode(&CheckResponse {
        status: Some(Status { code: code.grpc_code() }),
        dynamic_metadata: None,
        http: Some(Http::Denied(Denied {
            status: Some(HttpStatus { code: i32::from(head.status.as_u16()) }),
            headers: lines(&head.headers),
            body,
        })),
    })
}

fn lines(headers: &HeaderMap) -> Vec<HeaderValueOption> {
    headers.iter().map(|(name, value)| option(name, value)).collect()
}

fn option(name: &HeaderName, value: &HeaderValue) -> HeaderValueOption {
    let bytes = Bytes::copy_from_slice(value.as_bytes());
    // What is no text may not stand where the message has one.
    let (value, raw_value) =
        if std::str::from_utf8(&bytes).is_ok() { (bytes, Bytes::new()) } else { (Bytes::new(), bytes) };
    let key = Bytes::copy_from_slice(name.as_str().as_bytes());
    HeaderValueOption { header: Some(Header { key, value, raw_value }), append_action: OVERWRITE }
}

fn encode(message: &CheckResponse) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(grpc::PREFIX + length);
    frame.put_slice(&grpc::prefix(length));
    // A buffer of bytes grows: encoding into it does not fail.
    let _ = message.encode(&mut frame);
    frame.freeze()
}
