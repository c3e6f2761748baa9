//! How much larger than control's, as a share of control's: Fieller's interval.

use super::{Comparison, Interval};

/// The values of variant / control - 1 that the data do not rule out.
///
/// When control itself may be 0, the set has no ends or a hole; to print it as an interval would be
/// wrong, so the cases are told apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lift {
    /// An ordinary interval.
    Between(Interval),
    /// Everything but what lies strictly between the two ends of this gap.
    Outside(Interval),
    /// Any lift at all.
    Anything,
}

impl Lift {
    /// Whether a lift is one of those not ruled out.
    pub fn contains(self, lift: f64) -> bool {
        match self {
            Self::Between(interval) => interval.contains(lift),
            Self::Outside(gap) => lift <= gap.low || gap.high <= lift,
            Self::Anything => true,
        }
    }

    /// The interval where it is one.
    pub fn interval(self) -> Option<Interval> {
        match self {
            Self::Between(interval) => Some(interval),
            Self::Outside(_) | Self::Anything => None,
        }
    }
}

/// Fieller's set (1954) for independent arms.
///
/// `critical` is the number of standard errors at which the test of the difference decides: with
/// the same one, the set holds 0 exactly when that test is not significant.
///
/// A lift r solves (v - r c)² ≤ q² (var v + r² var c): a quadratic in r.
pub fn fieller(comparison: &Comparison, critical: f64) -> Lift {
    let (control, variant) = (comparison.control(), comparison.variant());
    let reach = critical * critical;
    let square = control.value * control.value - reach * control.variance;
    let linear = control.value * variant.value;
    // Written without the squares that cancel; it is not below 0 when control is clearly not 0.
    let discriminant =
        reach * (variant.variance * square + control.variance * variant.value * variant.value);
    if square > 0.0 {
        let root = discriminant.max(0.0).sqrt();
        return Lift::Between(Interval {
            low: (linear - root) / square - 1.0,
            high: (linear + root) / square - 1.0,
        });
    }
    if square < 0.0 && discriminant > 0.0 {
        let root = discriminant.sqrt();
        return Lift::Outside(Interval {
            low: (linear + root) / square - 1.0,
            high: (linear - root) / square - 1.0,
        });
    }
    Lift::Anything
}

#[cfg(test)]
mod tests {
    use super::{Lift, fieller};
    use crate::statistics::Interval;
    use crate::statistics::tests::{assert_near, comparison};

    const Z: f64 = 1.959_963_984_540_054;

    fn between(lift: Lift) -> Interval {
        lift.interval().unwrap()
    }

    #[test]
    fn the_three_cases() {
        // Ends by numpy.roots of the quadratic.
        let usual = between(fieller(&comparison((10.0, 0.5), (11.0, 0.6)), Z));
        assert_near(usual.low, -0.049_989_137_685_717_22, 1e-9);
        assert_near(usual.high, 0.271_322_034_814_147_4, 1e-9);
        let Lift::Outside(gap) = fieller(&comparison((1.0, 1.0), (30.0, 1.0)), Z) else {
            panic!("control may be 0 and the variant is not");
        };
        assert_near(gap.low, -32.218_480_531_913_684, 1e-9);
        assert_near(gap.high, 9.102_566_564_403_53, 1e-9);
        assert_eq!(fieller(&comparison((1.0, 1.0), (1.0, 1.0)), Z), Lift::Anything);
    }

    #[test]
    fn zero_is_in_it_exactly_when_the_test_is_not_significant() {
        let mut significant = 0;
        for step in -40..=40 {
            for (control, spread) in [(10.0, 0.5), (1.0, 1.0), (-4.0, 1.0), (0.0, 2.0)] {
                let one = comparison((control, spread), (control + f64::from(step) * 0.1, 0.7));
                let decided = one.difference().abs() > Z * one.se();
                significant += u32::from(decided);
                assert_eq!(fieller(&one, Z).contains(0.0), !decided, "{one:?}");
            }
        }
        assert!((50..250).contains(&significant), "{significant}");
    }
}
