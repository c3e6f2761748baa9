//! Whether p-values of experiments without an effect spread evenly, as they must.

use super::real;

/// Terms of the series; the next is below 1e-16 wherever the series is used.
const TERMS: u64 = 100;

/// How evenly values spread between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Uniformity {
    /// The largest distance between the shares found and expected.
    pub distance: f64,
    /// The p-value of that distance, good to about a hundredth of itself from some 50 values on.
    pub p: f64,
}

/// The test of Kolmogorov (1933) and Smirnov (1948) with the correction of Stephens (1970). For
/// p-values of a fixed analysis: those of a sequence are larger by design. `None` without values.
pub fn check(values: &[f64]) -> Option<Uniformity> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = real(sorted.len() as u64);
    let gap = |(index, value): (usize, &f64)| {
        let index = real(index as u64);
        ((index + 1.0) / count - value).max(value - index / count)
    };
    let distance = sorted.iter().enumerate().map(gap).reduce(f64::max)?;
    let root = count.sqrt();
    Some(Uniformity { distance, p: above((root + 0.12 + 0.11 / root) * distance) })
}

/// P(K > x) of Kolmogorov's distribution.
fn above(x: f64) -> f64 {
    // Below, the series alternates for long and the answer is 1 to twelve digits.
    if x < 0.2 {
        return 1.0;
    }
    let terms = (1..=TERMS).map(|index| {
        let sign = if index % 2 == 1 { 2.0 } else { -2.0 };
        sign * (-2.0 * (real(index) * x).powi(2)).exp()
    });
    terms.sum::<f64>().clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::{above, check};
    use crate::statistics::tests::assert_near;

    /// By scipy 1.17.1: `kstwobign.sf`, and `kstest` for the whole.
    #[test]
    fn agrees_with_scipy() {
        for (x, expected) in [
            (0.1, 1.0),
            (0.3, 0.999_990_694_198_665_5),
            (0.5, 0.963_945_243_664_875_1),
            (1.0, 0.269_999_671_677_354_56),
            (2.5, 7.453_306_344_157_342e-6),
        ] {
            assert_near(above(x), expected, 1e-12);
        }
        let values: Vec<f64> = (1..=200)
            .map(|index| (f64::from(index) * 0.618_033_988_7).fract().powf(1.15))
            .collect();
        let uniformity = check(&values).unwrap();
        assert_near(uniformity.distance, 0.052_470_008_063_972_12, 1e-12);
        assert_near(uniformity.p, 0.621_337_683_968_231_5, 0.02);
        assert!(check(&[]).is_none());
    }
}
