//! Which literals every match of a regular expression must contain, and in which order.
//!
//! They are read off the parsed expression, never declared by hand: an author's mistake could
//! otherwise make a guardrail silently miss.

use regex_syntax::hir::{Class, Hir, HirKind};

/// More alternatives than this are no help to a search.
const ALTERNATIVES_MAX: usize = 64;
/// A character class larger than this breaks a literal.
const CLASS_MAX: usize = 16;
/// Shorter literals stand in every text.
const RARE_MIN: usize = 3;

/// Words of four letters and more that stand in most texts: they call for nothing.
const COMMON: &str = " about after also always another answer anything around because been before being \
    between both call code come could data does doing done each even every everything example find first \
    following from full function give given good great have help here here's however into just keep know \
    language last like line list long look make making many message more most much must name need never next \
    nothing number only other output over part people person place please point possible provide question read \
    really respond response right said same sentence should show some something start step still string such \
    sure take tell text than that that's their them then there these they thing things think this those through \
    time today type under understand until used user using value very want well were what when where whether \
    which while will with without word words work would write written your you're ";

/// What a match contains: one of these literals (in any ASCII case), and others before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Anchors {
    /// Lower-case ASCII, or beyond ASCII.
    pub(super) literals: Vec<String>,
    /// How far before a literal a match may begin, and how far behind its beginning it may end.
    pub(super) reach: (usize, usize),
    /// Literals of which one each must stand before, with how far before at most.
    pub(super) before: Vec<(Vec<String>, usize)>,
}

impl Anchors {
    /// Those of an expression; `None` when no literals must be in its matches.
    pub(super) fn of(hir: &Hir) -> Option<Self> {
        let parts = parts(hir);
        let has_rare = |part: &Part| part.literals.as_ref().is_some_and(|set| is_rare(set));
        let score = |part: &Part| {
            let shortest = part.literals.iter().flatten().map(String::len).min().unwrap_or(0);
            (has_rare(part), if has_rare(part) { 0 } else { shortest })
        };
        let held = parts.iter().enumerate().filter(|(_, part)| part.literals.is_some());
        let (at, chosen) = held.max_by_key(|(at, part)| (score(part), *at))?;
        let len = |parts: &[Part]| parts.iter().map(|part| part.len_max).sum::<usize>();
        let mut before = Vec::new();
        for (place, part) in parts.iter().enumerate().take(at) {
            if let Some(set) = part.literals.as_ref().filter(|set| is_long(set)) {
                before.push((set.clone(), len(parts.get(place..=at).unwrap_or_default())));
            }
        }
        let reach = (
            len(parts.get(..=at).unwrap_or_default()),
            len(parts.get(at..).unwrap_or_default()),
        );
        Some(Self { literals: chosen.literals.clone()?, reach, before })
    }

    /// Whether its literals are rare enough to be worth looking for.
    pub(super) fn are_rare(&self) -> bool {
        is_rare(&self.literals)
    }
}

fn is_long(set: &[String]) -> bool {
    set.iter().all(|literal| literal.len() >= RARE_MIN)
}

fn is_rare(set: &[String]) -> bool {
    set.iter().all(|literal| {
        let is_word = literal.bytes().all(|byte| byte.is_ascii_alphabetic());
        match literal.len() {
            0 | 1 => literal == "@",
            2 => false,
            3 => !is_word,
            _ => !COMMON.contains(&format!(" {literal} ")),
        }
    })
}

/// A stretch of an expression.
struct Part {
    literals: Option<Vec<String>>,
    len_max: usize,
}

/// An expression cut into runs of exact text and what stands between them.
fn parts(hir: &Hir) -> Vec<Part> {
    let whole = std::slice::from_ref(hir);
    let pieces = match hir.kind() {
        HirKind::Concat(pieces) => pieces.as_slice(),
        HirKind::Capture(capture) => return parts(&capture.sub),
        _ => whole,
    };
    let mut parts: Vec<Part> = Vec::new();
    let mut run: Option<(Vec<String>, usize)> = None;
    let end_run = |run: &mut Option<(Vec<String>, usize)>, parts: &mut Vec<Part>| {
        if let Some((set, len_max)) = run.take() {
            parts.push(Part { literals: Some(set).filter(|set| is_useful(set)), len_max });
        }
    };
    for piece in pieces {
        let len = piece.properties().maximum_len().unwrap_or(usize::MAX / 1024);
        let longer = exact(piece).and_then(|next| match &run {
            Some((set, len_max)) => cross(set, &next).map(|set| (set, len_max + len)),
            None => Some((next, len)),
        });
        if longer.is_some() {
            run = longer;
            continue;
        }
        end_run(&mut run, &mut parts);
        match exact(piece) {
            Some(set) => run = Some((set, len)),
            None => parts.push(Part { literals: required(piece), len_max: len }),
        }
    }
    end_run(&mut run, &mut parts);
    parts
}

/// Literals in lower-case ASCII, one of which stands (in any ASCII case) in every match; `None` when
/// there is no such set.
fn required(hir: &Hir) -> Option<Vec<String>> {
    exact(hir).filter(|set| is_useful(set)).or_else(|| match hir.kind() {
        HirKind::Capture(capture) => required(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => required(&repetition.sub),
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            for branch in branches {
                all.extend(required(branch)?);
            }
            all.sort();
            all.dedup();
            (all.len() <= ALTERNATIVES_MAX).then_some(all)
        }
        HirKind::Concat(parts) => best_of(parts),
        HirKind::Empty
        | HirKind::Look(_)
        | HirKind::Literal(_)
        | HirKind::Class(_)
        | HirKind::Repetition(_) => None,
    })
}

/// The best set among the runs of exact parts and what single parts require.
fn best_of(parts: &[Hir]) -> Option<Vec<String>> {
    let mut best: Option<Vec<String>> = None;
    let mut run: Option<Vec<String>> = None;
    for part in parts {
        let longer = exact(part).and_then(|next| match &run {
            Some(run) => cross(run, &next),
            None => Some(next),
        });
        if longer.is_none() {
            consider(&mut best, run.take());
            consider(&mut best, required(part));
            run = exact(part);
        } else {
            run = longer;
        }
    }
    consider(&mut best, run);
    best
}

fn consider(best: &mut Option<Vec<String>>, candidate: Option<Vec<String>>) {
    let Some(candidate) = candidate.filter(|set| is_useful(set)) else { return };
    let score = |set: &[String]| {
        let shortest = set.iter().map(String::len).min().unwrap_or(0);
        (shortest, usize::MAX - set.len())
    };
    if best.as_ref().is_none_or(|best| score(&candidate) > score(best)) {
        *best = Some(candidate);
    }
}

fn is_useful(set: &[String]) -> bool {
    !set.is_empty() && set.len() <= ALTERNATIVES_MAX && set.iter().all(|one| !one.is_empty())
}

/// All texts an expression can match, lower-cased, if they are few.
fn exact(hir: &Hir) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0).ok()?;
            Some(vec![text.to_ascii_lowercase()])
        }
        HirKind::Class(class) => class_letters(class),
        HirKind::Capture(capture) => exact(&capture.sub),
        HirKind::Concat(parts) => {
            parts.iter().try_fold(vec![String::new()], |set, part| cross(&set, &exact(part)?))
        }
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            for branch in branches {
                all.extend(exact(branch)?);
            }
            all.sort();
            all.dedup();
            (all.len() <= ALTERNATIVES_MAX).then_some(all)
        }
        HirKind::Empty | HirKind::Look(_) | HirKind::Repetition(_) => None,
    }
}

fn class_letters(class: &Class) -> Option<Vec<String>> {
    let mut letters = Vec::new();
    match class {
        Class::Unicode(class) => {
            for range in class.ranges() {
                if range.len() > 2 * CLASS_MAX {
                    return None;
                }
                letters.extend((range.start()..=range.end()).map(|one| one.to_ascii_lowercase()));
            }
        }
        Class::Bytes(class) => {
            for range in class.ranges() {
                letters.extend(
                    (range.start()..=range.end()).map(|one| char::from(one).to_ascii_lowercase()),
                );
            }
            if letters.iter().any(|letter| !letter.is_ascii()) {
                return None;
            }
        }
    }
    // `ſ` and the Kelvin sign count as `s` and `k` where case does not: the folded text has those.
    letters.retain(|letter| !matches!(letter, 'ſ' | '\u{212a}'));
    letters.sort_unstable();
    letters.dedup();
    (letters.len() <= CLASS_MAX).then(|| letters.into_iter().map(String::from).collect())
}

fn cross(left: &[String], right: &[String]) -> Option<Vec<String>> {
    (left.len() * right.len() <= ALTERNATIVES_MAX).then(|| {
        left.iter().flat_map(|one| right.iter().map(move |two| format!("{one}{two}"))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::{Anchors, required};

    #[test]
    fn every_match_contains_one_of_them() {
        for (regex, expected) in [
            ("[a-z]{1,9}@[a-z]{1,9}", Some(vec!["@"])),
            ("(?i)ignore[a-z ]{1,9}rules", Some(vec!["ignore"])),
            (
                "(?i)(?:show|tell)[a-z ]{1,9}(?:prompt|instructions)",
                Some(vec!["instructions", "prompt"]),
            ),
            ("[0-9]{3}-[0-9]{2}", Some(vec!["-"])),
            ("a?b?", None),
            ("[a-z]{1,3}", None),
            ("(?:foo|ba[rz])qux", Some(vec!["barqux", "bazqux", "fooqux"])),
        ] {
            let hir = regex_syntax::parse(regex).unwrap();
            let mut found = required(&hir);
            let mut expected =
                expected.map(|set| set.into_iter().map(str::to_owned).collect::<Vec<_>>());
            if let Some(found) = &mut found {
                found.sort();
            }
            if let Some(expected) = &mut expected {
                expected.sort();
            }
            assert_eq!(found, expected, "{regex}");
        }
    }

    #[test]
    fn rare_words_call_and_others_must_stand_before_them() {
        let phrase = super::super::phrase::expression("ignore (?:all )?your (?:previous|prior) rules? please");
        let anchors = Anchors::of(&regex_syntax::parse(&phrase).unwrap()).unwrap();
        assert_eq!(anchors.literals, ["rule"]);
        let before: Vec<String> = anchors.before.into_iter().flat_map(|(set, _)| set).collect();
        assert_eq!(before, ["ignore", "your", "previous", "prior"]);
        let mail = Anchors::of(&regex_syntax::parse("[a-z]{1,9}@[a-z]{1,9}").unwrap()).unwrap();
        assert_eq!((mail.literals, mail.reach), (vec!["@".to_owned()], (10, 10)));
        assert_eq!(Anchors::of(&regex_syntax::parse("[a-z]{1,9}").unwrap()), None);
    }
}
