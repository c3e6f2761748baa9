//! The answer to a prompt that a guardrail condemned, in the caller's dialect.
//!
//! On the native dialect it is what Gemini itself answers, which no client takes for a defect of the
//! request and none tries again.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::{Value, json};

use super::exchange::Exchange;
use super::refusal::{native_error, openai_error};
use super::reply::{self, EVENT_STREAM, JSON, Reply, decorate};
use super::texts::Placed;
use super::{Proxy, headers};
use crate::config::BlockReply;
use crate::execution::Outcome;
use crate::gemini::Dialect;
use crate::gemini::route::Call;
use crate::gemini::stream::Framing;
use crate::guardrail::{Action, Guardrails};

/// A verdict where the dialect, or the kind of call, has no other place for it.
pub(super) fn error(dialect: Dialect, message: &str) -> Value {
    match dialect {
        Dialect::OpenAi => openai_error(message, ("invalid_request_error", "content_filter")),
        Dialect::Interactions => json!({"error": {"code": "content_blocked", "message": message}}),
        Dialect::Native => {
            let reason = json!({
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "GUARDRAIL_BLOCKED", "domain": "chaperone",
            });
            native_error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message, vec![reason])
        }
    }
}

/// A prompt that a guardrail condemned.
#[derive(Debug)]
pub(super) struct Blocked {
    /// The guardrails that did it.
    rules: Vec<String>,
    dialect: Dialect,
    call: Call,
    framing: Option<Framing>,
}

impl Blocked {
    pub(super) fn of(
        (dialect, call, framing): (Dialect, Call, Option<Framing>),
        guardrails: &Guardrails,
        placed: &[Placed],
    ) -> Self {
        let rules: BTreeSet<String> = placed
            .iter()
            .filter(|one| guardrails.action(&one.finding).is_some_and(Action::acts))
            .filter_map(|one| guardrails.rules().get(one.finding.rule))
            .map(|rule| rule.name.clone())
            .collect();
        Self { rules: rules.into_iter().collect(), dialect, call, framing }
    }

    /// The answer to a blocked prompt, in the caller's dialect. Nothing was sent upstream.
    pub(super) fn reply(&self, proxy: &Proxy, exchange: &mut Exchange) -> Reply {
        let mut reply = self.body(proxy, exchange);
        if self.call == Call::Upload {
            // Without it, SDKs take the answer for a broken one and send the same again.
            headers::set(reply.headers_mut(), headers::UPLOAD_STATUS, "cancelled");
        }
        decorate(&mut reply, exchange);
        exchange.note(|execution| {
            execution.http_status = Some(reply.status().as_u16());
            execution.finish_reason = Some("PROHIBITED_CONTENT".to_owned());
        });
        exchange.take().finish(Outcome::Blocked, Some("guardrail"));
        reply
    }

    fn body(&self, proxy: &Proxy, exchange: &Exchange) -> Reply {
        let what = if self.call == Call::Upload { "upload" } else { "prompt" };
        let message = format!("the {what} was blocked by a guardrail: {}", self.rules.join(", "));
        let bad_request = StatusCode::BAD_REQUEST;
        let as_error = proxy.rules.guardrails.block_reply == BlockReply::Error;
        let has_feedback = matches!(self.call, Call::Generate | Call::StreamGenerate(_));
        if as_error || !has_feedback {
            return reply::made(bad_request, JSON, error(self.dialect, &message).to_string());
        }
        let facts = exchange.fact(|one| (one.model_name.clone(), one.request_id.clone()));
        let (model, id) = facts.unwrap_or_default();
        let feedback = json!({
            "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
            "usageMetadata": {"promptTokenCount": 0, "totalTokenCount": 0},
            "modelVersion": model.unwrap_or_default(),
            "responseId": id,
        });
        let ok = StatusCode::OK;
        match self.framing {
            None => reply::made(ok, JSON, feedback.to_string()),
            Some(Framing::Sse) => {
                reply::made(ok, EVENT_STREAM, format!("data: {feedback}\r\n\r\n"))
            }
            Some(Framing::JsonArray) => reply::made(ok, JSON, format!("[{feedback}]")),
        }
    }
}
