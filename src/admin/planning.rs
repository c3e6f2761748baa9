//! What an experiment of a size can show, said when it is drafted: most are planned too small.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::catalog::check;
use crate::catalog::definitions::{Design, ExperimentDefinition};
use crate::experiment::BUCKETS;
use crate::statistics::plan::Plan;
use crate::statistics::{Alpha, Better};

/// N* where nothing is said.
pub(super) const SIZE_DEFAULT: u32 = 5_000;
const POWER: f64 = 0.8;
const BASELINE_DEFAULT: f64 = 0.95;
/// Differences in percentage points for which the needed size is told.
const POINTS: [f64; 4] = [1.0, 2.0, 3.0, 5.0];

/// What a size can show of the success rate, in one look at the end; a sequential analysis, which may be
/// looked at any time, reaches the same power with about half as many more.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct SizePlan {
    alpha: f64,
    power: f64,
    /// The success rate assumed of control, as a fraction.
    baseline: f64,
    /// Units in all arms together: what was asked for, or the size the analysis takes instead.
    target_sample_size: u32,
    /// Of these, in the smaller of control and the smallest variant.
    units_per_arm: u64,
    /// The smallest rise of the success rate that so many show, in percentage points; null: none.
    smallest_rise_points: Option<f64>,
    /// The smallest fall.
    smallest_fall_points: Option<f64>,
    /// What other differences need.
    needed: Vec<Needed>,
}

/// What one difference needs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Needed {
    /// Between the success rates, in percentage points; a fall where a rise has no room.
    difference_points: f64,
    units_per_arm: u64,
    /// In all arms together, by the split.
    units: u64,
}

/// `None` where arms or design are not right.
pub(super) fn plan(definition: &ExperimentDefinition) -> Option<SizePlan> {
    let Design { alpha, baseline, target_sample_size, .. } =
        definition.design.clone().unwrap_or_default();
    let alpha = alpha.map_or(Some(Alpha::FIVE_PERCENT), Alpha::new)?;
    let baseline = baseline.unwrap_or(BASELINE_DEFAULT);
    let target = target_sample_size.or(definition.target_sample_size).unwrap_or(SIZE_DEFAULT);
    let shares = check::experiment(definition).ok()?.shares();
    let smallest = u64::from(shares.into_iter().filter(|share| *share > 0).min()?);
    let units_per_arm = u64::from(target) * smallest / u64::from(BUCKETS);
    let plan = Plan::new(alpha, POWER)?;
    let effect =
        |better| plan.smallest_effect(baseline, units_per_arm, better).map(|effect| effect * 100.0);
    let needed = |points: f64| {
        let other = if baseline + points / 100.0 <= 1.0 {
            baseline + points / 100.0
        } else {
            baseline - points / 100.0
        };
        let units_per_arm = plan.units_per_arm(baseline, other)?;
        let units = (units_per_arm * u64::from(BUCKETS)).div_ceil(smallest);
        Some(Needed {
            difference_points: (other - baseline).signum() * points,
            units_per_arm,
            units,
        })
    };
    Some(SizePlan {
        alpha: alpha.share(),
        power: POWER,
        baseline,
        target_sample_size: target,
        units_per_arm,
        smallest_rise_points: effect(Better::Higher),
        smallest_fall_points: effect(Better::Lower),
        needed: POINTS.into_iter().filter_map(needed).collect(),
    })
}
