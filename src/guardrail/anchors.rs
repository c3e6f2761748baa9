//! Which literals every match of a regular expression must contain, and in which order.
//!
//! They are read off the parsed expression, never declared by hand: an author's mistake could
//! otherwise make a guardrail silently miss.

use regex_syntax::hir::{Class, Hir, HirKind};

use super::shares;

/// More alternatives than this are no help to a search.
const ALTERNATIVES_MAX: usize = 64;
/// A character class larger than this breaks a literal.
const CLASS_MAX: usize = 16;
/// Shorter literals tell little of where a match may be.
const TELLING_MIN: usize = 3;
/// Sets that stand in so many of a thousand stretches of text tell nothing.
const SHARE_MAX: u32 = 900;
/// Rare enough to be searched for, rather than digits or long words.
const SHARE_RARE: u32 = 400;
/// A match that begins with less begins everywhere.
const BEGINNING_MIN: usize = 2;
/// Literals that matches begin with.
const BEGINNINGS_MAX: usize = 128;
/// Further sets that are looked for around a literal.
const OTHERS_MAX: usize = 3;

/// What a match contains: one of these literals (in any ASCII case), and others around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Anchors {
    /// The rarest set: lower-case ASCII, or beyond ASCII.
    pub(super) literals: Vec<String>,
    /// How far before a literal a match may begin, and how far behind its end it may end.
    pub(super) reach: (usize, usize),
    /// Sets of which one literal each must begin so far before or behind it; the rarest first.
    pub(super) others: Vec<Other>,
}

/// A further set of literals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Other {
    pub(super) literals: Vec<String>,
    /// Bytes before the literal, and behind its beginning.
    pub(super) reach: (usize, usize),
}

impl Anchors {
    /// Those of an expression, a set for each of its alternatives; `None` when no literals must be in its
    /// matches.
    pub(super) fn all(hir: &Hir) -> Option<Vec<Self>> {
        match hir.kind() {
            HirKind::Capture(capture) => Self::all(&capture.sub),
            HirKind::Alternation(branches) if exact(hir).is_none() => {
                let all: Option<Vec<Vec<Self>>> = branches.iter().map(Self::all).collect();
                all.map(|all| all.into_iter().flatten().collect())
            }
            _ => Self::of(hir).map(|one| vec![one]),
        }
    }

    /// Those of one alternative.
    fn of(hir: &Hir) -> Option<Self> {
        let parts = parts(hir);
        let held = parts.iter().enumerate().filter(|(_, part)| part.literals.is_some());
        let (at, chosen) = held.min_by_key(|(at, part)| (part.share(), std::cmp::Reverse(*at)))?;
        let len = |parts: Option<&[Part]>| {
            parts
                .unwrap_or_default()
                .iter()
                .fold(0, |len: usize, part| len.saturating_add(part.len_max))
        };
        let mut others: Vec<(u32, Other)> = Vec::new();
        for (place, part) in parts.iter().enumerate().filter(|(place, _)| *place != at) {
            let Some(literals) = part.literals.as_ref().filter(|set| is_telling(set)) else {
                continue;
            };
            let reach = if place < at {
                (len(parts.get(place..=at)), 0)
            } else {
                (0, len(parts.get(at..=place)))
            };
            others.push((part.share(), Other { literals: literals.clone(), reach }));
        }
        others.retain(|(share, _)| *share <= SHARE_MAX);
        others.sort_by_key(|(share, _)| *share);
        let others = others.into_iter().map(|(_, other)| other).take(OTHERS_MAX).collect();
        let reach = (len(parts.get(..=at)), len(parts.get(at..)));
        Some(Self { literals: chosen.literals.clone()?, reach, others })
    }

    /// Whether its literals are rare enough to be worth looking for.
    pub(super) fn are_rare(&self) -> bool {
        share(&self.literals) <= SHARE_RARE
    }
}

/// Literals, one of which every match begins with; `None` when there is no such set of telling ones.
pub(super) fn beginnings(hir: &Hir) -> Option<Vec<String>> {
    let mut set = prefixes(hir)?;
    set.sort();
    set.dedup();
    // A longer one that begins with a shorter one says the same.
    let shorter = set.clone();
    set.retain(|one| !shorter.iter().any(|other| one != other && one.starts_with(other.as_str())));
    (is_beginning(&set) && set.len() <= BEGINNINGS_MAX).then_some(set)
}

fn prefixes(hir: &Hir) -> Option<Vec<String>> {
    if let Some(set) = exact(hir) {
        return Some(set);
    }
    match hir.kind() {
        HirKind::Capture(capture) => prefixes(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => prefixes(&repetition.sub),
        HirKind::Alternation(branches) => {
            let all: Option<Vec<Vec<String>>> = branches.iter().map(prefixes).collect();
            all.map(|all| all.into_iter().flatten().collect())
        }
        HirKind::Concat(parts) => {
            let mut run = vec![String::new()];
            for part in parts {
                match exact(part).and_then(|set| cross(&run, &set)) {
                    Some(longer) => run = longer,
                    None if is_beginning(&run) => break,
                    None => {
                        let next = prefixes(part)?;
                        return Some(
                            run.iter()
                                .flat_map(|one| next.iter().map(move |two| format!("{one}{two}")))
                                .collect(),
                        );
                    }
                }
            }
            Some(run)
        }
        HirKind::Empty
        | HirKind::Look(_)
        | HirKind::Literal(_)
        | HirKind::Class(_)
        | HirKind::Repetition(_) => None,
    }
}

fn is_beginning(set: &[String]) -> bool {
    set.iter().all(|literal| literal.len() >= BEGINNING_MIN)
}

fn is_telling(set: &[String]) -> bool {
    set.iter().all(|literal| literal.len() >= TELLING_MIN)
}

/// In how many of a thousand stretches of text one of these stands, at most.
fn share(set: &[String]) -> u32 {
    set.iter().map(|literal| shares::share(literal)).sum()
}

/// A stretch of an expression.
struct Part {
    literals: Option<Vec<String>>,
    len_max: usize,
}

impl Part {
    fn share(&self) -> u32 {
        self.literals.as_ref().map_or(u32::MAX, |set| share(set))
    }
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
    if best.as_ref().is_none_or(|best| share(&candidate) < share(best)) {
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
    (!letters.is_empty() && letters.len() <= CLASS_MAX)
        .then(|| letters.into_iter().map(String::from).collect())
}

fn cross(left: &[String], right: &[String]) -> Option<Vec<String>> {
    (left.len() * right.len() <= ALTERNATIVES_MAX).then(|| {
        left.iter().flat_map(|one| right.iter().map(move |two| format!("{one}{two}"))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::{Anchors, beginnings, required};

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
    fn rare_words_call_and_others_must_stand_around_them() {
        let phrase = super::super::phrase::expression(
            "ignore (?:all )?your (?:previous|prior) rules? please",
        );
        let anchors = Anchors::of(&regex_syntax::parse(&phrase).unwrap()).unwrap();
        let others: Vec<&str> =
            anchors.others.iter().flat_map(|one| &one.literals).map(String::as_str).collect();
        assert_eq!(anchors.literals, ["ignore"]);
        assert_eq!(others, ["rule", "previous", "prior", "your"]);
        let mail = Anchors::of(&regex_syntax::parse("[a-z]{1,9}@[a-z]{1,9}").unwrap()).unwrap();
        assert_eq!((mail.literals, mail.reach), (vec!["@".to_owned()], (10, 10)));
        assert_eq!(Anchors::of(&regex_syntax::parse("[a-z]{1,9}").unwrap()), None);
    }

    #[test]
    fn what_matches_begin_with() {
        let of = |regex: &str| beginnings(&regex_syntax::parse(regex).unwrap());
        let set =
            |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(of("(?i)(?:ignore|forget)[ ,]{1,3}all"), set(&["forget", "ignore"]));
        assert_eq!(of("(?i)(?:do[ ]{1,3}not|don.t|never) go"), set(&["do", "never"]));
        assert_eq!(of("(?i)(?:i[^a-z]{1,3}am|you) go"), None, "one letter is too short");
        assert_eq!(of("(?:abc[0-9]{1,9}|abcd|xyz)"), set(&["abc", "xyz"]));
        assert_eq!(of("a?bcd"), None);
    }
}
