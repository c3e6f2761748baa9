//! Where in a text a pattern can match at all, read off its expression: around literals it must contain,
//! around digits, around long words, or in text beyond ASCII.

use std::ops::Range;

use regex_syntax::hir::{Class, Hir, HirKind};

use super::anchors::Anchors;
use super::classes::{self, CODE};
use super::sweep::View;

/// Fewer digits than this are everywhere.
const DIGITS_MIN: usize = 4;
/// Shorter words are everywhere.
const RUN_MIN: u32 = 16;

/// What every match of an expression contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seed {
    /// These literals, by alternative.
    Literals(Vec<Anchors>),
    /// This many digits.
    Digits(usize),
    /// A run of so many letters, digits and `+/=_-`.
    Run(usize),
    /// A character beyond ASCII.
    Foreign,
    /// Nothing that helps: it runs everywhere.
    Nothing,
}

impl Seed {
    pub(super) fn of(hir: &Hir) -> Self {
        let anchors = Anchors::all(hir);
        if let Some(anchors) = anchors.as_ref().filter(|all| all.iter().all(Anchors::are_rare)) {
            return Self::Literals(anchors.clone());
        }
        let digits = digits(hir);
        if digits >= DIGITS_MIN {
            return Self::Digits(digits);
        }
        let run = run(hir);
        if run >= RUN_MIN as usize {
            return Self::Run(run);
        }
        if is_foreign(hir) {
            return Self::Foreign;
        }
        anchors.map_or(Self::Nothing, Self::Literals)
    }
}

/// Digits that every match has at least.
fn digits(hir: &Hir) -> usize {
    let is_digits = |class: &Class| match class {
        Class::Unicode(class) => {
            class.ranges().iter().all(|range| range.start() >= '0' && range.end() <= '9')
        }
        Class::Bytes(class) => {
            class.ranges().iter().all(|range| range.start() >= b'0' && range.end() <= b'9')
        }
    };
    match hir.kind() {
        HirKind::Literal(literal) => literal.0.iter().filter(|byte| byte.is_ascii_digit()).count(),
        HirKind::Class(class) => usize::from(is_digits(class)),
        HirKind::Concat(parts) => parts.iter().map(digits).sum(),
        HirKind::Alternation(parts) => parts.iter().map(digits).min().unwrap_or(0),
        HirKind::Repetition(repetition) => {
            digits(&repetition.sub).saturating_mul(repetition.min as usize)
        }
        HirKind::Capture(capture) => digits(&capture.sub),
        HirKind::Empty | HirKind::Look(_) => 0,
    }
}

/// The longest run of word characters that every match has.
fn run(hir: &Hir) -> usize {
    match hir.kind() {
        HirKind::Repetition(repetition) if is_word(&repetition.sub) => repetition.min as usize,
        HirKind::Concat(parts) => parts.iter().map(run).max().unwrap_or(0),
        HirKind::Alternation(parts) => parts.iter().map(run).min().unwrap_or(0),
        HirKind::Capture(capture) => run(&capture.sub),
        HirKind::Empty
        | HirKind::Literal(_)
        | HirKind::Class(_)
        | HirKind::Look(_)
        | HirKind::Repetition(_) => 0,
    }
}

fn is_word(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Class(Class::Unicode(class)) => class.ranges().iter().all(|range| {
            range.end().is_ascii()
                && (range.start()..=range.end())
                    .all(|one| u8::try_from(one).is_ok_and(|byte| classes::is(byte, CODE)))
        }),
        HirKind::Capture(capture) => is_word(&capture.sub),
        _ => false,
    }
}

fn is_foreign(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Literal(literal) => !literal.0.is_ascii(),
        HirKind::Class(Class::Unicode(class)) => {
            class.ranges().iter().all(|range| !range.start().is_ascii())
        }
        HirKind::Concat(parts) => parts.iter().any(is_foreign),
        HirKind::Alternation(parts) => parts.iter().all(is_foreign),
        HirKind::Repetition(repetition) => repetition.min > 0 && is_foreign(&repetition.sub),
        HirKind::Capture(capture) => is_foreign(&capture.sub),
        HirKind::Empty | HirKind::Look(_) | HirKind::Class(Class::Bytes(_)) => false,
    }
}

/// Places in a text where patterns without literals may match.
#[derive(Debug, Default)]
pub(super) struct Places {
    digits: Vec<usize>,
    runs: Vec<Range<usize>>,
    is_ascii: bool,
}

impl Places {
    pub(super) fn of(view: View<'_>) -> Self {
        let (kinds, all) = (view.kinds, view.from..view.text.len());
        let runs = kinds.codes.long_runs(RUN_MIN).filter(|run| run.end > view.from);
        let digits = kinds.digits.within(all).collect();
        Self { digits, runs: runs.collect(), is_ascii: kinds.is_ascii }
    }

    /// The stretches in which a match of at most `bytes_max` bytes may stand.
    pub(super) fn stretches(&self, seed: &Seed, bytes_max: usize, len: usize) -> Vec<Range<usize>> {
        let mut stretches = Vec::new();
        match seed {
            Seed::Literals(_) => {}
            Seed::Digits(count) => {
                let lasts = self.digits.get(count - 1..).unwrap_or_default();
                for (first, last) in self.digits.iter().zip(lasts) {
                    if last - first < bytes_max {
                        let slack = bytes_max - (last + 1 - first);
                        stretch(&mut stretches, *first..last + 1, (slack, slack), len);
                    }
                }
            }
            Seed::Run(count) => {
                for run in self.runs.iter().filter(|run| run.len() >= *count) {
                    stretch(&mut stretches, run.clone(), (bytes_max, bytes_max), len);
                }
            }
            Seed::Foreign if self.is_ascii => {}
            Seed::Foreign | Seed::Nothing => stretches.push(0..len),
        }
        stretches
    }
}

/// Marks so many bytes before and behind a hit, joining it to the stretch before where they touch. Both ends are
/// marked in order.
pub(super) fn stretch(
    stretches: &mut Vec<Range<usize>>,
    hit: Range<usize>,
    (before, behind): (usize, usize),
    len: usize,
) {
    let start = hit.start.saturating_sub(before);
    let end = hit.end.saturating_add(behind).min(len);
    match stretches.last_mut() {
        Some(last) if start <= last.end => last.end = end,
        _ => stretches.push(start..end),
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds::Kinds;
    use super::super::sweep::View;
    use super::{Places, Seed};

    #[test]
    fn what_every_match_contains() {
        let literals = |regex: &str| match Seed::of(&regex_syntax::parse(regex).unwrap()) {
            Seed::Literals(anchors) => {
                let literals = anchors.into_iter().flat_map(|one| one.literals);
                literals.map(|one| one.text).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(literals("ghp_[A-Za-z0-9]{36}"), ["ghp_"]);
        assert_eq!(literals("[a-z]{1,3}:[a-z]{1,3}"), [":"]);
        for (regex, seed) in [
            ("[0-9]{3}[ -]?[0-9]{2}[ -]?[0-9]{4}", Seed::Digits(9)),
            ("(?:[0-9]{4}[ -]?){3}[0-9]{1,7}", Seed::Digits(13)),
            ("[A-Za-z0-9]{26,34}", Seed::Run(26)),
            ("[\\u{e0020}-\\u{e007e}]{1,9}", Seed::Foreign),
            ("[a-z]{1,3}", Seed::Nothing),
        ] {
            assert_eq!(Seed::of(&regex_syntax::parse(regex).unwrap()), seed, "{regex}");
        }
    }

    #[test]
    fn stretches_hold_every_place_a_match_may_stand() {
        let text = "in 2024 call 555 010 1234 or x";
        let places = |text: &str| Places::of(View::whole(text, &Kinds::of(text)));
        let of_text = places(text);
        assert_eq!(of_text.stretches(&Seed::Digits(10), 14, text.len()), vec![11..27]);
        assert_eq!(of_text.stretches(&Seed::Digits(15), 20, text.len()), [0..0; 0]);
        assert_eq!(of_text.stretches(&Seed::Foreign, 20, text.len()), [0..0; 0]);
        assert_eq!(places("é").stretches(&Seed::Foreign, 20, 2), vec![0..2]);
    }
}
