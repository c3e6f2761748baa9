//! The body type of every answer, answers made here, and what Chaperone adds to every one.

use std::collections::BTreeSet;
use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

use super::exchange::{Exchange, SHADOW};
use super::headers;
use crate::guardrail::Action;
use crate::words::clock;

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

/// Chaperone's own headers on an answer.
pub(super) fn decorate(reply: &mut Reply, exchange: &Exchange) {
    let facts = exchange.fact(|execution| {
        let template = execution.template_id.and(execution.template_name.clone());
        let found: BTreeSet<String> = execution
            .guardrail_violations
            .iter()
            .filter(|one| one.action != Action::Info.name() && !one.action.starts_with(SHADOW))
            .map(|violation| format!("{}={}", violation.rule_name, violation.action))
            .collect();
        let named = template.zip(execution.template_version);
        (named, execution.ab_test_group.clone(), execution.catalog_source.clone(), found)
    });
    let Some((template, arm, source, found)) = facts else { return };
    let out = reply.headers_mut();
    headers::set(out, headers::SOURCE, &source);
    if let Some((name, version)) = template {
        headers::set(out, headers::TEMPLATE, &format!("{name}@{version}"));
    }
    if let Some(arm) = arm {
        headers::set(out, headers::ARM, &arm);
    }
    if !found.is_empty() {
        let found: Vec<String> = found.into_iter().collect();
        headers::set(out, headers::GUARDRAILS, &found.join(", "));
    }
    let own = clock::millis(exchange.own());
    // The upstream may have told its own.
    if let Ok(value) = HeaderValue::try_from(format!("chaperone;dur={own:.3}")) {
        out.append(headers::SERVER_TIMING, value);
    }
}
