//! Two shares by Bayes with a uniform prior: how probably the variant is better, and what it costs
//! if not.
//!
//! For reading beside the test. Not a rule to stop by: looked at again and again, it errs as a
//! plain test.

use super::special::{beta_lower, ln_beta};
use super::{Counts, real};

/// The integral covers this many deviations to either side.
const DEVIATIONS: i32 = 40;
/// In this many steps each. The trapezoid rule errs by far less than rounding does.
const STEPS: i32 = 8;
/// Less mass than this adds nothing.
const NOTHING: f64 = 1e-25;

/// What the data say of two shares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Belief {
    /// P(variant's share > control's share).
    pub variant_better: f64,
    /// How much of the share is lost on average by choosing the variant: E max(control - variant,
    /// 0).
    pub expected_loss: f64,
}

/// Compares two shares whose prior is uniform, so that the posterior is a beta distribution each.
/// Arms without trials are allowed.
///
/// Integrates over the narrower of the two on the log-odds scale, where it is smooth and ends
/// nowhere; inner integrals are incomplete beta functions.
pub fn compare(control: Counts, variant: Counts) -> Belief {
    let (control, variant) = (Beta::posterior(control), Beta::posterior(variant));
    if control.deviation() < variant.deviation() {
        let (mean, raised) = (variant.mean(), variant.raised());
        Belief {
            variant_better: control.expect(|at| variant.above(at)),
            expected_loss: control
                .expect(|at| at.share * variant.below(at) - mean * raised.below(at))
                .max(0.0),
        }
    } else {
        let (mean, raised) = (control.mean(), control.raised());
        Belief {
            variant_better: variant.expect(|at| control.below(at)),
            expected_loss: variant
                .expect(|at| mean * raised.above(at) - at.share * control.above(at))
                .max(0.0),
        }
    }
}

/// A share and its complement, both exact.
#[derive(Clone, Copy)]
struct At {
    share: f64,
    complement: f64,
}

#[derive(Clone, Copy)]
struct Beta {
    a: f64,
    b: f64,
}

impl Beta {
    fn posterior(counts: Counts) -> Self {
        Self { a: real(counts.successes()) + 1.0, b: real(counts.failures()) + 1.0 }
    }

    fn mean(self) -> f64 {
        self.a / (self.a + self.b)
    }

    /// The distribution weighted by the share: its parts of the mean.
    fn raised(self) -> Self {
        Self { a: self.a + 1.0, ..self }
    }

    fn below(self, at: At) -> f64 {
        beta_lower(self.a, self.b, at.share, at.complement)
    }

    fn above(self, at: At) -> f64 {
        beta_lower(self.b, self.a, at.complement, at.share)
    }

    /// Of the log odds, nearly.
    fn deviation(self) -> f64 {
        (1.0 / self.a + 1.0 / self.b).sqrt()
    }

    fn expect(self, value: impl Fn(At) -> f64) -> f64 {
        let centre = (self.a / self.b).ln();
        let step = self.deviation() / f64::from(STEPS);
        let ln_whole = ln_beta(self.a, self.b);
        let part = |index: i32| {
            let odds = centre + f64::from(index) * step;
            let (ln_share, ln_complement) = (-(-odds).exp().ln_1p(), -odds.exp().ln_1p());
            let mass = step * (self.a * ln_share + self.b * ln_complement - ln_whole).exp();
            let at = At { share: ln_share.exp(), complement: ln_complement.exp() };
            if mass < NOTHING { 0.0 } else { mass * value(at) }
        };
        (-DEVIATIONS * STEPS..=DEVIATIONS * STEPS).map(part).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::compare;
    use crate::statistics::tests::{assert_near, counts};

    /// The first from section 7.10. The others by scipy 1.17.1: `quad` of `beta.pdf` times
    /// `beta.cdf`, and of `beta.cdf` times `beta.sf`.
    #[test]
    fn known_answers() {
        for (control, variant, better, loss) in [
            ((440, 500), (462, 500), 0.990_262_265_428_947, 6.239_434_883_5e-5),
            ((0, 0), (0, 0), 0.5, 1.0 / 6.0),
            ((3, 3), (1, 4), 0.039_682_539_682_539_68, 0.471_428_571_428_571_4),
            ((0, 20), (20, 20), 0.999_999_999_998_142, 4.320_571e-14),
            ((9500, 10_000), (70, 80), 0.002_463_450_384_726, 0.084_070_263_783_734_86),
            ((95_000, 100_000), (95_200, 100_000), 0.980_850_994_024_06, 6.751_485_512e-6),
        ] {
            let belief = compare(counts(control.0, control.1), counts(variant.0, variant.1));
            assert_near(belief.variant_better, better, 1e-7);
            assert_near(belief.expected_loss, loss, if loss < 1e-10 { 0.01 } else { 1e-7 });
        }
    }
}
