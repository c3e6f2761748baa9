//! The shape of the answer. Fractions, milliseconds and dollars as they are; null where nothing is known.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::soundness::Soundness;
use crate::statistics::{Better, Counts, bayes};

/// Everything an experiment has shown so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Results {
    /// When this was put together.
    pub computed_at: Timestamp,
    /// From which data.
    pub watermark: Watermark,
    /// By which rules, exactly.
    pub parameters: ParametersUsed,
    /// How far it has come.
    pub progress: Progress,
    /// By arm, control first.
    pub arms: Vec<ArmResult>,
    /// The primary metric first, then the secondary ones, then those that may only do no harm, then
    /// quantiles where calls were read one by one.
    pub metrics: Vec<MetricResult>,
    /// Whether to believe it.
    pub health: Soundness,
    /// The first harm that was seen.
    pub harm: Option<Harm>,
    /// `insufficient_data`, `invalid`, `running`, `variant_better`, `control_better`, `equivalent` or
    /// `harm_stopped`.
    pub verdict: &'static str,
    /// The arm of the verdict, where it names one. Nothing is promoted by that.
    pub better_arm: Option<String>,
    /// `open`, or `sealed` until a fixed analysis may be read.
    pub reading: &'static str,
    /// What is stored as `statistical_significance`.
    pub statistical_significance: Option<f64>,
    /// The one look of a fixed analysis was taken: this stays as it is.
    #[serde(rename = "final")]
    pub is_final: bool,
}

/// The data behind an answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Watermark {
    pub executions: u64,
    pub units: u64,
    pub feedback: u64,
    pub last_seen_at: Option<Timestamp>,
}

/// What the numbers were computed with.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it; docs/experiments-numbers.md explains them")]
pub struct ParametersUsed {
    pub analysis: &'static str,
    pub alpha: f64,
    /// Of each variant's interval on the primary metric: alpha over the number of variants.
    pub alpha_per_variant: f64,
    /// N*.
    pub target_units: u64,
    pub units_per_arm_min: u64,
    pub latency_cap_ms: Option<f64>,
    pub cost_cap_usd: Option<f64>,
    /// Calls of control before the start that the caps come from.
    pub cap_calls: u64,
    pub frozen_at: Option<Timestamp>,
    pub hash_version: u32,
    pub minimal_effect: Option<f64>,
    pub runtime_min_hours: f64,
    pub harm_stop: bool,
    pub harm_tolerated: f64,
    /// Phases before it are not analysed: the experiment was re-randomised there.
    pub first_phase: u32,
}

/// How far an experiment has come.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Progress {
    pub units: u64,
    pub target_units: Option<u64>,
    pub percent: Option<f64>,
    pub runtime_hours: Option<f64>,
    /// At the pace so far.
    pub hours_left: Option<f64>,
    /// The smallest difference in success rate from control's, as a fraction, that so many units show at one
    /// look with 80 % power.
    pub smallest_effect_at_target: Option<f64>,
}

/// What was counted of an arm.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it; docs/experiments-numbers.md explains them")]
pub struct ArmResult {
    pub arm: String,
    pub template_id: Option<Uuid>,
    pub units: u64,
    pub executions: u64,
    pub attempted: u64,
    pub successes: u64,
    pub blocked: u64,
    pub quota: u64,
    pub client_left: u64,
    pub unpriced: u64,
    pub crossed_units: u64,
    /// Of the input tokens: an arm that hits the cache more often looks cheaper and faster.
    pub cached_token_share: Option<f64>,
    pub feedback: u64,
}

/// One metric over all variants.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetricResult {
    /// Its name.
    pub metric: String,
    /// `primary`, `secondary`, `harm`, or `exploratory`: quantiles, read when somebody asks and never dated.
    pub role: &'static str,
    /// Of estimates and differences.
    pub unit: &'static str,
    /// `higher` or `lower`.
    pub better: &'static str,
    /// How it is tested.
    pub method: &'static str,
    /// `holm`, `benjamini_hochberg` or `none`.
    pub adjustment: &'static str,
    /// Each variant against control.
    pub comparisons: Vec<Comparison>,
}

/// One variant against control.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The variant.
    pub arm: String,
    /// Control's side.
    pub control: Option<Side>,
    /// The variant's side.
    pub variant: Option<Side>,
    /// Variant minus control.
    pub difference: Option<f64>,
    /// Its standard error.
    pub se: Option<f64>,
    /// What is not ruled out for the difference.
    pub interval: Option<[f64; 2]>,
    /// Whether `interval` may disagree with `p`: beside Fisher's exact test.
    pub interval_approximate: bool,
    /// Of one look at the end; null while a fixed analysis is sealed.
    pub p: Option<f64>,
    /// What gave `p` where each request is a unit and the metric a share: `pooled_z` or `fisher_exact`.
    pub test: Option<&'static str>,
    /// The same by Bayes, where there is such a `test`.
    pub belief: Option<Belief>,
    /// Of looking at any time.
    pub always_valid_p: Option<f64>,
    /// The one of them that decides, adjusted for the comparisons that are read together.
    pub p_adjusted: Option<f64>,
    /// Variant / control - 1.
    pub lift: Option<f64>,
    /// What is not ruled out for it; null where that is no interval.
    pub lift_interval: Option<[f64; 2]>,
    /// Whether the interval leaves out 0.
    pub significant: bool,
    /// When it first was. Never taken back.
    pub ever_significant_at: Option<Timestamp>,
    /// Phases that gave no comparison.
    pub phases_left_out: Vec<u32>,
    /// Why there is no answer.
    pub why_none: Option<String>,
}

/// One arm's number in a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Side {
    /// Units behind it; one counts in each phase in which it called.
    pub n_units: u64,
    /// Their executions.
    pub n_executions: u64,
    /// The number.
    pub estimate: f64,
    /// Its standard error.
    pub se: f64,
    /// Wilson's, where the difference has Newcombe's.
    pub interval: Option<[f64; 2]>,
}

/// What two shares make one believe whose prior is uniform. To be read beside the test and not to stop by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Belief {
    /// How probably the variant is better.
    pub variant_better: f64,
    /// How much of the share is lost on average by choosing the variant.
    pub expected_loss: f64,
}

impl Belief {
    /// Of two shares of which the higher or the lower one is better.
    pub(super) fn of(control: Counts, variant: Counts, better: Better) -> Self {
        // Where less is better, control's share is the one that has to be the larger.
        let belief = match better {
            Better::Higher => bayes::compare(control, variant),
            Better::Lower => bayes::compare(variant, control),
        };
        Self { variant_better: belief.variant_better, expected_loss: belief.expected_loss }
    }
}

/// Harm that was seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Harm {
    /// Whose.
    pub arm: String,
    /// By which metric.
    pub metric: String,
    /// When it was first seen.
    pub at: Timestamp,
    /// Whether that ends the experiment.
    pub stops: bool,
}
