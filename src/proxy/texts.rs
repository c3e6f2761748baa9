//! Many strings as one text to inspect, and findings back onto the strings.
//!
//! Strings of one run are joined with a line feed, wherever they stand, and others with U+0000. A phrase
//! cut inside a word is whole only when they are joined directly, so runs of several strings are looked
//! at both ways. What was looked at in an earlier call and held nothing is left out.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;

use super::vault::Vault;
use crate::gemini::place;
use crate::gemini::text::{Run, Segment};
use crate::guardrail::{CONTEXT_BYTES_MAX, Finding, Guardrails, RuleSet, TextKey, replace};

/// No text of a caller holds it: see [`without_nul`]. What an expression matches across it is looked at again,
/// group by group.
const APART: &str = "\u{0}";
/// Bytes before a string that are there for the context of what is found in it: some of them may be invisible.
const BEFORE_BYTES: usize = 2 * CONTEXT_BYTES_MAX;

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

#[derive(Default)]
struct Joined {
    text: String,
    /// Where each string begins, and which it is.
    starts: Vec<(usize, usize)>,
    /// Where each group stands, and by what it is known again; answers are new.
    groups: Vec<(Range<usize>, Option<TextKey>)>,
    /// The end of what was joined last, or would have been.
    before: String,
}

/// Which groups are joined, and with what between their strings.
#[derive(Clone, Copy)]
enum Seam {
    /// All groups, with a line feed.
    LineFeed,
    /// Those of several strings, without anything.
    Nothing,
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
        let mut placed = self.scan(&order, Seam::LineFeed, guardrails, rules);
        if order.iter().any(|group| group.len() > 1) {
            // What begins where something was found already only takes in the beginning of the next string.
            let begins = |one: &Placed| {
                let place = one.places.first().map(|place| (place.segment, place.span.start));
                (one.finding.rule, guardrails.entity(&one.finding).to_owned(), place)
            };
            let known: HashSet<_> = placed.iter().map(begins).collect();
            let other = self.scan(&order, Seam::Nothing, guardrails, rules);
            placed.extend(other.into_iter().filter(|one| !known.contains(&begins(one))));
        }
        let bytes: usize = self.segments.iter().map(|one| one.text.len() + 1).sum();
        let too_long = guardrails.too_long((0, bytes.saturating_sub(1)), rules);
        placed.extend(too_long.into_iter().map(|finding| Placed { finding, places: Vec::new() }));
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
        seam: Seam,
        guardrails: &Guardrails,
        rules: &RuleSet,
    ) -> Vec<Placed> {
        let joined = self.join(order, seam, guardrails, rules);
        let placed = joined.scan(guardrails, rules).into_iter().map(|finding| {
            let places = self.places(&joined, &finding.span());
            match places.first() {
                Some(first) => Placed { finding: finding.at(first.span.clone()), places },
                None => Placed { finding, places },
            }
        });
        placed.collect()
    }

    fn join(
        &self,
        order: &[Vec<usize>],
        seam: Seam,
        guardrails: &Guardrails,
        rules: &RuleSet,
    ) -> Joined {
        let digest = rules.digest();
        let mut joined = Joined::default();
        for group in order {
            let (text_len, count) = (joined.text.len(), joined.starts.len());
            let start = joined.begin_group();
            for (place, index) in group.iter().enumerate() {
                if place > 0 && matches!(seam, Seam::LineFeed) {
                    joined.text.push('\n');
                }
                joined.starts.push((joined.text.len(), *index));
                joined.push(self.segments.get(*index).map_or("", |one| &one.text));
            }
            let text = joined.text.get(start..).unwrap_or_default();
            let key = rules.is_request().then(|| TextKey::of(&digest, &joined.before, text));
            let before = end_of(&joined.before, text);
            let is_known = key.is_some_and(|key| guardrails.is_clean(&key));
            let is_other = matches!(seam, Seam::Nothing) && group.len() == 1;
            if is_known || is_other {
                joined.text.truncate(text_len);
                joined.starts.truncate(count);
            } else {
                joined.groups.push((start..joined.text.len(), key));
            }
            joined.before = before;
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
        let found = guardrails.find(&self.text, rules);
        let crosses = |one: &Finding| {
            self.text.get(one.span()).is_some_and(|text| text.contains(APART)) && one.has_place()
        };
        let (crossing, mut findings): (Vec<_>, Vec<_>) = found.into_iter().partition(crosses);
        // What is in no group stands there for context.
        findings.retain(|one| !one.has_place() || !self.touched(&one.span()).is_empty());
        let touched: BTreeSet<usize> =
            crossing.iter().flat_map(|one| self.touched(&one.span())).collect();
        for (group, _) in touched.into_iter().filter_map(|group| self.groups.get(group)) {
            let text = self.text.get(group.clone()).unwrap_or_default();
            let alone = guardrails.find(text, rules).into_iter();
            findings.extend(alone.map(|one| one.behind(group.start)));
        }
        findings.sort();
        findings.dedup();
        self.remember(guardrails, &findings);
        findings
    }

    /// Remembers the groups without a finding, if all of the text was looked at.
    fn remember(&self, guardrails: &Guardrails, findings: &[Finding]) {
        if findings.iter().any(|one| !one.has_place()) {
            return;
        }
        let found: BTreeSet<usize> =
            findings.iter().flat_map(|one| self.touched(&one.span())).collect();
        let clean = self.groups.iter().enumerate().filter(|(group, _)| !found.contains(group));
        clean.filter_map(|(_, (_, key))| *key).for_each(|key| guardrails.keep_clean(&key));
    }

    /// The groups that a stretch has a part of.
    fn touched(&self, span: &Range<usize>) -> Range<usize> {
        let first = self.groups.partition_point(|(group, _)| group.end <= span.start);
        first..self.groups.partition_point(|(group, _)| group.start < span.end).max(first)
    }

    /// Where the next group begins: behind the group before it, or behind its end if that was left out.
    fn begin_group(&mut self) -> usize {
        if !self.text.ends_with(&self.before) {
            if !self.text.is_empty() {
                self.text.push_str(APART);
            }
            self.text.push_str(&self.before);
        }
        if !self.text.is_empty() {
            self.text.push_str(APART);
        }
        self.text.len()
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(&without_nul(text));
    }
}

/// The last bytes of a text behind the end of another.
fn end_of(before: &str, text: &str) -> String {
    let last = |text: &str| {
        let first = text.floor_char_boundary(text.len().saturating_sub(BEFORE_BYTES));
        text.get(first..).unwrap_or_default().to_owned()
    };
    if before.is_empty() || text.len() >= BEFORE_BYTES {
        return last(text);
    }
    last(&[before, text].join(APART))
}

/// Where in a body the strings stand in which the findings begin.
pub(super) fn located(body: &str, segments: &[Segment], placed: &[Placed]) -> Vec<Option<String>> {
    let start = |one: &Placed| {
        let literal = &segments.get(one.places.first()?.segment)?.literal;
        (!literal.is_empty()).then_some(literal.start)
    };
    let places = place::of_strings(body, &placed.iter().filter_map(start).collect());
    placed.iter().map(|one| places.get(&start(one)?).cloned()).collect()
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

    use super::{Seam, Texts, Vault, redact, redactions};
    use crate::gemini::text::{Run, Segment};
    use crate::guardrail::{Direction, Guardrails, Inspects, Kind, Rule, Severity, TextKey};
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
    fn segments(texts: &[(&str, u64)]) -> Vec<Segment> {
        let segment = |(text, run): &(&str, u64)| Segment {
            literal: 0..0,
            text: (*text).to_owned(),
            run: Some(Run(*run)),
        };
        texts.iter().map(segment).collect()
    }

    /// An expression whose context may stand in an earlier text.
    fn with_context() -> Guardrails {
        let config = serde_json::json!({"action": "warn", "literals": ["secret word"], "patterns": [
            {"entity": "number", "regex": "[0-9]{9}", "context": ["tax id"]}]});
        Guardrails::compile(vec![Rule {
            config: serde_json::from_value(config).unwrap(),
            ..rule()
        }])
        .unwrap()
    }

    #[test]
    fn what_held_nothing_is_left_out_the_next_time_and_still_is_context() {
        let guardrails = with_context();
        let rules = guardrails.select(Direction::Request, Inspects::Untrusted, None);
        let left = |texts: &[(&str, u64)]| {
            let segments = segments(texts);
            let texts = Texts::new(&segments);
            texts.join(&texts.order(), Seam::LineFeed, &guardrails, &rules).text
        };
        let found =
            |texts: &[(&str, u64)]| Texts::new(&segments(texts)).inspect(&guardrails, &rules).len();
        let (asked, said) = (("What is your tax id?", 0), ("It is 123456789.", 1));
        assert_eq!(found(&[("Hello.", 0), said]), 0);
        assert_eq!(left(&[("Hello.", 0), said]), "");
        assert_eq!(found(&[asked, said]), 1, "the same text behind another");
        assert_eq!(found(&[asked]), 0);
        assert_eq!(left(&[asked, said]), "What is your tax id?\0It is 123456789.");
        assert_eq!(found(&[asked, said]), 1, "what holds something is looked at again");
        assert_eq!(found(&[asked, ("a secret", 1), ("word", 1)]), 1, "a run is one text");
        let other = with_context();
        let rules = other.select(Direction::Request, Inspects::Untrusted, None);
        assert!(!other.is_clean(&TextKey::of(&rules.digest(), "", "Hello.")), "others look anew");
    }

    #[test]
    fn what_was_looked_at_before_changes_no_verdict() {
        const TEXTS: [&str; 10] = [
            "Hello.",
            "",
            "my tax id",
            "123456789",
            "a secret",
            "word",
            "so be it \u{200b}",
            "the sec",
            "ret word",
            "Grüße: 12345",
        ];
        let warm = with_context();
        let rules = warm.select(Direction::Request, Inspects::Untrusted, None);
        let mut random = 7_u64;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize % below
        };
        for _ in 0..500 {
            let texts: Vec<(&str, u64)> =
                (0..=next(6)).map(|_| (TEXTS[next(TEXTS.len())], next(4) as u64)).collect();
            let segments = segments(&texts);
            let placed = Texts::new(&segments).inspect(&warm, &rules);
            assert_eq!(placed, Texts::new(&segments).inspect(&with_context(), &rules), "{texts:?}");
        }
    }
}
