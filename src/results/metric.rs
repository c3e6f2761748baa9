//! What can be measured of an arm, and which sums each metric is made of.

use super::collected::{ArmSums, Collected};
use crate::statistics::quantile;
use crate::statistics::{Better, Counts, Estimate, MeanSums, NoAnswer, RatioSums, Scale};

/// A metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Metric {
    /// Successes per execution.
    SuccessRate,
    /// Executions that a guardrail stopped, per execution.
    BlockedRate,
    /// The geometric mean of the time to the last byte, over calls that reached Gemini.
    ResponseTime,
    /// The mean of that time, capped.
    ResponseTimeMean,
    /// A quantile of that time over the latest calls.
    ResponseTimeQuantile {
        /// 50 for the median.
        percent: u8,
    },
    /// The mean cost of an execution without a cache, capped.
    Cost,
    /// The same money per success.
    CostPerSuccess,
    /// The mean of what users said under a key, each user counting once.
    Custom {
        /// The key of the feedback.
        key: String,
    },
}

impl Metric {
    /// The word in records and answers.
    pub fn name(&self) -> String {
        match self {
            Self::SuccessRate => "success_rate".to_owned(),
            Self::BlockedRate => "blocked_rate".to_owned(),
            Self::ResponseTime => "response_time".to_owned(),
            Self::ResponseTimeMean => "response_time_mean".to_owned(),
            Self::ResponseTimeQuantile { percent } => format!("response_time_p{percent}"),
            Self::Cost => "cost".to_owned(),
            Self::CostPerSuccess => "cost_per_success".to_owned(),
            Self::Custom { key } => format!("custom:{key}"),
        }
    }

    /// Whether an experiment may be decided by it; the others are looked at beside what decides.
    pub fn may_decide(&self) -> bool {
        matches!(self, Self::SuccessRate | Self::ResponseTime | Self::Cost | Self::Custom { .. })
    }

    /// Where it should go unless an experiment says otherwise.
    pub fn better(&self) -> Better {
        match self {
            Self::SuccessRate | Self::Custom { .. } => Better::Higher,
            Self::BlockedRate
            | Self::ResponseTime
            | Self::ResponseTimeMean
            | Self::ResponseTimeQuantile { .. }
            | Self::Cost
            | Self::CostPerSuccess => Better::Lower,
        }
    }

    /// The scale of its estimates.
    pub fn scale(&self) -> Scale {
        if *self == Self::ResponseTime { Scale::Log } else { Scale::Linear }
    }

    /// The unit of its estimates and differences.
    pub fn unit(&self) -> &'static str {
        match self {
            Self::SuccessRate | Self::BlockedRate => "fraction",
            Self::ResponseTime => "ln_ms",
            Self::ResponseTimeMean | Self::ResponseTimeQuantile { .. } => "ms",
            Self::Cost | Self::CostPerSuccess => "usd",
            Self::Custom { .. } => "value",
        }
    }

    /// How it is tested when units are users.
    pub fn method(&self) -> &'static str {
        match self {
            Self::SuccessRate | Self::BlockedRate => "ratio of sums, delta method over units",
            Self::ResponseTime => "mean of units' mean logarithms, Welch",
            Self::ResponseTimeQuantile { .. } => {
                "quantile of the latest calls, ranks by the delta method over units"
            }
            Self::ResponseTimeMean | Self::Cost | Self::CostPerSuccess => {
                "ratio of sums, capped, delta method over units"
            }
            Self::Custom { .. } => "mean of units' means, Welch",
        }
    }

    /// What one arm says in one phase.
    pub(super) fn estimate(
        &self,
        arm: &ArmSums,
        collected: &Collected,
    ) -> Result<Estimate, NoAnswer> {
        match self {
            Self::SuccessRate => RatioSums {
                units: arm.units,
                sum_d: count(arm.executions),
                sum_x: count(arm.successes),
                sum_d2: arm.executions_sq,
                sum_x2: arm.successes_sq,
                sum_xd: arm.successes_executions,
            }
            .estimate(),
            Self::BlockedRate => RatioSums {
                units: arm.units,
                sum_d: count(arm.executions),
                sum_x: count(arm.blocked),
                sum_d2: arm.executions_sq,
                sum_x2: arm.blocked_sq,
                sum_xd: arm.blocked_executions,
            }
            .estimate(),
            Self::ResponseTime => MeanSums {
                units: arm.latency_units,
                sum_x: arm.latency_log,
                sum_x2: arm.latency_log_sq,
            }
            .estimate(),
            Self::ResponseTimeMean => RatioSums {
                units: arm.latency_units,
                sum_d: count(arm.attempted),
                sum_x: arm.latency_ms,
                sum_d2: arm.attempted_sq,
                sum_x2: arm.latency_ms_sq,
                sum_xd: arm.latency_ms_attempted,
            }
            .estimate(),
            Self::ResponseTimeQuantile { percent } => {
                let sample = collected.sampled(&arm.arm).find(|one| one.phase == arm.phase);
                let units = sample.map_or(&[][..], |sample| &sample.units);
                quantile::estimate(units, f64::from(*percent) / 100.0)
            }
            Self::Cost => RatioSums {
                units: arm.cost_units,
                sum_d: count(arm.executions.saturating_sub(arm.unpriced)),
                sum_x: arm.cost_usd,
                sum_d2: arm.priced_sq,
                sum_x2: arm.cost_usd_sq,
                sum_xd: arm.cost_usd_priced,
            }
            .estimate(),
            Self::CostPerSuccess => RatioSums {
                units: arm.units,
                sum_d: count(arm.successes),
                sum_x: arm.cost_usd,
                sum_d2: arm.successes_sq,
                sum_x2: arm.cost_usd_sq,
                sum_xd: arm.cost_usd_successes,
            }
            .estimate(),
            Self::Custom { key } => of_feedback(key, arm, collected).estimate(),
        }
    }

    /// The executions of an arm that its estimates are made of.
    pub(super) fn executions(&self, arm: &str, collected: &Collected) -> u64 {
        if let Self::ResponseTimeQuantile { .. } = self {
            let calls = collected.sampled(arm).flat_map(|sample| &sample.units).map(Vec::len);
            return calls.sum::<usize>() as u64;
        }
        collected.counted().filter(|one| one.arm == arm).map(|one| one.executions).sum()
    }

    /// Successes of trials, where each request is a unit and the metric a share.
    pub(super) fn counts(&self, arm: &ArmSums) -> Option<Counts> {
        match self {
            Self::SuccessRate => Counts::new(arm.successes, arm.executions),
            Self::BlockedRate => Counts::new(arm.blocked, arm.executions),
            Self::ResponseTime
            | Self::ResponseTimeMean
            | Self::ResponseTimeQuantile { .. }
            | Self::Cost
            | Self::CostPerSuccess
            | Self::Custom { .. } => None,
        }
    }
}

fn of_feedback(key: &str, arm: &ArmSums, collected: &Collected) -> MeanSums {
    let mut sums = MeanSums::default();
    let here =
        |one: &&super::FeedbackSums| one.key == key && one.arm == arm.arm && one.phase == arm.phase;
    for one in collected.feedback.iter().filter(here) {
        sums.merge(MeanSums { units: one.units, sum_x: one.mean_sum, sum_x2: one.mean_sq_sum });
    }
    sums
}

/// A count as a real number.
#[expect(clippy::cast_precision_loss, reason = "counts of executions are far below 2^52")]
pub(super) fn count(count: u64) -> f64 {
    count as f64
}
