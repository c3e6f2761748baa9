//! How an answer ends when it does not end by itself: said in the caller's dialect, never by a cut.
//!
//! SDKs resume a stream that was cut after a `continuationToken`, which would walk around the
//! guardrail; a last frame with a finish reason ends it for every client.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::gemini::Dialect;
use crate::gemini::answer::Answer;
use crate::gemini::route::Call;
use crate::gemini::stream::Framing;
use crate::proxy::blocked;
use crate::words::clock;
use crate::words::tokens::{Modalities, ServiceTier, Usage};

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
            members.insert("usageMetadata".to_owned(), native_usage(usage, answer.service_tier));
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

/// What was used, with the modalities that are no text, and the tier where the body told it.
fn native_usage(usage: &Usage, tier: Option<ServiceTier>) -> Value {
    let mut told = Map::new();
    for (name, count) in [
        ("promptTokenCount", usage.prompt),
        ("cachedContentTokenCount", usage.cached),
        ("candidatesTokenCount", usage.candidates),
        ("thoughtsTokenCount", usage.thoughts),
        ("toolUsePromptTokenCount", usage.tool_use),
        ("totalTokenCount", usage.total),
    ] {
        told.insert(name.to_owned(), count.into());
    }
    for (name, count, details) in [
        ("promptTokensDetails", usage.prompt, usage.prompt_details),
        ("cacheTokensDetails", usage.cached, usage.cached_details),
        ("candidatesTokensDetails", usage.candidates, usage.candidates_details),
        ("toolUsePromptTokensDetails", usage.tool_use, usage.tool_use_details),
    ] {
        if details != Modalities::default() {
            let Modalities { audio, image, video } = details;
            let text = count.saturating_sub(audio).saturating_sub(image).saturating_sub(video);
            let counts = [("TEXT", text), ("IMAGE", image), ("VIDEO", video), ("AUDIO", audio)];
            let some = counts.into_iter().filter(|(_, count)| *count > 0);
            let some = some.map(|(of, count)| json!({"modality": of, "tokenCount": count}));
            told.insert(name.to_owned(), some.collect());
        }
    }
    let traffic = match tier {
        Some(ServiceTier::Standard) => Some("ON_DEMAND"),
        Some(ServiceTier::Flex) => Some("ON_DEMAND_FLEX"),
        Some(ServiceTier::Priority) => Some("ON_DEMAND_PRIORITY"),
        Some(ServiceTier::Batch | ServiceTier::Unknown) | None => None,
    };
    if let Some(traffic) = traffic {
        told.insert("trafficType".to_owned(), traffic.into());
    }
    told.into()
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
        let told = json!({
            "prompt_tokens": usage.prompt, "completion_tokens": completion, "total_tokens": usage.total,
            "prompt_tokens_details": {"cached_tokens": usage.cached},
            "completion_tokens_details": {"reasoning_tokens": usage.thoughts},
        });
        members.insert("usage".to_owned(), told);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_told_as_the_upstream_told_it() {
        let used = r#"{"promptTokenCount":9,"candidatesTokenCount":2,"thoughtsTokenCount":1,"totalTokenCount":12,
            "promptTokensDetails":[{"modality":"TEXT","tokenCount":5},{"modality":"AUDIO","tokenCount":4}],
            "trafficType":"ON_DEMAND_FLEX"}"#;
        let frame = format!(r#"{{"usageMetadata":{used}}}"#);
        let mut first = Answer::default();
        assert!(first.read(Dialect::Native, frame.as_bytes()));
        let mut status = StatusCode::OK;
        let told = blocked_answer((Dialect::Native, Call::Generate), &first, &mut status);
        let mut second = Answer::default();
        assert!(second.read(Dialect::Native, told.as_bytes()));
        assert_eq!((&second.usage, second.service_tier), (&first.usage, first.service_tier));
        let told = blocked_answer((Dialect::OpenAi, Call::Chat), &first, &mut status);
        let mut third = Answer::default();
        assert!(third.read(Dialect::OpenAi, told.as_bytes()));
        let used = third.usage.map(|used| (used.prompt, used.candidates, used.thoughts));
        assert_eq!(used, Some((9, 2, 1)));
    }
}
