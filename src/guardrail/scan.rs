//! One pass over a text.
//!
//! The automaton reports every literal. A literal of a rule is a finding once its word edges are
//! checked; an anchor marks the stretch of text around it, and each pattern then runs once over the
//! stretches marked for it.

use std::collections::BTreeMap;
use std::ops::Range;

use aho_corasick::Input;
use regex_automata::hybrid::dfa::Cache;

use super::compile::{Growing, Guardrails, Pattern, Use};
use super::rule::Action;
use super::verify::{begins_word, splits_word};

/// How many shorter matches are tried where the longest is cut out of a word.
const SHORTER_MAX: usize = 16;

/// Which rules apply to a text, by their position in [`Guardrails::rules`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleSet {
    applies: Vec<bool>,
    count: usize,
}

impl RuleSet {
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

    /// The positions of the rules that apply.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.applies.iter().enumerate().filter_map(|(rule, applies)| applies.then_some(rule))
    }

    /// Adds the rules of another set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let len = self.applies.len().max(other.applies.len());
        (0..len).map(|rule| self.contains(rule) || other.contains(rule)).collect()
    }
}

impl FromIterator<bool> for RuleSet {
    fn from_iter<I: IntoIterator<Item = bool>>(rules: I) -> Self {
        let applies: Vec<bool> = rules.into_iter().collect();
        let count = applies.iter().filter(|applies| **applies).count();
        Self { applies, count }
    }
}

/// One violation: which rule, where. Holds no text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Bytes of the text, end exclusive.
    pub start: usize,
    /// Exclusive.
    pub end: usize,
    /// Position of the rule.
    pub rule: usize,
    /// Position of the pattern; `None` for a literal.
    pub(super) pattern: Option<usize>,
}

impl Finding {
    /// The bytes of the text.
    pub fn span(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// By pattern, where its next match may begin; from the start for those not in it. Only patterns that
/// matched are in it: there may be thousands of others.
pub(super) type Resume = BTreeMap<usize, usize>;

/// By pattern, the text around its anchors.
type Stretches = BTreeMap<usize, Vec<Range<usize>>>;

/// Where a scan begins and whether the text is all there.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'t> {
    pub(super) text: &'t str,
    /// Findings before this byte were reported already; it is there for word edges only.
    pub(super) from: usize,
    /// Whether more text may follow.
    pub(super) open: bool,
}

/// What a scan of an open text leaves undecided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Undecided {
    /// No rule can report anything new that begins before this byte.
    pub(super) all: usize,
    /// No rule that redacts or blocks can.
    pub(super) enforced: usize,
}

impl Guardrails {
    /// All findings in a whole text, in order of their start.
    pub fn scan(&self, text: &str, rules: &RuleSet) -> Vec<Finding> {
        let view = View { text, from: 0, open: false };
        self.scan_view(view, rules, &mut Resume::new()).0
    }

    /// Findings in a view that are decided, and from where on it is undecided. `resume` holds, by
    /// pattern, where its next match may begin.
    pub(super) fn scan_view(
        &self,
        view: View<'_>,
        rules: &RuleSet,
        resume: &mut Resume,
    ) -> (Vec<Finding>, Undecided) {
        if rules.is_empty() {
            let end = view.text.len();
            return (Vec::new(), Undecided { all: end, enforced: end });
        }
        let (mut findings, stretches) = self.literals(view, rules);
        let everywhere = Range { start: 0, end: view.text.len() };
        let unanchored =
            self.unanchored.iter().map(|index| (*index, std::slice::from_ref(&everywhere)));
        let anchored = stretches.iter().map(|(index, stretches)| (*index, stretches.as_slice()));
        for (index, stretches) in unanchored.chain(anchored) {
            let Some(pattern) = self.patterns.get(index).filter(|one| rules.contains(one.rule))
            else {
                continue;
            };
            let from = resume.get(&index).copied().unwrap_or(0).max(view.from);
            for span in pattern.matches(view.text, from, stretches) {
                findings.push(Finding {
                    start: span.start,
                    end: span.end,
                    rule: pattern.rule,
                    pattern: Some(index),
                });
            }
        }
        let mut undecided = self.undecided(view, rules, resume);
        for finding in &findings {
            if finding.start >= undecided.all && self.enforces(finding.rule) {
                undecided.enforced = undecided.enforced.min(finding.start);
            }
        }
        findings.retain(|finding| finding.start < undecided.all || !view.open);
        findings.sort();
        findings.dedup();
        for finding in &findings {
            if let Some(pattern) = finding.pattern {
                let next = resume.entry(pattern).or_default();
                *next = finding.end.max(*next);
            }
        }
        (findings, undecided)
    }

    /// Whether a rule does more than report.
    pub(super) fn enforces(&self, rule: usize) -> bool {
        self.rules().get(rule).is_some_and(|rule| rule.action() != Action::Warn)
    }

    /// Findings of literals, and by pattern the stretches around its anchors.
    fn literals(&self, view: View<'_>, rules: &RuleSet) -> (Vec<Finding>, Stretches) {
        let mut findings = Vec::new();
        let mut stretches = Stretches::new();
        let Some(automaton) = &self.literals else { return (findings, stretches) };
        let input = Input::new(view.text).range(view.from..);
        for hit in automaton.find_overlapping_iter(input) {
            for purpose in self.uses.get(hit.pattern().as_usize()).into_iter().flatten() {
                match *purpose {
                    Use::Literal(rule) if rules.contains(rule) => {
                        if !splits_word(view.text, &hit.range()) {
                            findings.push(Finding {
                                start: hit.start(),
                                end: hit.end(),
                                rule,
                                pattern: None,
                            });
                        }
                    }
                    Use::Literal(_) => {}
                    Use::Anchor(index) => {
                        if let Some(pattern) = self.patterns.get(index)
                            && rules.contains(pattern.rule)
                        {
                            let stretches = stretches.entry(index).or_default();
                            let bytes_max = pattern.engine.bytes_max;
                            stretch(stretches, hit.range(), bytes_max, view.text.len());
                        }
                    }
                }
            }
        }
        (findings, stretches)
    }

    /// The earliest places from which the end of an open text could still grow into a match.
    fn undecided(&self, view: View<'_>, rules: &RuleSet, resume: &Resume) -> Undecided {
        let end = view.text.len();
        let mut undecided = Undecided { all: end, enforced: end };
        if !view.open {
            return undecided;
        }
        let lower = |rule: usize, at: usize, undecided: &mut Undecided| {
            undecided.all = undecided.all.min(at);
            if self.enforces(rule) {
                undecided.enforced = undecided.enforced.min(at);
            }
        };
        for start in starts(view, view.from, self.literal_bytes_max) {
            for rule in self.growing_literals(view.text, start) {
                if rules.contains(rule) {
                    lower(rule, start, &mut undecided);
                }
            }
        }
        for (index, pattern) in self.patterns.iter().enumerate() {
            if rules.contains(pattern.rule) {
                let from = resume.get(&index).copied().unwrap_or(0).max(view.from);
                if let Some(start) = pattern.growing(view, from) {
                    lower(pattern.rule, start, &mut undecided);
                }
            }
        }
        undecided
    }

    /// Rules with a literal that begins with the text from `start` to its end.
    fn growing_literals(&self, text: &str, start: usize) -> impl Iterator<Item = usize> + '_ {
        let tail = text.get(start..).unwrap_or_default().to_ascii_lowercase();
        let known = !tail.is_empty() && begins_word(text, start);
        let first = self.sorted.partition_point(|(literal, _)| literal.as_str() < tail.as_str());
        self.sorted
            .get(first..)
            .unwrap_or_default()
            .iter()
            .take_while(move |(literal, _)| known && literal.starts_with(&tail))
            .map(|(_, rule)| *rule)
    }
}

impl Pattern {
    /// Whole, valid matches that begin at or behind `from` inside the stretches.
    fn matches(&self, text: &str, from: usize, stretches: &[Range<usize>]) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        let mut at = from;
        for stretch in stretches {
            at = ceil_char(text, at.max(stretch.start));
            let end = ceil_char(text, stretch.end);
            while let Some(hit) =
                text.get(..end).and_then(|text| self.engine.regex.find_at(text, at))
            {
                match self.whole(text, hit.range()) {
                    Some(span) => {
                        at = span.end;
                        found.push(span);
                    }
                    None => at = ceil_char(text, hit.start() + 1),
                }
            }
        }
        found
    }

    /// The match, or the longest shorter one from the same start, that is whole and valid.
    fn whole(&self, text: &str, mut span: Range<usize>) -> Option<Range<usize>> {
        for _ in 0..SHORTER_MAX {
            if self.accepts(text, &span) {
                return Some(span);
            }
            let end = text.floor_char_boundary(span.end.checked_sub(1)?);
            let shorter =
                text.get(..end).and_then(|text| self.engine.regex.find_at(text, span.start))?;
            if shorter.start() != span.start {
                return None;
            }
            span = shorter.range();
        }
        None
    }

    fn accepts(&self, text: &str, span: &Range<usize>) -> bool {
        !(self.config.whole_word && splits_word(text, span))
            && self.config.validate.is_none_or(|validate| {
                text.get(span.clone()).is_some_and(|matched| validate.accepts(matched))
            })
    }

    /// The earliest start from which the end of the text could still grow into a match.
    fn growing(&self, view: View<'_>, from: usize) -> Option<usize> {
        let mut starts = starts(view, from, self.engine.bytes_max);
        // Without an automaton every start may grow: holding back is always safe.
        let Some(growing) = &self.engine.growing else { return starts.next() };
        let mut cache = growing.caches.get();
        starts.find(|start| {
            (!self.config.whole_word || begins_word(view.text, *start))
                && growing.lives(&mut cache, view.text, *start)
        })
    }
}

impl Growing {
    /// Whether some continuation of the text is a match that begins at `start`.
    fn lives(&self, cache: &mut Cache, text: &str, start: usize) -> bool {
        let input =
            regex_automata::Input::new(text).range(start..).anchored(regex_automata::Anchored::Yes);
        // A state that cannot be built counts as alive.
        let Ok(mut state) = self.dfa.start_state_forward(cache, &input) else { return true };
        for byte in text.as_bytes().get(start..).unwrap_or_default() {
            match self.dfa.next_state(cache, state, *byte) {
                Ok(next) if next.is_dead() => return false,
                Ok(next) if next.is_quit() => return true,
                Ok(next) => state = next,
                Err(_) => return true,
            }
        }
        true
    }
}

/// Character boundaries in the last `bytes_max` bytes of an open text. A match of full length that
/// ends with the text is among them: its right edge is not known yet.
fn starts(view: View<'_>, from: usize, bytes_max: usize) -> impl Iterator<Item = usize> {
    let end = view.text.len();
    let first = from.max(end.saturating_sub(bytes_max));
    (first..end).filter(move |at| view.text.is_char_boundary(*at))
}

/// Marks the text around an anchor, joining it to the stretch before where they touch.
fn stretch(stretches: &mut Vec<Range<usize>>, hit: Range<usize>, bytes_max: usize, len: usize) {
    let start = hit.start.saturating_sub(bytes_max);
    let end = hit.end.saturating_add(bytes_max).min(len);
    match stretches.last_mut() {
        Some(last) if start <= last.end => {
            last.start = last.start.min(start);
            last.end = last.end.max(end);
        }
        _ => stretches.push(start..end),
    }
}

fn ceil_char(text: &str, at: usize) -> usize {
    text.ceil_char_boundary(at.min(text.len()))
}
