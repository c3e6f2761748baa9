//! Many strings as one text to inspect, and findings back onto the strings.
//!
//! Parts of one run are joined with a line feed, other strings with U+0000, which no rule bridges. A
//! phrase cut inside a word is whole only when the parts are joined directly, so runs of several parts
//! are looked at both ways.

use std::ops::Range;

use crate::gemini::text::Segment;
use crate::guardrail::{Finding, Guardrails, RuleSet};

const APART: &str = "\u{0}";

/// Strings of one message, in order.
#[derive(Debug)]
pub(super) struct Texts<'s> {
    segments: &'s [Segment],
}

/// A stretch of one of the strings.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Where each segment begins.
    starts: Vec<usize>,
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
        let mut placed = self.scan(guardrails, rules, "\n");
        if self.has_runs() {
            for other in self.scan(guardrails, rules, "") {
                let known = placed.iter().any(|one| {
                    one.places == other.places && one.finding.rule == other.finding.rule
                });
                if !known {
                    placed.push(other);
                }
            }
        }
        placed
    }

    fn has_runs(&self) -> bool {
        self.segments.windows(2).any(|pair| match pair {
            [one, two] => one.run.is_some() && one.run == two.run,
            _ => false,
        })
    }

    fn scan(&self, guardrails: &Guardrails, rules: &RuleSet, seam: &str) -> Vec<Placed> {
        let joined = self.join(seam);
        guardrails
            .scan(&joined.text, rules)
            .into_iter()
            .map(|finding| {
                let places = self.places(&joined, &finding.span());
                Placed { finding, places }
            })
            .collect()
    }

    fn join(&self, seam: &str) -> Joined {
        let len = self.segments.iter().map(|segment| segment.text.len() + 1).sum();
        let mut joined = Joined { text: String::with_capacity(len), starts: Vec::new() };
        let mut before: Option<&Segment> = None;
        for segment in self.segments {
            match before {
                Some(before) if segment.run.is_some() && before.run == segment.run => {
                    joined.text.push_str(seam);
                }
                Some(_) => joined.text.push_str(APART),
                None => {}
            }
            joined.starts.push(joined.text.len());
            joined.text.push_str(&segment.text);
            before = Some(segment);
        }
        joined
    }

    fn places(&self, joined: &Joined, span: &Range<usize>) -> Vec<Place> {
        let first = joined.starts.partition_point(|start| *start <= span.start).saturating_sub(1);
        self.segments
            .iter()
            .zip(&joined.starts)
            .enumerate()
            .skip(first)
            .take_while(|(_, (_, start))| **start < span.end)
            .filter_map(|(segment, (text, start))| {
                let from = span.start.max(*start) - start;
                let to = span.end.min(start + text.text.len()).checked_sub(*start)?;
                (from < to).then_some(Place { segment, span: from..to })
            })
            .collect()
    }
}

/// Replaces the places of findings that redact: the first place of each gets the placeholder, the
/// others go. Gives the new text of every segment that changed.
pub(super) fn redact(
    guardrails: &Guardrails,
    segments: &[Segment],
    placed: &[Placed],
) -> Vec<(usize, String)> {
    let mut holes = Vec::new();
    for one in placed {
        let mut placeholder = guardrails.placeholder(&one.finding);
        for place in &one.places {
            holes.push((place.segment, place.span.clone(), std::mem::take(&mut placeholder)));
        }
    }
    fill(segments, &holes)
}

/// The new text of every segment with a hole: segment, bytes of its text, what goes there.
pub(super) fn fill(
    segments: &[Segment],
    holes: &[(usize, Range<usize>, String)],
) -> Vec<(usize, String)> {
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

/// Overlapping spans become one hole with the placeholder of the first.
fn replace(text: &str, edits: &[(Range<usize>, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (span, placeholder) in edits {
        if span.start >= at {
            out.push_str(text.get(at..span.start).unwrap_or_default());
            out.push_str(placeholder);
        }
        at = at.max(span.end);
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{Texts, redact};
    use crate::gemini::text::{Run, Segment};
    use crate::guardrail::{Direction, Guardrails, Inspects, Kind, Rule, Severity};
    use crate::words::ids::GuardrailId;

    fn guardrails() -> Guardrails {
        let config =
            serde_json::json!({"action": "redact", "literals": ["secret word", "word salad"]});
        Guardrails::compile(vec![Rule {
            id: GuardrailId(Uuid::nil()),
            name: "r".to_owned(),
            kind: Kind::Custom,
            severity: Severity::Error,
            blocking: false,
            config: serde_json::from_value(config).unwrap(),
            templates: Vec::new(),
            categories: Vec::new(),
        }])
        .unwrap()
    }

    fn redacted(parts: &[(&str, Option<usize>)]) -> Vec<(usize, String)> {
        let segments: Vec<Segment> = parts
            .iter()
            .map(|(text, run)| Segment {
                literal: 0..0,
                text: (*text).to_owned(),
                run: run.map(Run),
            })
            .collect();
        let guardrails = guardrails();
        let rules = guardrails.select(Direction::Request, Inspects::Untrusted, None);
        let placed = Texts::new(&segments).inspect(&guardrails, &rules);
        redact(&guardrails, &segments, &placed)
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
    }
}
