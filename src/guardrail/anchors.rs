//! Which literals every match of a regular expression must contain.
//!
//! They are read off the parsed expression, never declared by hand: an author's mistake could
//! otherwise make a guardrail silently miss.

use regex_syntax::hir::{Class, Hir, HirKind};

/// More alternatives than this are no help to a search.
const ALTERNATIVES_MAX: usize = 64;
/// A character class larger than this breaks a literal.
const CLASS_MAX: usize = 16;

/// Literals in lower-case ASCII, one of which stands (in any ASCII case) in every match; `None` when
/// there is no such set.
pub(super) fn required(hir: &Hir) -> Option<Vec<String>> {
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
    use super::required;

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
}
