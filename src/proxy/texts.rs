//! Many strings as one text to inspect, and findings back onto the strings.
//!
//! Strings of one run are joined with a line feed, wherever they stand, and others with U+0000. A phrase
//! cut inside a word is whole only when they are joined directly, so runs of several strings are looked
//! at both ways. Some thousand bytes are looked at together, with the end of what stands before them; what
//! was so in an earlier call and held nothing is not looked at again.

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
/// Strings of at least so many bytes are looked at together.
const UNIT_BYTES: usize = 2048;

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

/// Groups of strings, which are looked at together and apart from all others.
#[derive(Default)]
struct Joined {
    /// The end of what stands before, the groups, and U+0000 behind each of them.
    text: String,
    /// How long the end of what stands before is: nothing in it is found.
    before: usize,
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
        // Answers are new.
        let digest = rules.is_request().then(|| rules.digest());
        let (mut placed, mut before) = (Vec::new(), String::new());
        for unit in self.units(&order) {
            let has_runs = unit.iter().any(|group| group.len() > 1);
            let lines = self.join(unit, "\n", &before);
            let direct = if has_runs { self.join(unit, "", &before) } else { Joined::default() };
            // All that a verdict depends on is in the key.
            let forms = [lines.text.as_str(), direct.text.as_str()];
            let key = digest.map(|digest| TextKey::of(&digest, &before, forms));
            before = end_of(&lines.text);
            if key.is_some_and(|key| guardrails.is_clean(&key)) {
                continue;
            }
            let found = self.scan([&lines, &direct], guardrails, rules);
            if let Some(key) = key.filter(|_| found.is_empty()) {
                guardrails.keep_clean(&key);
            }
            placed.extend(found);
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

    /// The groups in stretches that are looked at together: each ends with the group that fills it, so that a
    /// conversation that goes on has the same.
    fn units<'o>(&self, order: &'o [Vec<usize>]) -> Vec<&'o [Vec<usize>]> {
        let (mut units, mut first, mut bytes) = (Vec::new(), 0, 0);
        for (place, group) in order.iter().enumerate() {
            let texts = group.iter().filter_map(|index| self.segments.get(*index));
            bytes += texts.map(|one| one.text.len() + 1).sum::<usize>();
            if bytes >= UNIT_BYTES || place + 1 == order.len() {
                units.extend(order.get(first..=place));
                (first, bytes) = (place + 1, 0);
            }
        }
        units
    }

    /// What is found in a unit with its strings in lines, and in what else they say joined directly.
    fn scan(
        &self,
        [lines, direct]: [&Joined; 2],
        guardrails: &Guardrails,
        rules: &RuleSet,
    ) -> Vec<Placed> {
        let mut placed = self.found(lines, guardrails, rules);
        // What begins where something was found already only takes in the beginning of the next string.
        let begins = |one: &Placed| {
            let place = one.places.first().map(|place| (place.segment, place.span.start));
            (one.finding.rule, guardrails.entity(&one.finding).to_owned(), place)
        };
        let known: HashSet<_> = placed.iter().map(begins).collect();
        let other = self.found(direct, guardrails, rules);
        placed.extend(other.into_iter().filter(|one| !known.contains(&begins(one))));
        placed
    }

    fn found(&self, joined: &Joined, guardrails: &Guardrails, rules: &RuleSet) -> Vec<Placed> {
        let placed = joined.scan(guardrails, rules).into_iter().map(|finding| {
            if !finding.has_place() {
                return Placed { finding, places: Vec::new() };
            }
            let places = self.places(joined, &finding.span());
            match places.first() {
                Some(first) => Placed { finding: finding.at(first.span.clone()), places },
                None => Placed { finding, places },
            }
        });
        placed.collect()
    }

    fn join(&self, unit: &[Vec<usize>], seam: &str, before: &str) -> Joined {
        let strings = unit.iter().flatten().filter_map(|index| self.segments.get(*index));
        let len: usize = strings.map(|one| one.text.len() + 1).sum();
        let mut text = String::with_capacity(before.len() + len);
        text.push_str(before);
        let mut joined = Joined { text, before: before.len(), ..Joined::default() };
        for group in unit {
            let start = joined.text.len();
            for (place, index) in group.iter().enumerate() {
                if place > 0 {
                    joined.text.push_str(seam);
                }
                joined.starts.push((joined.text.len(), *index));
                joined.push(self.segments.get(*index).map_or("", |one| &one.text));
            }
            joined.groups.push(start..joined.text.len());
            joined.text.push_str(APART);
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
        findings.retain(|one| !one.has_place() || one.start >= self.before);
        let touched: BTreeSet<usize> =
            crossing.iter().flat_map(|one| self.touched(&one.span())).collect();
        for group in touched.into_iter().filter_map(|group| self.groups.get(group)) {
            let text = self.text.get(group.clone()).unwrap_or_default();
            let alone = guardrails.find(text, rules).into_iter();
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

/// The last bytes of a text.
fn end_of(text: &str) -> String {
    let first = text.floor_char_boundary(text.len().saturating_sub(BEFORE_BYTES));
    text.get(first..).unwrap_or_default().to_owned()
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

    use super::{APART, Texts, UNIT_BYTES, Vault, redact, redactions};
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

    /// Expressions that depend on what stands around: before, behind, far before.
    fn with_context() -> Guardrails {
        let config = serde_json::json!({"action": "warn", "literals": ["secret word"], "patterns": [
            {"entity": "number", "regex": "[0-9]{9}", "context": ["tax id"]},
            {"entity": "key", "regex": "([A-Za-z]{20})(?:[^A-Za-z])"},
            {"entity": "code", "regex": "launch code(s?)"},
            {"entity": "last", "regex": "BEGIN[\\x00-~]{0,500}END ([0-9]{6})"},
            {"entity": "first", "regex": "([A-Z]{3}[0-9]{6})[^a-z]{1,5}password"}]});
        Guardrails::compile(vec![Rule {
            config: serde_json::from_value(config).unwrap(),
            ..rule()
        }])
        .unwrap()
    }

    /// A text that fills a unit.
    fn filled(text: &str) -> String {
        "Nothing at all. ".repeat(UNIT_BYTES / 16) + text
    }

    #[test]
    fn what_held_nothing_is_not_looked_at_again_and_still_is_context() {
        let guardrails = with_context();
        let rules = guardrails.select(Direction::Request, Inspects::Untrusted, None);
        let found = |texts: &[&str]| {
            let texts: Vec<(&str, u64)> = texts.iter().copied().zip(0..).collect();
            Texts::new(&segments(&texts)).inspect(&guardrails, &rules).len()
        };
        let is_known = |before: &str, text: &str| {
            let text = format!("{before}{text}{APART}");
            guardrails.is_clean(&TextKey::of(&rules.digest(), before, [&text, ""]))
        };
        let (hello, asked) = (filled("Hello."), filled("What is your tax id?"));
        let number = "It is 123456789.";
        let before = super::end_of(&format!("{hello}{APART}"));
        assert!(!is_known("", &hello) && !is_known(&before, number));
        assert_eq!(found(&[&hello, number]), 0);
        assert!(is_known("", &hello) && is_known(&before, number));
        assert!(!is_known("", number), "it was not looked at behind nothing");
        assert_eq!(found(&[&asked, number]), 1, "the same text behind another");
        assert!(is_known("", &asked));
        assert_eq!(found(&[&asked, number]), 1, "what holds something is looked at each time");
        let other = with_context();
        let key = TextKey::of(&rules.digest(), "", [&format!("{hello}{APART}"), ""]);
        assert!(guardrails.is_clean(&key) && !other.is_clean(&key), "other guardrails look anew");
    }

    #[test]
    fn what_was_looked_at_before_changes_no_verdict() {
        let far = format!("my tax id{}", "\u{200b}".repeat(100));
        let (filling, asked) = (filled(""), filled("my tax id"));
        let texts: [&str; 20] = [
            "Hello.",
            "",
            "my tax id",
            "123456789",
            "a secret",
            "word",
            "so be it \u{200b}",
            "the sec",
            "ret word",
            "Grüße: “12345”",
            "abcdefghijklmnopqrst",
            "the launch code",
            "BEGIN",
            "END 123456",
            "ABC123456",
            "password",
            &far,
            &filling,
            &asked,
            &asked,
        ];
        let warm = with_context();
        let rules = warm.select(Direction::Request, Inspects::Untrusted, None);
        let mut random = 7_u64;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize % below
        };
        for _ in 0..500 {
            let some: Vec<(&str, u64)> =
                (0..=next(8)).map(|_| (texts[next(texts.len())], next(6) as u64)).collect();
            let segments = segments(&some);
            let cold = Texts::new(&segments).inspect(&with_context(), &rules);
            for time in ["first", "second"] {
                let placed = Texts::new(&segments).inspect(&warm, &rules);
                assert_eq!(placed, cold, "the {time} time: {some:?}");
            }
        }
    }
}
