//! Questions about executions that are answered by counting. Both stores count the same way.

use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use crate::words::ids::Tenant;
use crate::words::money::PicoUsd;

/// Which executions are counted.
#[derive(Debug, Clone)]
pub struct ReportQuery {
    /// Whose.
    pub tenant: Tenant,
    /// From this moment on.
    pub from: Timestamp,
    /// Up to this one, exclusive.
    pub to: Timestamp,
    /// Only of this model.
    pub model: Option<String>,
    /// Only of this version.
    pub template_id: Option<Uuid>,
    /// Only of this template name.
    pub template_name: Option<String>,
}

/// The answer to a [`ReportQuery`].
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// By template version; calls without a template are one of them.
    pub versions: Vec<VersionFigures>,
    /// Over all of them.
    pub times: Times,
    /// By guardrail.
    pub guardrails: Vec<GuardrailFigures>,
    /// By source of the catalog.
    pub sources: Vec<SourceFigures>,
}

/// What is counted of one version.
#[derive(Debug, Clone, Default, Deserialize)]
#[expect(missing_docs, reason = "the names say it; times in milliseconds")]
pub struct VersionFigures {
    pub template_id: Option<Uuid>,
    pub template_name: Option<String>,
    pub template_version: Option<u32>,
    pub executions: u64,
    pub success: u64,
    pub failed: u64,
    pub incomplete: u64,
    pub blocked: u64,
    pub response_blocked: u64,
    pub rejected: u64,
    pub client_left: u64,
    pub drained: u64,
    /// Calls that reached Gemini.
    pub attempted: u64,
    /// Over those.
    pub response_time_ms_sum: f64,
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub thoughts_tokens: u64,
    pub candidates_tokens: u64,
    /// Null when no call has a price.
    pub cost_usd: Option<PicoUsd>,
    /// Calls with a price.
    pub priced: u64,
    /// Answered calls whose model has no known price.
    pub unpriced: u64,
}

/// Quantiles by nearest rank over the calls that reached Gemini.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Times {
    pub response: Quantiles,
    pub first_token: Quantiles,
    pub overhead: Quantiles,
}

/// In milliseconds; null without calls.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Quantiles {
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
    pub max: Option<f64>,
}

/// What is counted of one guardrail.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct GuardrailFigures {
    pub rule_name: String,
    /// Calls it looked at.
    pub evaluations: u64,
    /// Calls it found something in.
    pub violations: u64,
    /// Calls it stopped.
    pub blocks: u64,
}

/// What is counted of one source of the catalog.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct SourceFigures {
    pub source: String,
    pub executions: u64,
}
