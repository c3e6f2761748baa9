//! A quantile of one arm with an error that knows that calls of one user are alike.
//!
//! Ignoring users understates it by a third or so. Needs the values themselves, not sums.

use super::tails::normal_critical;
use super::{Alpha, Estimate, NoAnswer, RatioSums, real};

/// The quantile `q` (0.5 for the median) of all values of an arm, one slice per unit, in the unit
/// of the values. Two estimates make a [`super::Comparison`].
///
/// Deng, Knoblich and Lu (2018): the delta method gives the error of the share of values up to the
/// quantile; values at the ranks that far to either side, at 95 %, give the error of the quantile.
/// [`NoAnswer::TooFewUnits`] when those ranks lie outside the data.
pub fn estimate<U: AsRef<[f64]>>(units: &[U], q: f64) -> Result<Estimate, NoAnswer> {
    let mut values: Vec<f64> = units.iter().flat_map(AsRef::as_ref).copied().collect();
    if !values.iter().all(|value| value.is_finite()) {
        return Err(NoAnswer::NotFinite);
    }
    values.sort_by(f64::total_cmp);
    let count = real(values.len() as u64);
    let at = |rank: f64| at_rank(&values, rank).ok_or(NoAnswer::TooFewUnits);
    let value = at((count * q).ceil().max(1.0))?;

    let mut up_to = RatioSums::default();
    for unit in units.iter().map(AsRef::as_ref).filter(|unit| !unit.is_empty()) {
        let below = unit.iter().filter(|one| **one <= value).count();
        up_to.add(real(unit.len() as u64), real(below as u64));
    }
    let z = normal_critical(Alpha::FIVE_PERCENT);
    let reach = z * count * up_to.estimate()?.variance.sqrt();
    let low = at((count * q - reach).floor())?;
    let high = at((count * q + reach).ceil() + 1.0)?;
    let se = (high - low) / (2.0 * z);
    Ok(Estimate { value, variance: se * se, units: up_to.units, df: f64::INFINITY })
}

/// The value at a rank from 1 on.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "ranks below 1 are turned away, and those above the number of values find none"
)]
fn at_rank(sorted: &[f64], rank: f64) -> Option<f64> {
    if rank < 1.0 {
        return None;
    }
    sorted.get(rank as usize - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::estimate;
    use crate::statistics::NoAnswer;
    use crate::statistics::tests::{assert_near, clustered};

    /// The same steps in numpy 2 with `cov(ddof=1)`. Without users, the median's ranks would reach
    /// 31 to either side instead of 53.
    #[test]
    fn agrees_with_numpy() {
        for (seed, q, value, se) in [
            (1, 0.5, 359.0, 11.224_696_052_342_386),
            (1, 0.95, 589.0, 11.224_696_052_342_386),
            (7, 0.5, 355.0, 13.265_549_880_041_004),
        ] {
            let estimate = estimate(&clustered(seed), q).unwrap();
            assert_near(estimate.value, value, 1e-12);
            assert_near(estimate.variance.sqrt(), se, 1e-12);
            assert_eq!(estimate.units, 200);
        }
    }

    #[test]
    fn ranks_beyond_the_data_are_no_answer() {
        let few: Vec<Vec<f64>> = (0..20).map(|one| vec![f64::from(one)]).collect();
        assert_eq!(estimate(&few, 0.95), Err(NoAnswer::TooFewUnits));
        assert!(estimate(&few, 0.5).is_ok());
        assert_eq!(estimate::<Vec<f64>>(&[], 0.5), Err(NoAnswer::TooFewUnits));
        assert_eq!(estimate(&[[f64::NAN], [1.0]], 0.5), Err(NoAnswer::NotFinite));
    }
}
