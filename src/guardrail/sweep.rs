//! One pass over a stretch of text as it is written.
//!
//! Literals are found, and patterns called to the places where they may match; each pattern then follows the
//! text once from every byte of its places at which a match may begin. What expressions may read in all is
//! bounded.

use std::ops::Range;

use super::compile::Guardrails;
use super::gate::Starts;
use super::kinds::Kinds;
use super::pattern::Pattern;
use super::scan::{Finding, Resume, RuleSet, What};
use super::seeds;

/// Bytes that expressions may read: so many for a text of any length, and so many for each of its bytes.
const WORK_BYTES: usize = 256 * 1024;
const WORK_A_BYTE: usize = 50;
/// What trying a pattern counts for at least.
const WORK_OF_START: usize = 16;

/// Where a pattern may match.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// What only warns comes last: it must not use up what is needed for blocking.
    pub(super) is_warning: bool,
    pub(super) pattern: usize,
    /// A match begins at one of these bytes.
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Place {
    fn order(&self) -> (bool, usize, usize) {
        (self.is_warning, self.pattern, self.start)
    }
}

/// Where a sweep begins and whether the text is all there.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'t> {
    pub(super) text: &'t str,
    pub(super) kinds: &'t Kinds,
    /// Findings before this byte were reported already; it is there for word edges and context only.
    pub(super) from: usize,
    /// Whether more text may follow.
    pub(super) open: bool,
    /// Of an open text: what stands at or behind this byte may yet read otherwise.
    pub(super) firm: usize,
}

impl<'t> View<'t> {
    /// A text that is all there.
    pub(super) fn whole(text: &'t str, kinds: &'t Kinds) -> Self {
        Self { text, kinds, from: 0, open: false, firm: text.len() }
    }
}

/// What a sweep of an open text leaves undecided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Undecided {
    /// No rule can report anything new that begins before this byte.
    pub(super) all: usize,
    /// No rule that redacts or blocks can.
    pub(super) enforced: usize,
}

/// Bytes that expressions may still read.
#[derive(Debug)]
pub(super) struct Work {
    left: usize,
    /// Something was not read: from then on nothing is, so that no match is lost without being noticed.
    pub(super) is_spent: bool,
}

impl Work {
    /// What a text of this length may ask for, with all that is read in it.
    pub(super) fn of(text: &str) -> Self {
        let left = WORK_BYTES + text.len().saturating_mul(WORK_A_BYTE);
        Self { left, is_spent: false }
    }

    /// Whether so many more may be read.
    pub(super) fn allows(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes.max(WORK_OF_START)) {
            Some(left) if !self.is_spent => {
                self.left = left;
                true
            }
            _ => {
                self.is_spent = true;
                false
            }
        }
    }
}

impl Guardrails {
    /// Findings in a view that are decided, and from where on it is undecided. `resume` holds, by
    /// pattern, where its next match may begin.
    pub(super) fn sweep(
        &self,
        view: View<'_>,
        rules: &RuleSet,
        resume: &mut Resume,
        work: &mut Work,
    ) -> (Vec<Finding>, Undecided) {
        let (mut findings, mut places) = self.literals.find(view, rules);
        self.seed(view, rules, &mut places);
        places.sort_unstable_by_key(Place::order);
        for places in places.chunk_by(|one, next| one.pattern == next.pattern) {
            let index = places.first().map_or(usize::MAX, |place| place.pattern);
            let from = resume.get(&index).copied().unwrap_or(0).max(view.from);
            let mut starts = Starts::new(&self.gates, view, (from, places));
            let Some(first) = starts.next() else { continue };
            let Some(pattern) = self.patterns.get(index) else { continue };
            let (spans, is_done) = pattern.matches(view, (first, starts), work);
            let rule = pattern.rule;
            findings.extend(spans.into_iter().map(|(begins, span)| {
                let (start, end) = (span.start, span.end);
                Finding { start, end, rule, what: What::Pattern(index), begins }
            }));
            if !is_done {
                let (start, end) = (view.from, view.text.len());
                findings.push(Finding { start, end, rule, what: What::Limit, begins: start });
            }
        }
        findings.retain(|one| {
            view.text.get(one.span()).is_none_or(|matched| !self.is_allowed(one, matched))
        });
        let mut undecided = self.undecided(view, rules, resume);
        for finding in &findings {
            if finding.begins >= undecided.all && self.enforces(finding) {
                undecided.enforced = undecided.enforced.min(finding.begins);
            }
        }
        findings.retain(|finding| finding.begins < undecided.all || !view.open);
        findings.sort();
        findings.dedup();
        for finding in &findings {
            if let What::Pattern(pattern) = finding.what {
                let next = resume.entry(pattern).or_default();
                *next = finding.end.max(*next);
            }
        }
        (findings, undecided)
    }

    /// The places of patterns that no literal calls for.
    fn seed(&self, view: View<'_>, rules: &RuleSet, places: &mut Vec<Place>) {
        let mut seeds = None;
        for index in &self.seeded {
            let Some(pattern) = self.applying(*index, rules) else { continue };
            let (seed, bytes_max) = (&pattern.engine.seed, pattern.engine.bytes_max);
            let seeds = seeds.get_or_insert_with(|| seeds::Places::of(view));
            let is_warning = !pattern.acts;
            let place = |Range { start, end }| Place { is_warning, pattern: *index, start, end };
            places.extend(seeds.stretches(seed, bytes_max, view.text.len()).into_iter().map(place));
        }
    }

    /// A pattern, if it looks at these texts.
    pub(super) fn applying(&self, index: usize, rules: &RuleSet) -> Option<&Pattern> {
        self.patterns
            .get(index)
            .filter(|one| rules.contains(one.rule) && (!one.is_turned || rules.is_request()))
    }
}
