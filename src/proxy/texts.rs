//! Many strings as one text to inspect, and findings back onto the strings.
//!
//! Strings of one run are joined with a line feed, wherever they stand, and others with U+0000. A phrase
//! cut inside a word is whole only when they are joined directly, so runs of several strings are looked
//! at both ways.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;

use super::vault::Vault;
use crate::gemini::text::{Run, Segment};
use crate::guardrail::{Finding, Guardrails, RuleSet, replace};

/// No text of a caller holds it: see [`without_nul`]. What an expression matches across it is looked at again,
/// group by group.
const APART: &str = "\u{0}";

/// Strings of one message, in order.
#[derive(Debug)]
pub(super) struct Texts<'s> {
    segments: &'s [Segment],
}

/// A stretch of one of the strings.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) segment: usize,
    pub(super) span: Range<usize>,
}

/// A finding with the strings it stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) finding: Finding,
    pub(super) places: Vec<Place>,
}

struct Joined {
    text: String,
    /// Where each string begins, and which it is.
    starts: Vec<(usize, usize)>,
    /// Where each group stands.
    groups: Vec<Range<usize>>,
}

impl<'s> Texts<'s> {
    pub(super) fn new(segments: &'s [Segment]) -> Self {
        Self { segments }
    }

    /// Everything the rules find, each place once.
    pub(super) fn inspect(&self, guardrails: &Guardrails, rules: &RuleSet) -> Vec<Placed> {
        if rules.is_empty() {
            return Vec::new();
        }
        let order = self.order();
        let mut placed = self.scan(&order, "\n", guardrails, rules);
        if order.iter().any(|group| group.len() > 1) {
            // What begins where something was found already only takes in the beginning of the next string.
            let begins = |one: &Placed| {
                let place = one.places.first().map(|place| (place.segment, place.span.start));
                (one.finding.rule, guardrails.entity(&one.finding).to_owned(), place)
            };
            let known: HashSet<_> = placed.iter().map(begins).collect();
            let other = self.scan(&order, "", guardrails, rules);
            placed.extend(other.into_iter().filter(|one| !known.contains(&begins(one))));
        }
        placed
    }

    /// Candidates of an answer that do not say the JSON that rules require. A reader puts their strings together
    /// directly.
    pub(super) fn not_json(&self, guardrails: &Guardrails, rules: &RuleSet) -> Vec<Placed> {
        if !guardrails.want_json(rules) {
            return Vec::new();
        }
        let said = |run: &Run| run.is_said();
        let runs: BTreeSet<Run> =
            self.segments.iter().filter_map(|one| one.run).filter(said).collect();
        let found = runs.into_iter().flat_map(|run| {
            let parts = self.segments.iter().filter(|one| one.run == Some(run));
            let parts: Vec<&str> = parts.map(|one| one.text.as_str()).collect();
            guardrails.not_json(&parts, rules)
        });
        found.map(|finding| Placed { finding, places: Vec::new() }).collect()
    }

    /// The strings in groups that are read as one: runs whole, where they first appear, and lone ones.
    fn order(&self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut runs = BTreeMap::new();
        for (index, segment) in self.segments.iter().enumerate() {
            match segment.run {
                None => groups.push(vec![index]),
                Some(run) => {
                    let at = *runs.entry(run).or_insert_with(|| {
                        groups.push(Vec::new());
                        groups.len() - 1
                    });
                    if let Some(group) = groups.get_mut(at) {
                        group.push(index);
                    }
                }
            }
        }
        groups
    }

    fn scan(
        &self,
        order: &[Vec<usize>],
        seam: &str,
        guardrails: &Guardrails,
        rules: &RuleSet,
    ) -> Vec<Placed> {
        let joined = self.join(order, seam);
        joined
            .scan(guardrails, rules)
            .into_iter()
            .map(|finding| {
                let places = self.places(&joined, &finding.span());
                Placed { finding, places }
            })
            .collect()
    }

    fn join(&self, order: &[Vec<usize>], seam: &str) -> Joined {
        let len = self.segments.iter().map(|segment| segment.text.len() + 1).sum();
        let mut joined =
            Joined { text: String::with_capacity(len), starts: Vec::new(), groups: Vec::new() };
        for group in order {
            if !joined.starts.is_empty() {
                joined.text.push_str(APART);
            }
            let start = joined.text.len();
            for (place, index) in group.iter().enumerate() {
                if place > 0 {
                    joined.text.push_str(seam);
                }
                joined.starts.push((joined.text.len(), *index));
                joined.push(self.segments.get(*index).map_or("", |one| &one.text));
            }
            joined.groups.push(start..joined.text.len());
        }
        joined
    }

    fn places(&self, joined: &Joined, span: &Range<usize>) -> Vec<Place> {
        let first = joined.starts.partition_point(|(start, _)| *start <= span.start);
        joined
            .starts
            .iter()
            .skip(first.saturating_sub(1))
            .take_while(|(start, _)| *start < span.end)
            .filter_map(|(start, segment)| {
                let len = self.segments.get(*segment)?.text.len();
                let from = span.start.max(*start) - start;
                let to = span.end.min(start + len).checked_sub(*start)?;
                (from < to).then_some(Place { segment: *segment, span: from..to })
            })
            .collect()
    }
}

impl Joined {
    /// Findings within the groups. One that spans several is a match of what does not belong together: those
    /// groups are looked at alone.
    fn scan(&self, guardrails: &Guardrails, rules: &RuleSet) -> Vec<Finding> {
        let found = guardrails.scan(&self.text, rules);
        let crosses = |one: &Finding| {
            self.text.get(one.span()).is_some_and(|text| text.contains(APART)) && one.has_place()
        };
        let (crossing, mut findings): (Vec<_>, Vec<_>) = found.into_iter().partition(crosses);
        let touched: BTreeSet<usize> =
            crossing.iter().flat_map(|one| self.touched(&one.span())).collect();
        for group in touched.into_iter().filter_map(|group| self.groups.get(group)) {
            let text = self.text.get(group.clone()).unwrap_or_default();
            let alone = guardrails.scan(text, rules).into_iter();
            findings.extend(alone.map(|one| one.behind(group.start)));
        }
        findings.sort();
        findings.dedup();
        findings
    }

    /// The groups that a stretch has a part of.
    fn touched(&self, span: &Range<usize>) -> Range<usize> {
        let first = self.groups.partition_point(|group| group.end <= span.start);
        first..self.groups.partition_point(|group| group.start < span.end)
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(&without_nul(text));
    }
}

/// A text as it is read. An U+0000 of its own would keep words apart that a reader takes together: a character
/// as short, which nobody sees either, stands for it.
pub(super) fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{1}").into() } else { text.into() }
}

/// Bytes of a segment's text, and what goes there.
pub(super) type Hole = (usize, Range<usize>, String);

/// Replaces the places of findings that redact. Gives the new text of every segment that changed.
pub(super) fn redact(
    guardrails: &Guardrails,
    segments: &[Segment],
    placed: &[Placed],
    vault: &mut Vault,
) -> Vec<(usize, String)> {
    fill(segments, &redactions(guardrails, segments, placed, vault))
}

/// The first place of each finding gets the placeholder, the others go.
pub(super) fn redactions(
    guardrails: &Guardrails,
    segments: &[Segment],
    placed: &[Placed],
    vault: &mut Vault,
) -> Vec<Hole> {
    let mut holes = Vec::new();
    for one in &whole(placed) {
        let parts = one.places.iter().filter_map(|place| {
            segments.get(place.segment).and_then(|segment| segment.text.get(place.span.clone()))
        });
        let mut placeholder = vault.hide(guardrails, &one.finding, &parts.collect::<String>());
        for place in &one.places {
            holes.push((place.segment, place.span.clone(), std::mem::take(&mut placeholder)));
        }
    }
    holes
}

/// Findings that overlap in one string as one finding, the first: a value goes, and comes back, whole.
fn whole(placed: &[Placed]) -> Vec<Placed> {
    let mut sorted = placed.to_vec();
    sorted.sort_by_key(|one| {
        one.places.first().map(|place| (place.segment, place.span.start, one.places.len()))
    });
    let mut whole: Vec<Placed> = Vec::new();
    for one in sorted {
        if let (Some(Placed { places: last, .. }), [place]) =
            (whole.last_mut(), one.places.as_slice())
            && let [last] = last.as_mut_slice()
            && last.segment == place.segment
            && place.span.start < last.span.end
        {
            last.span.end = last.span.end.max(place.span.end);
            continue;
        }
        whole.push(one);
    }
    whole
}

/// The new text of every segment with a hole: segment, bytes of its text, what goes there.
pub(super) fn fill(segments: &[Segment], holes: &[Hole]) -> Vec<(usize, String)> {
    let mut edits: Vec<Vec<(Range<usize>, String)>> = vec![Vec::new(); segments.len()];
    for (segment, span, placeholder) in holes {
        if let Some(edits) = edits.get_mut(*segment) {
            edits.push((span.clone(), placeholder.clone()));
        }
    }
    let mut changed = Vec::new();
    for (index, (segment, mut edits)) in segments.iter().zip(edits).enumerate() {
        if !edits.is_empty() {
            edits.sort_by_key(|(span, _)| (span.start, std::cmp::Reverse(span.end)));
            changed.push((index, replace(&segment.text, &edits)));
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{Texts, Vault, redact, redactions};
    use crate::gemini::text::{Run, Segment};
    use crate::guardrail::{Direction, Guardrails, Inspects, Kind, Rule, Severity};
    use crate::words::ids::GuardrailId;

    fn rule() -> Rule {
        let config =
            serde_json::json!({"action": "redact", "literals": ["secret word", "word salad"]});
        Rule {
            id: GuardrailId(Uuid::nil()),
            name: "r".to_owned(),
            kind: Kind::Custom,
            severity: Severity::Error,
            blocking: false,
            config: serde_json::from_value(config).unwrap(),
            templates: Vec::new(),
            categories: Vec::new(),
        }
    }

    fn guardrails() -> Guardrails {
        Guardrails::compile(vec![rule()]).unwrap()
    }

    fn redacted(parts: &[(&str, Option<u64>)]) -> Vec<(usize, String)> {
        redacted_by(&guardrails(), parts)
    }

    fn redacted_by(guardrails: &Guardrails, parts: &[(&str, Option<u64>)]) -> Vec<(usize, String)> {
        let segments: Vec<Segment> = parts
            .iter()
            .map(|(text, run)| Segment {
                literal: 0..0,
                text: (*text).to_owned(),
                run: run.map(Run),
            })
            .collect();
        let rules = guardrails.select(Direction::Request, Inspects::Untrusted, None);
        let placed = Texts::new(&segments).inspect(guardrails, &rules);
        redact(guardrails, &segments, &placed, &mut Vault::default())
    }

    #[test]
    fn nothing_is_matched_across_strings_that_do_not_belong_together() {
        let config = serde_json::json!({"action": "redact", "patterns": [
            {"entity": "pw", "regex": "password[=: ]{1,3}([^\\s]{8,64})"}]});
        let rule = Rule { config: serde_json::from_value(config).unwrap(), ..rule() };
        let guardrails = Guardrails::compile(vec![rule]).unwrap();
        let hole = "my password: [REDACTED:pw]";
        let first = "my password: hunter2secret";
        assert_eq!(
            redacted_by(
                &guardrails,
                &[(first, Some(0)), ("model", None), ("Fine thanks", Some(1))]
            ),
            [(0, hole.to_owned())]
        );
        assert_eq!(
            redacted_by(&guardrails, &[(first, Some(0)), ("Hello there", Some(0))]),
            [(0, hole.to_owned())]
        );
    }

    #[test]
    fn what_overlaps_goes_and_comes_back_whole() {
        let segments =
            [Segment { literal: 0..0, text: "a secret word salad b".to_owned(), run: None }];
        let guardrails = guardrails();
        let rules = guardrails.select(Direction::Request, Inspects::Untrusted, None);
        let placed = Texts::new(&segments).inspect(&guardrails, &rules);
        assert_eq!(placed.len(), 2, "two findings share a word");
        let holes = redactions(&guardrails, &segments, &placed, &mut Vault::default());
        assert_eq!(holes, [(0, 2..19, "[REDACTED:custom]".to_owned())]);
    }

    #[test]
    fn findings_come_back_to_their_strings() {
        let hole = "[REDACTED:custom]";
        assert_eq!(redacted(&[("a secret word b", None)]), [(0, format!("a {hole} b"))]);
        assert_eq!(redacted(&[("a secret word salad b", None)]), [(0, format!("a {hole} b"))]);
        assert_eq!(
            redacted(&[("a sec", Some(0)), ("ret word b", Some(0))]),
            [(0, format!("a {hole}")), (1, " b".to_owned())]
        );
        assert_eq!(redacted(&[("a secret", Some(0)), ("word b", Some(1))]), []);
        assert_eq!(redacted(&[("a secret", None), ("word b", None)]), []);
        assert_eq!(
            redacted(&[("a secret ", Some(0)), ("between", None), ("word b", Some(0))]),
            [(0, format!("a {hole}")), (2, " b".to_owned())],
            "what stands between does not matter"
        );
    }
}
