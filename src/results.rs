//! What an experiment has shown, put together for a reader: sums of the store go through the statistics,
//! and come out as estimates, checks and a verdict.
//!
//! Knows no clock, store or request. [`Design`] is what was planned, [`Collected`] what was counted.

mod collected;
mod compare;
mod design;
mod metric;
pub mod placebo;
mod report;
mod soundness;

pub use collected::{
    ArmLatencies, ArmSums, Collected, FeedbackSums, Milestone, ModelSeen, Parameters, Phase,
    PhaseArm,
};
pub use compare::results;
pub use design::{ArmPlan, Design, Measured, Rules, is_key};
pub use metric::Metric;
pub use report::{
    ArmResult, Belief, Comparison, Harm, MetricResult, ParametersUsed, Progress, Results, Side,
    Watermark,
};
pub use soundness::{Checked, FeedbackBalance, Losses, LostRows, PhaseBalance, Soundness};

#[cfg(test)]
mod peeking;
#[cfg(test)]
mod tests;
