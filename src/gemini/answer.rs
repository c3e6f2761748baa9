//! What an answer says about itself: usage, why it ended, which model wrote it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::Dialect;
use super::batch::Batch;
use super::route::Call;
use super::usage::{Count, InteractionUsage, Lenient, NativeUsage, OpenAiUsage};
use crate::words::tokens::{ServiceTier, Usage};

/// Facts gathered from one answer, or from all frames of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The last report that had a total.
    pub usage: Option<Usage>,
    /// The last reason any candidate gave for ending.
    pub finish_reason: Option<String>,
    /// Why the upstream refused the prompt.
    pub block_reason: Option<String>,
    /// The model that answered; aliases are resolved here.
    pub model_version: Option<String>,
    /// The upstream's id of the answer.
    pub response_id: Option<String>,
    /// An error object, unary or in mid-stream.
    pub error: Option<String>,
    /// By candidate or choice, why it ended; `None` while it has not.
    pub candidates: BTreeMap<u64, Option<String>>,
    /// Whether its being there is its end: this kind of answer gives no reason.
    pub ended: bool,
    /// The tier, where the body of the answer tells it.
    pub service_tier: Option<ServiceTier>,
    /// When it was made, where it was made earlier.
    pub created_at: Option<Timestamp>,
    /// The batches in it that are done.
    pub batches: Vec<Batch>,
    /// The searches it rests on, as hashes: frames repeat them, and each is billed once.
    searches: BTreeSet<u64>,
    /// Whether it rests on maps.
    maps: bool,
}

impl Answer {
    /// The answer to a call, nothing of it read yet.
    pub fn to(call: Call) -> Self {
        Self { ended: call.ends_by_itself(), ..Self::default() }
    }

    /// Takes in one document of the answer. Documents that cannot be read change nothing and give
    /// `false`.
    pub fn read(&mut self, dialect: Dialect, payload: &[u8]) -> bool {
        match dialect {
            Dialect::Native => self.read_native(payload),
            Dialect::OpenAi => self.read_openai(payload),
            Dialect::Interactions => self.read_interaction(payload),
        }
    }

    /// What the call used: the last report, and the searches of all frames where that does not count them.
    pub fn used(&self) -> Option<Usage> {
        let mut usage = self.usage.clone()?;
        usage.search_queries += self.searches.len() as u64;
        usage.maps_queries += u64::from(self.maps);
        Some(usage)
    }

    /// Whether the answer came to its end, as opposed to just stopping.
    pub fn is_complete(&self) -> bool {
        let all_ended =
            !self.candidates.is_empty() && self.candidates.values().all(Option::is_some);
        all_ended || self.ended || self.block_reason.is_some()
    }

    /// Whether the model ended by itself and was not stopped by a filter.
    pub fn is_success(&self) -> bool {
        self.error.is_none()
            && self.block_reason.is_none()
            && self.is_complete()
            && self.candidates.values().flatten().all(|reason| is_natural(reason))
    }

    fn ended(&mut self, candidate: u64, reason: Option<String>) {
        let known = self.candidates.entry(candidate).or_default();
        if let Some(reason) = reason {
            // A stop by a filter is not undone by what a later frame says.
            if known.as_deref().is_none_or(is_natural) {
                *known = Some(reason.clone());
            }
            self.finish_reason = Some(reason);
        }
    }

    fn grounded(&mut self, grounding: &Grounding) {
        for query in grounding.web_search_queries.iter().flatten().filter(|one| !one.is_empty()) {
            let mut hash = DefaultHasher::new();
            query.hash(&mut hash);
            self.searches.insert(hash.finish());
        }
        let mut chunks = grounding.grounding_chunks.iter().flatten();
        self.maps |= chunks.any(|chunk| chunk.maps.is_some());
    }

    fn read_native(&mut self, payload: &[u8]) -> bool {
        let Ok(answer) = serde_json::from_slice::<NativeAnswer>(payload) else { return false };
        for (position, candidate) in (0..).zip(answer.candidates.unwrap_or_default()) {
            let reason = match candidate.finish_reason {
                Some(Value::String(reason)) => Some(reason),
                Some(Value::Number(reason)) => Some(reason.to_string()),
                _ => None,
            };
            self.ended(candidate.index.told().unwrap_or(position), reason);
            if let Some(grounding) = &candidate.grounding_metadata.0 {
                self.grounded(grounding);
            }
        }
        let blocked = answer.prompt_feedback.0.and_then(|feedback| feedback.block_reason);
        if let Some(reason) = blocked {
            self.block_reason =
                Some(reason.as_str().map_or_else(|| reason.to_string(), str::to_owned));
        }
        if let Some(usage) = answer.usage_metadata.0 {
            keep(&mut self.service_tier, usage.tier());
            keep(&mut self.usage, usage.usage());
        }
        keep(&mut self.model_version, answer.model_version.0);
        keep(&mut self.response_id, answer.response_id.0);
        keep(&mut self.error, answer.error.as_ref().map(error_status));
        if answer.done == Some(Value::Bool(true)) || answer.operations.is_some() {
            self.batches = Batch::read(payload);
        }
        true
    }

    fn read_openai(&mut self, payload: &[u8]) -> bool {
        if payload == b"[DONE]" {
            return true;
        }
        let Ok(answer) = serde_json::from_slice::<OpenAiAnswer>(payload) else { return false };
        for (position, choice) in (0..).zip(answer.choices.unwrap_or_default()) {
            self.ended(choice.index.told().unwrap_or(position), choice.finish_reason.0);
        }
        keep(&mut self.usage, answer.usage.0.and_then(|usage| usage.usage()));
        keep(&mut self.service_tier, answer.service_tier.0.as_deref().map(ServiceTier::read));
        keep(&mut self.model_version, answer.model.0);
        keep(&mut self.response_id, answer.id.0);
        keep(&mut self.error, answer.error.as_ref().map(error_status));
        true
    }
}

impl Answer {
    fn read_interaction(&mut self, payload: &[u8]) -> bool {
        if payload == b"[DONE]" {
            return true;
        }
        let Ok(frame) = serde_json::from_slice::<Interaction>(payload) else { return false };
        keep(&mut self.error, frame.error.as_ref().map(error_status));
        // A whole interaction, or an event that holds one.
        let whole = frame.interaction.map_or(frame.whole, |held| *held);
        if let Some(status) = whole.status.0 {
            // An interaction in the background is over for whoever started it.
            let reason = (status != "in_progress" || frame.event_type.is_none()).then_some(status);
            self.ended(0, reason);
        }
        keep(&mut self.usage, whole.usage.0.and_then(|usage| usage.usage()));
        keep(&mut self.model_version, whole.model.0);
        keep(&mut self.created_at, whole.created.0.and_then(|time| time.parse().ok()));
        keep(&mut self.response_id, whole.id.0);
        true
    }
}

#[derive(Deserialize)]
struct Interaction {
    event_type: Option<String>,
    error: Option<Value>,
    interaction: Option<Box<WholeInteraction>>,
    #[serde(flatten)]
    whole: WholeInteraction,
}

#[derive(Deserialize)]
struct WholeInteraction {
    #[serde(default)]
    id: Lenient<String>,
    #[serde(default)]
    status: Lenient<String>,
    #[serde(default)]
    model: Lenient<String>,
    #[serde(default)]
    usage: Lenient<InteractionUsage>,
    #[serde(default)]
    created: Lenient<String>,
}

/// Reasons by which a model ends by itself, in every dialect and as integers.
fn is_natural(reason: &str) -> bool {
    [
        "STOP",
        "MAX_TOKENS",
        "stop",
        "length",
        "tool_calls",
        "function_call",
        "1",
        "2",
        "completed",
        "requires_action",
        "in_progress",
        "queued",
        "requires_continuation",
    ]
    .contains(&reason)
}

fn keep<T>(slot: &mut Option<T>, new: Option<T>) {
    if new.is_some() {
        *slot = new;
    }
}

/// Only the status or code of an upstream error: its message may quote the prompt.
fn error_status(error: &Value) -> String {
    match error.get("status").or_else(|| error.get("code")) {
        Some(Value::String(status)) => status.clone(),
        Some(Value::Number(code)) => code.to_string(),
        _ => "UNKNOWN".to_owned(),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NativeAnswer {
    candidates: Option<Vec<NativeCandidate>>,
    #[serde(default)]
    prompt_feedback: Lenient<PromptFeedback>,
    #[serde(default)]
    usage_metadata: Lenient<NativeUsage>,
    #[serde(default)]
    model_version: Lenient<String>,
    #[serde(default)]
    response_id: Lenient<String>,
    error: Option<Value>,
    /// Of an operation.
    done: Option<Value>,
    /// In a list of them.
    operations: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NativeCandidate {
    #[serde(default)]
    index: Count,
    finish_reason: Option<Value>,
    #[serde(default)]
    grounding_metadata: Lenient<Grounding>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Grounding {
    web_search_queries: Option<Vec<String>>,
    grounding_chunks: Option<Vec<GroundingChunk>>,
}

#[derive(Deserialize)]
struct GroundingChunk {
    maps: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromptFeedback {
    block_reason: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OpenAiAnswer {
    id: Lenient<String>,
    model: Lenient<String>,
    service_tier: Lenient<String>,
    choices: Option<Vec<OpenAiChoice>>,
    usage: Lenient<OpenAiUsage>,
    error: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OpenAiChoice {
    index: Count,
    finish_reason: Lenient<String>,
}

#[cfg(test)]
mod tests {
    use super::Answer;
    use crate::gemini::Dialect;
    use crate::gemini::usage::tier_asked_for;
    use crate::words::tokens::{Modalities, ServiceTier, Usage};

    #[test]
    fn the_last_report_with_a_total_wins() {
        let mut answer = Answer::default();
        for frame in [
            r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}}],"usageMetadata":{"promptTokenCount":2,"totalTokenCount":2}}"#,
            r#"{"candidates":[{}],"usageMetadata":{"trafficType":"ON_DEMAND"}}"#,
            r#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":5,"thoughtsTokenCount":3,"totalTokenCount":9},"modelVersion":"m-1"}"#,
            r#"{"usageMetadata":{"trafficType":"ON_DEMAND"}}"#,
        ] {
            assert!(answer.read(Dialect::Native, frame.as_bytes()));
        }
        let usage = Usage { prompt: 1, candidates: 5, thoughts: 3, total: 9, ..Usage::default() };
        assert!(usage.adds_up());
        assert_eq!(answer.usage, Some(usage));
        assert_eq!(answer.model_version.as_deref(), Some("m-1"));
        assert!(answer.is_success());
    }

    #[test]
    fn one_member_that_is_not_as_it_should_be_costs_no_other() {
        for (dialect, whole, odd) in [
            (
                Dialect::Native,
                r#"{"candidates":[{"index":0,"finishReason":"STOP","groundingMetadata":{}}],"modelVersion":"m",
                    "usageMetadata":{"promptTokenCount":10,"totalTokenCount":10,"promptTokensDetails":[]}}"#,
                [
                    (r#"Count":10,"#, r#"Count":"10","#),
                    (r#"Count":10,"#, r#"Count":10.0,"#),
                    (r#""index":0"#, r#""index":"0""#),
                    (r#"Details":[]"#, r#"Details":{"a":1}"#),
                    (r#"Metadata":{}"#, r#"Metadata":[{"webSearchQueries":1}]"#),
                    (r#"STOP","#, r#"STOP","safetyRatings":{},"#),
                ],
            ),
            (
                Dialect::OpenAi,
                r#"{"id":"a","model":"m","choices":[{"index":0,"finish_reason":"stop"}],
                    "usage":{"prompt_tokens":10,"total_tokens":10,"prompt_tokens_details":{}}}"#,
                [
                    (r#"prompt_tokens":10"#, r#"prompt_tokens":"10""#),
                    (r#"total_tokens":10"#, r#"total_tokens":10.0"#),
                    (r#""index":0"#, r#""index":"0""#),
                    (r#"details":{}"#, r#"details":"none""#),
                    (r#""id":"a""#, r#""id":1"#),
                    (r#""id":"a""#, r#""service_tier":2"#),
                ],
            ),
        ] {
            let read = |text: &str| {
                let mut answer = Answer::default();
                assert!(answer.read(dialect, text.as_bytes()), "{text}");
                (answer.used(), answer.is_success(), answer.model_version)
            };
            let told = Usage { prompt: 10, total: 10, ..Usage::default() };
            for (member, odd) in odd.into_iter().chain([("", "")]) {
                let text = whole.replacen(member, odd, 1);
                assert_eq!(read(&text), (Some(told.clone()), true, Some("m".to_owned())), "{text}");
            }
        }
        // Without one of the counts nobody knows the cost: it is not that of the others.
        for odd in [
            r#""promptTokenCount":-1,"candidatesTokenCount":2"#,
            r#""promptTokenCount":"1e2","candidatesTokenCount":2"#,
            r#""promptTokenCount":9,"promptTokensDetails":[{"modality":"AUDIO","tokenCount":"x"}]"#,
        ] {
            let mut answer = Answer::default();
            let text = format!(r#"{{"usageMetadata":{{{odd},"totalTokenCount":12}}}}"#);
            assert!(answer.read(Dialect::Native, text.as_bytes()));
            assert!(answer.used().unwrap().is_total_only(), "{text}");
        }
        let mut answer = Answer::default();
        let audio = r#"{"usageMetadata":{"promptTokenCount":9,"totalTokenCount":9,
                        "promptTokensDetails":[{"modality":"AUDIO","tokenCount":9},5]}}"#;
        assert!(answer.read(Dialect::Native, audio.as_bytes()));
        assert_eq!(answer.used().unwrap().prompt_details.audio, 9);
    }

    #[test]
    fn what_is_billed_beside_text_is_found() {
        let mut answer = Answer::default();
        for frame in [
            r#"{"candidates":[{"groundingMetadata":{"webSearchQueries":["a",""]}}]}"#,
            r#"{"candidates":[{"groundingMetadata":{"webSearchQueries":["a","b"],"groundingChunks":[{"web":{}},{"maps":{}}]},"finishReason":"STOP"}],
                "usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":7,"thoughtsTokenCount":3,"totalTokenCount":16,"trafficType":"ON_DEMAND_FLEX",
                "promptTokensDetails":[{"modality":"TEXT","tokenCount":2},{"modality":"VIDEO","tokenCount":4},{"modality":4,"tokenCount":3}],
                "candidatesTokensDetails":[{"modality":2,"tokenCount":4}]}}"#,
        ] {
            assert!(answer.read(Dialect::Native, frame.as_bytes()));
        }
        let used = answer.used().unwrap();
        assert_eq!((used.search_queries, used.maps_queries), (2, 1));
        assert_eq!((used.candidates, used.thoughts), (4, 3), "thoughts stood among candidates");
        assert_eq!(used.prompt_details, Modalities { audio: 3, image: 0, video: 4 });
        assert_eq!(used.candidates_details, Modalities { image: 4, ..Modalities::default() });
        assert_eq!(answer.service_tier, Some(ServiceTier::Flex));
    }

    #[test]
    fn an_interaction_counts_its_searches_and_its_modalities() {
        let mut answer = Answer::default();
        let told = r#"{"id":"i1","status":"completed","model":"gemini-3-flash-preview","usage":{
            "total_input_tokens":10,"total_output_tokens":1,"total_tokens":11,
            "input_tokens_by_modality":[{"modality":"audio","tokens":10}],
            "output_tokens_by_modality":[{"modality":"text","tokens":1}],
            "grounding_tool_count":[{"type":"google_search","count":3},{"type":"google_maps","count":2},
            {"type":"retrieval","count":9}]}}"#;
        assert!(answer.read(Dialect::Interactions, told.as_bytes()));
        let used = answer.used().unwrap();
        assert_eq!((used.search_queries, used.maps_queries), (3, 2));
        assert_eq!(used.prompt_details, Modalities { audio: 10, ..Modalities::default() });
        assert_eq!(used.candidates_details, Modalities::default());
    }

    #[test]
    fn the_tier_asked_for_is_read_in_both_spellings() {
        for (body, tier) in [
            (r#"{"contents":[],"serviceTier":"flex"}"#, Some(ServiceTier::Flex)),
            (r#"{"service_tier":"priority"}"#, Some(ServiceTier::Priority)),
            (r#"{"serviceTier":2}"#, Some(ServiceTier::Flex)),
            (r#"{"serviceTier":9}"#, Some(ServiceTier::Unknown)),
            (r#"{"serviceTier":null}"#, None),
            (r#"{"contents":[{"parts":[{"text":"serviceTier"}]}]}"#, None),
            (r#"{"service_tier":"platinum"}"#, Some(ServiceTier::Unknown)),
        ] {
            assert_eq!(tier_asked_for(body.as_bytes()), tier, "{body}");
        }
    }

    #[test]
    fn blocks_errors_and_cuts_are_told_apart() {
        for (frame, complete, success) in [
            (r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#, true, false),
            (r#"{"candidates":[{"finishReason":"SAFETY"}]}"#, true, false),
            (r#"{"candidates":[{"finishReason":1}]}"#, true, true),
            (r#"{"candidates":[{"content":{"parts":[]}}]}"#, false, false),
            (r#"{"candidates":[{"finishReason":"STOP"},{"index":1,"content":{}}]}"#, false, false),
            (r#"{"candidates":[{"finishReason":"SAFETY"},{"finishReason":"STOP"}]}"#, true, false),
            (r#"{"error":{"code":503,"status":"UNAVAILABLE"}}"#, false, false),
        ] {
            let mut answer = Answer::default();
            assert!(answer.read(Dialect::Native, frame.as_bytes()));
            assert_eq!((answer.is_complete(), answer.is_success()), (complete, success), "{frame}");
        }
        assert!(!Answer::default().read(Dialect::Native, b"<html>"));
    }

    #[test]
    fn openai_thoughts_are_found_either_way() {
        for (usage, candidates, thoughts) in [
            (r#"{"prompt_tokens":4,"completion_tokens":6,"total_tokens":15}"#, 6, 5),
            (
                r#"{"prompt_tokens":4,"completion_tokens":11,"total_tokens":15,"completion_tokens_details":{"reasoning_tokens":5}}"#,
                6,
                5,
            ),
        ] {
            let mut answer = Answer::default();
            let frame = format!(r#"{{"choices":[{{"finish_reason":"stop"}}],"usage":{usage}}}"#);
            assert!(answer.read(Dialect::OpenAi, frame.as_bytes()));
            let usage = answer.usage.unwrap();
            assert_eq!((usage.candidates, usage.thoughts, usage.total), (candidates, thoughts, 15));
            assert!(usage.adds_up());
        }
    }
}
