//! Tokens as an answer reports them, in either dialect.
//!
//! Counts are cumulative over a stream: the last report that has a total wins, nothing is added or
//! merged. `prompt` includes the cached tokens, `candidates` excludes the thoughts.

use serde::Deserialize;

use crate::words::tokens::Usage;

/// `usageMetadata` of the native dialect.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NativeUsage {
    prompt_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
    candidates_token_count: Option<u64>,
    thoughts_token_count: Option<u64>,
    tool_use_prompt_token_count: Option<u64>,
    total_token_count: Option<u64>,
    prompt_tokens_details: Option<Vec<ModalityCount>>,
    cache_tokens_details: Option<Vec<ModalityCount>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModalityCount {
    modality: Option<String>,
    token_count: Option<u64>,
}

impl NativeUsage {
    /// `None` for the reports in mid-stream that carry no total.
    pub(super) fn usage(&self) -> Option<Usage> {
        let total = self.total_token_count?;
        Some(Usage {
            prompt: self.prompt_token_count.unwrap_or(0),
            cached: self.cached_content_token_count.unwrap_or(0),
            candidates: self.candidates_token_count.unwrap_or(0),
            thoughts: self.thoughts_token_count.unwrap_or(0),
            tool_use: self.tool_use_prompt_token_count.unwrap_or(0),
            total,
            prompt_audio: audio(self.prompt_tokens_details.as_deref()),
            cached_audio: audio(self.cache_tokens_details.as_deref()),
        })
    }
}

fn audio(details: Option<&[ModalityCount]>) -> u64 {
    details
        .unwrap_or_default()
        .iter()
        .filter(|detail| detail.modality.as_deref() == Some("AUDIO"))
        .filter_map(|detail| detail.token_count)
        .sum()
}

/// `usage` of an interaction.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct InteractionUsage {
    total_input_tokens: Option<u64>,
    total_cached_tokens: Option<u64>,
    total_output_tokens: Option<u64>,
    total_thought_tokens: Option<u64>,
    total_tool_use_tokens: Option<u64>,
    total_tokens: Option<u64>,
}

impl InteractionUsage {
    pub(super) fn usage(&self) -> Option<Usage> {
        Some(Usage {
            prompt: self.total_input_tokens.unwrap_or(0),
            cached: self.total_cached_tokens.unwrap_or(0),
            candidates: self.total_output_tokens.unwrap_or(0),
            thoughts: self.total_thought_tokens.unwrap_or(0),
            tool_use: self.total_tool_use_tokens.unwrap_or(0),
            total: self.total_tokens?,
            ..Usage::default()
        })
    }
}

/// `usage` of the OpenAI-compatible dialect.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OpenAiUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    total_tokens: Option<u64>,
    prompt_tokens_details: Option<OpenAiDetails>,
    completion_tokens_details: Option<OpenAiDetails>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OpenAiDetails {
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
    audio_tokens: Option<u64>,
}

impl OpenAiUsage {
    /// Thoughts are the reasoning tokens when they are reported, else what the total has on top of
    /// prompt and completion.
    pub(super) fn usage(&self) -> Option<Usage> {
        let total = self.total_tokens?;
        let prompt = self.prompt_tokens.unwrap_or(0);
        let completion = self.completion_tokens.unwrap_or(0);
        let beyond = total.saturating_sub(prompt).saturating_sub(completion);
        let reasoning =
            self.completion_tokens_details.as_ref().and_then(|details| details.reasoning_tokens);
        let (candidates, thoughts) = match reasoning {
            Some(reasoning) if beyond == 0 => (completion.saturating_sub(reasoning), reasoning),
            Some(_) | None => (completion, beyond),
        };
        let details = self.prompt_tokens_details.as_ref();
        Some(Usage {
            prompt,
            cached: details.and_then(|details| details.cached_tokens).unwrap_or(0),
            candidates,
            thoughts,
            tool_use: 0,
            total,
            prompt_audio: details.and_then(|details| details.audio_tokens).unwrap_or(0),
            cached_audio: 0,
        })
    }
}
