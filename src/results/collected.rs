//! What the store has counted of one experiment. Field names are those of the stores' statements.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// All of it, as of one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Collected {
    /// Fixed by the start, or when the first execution was stored; nothing before.
    pub parameters: Option<Parameters>,
    /// Stretches of time with one split each. None are known of an experiment that was never started here.
    pub phases: Vec<Phase>,
    /// By phase and arm.
    pub sums: Vec<ArmSums>,
    /// By phase, arm and key.
    pub feedback: Vec<FeedbackSums>,
    /// By phase and arm, the models that answered, in the order in which they came.
    pub models: Vec<ModelSeen>,
    /// Executions on its template by why they got their arm, or none.
    pub reasons: BTreeMap<String, u64>,
    /// What was reached once and stays so.
    pub milestones: Vec<Milestone>,
    /// Latencies of single calls, where they were asked for.
    #[serde(default)]
    pub latencies: Option<Vec<ArmLatencies>>,
}

/// Latencies of the latest calls of an arm in a phase; of units that were in another arm before, none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ArmLatencies {
    /// Of the executions.
    pub phase: u32,
    /// Of the executions.
    pub arm: String,
    /// In milliseconds, of the calls that reached Gemini: one list for each unit.
    pub units: Vec<Vec<f64>>,
}

/// What the analysis holds to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    /// N*.
    pub target_units: u64,
    /// Latencies above it count as it.
    pub latency_cap_ms: Option<f64>,
    /// Costs above it count as it.
    pub cost_cap_usd: Option<f64>,
    /// Calls of control before the start that the caps come from.
    pub calls: u64,
    /// When they were fixed.
    pub frozen_at: Timestamp,
}

/// A stretch of time with one split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// From 1.
    pub phase: u32,
    /// How it came about.
    pub mode: String,
    /// Its split.
    pub arms: Vec<PhaseArm>,
    /// Its first moment.
    pub started_at: Timestamp,
    /// Its end, if it has one.
    pub ended_at: Option<Timestamp>,
}

/// An arm's part of a split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseArm {
    /// `control`, `variant_a`, …
    pub key: String,
    /// In thousandths of a percent.
    pub weight_millipercent: u32,
}

/// A model that answered an arm in a phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct ModelSeen {
    pub phase: u32,
    pub arm: String,
    pub model: String,
    pub executions: u64,
    pub first_seen_at: Timestamp,
    pub last_seen_at: Timestamp,
}

/// Sums over the units of one arm in one phase; units that were in another arm before are in none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the columns are documented where the table is made")]
pub struct ArmSums {
    pub phase: u32,
    pub arm: String,
    pub units: u64,
    pub crossed_units: u64,
    pub executions: u64,
    pub attempted: u64,
    pub successes: u64,
    pub blocked: u64,
    pub quota: u64,
    pub client_left: u64,
    pub unpriced: u64,
    pub prompt_tokens: f64,
    pub cached_tokens: f64,
    pub executions_sq: f64,
    pub successes_sq: f64,
    pub successes_executions: f64,
    pub blocked_sq: f64,
    pub blocked_executions: f64,
    pub latency_units: u64,
    pub attempted_sq: f64,
    pub latency_ms: f64,
    pub latency_ms_sq: f64,
    pub latency_ms_attempted: f64,
    pub latency_log: f64,
    pub latency_log_sq: f64,
    pub cost_units: u64,
    pub priced_sq: f64,
    pub cost_usd: f64,
    pub cost_usd_sq: f64,
    pub cost_usd_priced: f64,
    pub cost_usd_successes: f64,
    pub first_seen_at: Option<Timestamp>,
    pub last_seen_at: Option<Timestamp>,
}

/// Sums over the units of one arm in one phase that gave feedback under one key: of each unit's mean.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FeedbackSums {
    /// Of the executions.
    pub phase: u32,
    /// Of the executions.
    pub arm: String,
    /// What was said of them: `helpful`, `score`, …
    pub key: String,
    /// Units that gave it.
    pub units: u64,
    /// How often in all.
    pub count: u64,
    /// Σ of the units' means.
    pub mean_sum: f64,
    /// Σ of their squares.
    pub mean_sq_sum: f64,
}

/// Something reached once: a later wobble does not take it back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Milestone {
    /// The metric.
    pub metric: String,
    /// The variant.
    pub arm: String,
    /// `significant`: a comparison was; `harm`: a variant was worse by a harm metric.
    pub kind: String,
    /// The p-value then.
    pub p: Option<f64>,
    /// When it was first seen.
    pub at: Timestamp,
}

impl Collected {
    /// The phase from which on units are comparable: a re-randomised experiment begins anew.
    pub(super) fn first_phase(&self) -> u32 {
        let anew = self.phases.iter().filter(|one| one.mode == "rerandomise");
        anew.map(|one| one.phase).max().unwrap_or(1)
    }

    /// Sums that count, in the order of phases.
    pub(super) fn counted(&self) -> impl Iterator<Item = &ArmSums> {
        let first = self.first_phase();
        self.sums.iter().filter(move |one| one.phase >= first)
    }

    /// Latencies that count, of an arm.
    pub(super) fn sampled<'c>(&'c self, arm: &'c str) -> impl Iterator<Item = &'c ArmLatencies> {
        let first = self.first_phase();
        let all = self.latencies.iter().flatten();
        all.filter(move |one| one.phase >= first && one.arm == arm)
    }

    /// The phases in which something was counted.
    pub(super) fn phases_counted(&self) -> Vec<u32> {
        let mut phases: Vec<u32> = self.counted().map(|one| one.phase).collect();
        phases.sort_unstable();
        phases.dedup();
        phases
    }

    pub(super) fn milestone(&self, kind: &str, metric: &str, arm: &str) -> Option<&Milestone> {
        self.milestones
            .iter()
            .find(|one| one.kind == kind && one.metric == metric && one.arm == arm)
    }
}
