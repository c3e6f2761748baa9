//! Questions about executions that are answered by counting. Both stores count the same way.

use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use crate::statistics::sketch::Sketch;
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
    /// Up to so many executions quantiles are exact; of more they come from a sketch.
    pub exact_rows_max: u64,
}

/// Of so many executions all times are sorted.
pub const EXACT_ROWS_MAX: u64 = 100_000;

/// The width of a stretch of a time series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// Hours of UTC.
    Hour,
    /// Days of UTC.
    Day,
}

/// What is counted of one template beside its figures.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Details {
    /// How calls ended, most frequent first.
    pub errors: Vec<ErrorFigures>,
    /// Successful calls by the length of their answers.
    pub bands: Vec<BandFigures>,
    /// Stretches of time in which there was a call.
    pub series: Vec<SeriesFigures>,
    /// Executions outside any experiment, and experiments.
    pub cause: CauseFigures,
}

/// Calls with one ending.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct ErrorFigures {
    pub outcome: String,
    pub error_type: Option<String>,
    pub executions: u64,
}

/// Successful calls whose answers are about as long.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "the names say it; times in milliseconds")]
pub struct BandFigures {
    /// From so many tokens on.
    pub tokens_min: u64,
    pub executions: u64,
    pub avg_response_time_ms: f64,
    pub p50: f64,
    pub p95: f64,
}

/// One stretch of time.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "the names say it; times in milliseconds")]
pub struct SeriesFigures {
    pub at: Timestamp,
    pub executions: u64,
    pub success: u64,
    pub failure: u64,
    pub blocked: u64,
    pub attempted: u64,
    pub response_time_ms_sum: f64,
    pub cost_usd: Option<f64>,
}

/// Whether the versions of a name served side by side in one experiment.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct CauseFigures {
    pub outside: u64,
    pub experiments: u64,
}

/// The lower bounds of the bands, in tokens of the answer.
pub const BANDS: [u64; 5] = [0, 100, 500, 2_000, 8_000];

/// The answer to a [`ReportQuery`].
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// By template version; calls without a template are one of them.
    pub versions: Vec<VersionFigures>,
    /// Over all of them.
    pub times: Times,
    /// Whether the quantiles are exact; otherwise they may be off by 1 % of themselves.
    pub exact: bool,
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
    /// The same if nothing had come from a cache.
    pub cost_list_usd: Option<PicoUsd>,
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

/// Calls in one bucket of a sketch, and the largest value of all.
#[derive(Debug, Deserialize)]
pub(super) struct Bucket {
    of: String,
    bucket: i32,
    count: u64,
    max: f64,
}

/// The quantiles of sketches.
pub(super) fn sketched(buckets: &[Bucket]) -> Times {
    let quantiles = |of: &str| {
        let mut sketch = Sketch::default();
        let mut max: Option<f64> = None;
        for one in buckets.iter().filter(|one| one.of == of) {
            sketch.put(one.bucket, one.count);
            max = Some(max.map_or(one.max, |max| max.max(one.max)));
        }
        let at = |q| sketch.quantile(q);
        Quantiles { p50: at(0.5), p90: at(0.9), p95: at(0.95), p99: at(0.99), max }
    };
    Times {
        response: quantiles("response"),
        first_token: quantiles("first_token"),
        overhead: quantiles("overhead"),
    }
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
