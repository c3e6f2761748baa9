//! What an experiment can see before it starts: how many units it needs, and what so many can show.
//!
//! For one look at the end. A sequence reaches the same power later: its interval is about 1.5
//! times as wide.

use super::tails::normal_critical;
use super::{Alpha, Better, real};

/// Halvings that bring any share to the last digit.
const HALVINGS: u32 = 60;

/// How sure a plan wants to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    z_alpha: f64,
    z_power: f64,
}

impl Plan {
    /// A two-sided test at `alpha` that finds what it looks for with probability `power`. `None`
    /// unless power lies between 0.5 and 1, both excluded.
    pub fn new(alpha: Alpha, power: f64) -> Option<Self> {
        let miss = Alpha::new(2.0 * (1.0 - power))?;
        Some(Self { z_alpha: normal_critical(alpha), z_power: normal_critical(miss) })
    }

    /// Units per arm that tell a share `other` from a share `base` (Fleiss, 1981, without
    /// continuity correction). `None` unless both lie between 0 and 1 and differ.
    pub fn units_per_arm(&self, base: f64, other: f64) -> Option<u64> {
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        if !is_share(base) || !is_share(other) || (base - other).abs() < 1e-9 {
            return None;
        }
        Some(whole(self.units(base, other).ceil()))
    }

    /// The smallest difference from a share `base` that `per_arm` units show, in the better
    /// direction, above 0. `None` when even the best share would not show, or `base` is no share.
    pub fn smallest_effect(&self, base: f64, per_arm: u64, better: Better) -> Option<f64> {
        let room = match better {
            Better::Higher => 1.0 - base,
            Better::Lower => base,
        };
        let shows = |effect: f64| self.units(base, base + better.gain(effect)) <= real(per_arm);
        if !(0.0..=1.0).contains(&base) || !shows(room) {
            return None;
        }
        let (mut hidden, mut shown) = (0.0, room);
        for _ in 0..HALVINGS {
            let middle = 0.5 * (hidden + shown);
            if shows(middle) { shown = middle } else { hidden = middle }
        }
        Some(shown)
    }

    /// Units per arm that tell two means apart which differ by `difference`, when units deviate by
    /// `deviation` in either arm; both in the unit of the metric. `None` when there is no
    /// difference.
    pub fn units_per_arm_of_mean(&self, deviation: f64, difference: f64) -> Option<u64> {
        let needed = 2.0 * ((self.z_alpha + self.z_power) * deviation / difference).powi(2);
        needed.is_finite().then(|| whole(needed.ceil()))
    }

    fn units(&self, base: f64, other: f64) -> f64 {
        let mean = 0.5 * (base + other);
        let alike = (2.0 * mean * (1.0 - mean)).sqrt();
        let apart = (base * (1.0 - base) + other * (1.0 - other)).sqrt();
        ((self.z_alpha * alike + self.z_power * apart) / (base - other)).powi(2)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not below 0; the conversion stops at the largest count"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::Plan;
    use crate::statistics::tests::assert_near;
    use crate::statistics::{Alpha, Better};

    /// Sections 7.8 and 7.10; the exact counts by the same formula with scipy's `norm.ppf`.
    #[test]
    fn known_answers() {
        let plan = Plan::new(Alpha::FIVE_PERCENT, 0.8).unwrap();
        assert_eq!(plan.units_per_arm(0.90, 0.92), Some(3213));
        assert_eq!(plan.units_per_arm(0.95, 0.97), Some(1506));
        assert_eq!(plan.units_per_arm(0.95, 0.96), Some(6745));
        assert_eq!(plan.units_per_arm(0.9, 0.9), None);
        assert_eq!(plan.units_per_arm(0.9, 1.1), None);
        assert_eq!(plan.units_per_arm_of_mean(250.0, 25.0), Some(1570));
        assert_eq!(plan.units_per_arm_of_mean(250.0, 0.0), None);
        assert!(Plan::new(Alpha::FIVE_PERCENT, 1.0).is_none());
    }

    #[test]
    fn the_smallest_effect_of_so_many_units_needs_so_many() {
        let plan = Plan::new(Alpha::FIVE_PERCENT, 0.8).unwrap();
        let effect = plan.smallest_effect(0.95, 500, Better::Higher).unwrap();
        assert_near(effect, 0.032_060_077_558_758_04, 1e-9);
        assert_eq!(plan.units_per_arm(0.95, 0.95 + effect), Some(500));
        let lower = plan.smallest_effect(0.95, 500, Better::Lower).unwrap();
        assert!(lower > effect);
        assert_eq!(plan.units_per_arm(0.95, 0.95 - lower), Some(500));
        assert_eq!(plan.smallest_effect(0.95, 50, Better::Higher), None);
        assert_eq!(plan.smallest_effect(1.5, 50, Better::Higher), None);
    }
}
