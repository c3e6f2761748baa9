//! Experiments without an effect, looked at after each observation: how often does the analysis see
//! one?
//!
//! Shared by the tests and by `examples/peeking.rs`, each of which brings the analysis into scope
//! above.

use super::{Alpha, Analysis, Comparison, Counts, Estimate, MeanSums, NoAnswer, RatioSums, Scale};

/// Units in each arm before anybody looks.
const UNITS_PER_ARM_MIN: u64 = 100;
/// What the usual test compares its z with.
const Z: f64 = 1.959_963_984_540_054;
/// Users among whom the calls of returning users are drawn.
const USERS: usize = 4000;
/// Looks at returning users.
const LOOKS: usize = 240;

/// What both arms yield.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Data {
    /// One call per unit, which succeeds with this probability.
    Success(f64),
    /// One log-normal latency per unit, with a cap above which it is cut.
    Latency {
        /// The deviation of its logarithm.
        sigma: f64,
        /// The cap.
        cap: f64,
    },
    /// The logarithm of such a latency with deviation 1.
    LogLatency,
    /// Users who come back, with 81 % or 99 % success each: a correlation of 0.09.
    ReturningSuccess,
    /// Users who come back, each at a pace of their own.
    ReturningLatency,
}

/// Whether an effect was seen where there is none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// By the analysis given, at any look.
    pub(crate) ours: bool,
    /// By the usual test, at any look.
    pub(crate) peeked: bool,
    /// By the usual test, at the last look.
    pub(crate) once: bool,
}

/// One run of so many observations in both arms, decided by the analysis at each look.
pub(crate) fn run(data: Data, analysis: Analysis, observations: usize, seed: u64) -> Seen {
    let mut chance = Chance::new(seed);
    let mut seen = Seen::default();
    match data {
        Data::Success(share) => {
            let mut arms = [Counts::default(); 2];
            for _ in 0..observations {
                let arm = pick(&mut arms, &mut chance);
                arm.add(chance.share() < share);
                seen.look(analysis, arms.map(Counts::estimate), Scale::Linear);
            }
        }
        Data::Latency { .. } | Data::LogLatency => {
            let mut arms = [MeanSums::default(); 2];
            for _ in 0..observations {
                let arm = pick(&mut arms, &mut chance);
                let (x, scale) = match data {
                    Data::Latency { sigma, cap } => {
                        ((sigma * chance.normal()).exp().min(cap), Scale::Linear)
                    }
                    _ => (chance.normal(), Scale::Log),
                };
                arm.add(x);
                seen.look(analysis, arms.map(MeanSums::estimate), scale);
            }
        }
        Data::ReturningSuccess | Data::ReturningLatency => {
            returning(data, analysis, observations, &mut chance, &mut seen);
        }
    }
    seen
}

/// A user with their calls so far.
struct User {
    is_variant: bool,
    level: f64,
    calls: f64,
    total: f64,
}

fn returning(
    data: Data,
    analysis: Analysis,
    observations: usize,
    chance: &mut Chance,
    seen: &mut Seen,
) {
    let is_success = matches!(data, Data::ReturningSuccess);
    let mut users: Vec<User> = (0..USERS)
        .map(|_| User {
            is_variant: chance.share() < 0.5,
            level: match is_success {
                true if chance.share() < 0.5 => 0.81,
                true => 0.99,
                false => 0.5 * chance.normal(),
            },
            calls: 0.0,
            total: 0.0,
        })
        .collect();
    for _ in 0..LOOKS {
        for _ in 0..observations / LOOKS {
            let user = pick(&mut users, chance);
            user.calls += 1.0;
            user.total += match is_success {
                true if chance.share() < user.level => 1.0,
                true => 0.0,
                false => (user.level + 0.8 * chance.normal()).exp(),
            };
        }
        let mut arms = [RatioSums::default(); 2];
        for user in users.iter().filter(|user| user.calls > 0.0) {
            let [control, variant] = &mut arms;
            let arm = if user.is_variant { variant } else { control };
            arm.add(user.calls, user.total);
        }
        seen.look(analysis, arms.map(RatioSums::estimate), Scale::Linear);
    }
}

impl Seen {
    fn look(&mut self, analysis: Analysis, arms: [Result<Estimate, NoAnswer>; 2], scale: Scale) {
        let [Ok(control), Ok(variant)] = arms else { return };
        if control.units.min(variant.units) < UNITS_PER_ARM_MIN {
            return;
        }
        let Ok(comparison) = Comparison::new(control, variant) else { return };
        self.once = comparison.difference().abs() > Z * comparison.se();
        self.peeked |= self.once;
        if let Ok(answer) = analysis.answer(&comparison, Alpha::FIVE_PERCENT, scale) {
            assert_eq!(answer.p < Alpha::FIVE_PERCENT.share(), !answer.interval.contains(0.0));
            self.ours |= !answer.interval.contains(0.0);
        }
    }
}

fn pick<'a, T>(from: &'a mut [T], chance: &mut Chance) -> &'a mut T {
    let count = from.len() as u64;
    let index = usize::try_from(chance.bits() % count).expect("below the length");
    from.get_mut(index).expect("below the length")
}

/// `SplitMix64` (Steele, Lea and Flood, 2014): small, and the same everywhere.
pub(crate) struct Chance {
    state: u64,
}

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Evenly between 0 and 1, both excluded.
    #[expect(clippy::cast_precision_loss, reason = "52 bits fit")]
    pub(crate) fn share(&mut self) -> f64 {
        ((self.bits() >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }

    /// Standard normal (Box and Muller, 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.share().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.share()).cos()
    }
}
