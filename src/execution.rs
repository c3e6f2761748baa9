//! One model call as it is recorded.
//!
//! Field names are the column names of `prompt_executions`; the outbox stores this struct as JSON and
//! both stores insert it from there, so a record has one shape everywhere.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::words::ids::{ExecutionId, ExperimentId, TemplateId, Tenant};
use crate::words::money::PicoUsd;

/// How a call ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered to its end by the model's own will.
    Success,
    /// A guardrail stopped the prompt; nothing was sent.
    Blocked,
    /// A guardrail stopped the answer.
    ResponseBlocked,
    /// Upstream failed or refused.
    Failed,
    /// The answer stopped without saying why.
    Incomplete,
    /// Chaperone refused the call: unknown template, missing variable, malformed body.
    Rejected,
    /// The client went away.
    #[default]
    ClientLeft,
    /// Ended by the shutdown of this process.
    Drained,
}

impl Outcome {
    /// Every outcome, for metrics that exist from the start.
    pub const ALL: [Self; 8] = [
        Self::Success,
        Self::Blocked,
        Self::ResponseBlocked,
        Self::Failed,
        Self::Incomplete,
        Self::Rejected,
        Self::ClientLeft,
        Self::Drained,
    ];

    /// The word in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Blocked => "blocked",
            Self::ResponseBlocked => "response_blocked",
            Self::Failed => "failed",
            Self::Incomplete => "incomplete",
            Self::Rejected => "rejected",
            Self::ClientLeft => "client_left",
            Self::Drained => "drained",
        }
    }
}

/// What one guardrail said about one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The guardrail's name.
    pub rule_name: String,
    /// Whether it found nothing.
    pub passed: bool,
    /// What it found: entities and how often, never the text.
    pub reason: Option<String>,
}

/// One violation with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The guardrail's name.
    pub rule_name: String,
    /// What was found.
    pub entity: String,
    /// `request` or `response`.
    pub direction: String,
    /// `info`, `warn`, `redact` or `block`; with `shadow_` before it for what only would have been done.
    pub action: String,
    /// Where in the body the string stands that it begins in, such as `contents[0].parts[1].text`. Names that may
    /// be the caller's own are `*`. Not known of streams, variables, rendered prompts, names and what was decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// First byte in that string; of a stream, in all that the candidate said.
    pub start: usize,
    /// End of it there, exclusive.
    pub end: usize,
}

/// The record. Durations in milliseconds, counts in tokens. What an older version wrote reads too: what it
/// did not know has its default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the columns are documented where the table is made")]
pub struct Execution {
    pub id: Option<ExecutionId>,
    pub tenant_id: Tenant,
    pub request_id: String,
    pub template_id: Option<TemplateId>,
    pub template_name: Option<String>,
    pub template_version: Option<u32>,
    pub template_content_hash: Option<String>,
    pub call: String,
    pub streamed: bool,
    pub user_id: Option<String>,
    pub unit_key: Option<String>,
    pub conversation_id: Option<String>,
    pub variables_used: Option<Value>,
    pub rendered_prompt: Option<Value>,
    pub model_name: Option<String>,
    pub model_config: Option<Value>,
    pub execution_time_ms: f64,
    pub time_to_first_token_ms: Option<f64>,
    pub overhead_ms: Option<f64>,
    pub token_count: Option<u64>,
    pub prompt_tokens: Option<u64>,
    pub cached_tokens: Option<u64>,
    pub candidates_tokens: Option<u64>,
    pub thoughts_tokens: Option<u64>,
    pub tool_use_tokens: Option<u64>,
    pub usage_partial: bool,
    pub estimated_cost_usd: Option<PicoUsd>,
    pub cost_list_usd: Option<PicoUsd>,
    pub price_version: Option<String>,
    pub outcome: Outcome,
    pub success: bool,
    pub error_type: Option<String>,
    pub error_message: Option<String>,
    pub http_status: Option<u16>,
    pub finish_reason: Option<String>,
    pub guardrails_evaluated: Vec<Evaluation>,
    pub guardrail_violations: Vec<Violation>,
    pub ab_test_group: Option<String>,
    pub ab_test_experiment_id: Option<ExperimentId>,
    pub assignment_reason: Option<String>,
    pub enroll_bucket: Option<u32>,
    pub variant_bucket: Option<u32>,
    pub body_sha256: Option<String>,
    /// The caller's span, as in its header; no column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_parent: Option<String>,
    pub catalog_generation: u64,
    pub catalog_source: String,
    #[serde(serialize_with = "fixed_width")]
    pub created_at: Timestamp,
}

/// Always six decimals, so that text order is time order.
fn fixed_width<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{at:.6}"))
}
