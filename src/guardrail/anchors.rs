//! Which literals every match of a regular expression must contain, and in which order.
//!
//! They are read off the parsed expression, never declared by hand: an author's mistake could
//! otherwise make a guardrail silently miss.

use std::ops::Range;
use std::sync::Arc;

use regex_syntax::hir::{Class, Hir, HirKind};

use super::first::ByteSet;
use super::shapes::{self, Quad};
use super::shares;

/// More alternatives than this are no help to a search.
const ALTERNATIVES_MAX: usize = 64;
/// A character class larger than this breaks a literal.
const CLASS_MAX: usize = 16;
/// Shorter literals tell little of where a match may be.
const TELLING_MIN: usize = 4;
/// Sets that stand in so many of a thousand stretches of text tell nothing.
const SHARE_MAX: u32 = 300;
/// Rare enough to be searched for, rather than digits or long words.
const SHARE_RARE: u32 = 400;
/// Further sets that are looked for around a literal.
const OTHERS_MAX: usize = 3;

/// A literal that stands in a match.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Needle {
    /// Lower-case ASCII, or beyond ASCII.
    pub(super) text: String,
    /// Whether the match begins with it.
    pub(super) is_first: bool,
    /// Whether the match ends with it.
    pub(super) is_last: bool,
    /// What stands right before it, read backwards.
    pub(super) before: Around,
    /// What stands right behind it.
    pub(super) after: Around,
}

/// What stands right beside a literal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Around {
    /// It stands at the edge of the expression: what is around that tells.
    Edge,
    /// Anything may.
    Anything,
    /// One of these.
    These(Arc<[Quad]>),
}

impl Around {
    fn of(quads: Vec<Quad>) -> Self {
        if quads.iter().any(|(_, mask)| *mask == 0) {
            Self::Anything
        } else {
            Self::These(quads.into())
        }
    }
}

/// What a match contains: one of these literals (in any ASCII case), and others around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Anchors {
    /// The rarest set.
    pub(super) literals: Vec<Needle>,
    /// How far before a literal a match may begin, and how far behind its end it may end.
    pub(super) reach: (usize, usize),
    /// All bytes that may stand between the beginning of a match and the literal, unless spaces may.
    pub(super) lead: Option<ByteSet>,
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
        let pieces = pieces(hir);
        let parts = parts_of(pieces, (true, true));
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
            let Some(set) = part.literals.as_ref().filter(|set| is_telling(set)) else {
                continue;
            };
            let reach = if place < at {
                (len(parts.get(place..=at)), 0)
            } else {
                (0, len(parts.get(at..=place)))
            };
            let literals = set.iter().map(|needle| needle.text.clone()).collect();
            others.push((part.share(), Other { literals, reach }));
        }
        others.retain(|(share, _)| *share <= SHARE_MAX);
        others.sort_by_key(|(share, _)| *share);
        let others = others.into_iter().map(|(_, other)| other).take(OTHERS_MAX).collect();
        let reach = (len(parts.get(..=at)), len(parts.get(at..)));
        let leading = if chosen.is_exact { chosen.span.start } else { chosen.span.end };
        let mut lead = ByteSet::default();
        pieces.iter().take(leading).for_each(|piece| lead.add_all(piece));
        let lead = Some(lead).filter(|lead| !lead.contains(b' '));
        Some(Self { literals: among(chosen, pieces)?, reach, lead, others })
    }

    /// Whether its literals are rare enough to be worth looking for.
    pub(super) fn are_rare(&self) -> bool {
        share(&self.literals) <= SHARE_RARE
    }
}

fn is_telling(set: &[Needle]) -> bool {
    set.iter().all(|needle| needle.text.len() >= TELLING_MIN)
}

/// In how many of a thousand stretches of text one of these stands, at most.
fn share(set: &[Needle]) -> u32 {
    set.iter().map(|needle| shares::share(&needle.text, needle.is_first && needle.is_last)).sum()
}

/// Texts as needles.
fn needles(texts: Vec<String>, is_first: bool, is_last: bool) -> Vec<Needle> {
    let (before, after) = (Around::Edge, Around::Edge);
    let needle =
        |text| Needle { text, is_first, is_last, before: before.clone(), after: after.clone() };
    texts.into_iter().map(needle).collect()
}

/// A stretch of an expression.
struct Part {
    literals: Option<Vec<Needle>>,
    len_max: usize,
    /// Which of the pieces it is.
    span: Range<usize>,
    /// Whether it begins with its literals, and does not only hold them.
    is_exact: bool,
}

impl Part {
    fn share(&self) -> u32 {
        self.literals.as_ref().map_or(u32::MAX, |set| share(set))
    }
}

/// The pieces of an expression in a row.
fn pieces(hir: &Hir) -> &[Hir] {
    match hir.kind() {
        HirKind::Concat(pieces) => pieces,
        HirKind::Capture(capture) => pieces(&capture.sub),
        _ => std::slice::from_ref(hir),
    }
}

/// The literals of a part, with what stands beside them among the pieces.
fn among(part: &Part, pieces: &[Hir]) -> Option<Vec<Needle>> {
    let mut set = part.literals.clone()?;
    let before = pieces.get(..part.span.start).filter(|pieces| !pieces.is_empty());
    let after = pieces.get(part.span.end..).filter(|pieces| !pieces.is_empty());
    let before = before.map(|pieces| Around::of(shapes::endings(pieces)));
    let after = after.map(|pieces| Around::of(shapes::beginnings(pieces)));
    for needle in &mut set {
        if let (Around::Edge, Some(before)) = (&needle.before, &before) {
            needle.before = before.clone();
        }
        if let (Around::Edge, Some(after)) = (&needle.after, &after) {
            needle.after = after.clone();
        }
    }
    Some(set)
}

/// Pieces as runs of exact text and what stands between them; whether a match begins with the first piece and
/// ends with the last.
fn parts_of(pieces: &[Hir], (is_first, is_last): (bool, bool)) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut run: Option<(Vec<String>, Range<usize>)> = None;
    let edges =
        |span: &Range<usize>| (is_first && span.start == 0, is_last && span.end == pieces.len());
    let len = |span: &Range<usize>| {
        let pieces = pieces.get(span.clone()).unwrap_or_default().iter();
        let each = pieces.map(|one| one.properties().maximum_len().unwrap_or(usize::MAX / 1024));
        each.fold(0, usize::saturating_add)
    };
    let end_run = |run: Option<(Vec<String>, Range<usize>)>, parts: &mut Vec<Part>| {
        if let Some((set, span)) = run {
            let (is_first, is_last) = edges(&span);
            let set = needles(set, is_first, is_last);
            let literals = Some(set).filter(|set| is_useful(set));
            parts.push(Part { literals, len_max: len(&span), span, is_exact: true });
        }
    };
    for (at, piece) in pieces.iter().enumerate() {
        let exact = exact(piece);
        let longer = exact.as_ref().and_then(|next| match &run {
            Some((set, span)) => cross(set, next).map(|set| (set, span.start..at + 1)),
            None => Some((next.clone(), at..at + 1)),
        });
        if longer.is_some() {
            run = longer;
            continue;
        }
        match exact {
            Some(set) => {
                end_run(run.take(), &mut parts);
                run = Some((set, at..at + 1));
            }
            None => {
                // What is there at least once goes on a literal before it.
                let goes_on = run.as_ref().and_then(|(set, _)| cross(set, &first_copy(piece)?));
                match (run.take(), goes_on) {
                    (Some((_, span)), Some(set)) => {
                        let mut set = needles(set, edges(&span).0, false);
                        for one in &mut set {
                            one.after = Around::Anything;
                        }
                        let (literals, len_max) = (Some(set), len(&span));
                        parts.push(Part { literals, len_max, span, is_exact: true });
                    }
                    (run, _) => end_run(run, &mut parts),
                }
                let span = at..at + 1;
                let literals = required(piece, edges(&span));
                parts.push(Part { literals, len_max: len(&span), span, is_exact: false });
            }
        }
    }
    end_run(run, &mut parts);
    parts
}

/// The texts that a repetition begins with.
fn first_copy(piece: &Hir) -> Option<Vec<String>> {
    match piece.kind() {
        HirKind::Repetition(one) if one.min > 0 => {
            exact(&one.sub).filter(|set| set.iter().all(|one| !one.is_empty()))
        }
        _ => None,
    }
}

/// Literals, one of which stands (in any ASCII case) in every match; `None` when there is no such set.
/// Whether the match around the expression begins and ends with it.
fn required(hir: &Hir, (is_first, is_last): (bool, bool)) -> Option<Vec<Needle>> {
    let exact = exact(hir).map(|set| needles(set, is_first, is_last));
    exact.filter(|set| is_useful(set)).or_else(|| match hir.kind() {
        HirKind::Capture(capture) => required(&capture.sub, (is_first, is_last)),
        HirKind::Repetition(repetition) if repetition.min > 0 => {
            let mut set = required(&repetition.sub, (false, false))?;
            // Beside it may be another copy.
            for needle in &mut set {
                for around in [&mut needle.before, &mut needle.after] {
                    if *around == Around::Edge {
                        *around = Around::Anything;
                    }
                }
            }
            Some(set)
        }
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            for branch in branches {
                all.extend(required(branch, (is_first, is_last))?);
            }
            all.sort();
            all.dedup();
            (all.len() <= ALTERNATIVES_MAX).then_some(all)
        }
        HirKind::Concat(pieces) => {
            let parts = parts_of(pieces, (is_first, is_last));
            let chosen = parts.iter().filter(|part| part.literals.is_some());
            among(chosen.min_by_key(|part| part.share())?, pieces)
        }
        HirKind::Empty
        | HirKind::Look(_)
        | HirKind::Literal(_)
        | HirKind::Class(_)
        | HirKind::Repetition(_) => None,
    })
}

fn is_useful(set: &[Needle]) -> bool {
    !set.is_empty() && set.len() <= ALTERNATIVES_MAX && set.iter().all(|one| !one.text.is_empty())
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
        HirKind::Repetition(one) if one.min == 0 && one.max == Some(1) => {
            let mut all = exact(&one.sub)?;
            all.push(String::new());
            all.sort();
            all.dedup();
            Some(all)
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
    use super::{Anchors, Needle, required};

    #[test]
    fn every_match_contains_one_of_them() {
        for (regex, expected) in [
            ("[a-z]{1,9}@[a-z]{1,9}", Some(vec!["@"])),
            ("(?i)ignore[a-z ]{1,9}rules", Some(vec!["ignore"])),
            (
                "(?i)(?:show|tell)[a-z ]{1,9}(?:prompt|instructions)",
                Some(vec!["instructions", "prompt"]),
            ),
            (
                "[0-9]{3}-[0-9]{2}",
                Some(vec!["-0", "-1", "-2", "-3", "-4", "-5", "-6", "-7", "-8", "-9"]),
            ),
            ("[0-9]{3}-[a-z]{2}", Some(vec!["-"])),
            ("fu{2,9}n?y", Some(vec!["fu"])),
            ("a?b?", None),
            ("[a-z]{1,3}", None),
            ("(?:foo|ba[rz])qux", Some(vec!["barqux", "bazqux", "fooqux"])),
        ] {
            let hir = regex_syntax::parse(regex).unwrap();
            let found = required(&hir, (true, true));
            let mut found =
                found.map(|set| set.into_iter().map(|one| one.text).collect::<Vec<_>>());
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
        let texts = |set: &[Needle]| set.iter().map(|one| one.text.clone()).collect::<Vec<_>>();
        let others: Vec<&str> =
            anchors.others.iter().flat_map(|one| &one.literals).map(String::as_str).collect();
        assert_eq!(texts(&anchors.literals), ["ignore"]);
        assert!(anchors.literals.iter().all(|one| one.is_first && !one.is_last));
        assert_eq!(others, ["previous", "prior", "rule", "rules", "your"]);
        let mail = Anchors::of(&regex_syntax::parse("[a-z]{1,9}@[a-z]{1,9}").unwrap()).unwrap();
        assert_eq!((texts(&mail.literals), mail.reach), (vec!["@".to_owned()], (10, 10)));
        assert_eq!(Anchors::of(&regex_syntax::parse("[a-z]{1,9}").unwrap()), None);
    }
}
