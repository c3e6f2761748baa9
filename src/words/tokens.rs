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
    /// Of `prompt`, spoken input: it has its own price.
    pub prompt_audio: u64,
    /// Of `cached`, spoken input.
    pub cached_audio: u64,
}

impl Usage {
    /// Whether the parts add up to the total, as they do in every answer on record.
    pub fn adds_up(&self) -> bool {
        self.prompt + self.candidates + self.thoughts + self.tool_use == self.total
    }
}
