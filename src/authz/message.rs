//! The messages of Envoy's gRPC service, as far as they are read and written here. Unknown fields are skipped.
//!
//! Numbers from Envoy's API: `envoy/service/auth/v3/external_auth.proto` and `attribute_context.proto`,
//! `envoy/config/core/v3/base.proto`, `envoy/type/v3/http_status.proto`, `google/rpc/status.proto`,
//! `google/protobuf/struct.proto`. What those call `string` is read as bytes, which is the same on the wire: a name or a
//! value is then a part of the message that came, and is judged as a header is. A map is a list of its entries.

use bytes::Bytes;
use prost::{Message, Oneof};

/// `envoy.service.auth.v3.CheckRequest`
#[derive(Clone, PartialEq, Message)]
pub struct CheckRequest {
    /// What is asked about.
    #[prost(message, optional, tag = "1")]
    pub attributes: Option<Attributes>,
}

/// `envoy.service.auth.v3.AttributeContext`
#[derive(Clone, PartialEq, Message)]
pub struct Attributes {
    /// Of the network; the HTTP request is in there.
    #[prost(message, optional, tag = "4")]
    pub request: Option<Request>,
}

/// `envoy.service.auth.v3.AttributeContext.Request`
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// The HTTP request.
    #[prost(message, optional, tag = "2")]
    pub http: Option<HttpRequest>,
}

/// `envoy.service.auth.v3.AttributeContext.HttpRequest`
#[derive(Clone, PartialEq, Message)]
pub struct HttpRequest {
    /// `GET`
    #[prost(bytes = "bytes", tag = "2")]
    pub method: Bytes,
    /// `map<string, string>`: lines of one name are joined by commas, and pseudo-headers are in there too.
    #[prost(message, repeated, tag = "3")]
    pub headers: Vec<Entry>,
    /// With its query.
    #[prost(bytes = "bytes", tag = "4")]
    pub path: Bytes,
    /// `Host` or `:authority`.
    #[prost(bytes = "bytes", tag = "5")]
    pub host: Bytes,
    /// `http` or `https`.
    #[prost(bytes = "bytes", tag = "6")]
    pub scheme: Bytes,
    /// Instead of `headers` where Envoy's `encode_raw_headers` is set.
    #[prost(message, optional, tag = "13")]
    pub header_map: Option<HeaderMap>,
}

/// An entry of a map.
#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    /// The header's name.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Its value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// `envoy.config.core.v3.HeaderMap`
#[derive(Clone, PartialEq, Message)]
pub struct HeaderMap {
    /// Line by line.
    #[prost(message, repeated, tag = "1")]
    pub headers: Vec<HeaderValue>,
}

/// `envoy.config.core.v3.HeaderValue`
#[derive(Clone, PartialEq, Message)]
pub struct HeaderValue {
    /// The header's name.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Its value, where it is UTF-8.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// Its value, where it need not be.
    #[prost(bytes = "bytes", tag = "3")]
    pub raw_value: Bytes,
}

/// `envoy.config.core.v3.HeaderValueOption`
#[derive(Clone, PartialEq, Message)]
pub struct HeaderValueOption {
    /// The header.
    #[prost(message, optional, tag = "1")]
    pub header: Option<HeaderValue>,
    /// [`OVERWRITE`]
    #[prost(int32, tag = "3")]
    pub append_action: i32,
}

/// `HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD`
pub const OVERWRITE: i32 = 2;

/// `envoy.service.auth.v3.CheckResponse`
#[derive(Clone, PartialEq, Message)]
pub struct CheckResponse {
    /// Zero allows the request.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    /// What is done to it, or answered in its stead.
    #[prost(oneof = "Http", tags = "2, 3")]
    pub http: Option<Http>,
    /// For Envoy's own logs and filters.
    #[prost(message, optional, tag = "4")]
    pub dynamic_metadata: Option<Struct>,
}

/// `CheckResponse.http_response`
#[derive(Clone, PartialEq, Oneof)]
pub enum Http {
    /// The answer that the caller gets.
    #[prost(message, tag = "2")]
    Denied(Denied),
    /// What is done to the request.
    #[prost(message, tag = "3")]
    Allowed(Allowed),
}

/// `google.rpc.Status`
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// A code of gRPC.
    #[prost(int32, tag = "1")]
    pub code: i32,
}

/// `envoy.service.auth.v3.DeniedHttpResponse`
#[derive(Clone, PartialEq, Message)]
pub struct Denied {
    /// Its status.
    #[prost(message, optional, tag = "1")]
    pub status: Option<HttpStatus>,
    /// Its headers.
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderValueOption>,
    /// Its body.
    #[prost(bytes = "bytes", tag = "3")]
    pub body: Bytes,
}

/// `envoy.type.v3.HttpStatus`
#[derive(Clone, PartialEq, Message)]
pub struct HttpStatus {
    /// As in HTTP.
    #[prost(int32, tag = "1")]
    pub code: i32,
}

/// `envoy.service.auth.v3.OkHttpResponse`
#[derive(Clone, PartialEq, Message)]
pub struct Allowed {
    /// Set.
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderValueOption>,
    /// Removed.
    #[prost(string, repeated, tag = "5")]
    pub headers_to_remove: Vec<String>,
}

/// `google.protobuf.Struct`
#[derive(Clone, PartialEq, Message)]
pub struct Struct {
    /// `map<string, Value>`
    #[prost(message, repeated, tag = "1")]
    pub fields: Vec<Field>,
}

/// An entry of its map.
#[derive(Clone, PartialEq, Message)]
pub struct Field {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<Value>,
}

/// `google.protobuf.Value`, where it is a text.
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    /// The text.
    #[prost(string, tag = "3")]
    pub text: String,
}
