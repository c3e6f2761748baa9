//! How an answer ends when it does not end by itself: said in the caller's dialect, never by a cut.
//!
//! SDKs resume a stream that was cut after a `continuationToken`, which would walk around the
//! guardrail; a last frame with a finish reason ends it for every client.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::gemini::Dialect;
use crate::gemini::answer::Answer;
use crate::gemini::route::Call;
use crate::gemini::stream::Framing;
use crate::proxy::blocked;
use crate::words::clock;

const BLOCKED: &str = "the answer was blocked by a guardrail";
const UNREADABLE: &str = "the answer could not be inspected by the guardrails";
const DRAINED: &str = "the answer was ended because the proxy is shutting down";

/// Why an answer is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Blocked,
    Unreadable,
    Drained,
}

/// A whole answer in place of one that a guardrail condemned. Usage is kept: the call was billed.
/// What has no place for a verdict becomes an error, and `status` says so.
pub(super) fn blocked_answer(
    (dialect, call): (Dialect, Call),
    answer: &Answer,
    status: &mut StatusCode,
) -> String {
    let has_candidates = call.takes_template() && call != Call::CountTokens;
    if dialect == Dialect::Interactions || !has_candidates {
        *status = StatusCode::BAD_REQUEST;
        return blocked::error(dialect, BLOCKED).to_string();
    }
    match dialect {
        Dialect::Native | Dialect::Interactions => native(answer, 0, Ending::Blocked),
        Dialect::OpenAi => {
            let message = json!({"role": "assistant", "content": "", "refusal": null});
            let choice = json!({"index": 0, "message": message, "finish_reason": "content_filter"});
            openai(answer, "chat.completion", &choice)
        }
    }
    .to_string()
}

/// The last frames of a stream. `begun`: whether a frame of an array was sent already.
pub(super) fn frames(
    (dialect, framing): (Dialect, Framing),
    answer: &Answer,
    (candidate, ending): (u64, Ending),
    begun: bool,
) -> Bytes {
    let frames = match (dialect, framing) {
        (Dialect::Native, Framing::Sse) => {
            format!("data: {}\r\n\r\n", native(answer, candidate, ending))
        }
        (Dialect::Native, Framing::JsonArray) => {
            let before = if begun { ",\r\n" } else { "[" };
            format!("{before}{}\r\n]", native(answer, candidate, ending))
        }
        (Dialect::Interactions, _) => {
            let (code, message) = match ending {
                Ending::Blocked => ("content_blocked", BLOCKED),
                Ending::Unreadable => ("content_blocked", UNREADABLE),
                Ending::Drained => ("service_unavailable", DRAINED),
            };
            let error = json!({"event_type": "error", "error": {"code": code, "message": message}});
            format!("event: error\ndata: {error}\n\n")
        }
        (Dialect::OpenAi, _) => {
            let reason = match ending {
                Ending::Blocked | Ending::Unreadable => "content_filter",
                Ending::Drained => "length",
            };
            let choice = json!({"index": candidate, "delta": {}, "finish_reason": reason});
            format!(
                "data: {}\n\ndata: [DONE]\n\n",
                openai(answer, "chat.completion.chunk", &choice)
            )
        }
    };
    frames.into()
}

fn native(answer: &Answer, candidate: u64, ending: Ending) -> Value {
    let (reason, message) = match ending {
        Ending::Blocked => ("SAFETY", BLOCKED),
        Ending::Unreadable => ("SAFETY", UNREADABLE),
        Ending::Drained => ("OTHER", DRAINED),
    };
    let mut frame = json!({
        "candidates": [{"index": candidate, "finishReason": reason, "finishMessage": message}],
    });
    if let Some(members) = frame.as_object_mut() {
        if let Some(usage) = &answer.usage {
            let usage = json!({
                "promptTokenCount": usage.prompt,
                "cachedContentTokenCount": usage.cached,
                "candidatesTokenCount": usage.candidates,
                "thoughtsTokenCount": usage.thoughts,
                "toolUsePromptTokenCount": usage.tool_use,
                "totalTokenCount": usage.total,
            });
            members.insert("usageMetadata".to_owned(), usage);
        }
        for (name, value) in
            [("modelVersion", &answer.model_version), ("responseId", &answer.response_id)]
        {
            if let Some(value) = value {
                members.insert(name.to_owned(), Value::from(value.as_str()));
            }
        }
    }
    frame
}

fn openai(answer: &Answer, object: &str, choice: &Value) -> Value {
    let mut frame = json!({
        "id": answer.response_id.as_deref().unwrap_or("chaperone"),
        "object": object,
        "created": clock::now().as_second(),
        "model": answer.model_version.as_deref().unwrap_or_default(),
        "choices": [choice],
    });
    if let (Some(members), Some(usage)) = (frame.as_object_mut(), &answer.usage) {
        let completion = usage.candidates + usage.thoughts;
        let usage = json!({
            "prompt_tokens": usage.prompt, "completion_tokens": completion, "total_tokens": usage.total,
        });
        members.insert("usage".to_owned(), usage);
    }
    frame
}
