//! Tokens of one call.

use serde::{Deserialize, Serialize};

/// Token counts of one call. Absent counts are 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Everything sent, cached tokens included.
    pub prompt: u64,
    /// The part of the prompt that came from a cache.
    pub cached: u64,
    /// The answer without thoughts.
    pub candidates: u64,
    /// Thinking tokens, billed like the answer.
    pub thoughts: u64,
    /// Results of built-in tools fed back as input.
    pub tool_use: u64,
    /// The upstream's own sum.
    pub total: u64,
    /// Of `prompt`, what is no text.
    pub prompt_details: Modalities,
    /// Of `cached`, what is no text.
    pub cached_details: Modalities,
    /// Of `candidates`, what is no text.
    pub candidates_details: Modalities,
    /// Of `tool_use`, what is no text.
    pub tool_use_details: Modalities,
    /// Different searches of the web that the answer rests on.
    pub search_queries: u64,
    /// Searches of maps that the answer rests on.
    pub maps_queries: u64,
}

/// Tokens that are no text; what they leave of a count is text. Documents count as text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named like the modalities")]
pub struct Modalities {
    pub audio: u64,
    pub image: u64,
    pub video: u64,
}

/// How urgently a call is served, which decides what it costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServiceTier {
    /// What is asked for when nothing is.
    #[default]
    Standard,
    /// Answered within a day, in a batch.
    Batch,
    /// Answered when there is room.
    Flex,
    /// Answered before others.
    Priority,
    /// A tier that this version does not know, or that is not paid by the token.
    Unknown,
}

impl ServiceTier {
    /// Reads the tier in `x-gemini-service-tier`, `serviceTier`, `service_tier` or Vertex's `trafficType`.
    pub fn read(text: &str) -> Self {
        match text.trim().to_ascii_lowercase().as_str() {
            "" | "standard" | "default" | "auto" | "on_demand" | "unspecified" => Self::Standard,
            "batch" => Self::Batch,
            "flex" | "on_demand_flex" => Self::Flex,
            "priority" | "on_demand_priority" => Self::Priority,
            _ => Self::Unknown,
        }
    }
}

impl Usage {
    /// Whether the parts add up to the total, as they do in every answer on record.
    pub fn adds_up(&self) -> bool {
        self.parts() == self.total
    }

    /// Whether only the total is told, as of a cache that was made: nobody knows what it costs.
    pub fn is_total_only(&self) -> bool {
        self.total > 0 && self.parts() == 0
    }

    fn parts(&self) -> u64 {
        [self.prompt, self.candidates, self.thoughts, self.tool_use]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}
