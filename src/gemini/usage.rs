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
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    #[default]
    Untold,
    Told(u64),
    /// There is something that is no count. It takes nothing else of the answer with it but the cost.
    Unreadable,
}

impl Count {
    pub(super) fn told(self) -> Option<u64> {
        match self {
            Self::Told(count) => Some(count),
            Self::Untold | Self::Unreadable => None,
        }
    }

    fn or_none(self) -> u64 {
        self.told().unwrap_or(0)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let count = match Value::deserialize(deserializer)? {
            Value::Null => return Ok(Self::Untold),
            Value::String(text) => text.trim().parse().ok(),
            Value::Number(number) => match (number.as_u64(), number.as_f64()) {
                (Some(count), _) => Some(count),
                (None, Some(count)) if count.fract() == 0.0 => format!("{count:.0}").parse().ok(),
                _ => None,
            },
            _ => None,
        };
        Ok(count.map_or(Self::Unreadable, Self::Told))
    }
}

/// Whether no count is there that is none. A call with one has no cost: that of the other counts would be wrong.
fn are_readable(counts: &[Count], details: &[&Details]) -> bool {
    let of_details = details.iter().flat_map(|one| each(one)).map(|one| one.tokens);
    counts.iter().copied().chain(of_details).all(|one| one != Count::Unreadable)
}

/// What was used, by prompt, cache, candidates, thoughts and tools, and by modality of all of these but the thoughts;
/// only how much in all where one of the counts cannot be read.
fn used(total: u64, counts: [Count; 5], details: [&Details; 4]) -> Usage {
    if !are_readable(&counts, &details) {
        return Usage { total, ..Usage::default() };
    }
    let [prompt, cached, candidates, thoughts, tool_use] = counts.map(Count::or_none);
    let [prompt_details, cached_details, candidates_details, tool_use_details] =
        details.map(modalities);
    Usage {
        prompt,
        cached,
        candidates,
        thoughts,
        tool_use,
        total,
        prompt_details,
        cached_details,
        candidates_details,
        tool_use_details,
        ..Usage::default()
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
    prompt_tokens_details: Details,
    cache_tokens_details: Details,
    candidates_tokens_details: Details,
    tool_use_prompt_tokens_details: Details,
    traffic_type: Option<Value>,
}

/// Counts by modality.
type Details = Lenient<Vec<Lenient<ModalityCount>>>;

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
        let total = self.total_token_count.told()?;
        let counts = [
            self.prompt_token_count,
            self.cached_content_token_count,
            self.candidates_token_count,
            self.thoughts_token_count,
            self.tool_use_prompt_token_count,
        ];
        let details = [
            &self.prompt_tokens_details,
            &self.cache_tokens_details,
            &self.candidates_tokens_details,
            &self.tool_use_prompt_tokens_details,
        ];
        let mut usage = used(total, counts, details);
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

fn each<T>(list: &Lenient<Vec<Lenient<T>>>) -> impl Iterator<Item = &T> {
    list.0.iter().flatten().filter_map(|one| one.0.as_ref())
}

/// Modalities by name, in capitals or not, or by number as clients of `enum-encoding=int` get them.
fn modalities(details: &Details) -> Modalities {
    let mut sums = Modalities::default();
    for detail in each(details) {
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
        *sum = sum.saturating_add(detail.tokens.or_none());
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
    input_tokens_by_modality: Details,
    cached_tokens_by_modality: Details,
    output_tokens_by_modality: Details,
    tool_use_tokens_by_modality: Details,
    grounding_tool_count: Lenient<Vec<Lenient<GroundingCount>>>,
}

#[derive(Debug, Deserialize)]
struct GroundingCount {
    r#type: Option<String>,
    #[serde(default)]
    count: Count,
}

impl InteractionUsage {
    pub(super) fn usage(&self) -> Option<Usage> {
        let searches = |tool: &str| {
            let counts = each(&self.grounding_tool_count);
            let of_tool = counts.filter(|one| one.r#type.as_deref() == Some(tool));
            of_tool.filter_map(|one| one.count.told()).fold(0, u64::saturating_add)
        };
        let counts = [
            self.total_input_tokens,
            self.total_cached_tokens,
            self.total_output_tokens,
            self.total_thought_tokens,
            self.total_tool_use_tokens,
        ];
        let details = [
            &self.input_tokens_by_modality,
            &self.cached_tokens_by_modality,
            &self.output_tokens_by_modality,
            &self.tool_use_tokens_by_modality,
        ];
        Some(Usage {
            search_queries: searches("google_search"),
            maps_queries: searches("google_maps"),
            ..used(self.total_tokens.told()?, counts, details)
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
        let total = self.total_tokens.told()?;
        let prompt = self.prompt_tokens.or_none();
        let completion = self.completion_tokens.or_none();
        let beyond = total.saturating_sub(prompt).saturating_sub(completion);
        let of_completion = self.completion_tokens_details.0.as_ref();
        let reasoning = of_completion.map(|details| details.reasoning_tokens).unwrap_or_default();
        let (candidates, thoughts) = match reasoning.told() {
            Some(reasoning) if beyond == 0 => (completion.saturating_sub(reasoning), reasoning),
            Some(_) | None => (completion, beyond),
        };
        let of_prompt = self.prompt_tokens_details.0.as_ref();
        let cached = of_prompt.map(|details| details.cached_tokens).unwrap_or_default();
        let audio = of_prompt.map(|details| details.audio_tokens).unwrap_or_default();
        if !are_readable(
            &[self.prompt_tokens, self.completion_tokens, cached, audio, reasoning],
            &[],
        ) {
            return Some(Usage { total, ..Usage::default() });
        }
        Some(Usage {
            prompt,
            cached: cached.or_none(),
            candidates,
            thoughts,
            total,
            prompt_details: Modalities { audio: audio.or_none(), ..Modalities::default() },
            ..Usage::default()
        })
    }
}
