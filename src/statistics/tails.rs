//! Tail probabilities and quantiles of the normal, Student's t and the chi-square distribution.
//!
//! p-values are survival functions: 1 minus the distribution function is 0 from a z of 8.3 on.

use super::Alpha;
use super::special::{beta_lower, gamma_upper, ln_beta};

/// Above this, t quantiles come from their expansion.
const EXPANSION_FROM_DF: f64 = 1000.0;
/// The search for a quantile only ever goes up. One per mille of these steps is usual.
const STEPS_MAX: u32 = 2000;

/// P(Z > z) for a standard normal Z.
pub fn normal_above(z: f64) -> f64 {
    let half = 0.5 * gamma_upper(0.5, 0.5 * z * z);
    if z < 0.0 { 1.0 - half } else { half }
}

/// P(|Z| > |z|): the two-sided p-value of a z test.
pub fn normal_two_sided(z: f64) -> f64 {
    gamma_upper(0.5, 0.5 * z * z)
}

/// The z with P(|Z| > z) = alpha.
pub fn normal_critical(alpha: Alpha) -> f64 {
    // The tail is convex above 0, so Newton's steps from the left never overshoot.
    let half_ln_tau = 0.5 * std::f64::consts::TAU.ln();
    climb(0.0, |z| {
        let density = (-0.5 * z * z - half_ln_tau).exp();
        (normal_above(z) - 0.5 * alpha.share()) / density
    })
}

/// P(|T| > |t|) at `df` > 0 degrees of freedom, which may be infinite: the two-sided p-value of a t
/// test (Student, 1908).
pub fn t_two_sided(t: f64, df: f64) -> f64 {
    if df.is_infinite() {
        return normal_two_sided(t);
    }
    let square = t * t;
    if square.is_infinite() {
        return 0.0;
    }
    beta_lower(0.5 * df, 0.5, df / (df + square), square / (df + square))
}

/// The t with P(|T| > t) = alpha at `df` > 0 degrees of freedom, which may be infinite.
pub fn t_critical(alpha: Alpha, df: f64) -> f64 {
    let z = normal_critical(alpha);
    if df.is_infinite() {
        z
    } else if df > EXPANSION_FROM_DF {
        t_expansion(z, df)
    } else {
        // t has the heavier tail: its quantile lies above that of the normal, and its tail is
        // convex.
        climb(z, |t| (t_two_sided(t, df) - alpha.share()) / (2.0 * t_density(t, df)))
    }
}

/// The Cornish-Fisher expansion of the t quantile with four terms (Cornish and Fisher, 1938;
/// Abramowitz and Stegun, 1964, 26.7.5). Above 1 000 degrees of freedom it errs below 1e-11.
fn t_expansion(z: f64, df: f64) -> f64 {
    let square = z * z;
    let terms = [
        (((79.0 * square + 776.0) * square + 1482.0) * square - 1920.0) * square - 945.0,
        ((3.0 * square + 19.0) * square + 17.0) * square - 15.0,
        (5.0 * square + 16.0) * square + 3.0,
        square + 1.0,
    ];
    let divisors = [92_160.0, 384.0, 96.0, 4.0];
    let sum =
        terms.iter().zip(divisors).fold(0.0, |sum, (term, divisor)| sum / df + term / divisor);
    z + z * sum / df
}

fn t_density(t: f64, df: f64) -> f64 {
    (-0.5 * (df + 1.0) * (t * t / df).ln_1p() - 0.5 * df.ln() - ln_beta(0.5 * df, 0.5)).exp()
}

/// P(X > x) for a chi-square X with `df` > 0 degrees of freedom (Pearson, 1900).
pub fn chi_square_above(x: f64, df: f64) -> f64 {
    if x.is_infinite() { 0.0 } else { gamma_upper(0.5 * df, 0.5 * x) }
}

/// Follows Newton's steps upwards until they no longer lead up.
fn climb(start: f64, step_at: impl Fn(f64) -> f64) -> f64 {
    let mut at = start;
    for _ in 0..STEPS_MAX {
        let step = step_at(at);
        at += step;
        if step.abs() <= 1e-14 * at.abs() || step.is_nan() {
            break;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::{
        chi_square_above, normal_above, normal_critical, normal_two_sided, t_critical, t_two_sided,
    };
    use crate::statistics::Alpha;
    use crate::statistics::tests::assert_near;

    fn alpha(share: f64) -> Alpha {
        Alpha::new(share).unwrap()
    }

    /// By mpmath at 40 digits: the complementary error function.
    #[test]
    fn normal() {
        for (z, expected) in [
            (0.3, 0.764_177_155_622_094_8),
            (5.0, 5.733_031_437_583_878e-7),
            // 1 - cdf would be 0 here.
            (16.6, 6.969_093_039_900_651e-62),
            (37.0, 1.145_114_244_504_915_4e-299),
        ] {
            assert_near(normal_two_sided(z), expected, 1e-12);
            assert_near(normal_above(z), 0.5 * expected, 1e-12);
            assert_near(normal_above(-z), 1.0 - 0.5 * expected, 1e-12);
        }
        for (share, expected) in [
            (0.5, 0.674_489_750_196_081_7),
            (0.05, 1.959_963_984_540_054_3),
            (0.001, 3.290_526_731_491_895),
            (1e-10, 6.466_951_087_240_516),
            (1e-200, 30.228_508_080_715_47),
        ] {
            assert_near(normal_critical(alpha(share)), expected, 1e-12);
        }
    }

    /// By mpmath at 40 digits: the incomplete beta, and above 1 000 degrees an integral of the
    /// density.
    #[test]
    fn t() {
        for (t, df, expected) in [
            (2.5, 1.0, 0.242_237_883_181_686_8),
            (1.5, 3.7, 0.213_598_169_202_012),
            (4.0, 30.0, 3.818_456_360_837_568_6e-4),
            (20.0, 50.0, 1.654_852_194_743_963_5e-25),
            (2.052_431, 1611.0913, 0.040_289_047_736_559_23),
            (6.0, 1e5, 1.979_929_455_601_762_7e-9),
            (2.0, 1e6, 0.045_500_533_851_319_205),
            (7.0, 1e7, 2.559_784_949_853_464e-12),
            (1.0, 1e8, 0.317_310_510_282_621_36),
        ] {
            assert_near(t_two_sided(t, df), expected, 1e-10);
            assert_near(t_two_sided(-t, df), expected, 1e-10);
        }
        assert_near(t_two_sided(2.0, f64::INFINITY), normal_two_sided(2.0), 1e-15);
    }

    /// As above, inverted. statrs 0.19.1 gives 1.826556 for the last but two.
    #[test]
    fn t_quantiles() {
        for (share, df, expected) in [
            (0.05, 1.0, 12.706_204_736_174_705),
            (0.05, 2.5, 3.574_654_842_003_683),
            (1e-6, 5.0, 28.478_473_462_984_21),
            (0.01, 30.0, 2.749_995_653_567_225_4),
            (0.001, 999.5, 3.300_287_541_955_519_5),
            (0.05, 1000.0, 1.962_339_080_826_408_5),
            (0.05, 1000.5, 1.962_337_892_459_348_4),
            (0.05, 1e5, 1.959_987_707_534_609_7),
            (0.05, 1e6, 1.959_966_356_814_107),
            (0.05, 1e7, 1.959_964_221_767_205_5),
            (0.001, 2000.0, 3.295_398_136_729_739_6),
            (1e-6, 1001.0, 4.922_258_736_463_622),
        ] {
            assert_near(t_critical(alpha(share), df), expected, 1e-11);
        }
        let infinite = t_critical(Alpha::FIVE_PERCENT, f64::INFINITY);
        assert_near(infinite, 1.959_963_984_540_054, 1e-12);
    }

    /// By scipy 1.17.1: `chi2.sf`.
    #[test]
    fn chi_square() {
        for (x, df, expected) in [
            (3.84, 1.0, 0.050_043_521_248_705_19),
            (12.5, 1.0, 4.069_520_174_449_59e-4),
            (9.3, 2.0, 0.009_561_601_930_543_505),
            (0.2, 4.0, 0.995_321_159_839_555_5),
            (200.0, 3.0, 4.218_541_107_192_018e-43),
        ] {
            assert_near(chi_square_above(x, df), expected, 1e-12);
        }
    }
}
