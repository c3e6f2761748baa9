//! Looking at a whole text: as it is written, as it is read, loosely, and into what is encoded in it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::compile::Guardrails;
use super::encoded::{self, Encoded};
use super::kinds::Kinds;
use super::pattern::CONTEXT_BYTES_MAX;
use super::reading::{Origin, Reader, first_disguise};
use super::rule::{Action, Direction};
use super::seeds::stretch;
use super::sweep::{View, Work};
use crate::words::digest::sha256_parts;

/// Bytes around a word that was put back in which a phrase with it is looked for.
const AROUND: usize = 400;
/// Texts inside texts inside texts.
const LAYERS_MAX: usize = 3;

/// Which rules apply to a text, by their position in [`Guardrails::rules`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleSet {
    applies: Vec<bool>,
    count: usize,
    /// Users disguise what they send; what comes back is read as a reader takes it, and no further.
    is_request: bool,
}

impl RuleSet {
    /// The rules for which `applies` is true, on texts going this way.
    pub fn new(applies: Vec<bool>, direction: Direction) -> Self {
        let count = applies.iter().filter(|applies| **applies).count();
        Self { applies, count, is_request: direction == Direction::Request }
    }

    /// Whether a rule applies.
    pub fn contains(&self, rule: usize) -> bool {
        self.applies.get(rule).copied().unwrap_or(false)
    }

    /// How many rules apply.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether no rule applies.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// SHA-256 of which rules these are.
    pub fn digest(&self) -> [u8; 32] {
        let applies: Vec<u8> = self.applies.iter().copied().map(u8::from).collect();
        sha256_parts(&[&[u8::from(self.is_request)], &applies])
    }

    /// Whether the texts are on their way to Gemini.
    pub fn is_request(&self) -> bool {
        self.is_request
    }

    /// The positions of the rules that apply.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.applies.iter().enumerate().filter_map(|(rule, applies)| applies.then_some(rule))
    }

    /// Adds the rules of another set for texts going the same way.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let len = self.applies.len().max(other.applies.len());
        let applies: Vec<bool> =
            (0..len).map(|rule| self.contains(rule) || other.contains(rule)).collect();
        let count = applies.iter().filter(|applies| **applies).count();
        Self { applies, count, is_request: self.is_request || other.is_request }
    }

    /// Those of the rules for which `keep` holds.
    #[must_use]
    pub fn only(&self, keep: impl Fn(usize) -> bool) -> Self {
        let applies: Vec<bool> =
            self.applies.iter().enumerate().map(|(rule, applies)| *applies && keep(rule)).collect();
        let count = applies.iter().filter(|applies| **applies).count();
        Self { applies, count, is_request: self.is_request }
    }
}

/// One violation: which rule, where. Holds no text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Finding {
    /// Bytes of the text, end exclusive.
    pub start: usize,
    /// Exclusive.
    pub end: usize,
    /// Position of the rule.
    pub rule: usize,
    /// What of the rule was found.
    pub(super) what: What,
    /// Where the match begins, of which the bytes may be a group.
    pub(super) begins: usize,
}

/// What of a rule was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum What {
    /// A literal.
    Literal,
    /// The pattern at this position.
    Pattern(usize),
    /// More text than is allowed.
    Length,
    /// Something else than the JSON that is required.
    Json,
    /// The text asked for more work than is allowed, and was not looked at to its end.
    Limit,
}

impl Finding {
    /// The same, at other bytes.
    #[must_use]
    pub fn at(self, Range { start, end }: Range<usize>) -> Self {
        Self { start, end, begins: start, ..self }
    }

    /// The same behind so many bytes.
    #[must_use]
    pub fn behind(mut self, bytes: usize) -> Self {
        self.shift(bytes);
        self
    }

    /// Whether it is about how much text there is.
    pub fn is_of_length(&self) -> bool {
        self.what == What::Length
    }

    /// Whether its bytes are what was found, and not the text it stands for.
    pub fn has_place(&self) -> bool {
        !matches!(self.what, What::Length | What::Json | What::Limit)
    }

    /// Moves it behind so many bytes.
    pub(super) fn shift(&mut self, bytes: usize) {
        self.start += bytes;
        self.end += bytes;
        self.begins += bytes;
    }

    /// The bytes of the text.
    pub fn span(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// By pattern, where its next match may begin; from the start for those not in it. Only patterns that
/// matched are in it: there may be thousands of others.
pub(super) type Resume = BTreeMap<usize, usize>;

impl Guardrails {
    /// All findings in a whole text, in order of their start.
    pub fn scan(&self, text: &str, rules: &RuleSet) -> Vec<Finding> {
        let mut findings = self.find(text, rules);
        findings.extend(self.too_long((0, text.len()), rules));
        findings.sort();
        findings
    }

    /// All findings in a text that may be a part of what is sent, in order of their start.
    pub fn find(&self, text: &str, rules: &RuleSet) -> Vec<Finding> {
        if rules.is_empty() {
            return Vec::new();
        }
        let mut findings = self.layer(text, (rules, 0), &mut Work::of(text));
        findings.sort();
        findings.dedup();
        findings
    }

    /// Findings in a text and in the texts inside it.
    fn layer(
        &self,
        text: &str,
        (rules, depth): (&RuleSet, usize),
        work: &mut Work,
    ) -> Vec<Finding> {
        let kinds = Kinds::of(text);
        let mut findings = self.written((text, &kinds), rules, work);
        let read = first_disguise(text, &kinds).map(|first| {
            if rules.is_request() { Reader::whole(text) } else { Reader::streamed(text, first) }
        });
        let of_read = read.as_ref().map(|(plain, _)| Kinds::of(plain));
        let (plain, plain_kinds) = match (&read, &of_read) {
            (Some((plain, origin)), Some(kinds)) => {
                let of_plain = self.written((plain, kinds), rules, work);
                findings.extend(of_plain.iter().map(|one| back(one, origin)));
                (plain.as_str(), kinds)
            }
            _ => (text, &kinds),
        };
        if !rules.is_request() {
            return findings;
        }
        let mut deeper = Vec::new();
        if let Some((loose, origin)) = self.vocabulary.loosen(plain, plain_kinds) {
            for Range { start, end } in around(&loose, &origin) {
                let stretch = loose.get(start..end).unwrap_or_default();
                for mut one in self.written((stretch, &Kinds::of(stretch)), rules, work) {
                    one.shift(start);
                    // At the edges of the stretch words are cut: only what is near a change counts.
                    let near = one.begins.saturating_sub(CONTEXT_BYTES_MAX);
                    deeper.extend(origin.is_changed(near, one.end).then(|| back(&one, &origin)));
                }
            }
        }
        if depth < LAYERS_MAX {
            for inner in encoded::hidden(text, &kinds) {
                findings.extend(self.inside(&inner, (rules, depth), work));
            }
            for inner in encoded::find(plain, plain_kinds) {
                deeper.extend(self.inside(&inner, (rules, depth), work));
            }
        }
        findings.extend(deeper.into_iter().map(|one| match &read {
            Some((_, origin)) => back(&one, origin),
            None => one,
        }));
        findings
    }

    /// Findings in a text inside a text, each at the whole of what stands for it.
    fn inside(
        &self,
        inner: &Encoded,
        (rules, depth): (&RuleSet, usize),
        work: &mut Work,
    ) -> impl Iterator<Item = Finding> + use<> {
        let Range { start, end } = inner.span.clone();
        let found = self.layer(&inner.text, (rules, depth + 1), work);
        found.into_iter().map(move |one| Finding { start, end, begins: start, ..one })
    }

    fn written(
        &self,
        (text, kinds): (&str, &Kinds),
        rules: &RuleSet,
        work: &mut Work,
    ) -> Vec<Finding> {
        self.sweep(View::whole(text, kinds), rules, &mut Resume::new(), work).0
    }

    /// The findings of rules whose bound on the length of a text is passed as it grows from so many bytes to so
    /// many.
    pub fn too_long(&self, (before, len): (usize, usize), rules: &RuleSet) -> Vec<Finding> {
        let bounded = |rule: usize| {
            let max = self.rules().get(rule)?.config.max_bytes?;
            let exceeds = before <= max && len > max;
            exceeds.then_some(Finding { start: 0, end: max, rule, what: What::Length, begins: 0 })
        };
        self.bounding
            .iter()
            .copied()
            .filter(|rule| rules.contains(*rule))
            .filter_map(bounded)
            .collect()
    }

    /// Whether a finding of a rule does more than report.
    pub(super) fn enforces(&self, finding: &Finding) -> bool {
        self.action(finding).is_some_and(Action::acts)
    }
}

/// The stretches around what was put back: the rest reads as before.
fn around(text: &str, origin: &Origin) -> Vec<Range<usize>> {
    let mut stretches = Vec::new();
    for at in origin.changes() {
        stretch(&mut stretches, at..at, (AROUND, AROUND), text.len());
    }
    let whole =
        |one: Range<usize>| text.floor_char_boundary(one.start)..text.ceil_char_boundary(one.end);
    stretches.into_iter().map(whole).collect()
}

/// A finding in a derived text, in the text it is derived from. What was not changed is found in both.
pub(super) fn back(finding: &Finding, origin: &Origin) -> Finding {
    Finding {
        start: origin.start(finding.start),
        end: origin.end(finding.end),
        begins: origin.start(finding.begins),
        ..finding.clone()
    }
}
