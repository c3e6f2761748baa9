//! The one place that turns errors into HTTP on the data plane, in the caller's dialect.

use http::StatusCode;
use http::header::{CONNECTION, HeaderValue, RETRY_AFTER};
use serde_json::{Value, json};

use super::reply::{self, JSON, Reply};
use crate::execution::Outcome;
use crate::gemini::Dialect;
use crate::upstream::UpstreamError;

/// Why a call ends here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) kind: Kind,
    /// For the client, who knows what it sent: may name its fields.
    pub(super) message: String,
    /// For the record: nothing that came with the call.
    pub(super) recorded: String,
}

/// The kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The head makes no sense, or could not go on as it is.
    BadRequest,
    /// TRACE, CONNECT.
    MethodNotAllowed,
    /// An upgrade to another protocol.
    NotSupported,
    /// A key beside the proxy's own.
    CallerKey,
    /// The body stalled.
    BodyTimeout,
    /// The body broke off.
    BodyBroken,
    /// The body is over the limit.
    TooLarge,
    /// The body does not read as what the call takes.
    Malformed,
    /// A tenant, template or version that does not exist.
    NotFound,
    /// Missing or ill-typed variables.
    Variables,
    /// The template could not be rendered.
    Render,
    /// A body no guardrail can read, and the operator refuses those.
    Unscannable,
    /// Too many streams.
    Overloaded,
    /// No record could be kept, and the operator refuses calls then.
    Unrecordable,
    /// The upstream failed.
    Upstream(UpstreamError),
    /// The answer cannot be inspected.
    UnreadableAnswer,
    /// The process stops and the answer is not there yet.
    Draining,
    /// A panic.
    Internal,
}

impl Refusal {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), recorded: kind.sentence().to_owned() }
    }

    /// The same with more for the record; it must hold nothing that came with the call.
    pub(super) fn recorded(mut self, recorded: String) -> Self {
        self.recorded = recorded;
        self
    }

    /// The answer to the client. Without a dialect, Gemini's own.
    pub(super) fn reply(&self, dialect: Option<Dialect>) -> Reply {
        let status = self.kind.status();
        let body = match dialect {
            Some(Dialect::OpenAi) => openai_error(&self.message, self.kind.openai()),
            Some(Dialect::Interactions) => {
                json!({"error": {"code": self.kind.interactions(), "message": self.message}})
            }
            Some(Dialect::Native) | None => {
                native_error(status, self.kind.google(), &self.message, Vec::new())
            }
        };
        let mut reply = reply::made(status, JSON, body.to_string());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if matches!(
            self.kind,
            Kind::TooLarge | Kind::BodyTimeout | Kind::BodyBroken | Kind::BadRequest
        ) {
            // What is left of the body must not be read as the next request.
            reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        reply
    }
}

/// A `google.rpc.Status`.
pub(super) fn native_error(
    status: StatusCode,
    google: &str,
    message: &str,
    details: Vec<Value>,
) -> Value {
    let mut error = json!({"code": status.as_u16(), "message": message, "status": google});
    if let (false, Some(members)) = (details.is_empty(), error.as_object_mut()) {
        members.insert("details".to_owned(), Value::Array(details));
    }
    json!({ "error": error })
}

/// An error object as the `OpenAI` SDKs read it; Google's own array form shows as "no body" there.
pub(super) fn openai_error(message: &str, (kind, code): (&str, &str)) -> Value {
    json!({"error": {"message": message, "type": kind, "code": code, "param": null}})
}

impl Kind {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest
            | Self::CallerKey
            | Self::BodyBroken
            | Self::Malformed
            | Self::Variables
            | Self::Render
            | Self::Unscannable => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotSupported => StatusCode::NOT_IMPLEMENTED,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Draining | Self::Overloaded | Self::Unrecordable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Upstream(UpstreamError::Timeout) => StatusCode::GATEWAY_TIMEOUT,
            Self::Upstream(UpstreamError::ClientBody) => StatusCode::BAD_REQUEST,
            Self::Upstream(UpstreamError::Unreachable) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Upstream(UpstreamError::Broken) | Self::UnreadableAnswer => {
                StatusCode::BAD_GATEWAY
            }
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn google(self) -> &'static str {
        match self.status() {
            StatusCode::NOT_FOUND => "NOT_FOUND",
            StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED => "UNIMPLEMENTED",
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => "UNAVAILABLE",
            StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => "DEADLINE_EXCEEDED",
            StatusCode::INTERNAL_SERVER_ERROR => "INTERNAL",
            _ => "INVALID_ARGUMENT",
        }
    }

    /// The codes of the Interactions API.
    fn interactions(self) -> &'static str {
        match self.status() {
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => "deadline_exceeded",
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => "service_unavailable",
            StatusCode::INTERNAL_SERVER_ERROR => "api_error",
            _ => "invalid_request",
        }
    }

    fn openai(self) -> (&'static str, &'static str) {
        match self.status().as_u16() {
            404 => ("invalid_request_error", "not_found"),
            400..=499 => ("invalid_request_error", self.name()),
            _ => ("server_error", self.name()),
        }
    }

    /// The word in records.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotSupported => "not_supported",
            Self::CallerKey => "caller_key",
            Self::BodyTimeout => "body_timeout",
            Self::BodyBroken => "body_broken",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::NotFound => "not_found",
            Self::Variables => "variables",
            Self::Render => "render",
            Self::Unscannable => "unscannable",
            Self::Overloaded => "overloaded",
            Self::Unrecordable => "unrecordable",
            Self::Upstream(error) => error.name(),
            Self::UnreadableAnswer => "unreadable_answer",
            Self::Draining => "shutdown",
            Self::Internal => "internal",
        }
    }

    /// What the record says when nothing more is known.
    fn sentence(self) -> &'static str {
        match self {
            Self::BadRequest => "the head of the request is not acceptable",
            Self::MethodNotAllowed => "the method is not served",
            Self::NotSupported => "the protocol is not served",
            Self::CallerKey => "the caller sent a key beside the proxy's own",
            Self::BodyTimeout => "the body did not arrive in time",
            Self::BodyBroken => "the body broke off",
            Self::TooLarge => "the body is too large",
            Self::Malformed => "the body is not acceptable",
            Self::NotFound => "the tenant, template or version does not exist",
            Self::Variables => "the variables do not fit the template",
            Self::Render => "the template failed",
            Self::Unscannable => "the body holds what guardrails cannot read",
            Self::Overloaded => "too many open streams",
            Self::Unrecordable => "no record could be kept",
            Self::Upstream(_) => "the upstream failed",
            Self::UnreadableAnswer => "the answer could not be inspected",
            Self::Draining => "the process stopped before the answer came",
            Self::Internal => "an internal error",
        }
    }

    /// What the record says.
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::Upstream(UpstreamError::ClientBody) | Self::BodyBroken | Self::BodyTimeout => {
                Outcome::ClientLeft
            }
            Self::Upstream(_) | Self::UnreadableAnswer | Self::Internal => Outcome::Failed,
            Self::Draining => Outcome::Drained,
            Self::BadRequest
            | Self::MethodNotAllowed
            | Self::NotSupported
            | Self::CallerKey
            | Self::TooLarge
            | Self::Malformed
            | Self::NotFound
            | Self::Variables
            | Self::Render
            | Self::Unscannable
            | Self::Overloaded
            | Self::Unrecordable => Outcome::Rejected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Refusal};
    use crate::gemini::Dialect;
    use crate::upstream::UpstreamError;

    #[test]
    fn every_kind_has_its_status() {
        for (kind, status, google) in [
            (Kind::BadRequest, 400, "INVALID_ARGUMENT"),
            (Kind::MethodNotAllowed, 405, "UNIMPLEMENTED"),
            (Kind::NotSupported, 501, "UNIMPLEMENTED"),
            (Kind::CallerKey, 400, "INVALID_ARGUMENT"),
            (Kind::BodyTimeout, 408, "DEADLINE_EXCEEDED"),
            (Kind::BodyBroken, 400, "INVALID_ARGUMENT"),
            (Kind::TooLarge, 413, "INVALID_ARGUMENT"),
            (Kind::Malformed, 400, "INVALID_ARGUMENT"),
            (Kind::NotFound, 404, "NOT_FOUND"),
            (Kind::Variables, 400, "INVALID_ARGUMENT"),
            (Kind::Render, 400, "INVALID_ARGUMENT"),
            (Kind::Unscannable, 400, "INVALID_ARGUMENT"),
            (Kind::Overloaded, 503, "UNAVAILABLE"),
            (Kind::Unrecordable, 503, "UNAVAILABLE"),
            (Kind::Upstream(UpstreamError::Unreachable), 503, "UNAVAILABLE"),
            (Kind::Upstream(UpstreamError::Timeout), 504, "DEADLINE_EXCEEDED"),
            (Kind::Upstream(UpstreamError::Broken), 502, "UNAVAILABLE"),
            (Kind::Upstream(UpstreamError::ClientBody), 400, "INVALID_ARGUMENT"),
            (Kind::UnreadableAnswer, 502, "UNAVAILABLE"),
            (Kind::Draining, 503, "UNAVAILABLE"),
            (Kind::Internal, 500, "INTERNAL"),
        ] {
            assert_eq!((kind.status().as_u16(), kind.google()), (status, google), "{kind:?}");
            let reply = Refusal::new(kind, "m").reply(Some(Dialect::OpenAi));
            assert_eq!(reply.status().as_u16(), status);
        }
    }
}
