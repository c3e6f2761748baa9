//! The body type of every answer, and answers made here.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

/// An error in the middle of an answer. It aborts the client's connection, so that a cut is seen as
/// one; nobody reads its text.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub type ReplyBody = UnsyncBoxBody<Bytes, BodyError>;

/// An answer on its way to the client.
pub type Reply = Response<ReplyBody>;

pub(super) fn full(bytes: impl Into<Bytes>) -> ReplyBody {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A whole answer.
pub(super) fn made(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Reply {
    let mut reply = Response::new(full(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

pub(super) const JSON: &str = "application/json; charset=UTF-8";
pub(super) const EVENT_STREAM: &str = "text/event-stream";
