//! Several comparisons read together.
//!
//! Intervals of k variants against control are read at [`super::Alpha::split`] of k.

use super::real;

/// Holm's adjusted p-values (1979), in the order given: no false alarm among all of them with
/// probability 1 - alpha. For variants on the primary metric.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let count = p_values.len();
    let mut largest: f64 = 0.0;
    in_order(p_values, |rank, p| {
        largest = largest.max(p * real((count - rank) as u64)).min(1.0);
        largest
    })
}

/// Benjamini and Hochberg's adjusted p-values (1995), in the order given: alpha bounds the share of
/// false ones among those called significant. For secondary metrics, which are exploratory.
pub fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    let count = p_values.len();
    let mut smallest: f64 = 1.0;
    // From the largest down: a negated p sorts so.
    let negated: Vec<f64> = p_values.iter().map(|p| -p).collect();
    in_order(&negated, |rank, p| {
        smallest = smallest.min(-p * real(count as u64) / real((count - rank) as u64));
        smallest
    })
}

/// What is stored as `statistical_significance`: 1 less the adjusted p of the primary metric,
/// rounded down to 4 places so that it never claims more than the p does.
pub fn significance(adjusted_p: f64) -> f64 {
    ((1.0 - adjusted_p) * 10_000.0).floor().max(0.0) / 10_000.0
}

/// Applies `adjust` from the smallest value up and gives the results their old places.
fn in_order(values: &[f64], mut adjust: impl FnMut(usize, f64) -> f64) -> Vec<f64> {
    let mut ordered: Vec<(usize, f64)> = values.iter().copied().enumerate().collect();
    ordered.sort_by(|one, other| one.1.total_cmp(&other.1));
    let mut placed: Vec<(usize, f64)> = ordered
        .into_iter()
        .enumerate()
        .map(|(rank, (place, value))| (place, adjust(rank, value)))
        .collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, adjusted)| adjusted).collect()
}

#[cfg(test)]
mod tests {
    use super::{benjamini_hochberg, holm, significance};
    use crate::statistics::tests::assert_near;

    #[test]
    fn significance_is_rounded_down() {
        for (p, expected) in
            [(1.0, 0.0), (0.05, 0.95), (0.000_06, 0.9999), (1e-9, 0.9999), (0.0, 1.0)]
        {
            assert_near(significance(p), expected, 1e-12);
        }
    }

    /// Section 7.10; the others by statsmodels 0.15.0, `multipletests`.
    #[test]
    fn known_answers() {
        for (adjusted, expected) in [
            (holm(&[0.012, 0.04, 0.02]), vec![0.036, 0.04, 0.04]),
            (holm(&[0.6, 0.01, 0.7]), vec![1.0, 0.03, 1.0]),
            (benjamini_hochberg(&[0.012, 0.04, 0.02]), vec![0.03, 0.04, 0.03]),
            (
                benjamini_hochberg(&[0.01, 0.5, 0.04, 0.03, 0.9]),
                vec![0.05, 0.625, 1.0 / 15.0, 1.0 / 15.0, 0.9],
            ),
            (holm(&[]), vec![]),
        ] {
            assert_eq!(adjusted.len(), expected.len());
            for (one, other) in adjusted.iter().zip(&expected) {
                assert_near(*one, *other, 1e-12);
            }
        }
    }
}
