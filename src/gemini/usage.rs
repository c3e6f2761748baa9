//! Tokens as an answer reports them, in either dialect.
//!
//! Counts are cumulative over a stream: the last report that has a total wins, nothing is added or
//! merged. `prompt` includes the cached tokens, `candidates` excludes the thoughts.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::members::Members;
use crate::words::tokens::{Modalities, ServiceTier, Usage};

/// The response header that names the tier a call was billed at.
pub const TIER_HEADER: &str = "x-gemini-service-tier";

/// The tier that the body of a request asks for, in any dialect; `None` when it names none.
pub fn tier_asked_for(body: &[u8]) -> Option<ServiceTier> {
    let text = std::str::from_utf8(body).ok()?;
    if !text.contains("serviceTier") && !text.contains("service_tier") {
        return None;
    }
    let members = Members::parse(text)?;
    let tier = members.get("serviceTier")?;
    // Clients of `enum-encoding=int` give its number.
    match serde_json::from_str(tier).ok()? {
        Value::String(tier) => Some(ServiceTier::read(&tier)),
        Value::Number(tier) => Some(match tier.as_u64() {
            Some(0 | 1) => ServiceTier::Standard,
            Some(2) => ServiceTier::Flex,
            Some(3) => ServiceTier::Priority,
            _ => ServiceTier::Unknown,
        }),
        _ => None,
    }
}

/// A count, however it is written: 64 bits come as a text from some servers, and a fraction of nothing from others.
/// What is no count is not told, and takes nothing else of the answer with it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count(pub(super) Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Value::deserialize(deserializer)? {
            Value::String(text) => text.parse().ok(),
            Value::Number(number) => match (number.as_u64(), number.as_f64()) {
                (Some(count), _) => Some(count),
                (None, Some(count)) if count.fract() == 0.0 => format!("{count:.0}").parse().ok(),
                _ => None,
            },
            _ => None,
        }))
    }
}

/// Something that is not told where it is not what it should be, and takes nothing else with it.
#[derive(Debug)]
pub(super) struct Lenient<T>(pub(super) Option<T>);

impl<T> Default for Lenient<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(serde_json::from_value(Value::deserialize(deserializer)?).ok()))
    }
}

/// `usageMetadata` of the native dialect.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NativeUsage {
    prompt_token_count: Count,
    cached_content_token_count: Count,
    candidates_token_count: Count,
    thoughts_token_count: Count,
    tool_use_prompt_token_count: Count,
    total_token_count: Count,
    prompt_tokens_details: Lenient<Vec<ModalityCount>>,
    cache_tokens_details: Lenient<Vec<ModalityCount>>,
    candidates_tokens_details: Lenient<Vec<ModalityCount>>,
    tool_use_prompt_tokens_details: Lenient<Vec<ModalityCount>>,
    traffic_type: Option<Value>,
}

/// Of one modality, in the native dialect and in interactions.
#[derive(Debug, Deserialize)]
struct ModalityCount {
    modality: Option<Value>,
    #[serde(alias = "tokenCount", default)]
    tokens: Count,
}

impl NativeUsage {
    /// `None` for the reports in mid-stream that carry no total.
    pub fn usage(&self) -> Option<Usage> {
        let total = self.total_token_count.0?;
        let details = |counts: &Lenient<Vec<ModalityCount>>| modalities(counts.0.as_deref());
        let mut usage = Usage {
            prompt: self.prompt_token_count.0.unwrap_or(0),
            cached: self.cached_content_token_count.0.unwrap_or(0),
            candidates: self.candidates_token_count.0.unwrap_or(0),
            thoughts: self.thoughts_token_count.0.unwrap_or(0),
            tool_use: self.tool_use_prompt_token_count.0.unwrap_or(0),
            total,
            prompt_details: details(&self.prompt_tokens_details),
            cached_details: details(&self.cache_tokens_details),
            candidates_details: details(&self.candidates_tokens_details),
            tool_use_details: details(&self.tool_use_prompt_tokens_details),
            ..Usage::default()
        };
        // Some models count the thoughts among the candidates; nobody pays for them twice.
        let without_thoughts = usage.candidates.checked_sub(usage.thoughts);
        if usage.thoughts > 0 && usage.prompt + usage.candidates + usage.tool_use == total {
            usage.candidates = without_thoughts.unwrap_or(usage.candidates);
        }
        Some(usage)
    }

    /// The tier that Vertex reports; `None` when it reports none.
    pub fn tier(&self) -> Option<ServiceTier> {
        self.traffic_type.as_ref()?.as_str().map(ServiceTier::read)
    }
}

/// Modalities by name, in capitals or not, or by number as clients of `enum-encoding=int` get them.
fn modalities(details: Option<&[ModalityCount]>) -> Modalities {
    let mut sums = Modalities::default();
    for detail in details.unwrap_or_default() {
        let (name, number) = match &detail.modality {
            Some(Value::String(name)) => (name.to_ascii_lowercase(), None),
            Some(Value::Number(number)) => (String::new(), number.as_u64()),
            _ => continue,
        };
        let sum = match (name.as_str(), number) {
            ("image", _) | (_, Some(2)) => &mut sums.image,
            ("video", _) | (_, Some(3)) => &mut sums.video,
            ("audio", _) | (_, Some(4)) => &mut sums.audio,
            _ => continue,
        };
        *sum = sum.saturating_add(detail.tokens.0.unwrap_or(0));
    }
    sums
}

/// `usage` of an interaction.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct InteractionUsage {
    total_input_tokens: Count,
    total_cached_tokens: Count,
    total_output_tokens: Count,
    total_thought_tokens: Count,
    total_tool_use_tokens: Count,
    total_tokens: Count,
    input_tokens_by_modality: Lenient<Vec<ModalityCount>>,
    cached_tokens_by_modality: Lenient<Vec<ModalityCount>>,
    output_tokens_by_modality: Lenient<Vec<ModalityCount>>,
    tool_use_tokens_by_modality: Lenient<Vec<ModalityCount>>,
    grounding_tool_count: Lenient<Vec<GroundingCount>>,
}

#[derive(Debug, Deserialize)]
struct GroundingCount {
    r#type: Option<String>,
    #[serde(default)]
    count: Count,
}

impl InteractionUsage {
    pub(super) fn usage(&self) -> Option<Usage> {
        let details = |counts: &Lenient<Vec<ModalityCount>>| modalities(counts.0.as_deref());
        let searches = |tool: &str| {
            let counts = self.grounding_tool_count.0.iter().flatten();
            let of_tool = counts.filter(|one| one.r#type.as_deref() == Some(tool));
            of_tool.filter_map(|one| one.count.0).fold(0, u64::saturating_add)
        };
        Some(Usage {
            prompt: self.total_input_tokens.0.unwrap_or(0),
            cached: self.total_cached_tokens.0.unwrap_or(0),
            candidates: self.total_output_tokens.0.unwrap_or(0),
            thoughts: self.total_thought_tokens.0.unwrap_or(0),
            tool_use: self.total_tool_use_tokens.0.unwrap_or(0),
            total: self.total_tokens.0?,
            prompt_details: details(&self.input_tokens_by_modality),
            cached_details: details(&self.cached_tokens_by_modality),
            candidates_details: details(&self.output_tokens_by_modality),
            tool_use_details: details(&self.tool_use_tokens_by_modality),
            search_queries: searches("google_search"),
            maps_queries: searches("google_maps"),
        })
    }
}

/// `usage` of the OpenAI-compatible dialect.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OpenAiUsage {
    prompt_tokens: Count,
    completion_tokens: Count,
    total_tokens: Count,
    prompt_tokens_details: Lenient<OpenAiDetails>,
    completion_tokens_details: Lenient<OpenAiDetails>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OpenAiDetails {
    cached_tokens: Count,
    reasoning_tokens: Count,
    audio_tokens: Count,
}

impl OpenAiUsage {
    /// Thoughts are the reasoning tokens when they are reported, else what the total has on top of
    /// prompt and completion.
    pub(super) fn usage(&self) -> Option<Usage> {
        let total = self.total_tokens.0?;
        let prompt = self.prompt_tokens.0.unwrap_or(0);
        let completion = self.completion_tokens.0.unwrap_or(0);
        let beyond = total.saturating_sub(prompt).saturating_sub(completion);
        let reasoning = self
            .completion_tokens_details
            .0
            .as_ref()
            .and_then(|details| details.reasoning_tokens.0);
        let (candidates, thoughts) = match reasoning {
            Some(reasoning) if beyond == 0 => (completion.saturating_sub(reasoning), reasoning),
            Some(_) | None => (completion, beyond),
        };
        let details = self.prompt_tokens_details.0.as_ref();
        Some(Usage {
            prompt,
            cached: details.and_then(|details| details.cached_tokens.0).unwrap_or(0),
            candidates,
            thoughts,
            total,
            prompt_details: Modalities {
                audio: details.and_then(|details| details.audio_tokens.0).unwrap_or(0),
                ..Modalities::default()
            },
            ..Usage::default()
        })
    }
}
