//! One pass over a stretch of text as it is written.
//!
//! The automaton reports every literal. A literal of a rule is a finding once its word edges are
//! checked; an anchor marks the stretch of text around it, and each pattern then runs once over the
//! stretches marked for it. What expressions may read in all is bounded.

use std::collections::BTreeMap;
use std::ops::Range;

use regex_automata::{Anchored, Input};

use super::compile::{CONTEXT_BYTES_MAX, Guardrails, Pattern, Use};
use super::rule::{Action, Mode};
use super::scan::{Finding, Resume, RuleSet, What};
use super::seeds::{self, Seed, stretch};
use super::validate::Validate;
use super::verify::{begins_word, entropy, has_word, splits_word};

/// How many other matches are tried where one is cut out of a word.
const OTHERS_MAX: usize = 16;
/// Bytes that expressions may read: so many for a text of any length, and so many for each of its bytes.
const WORK_BYTES: usize = 256 * 1024;
const WORK_A_BYTE: usize = 100;

/// What trying a pattern from one byte on counts for.
const WORK_OF_START: usize = 64;
/// How many times slower a group is found than a match.
const GROUP_COST: usize = 16;

/// By pattern, where it may match.
type Candidates = BTreeMap<usize, Places>;

/// Where a pattern may match.
#[derive(Debug)]
enum Places {
    /// Anywhere in these stretches.
    In(Vec<Range<usize>>),
    /// From these bytes on, which stand in these stretches.
    From(Vec<usize>, Vec<Range<usize>>),
}

/// Where a sweep begins and whether the text is all there.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'t> {
    pub(super) text: &'t str,
    /// Findings before this byte were reported already; it is there for word edges and context only.
    pub(super) from: usize,
    /// Whether more text may follow.
    pub(super) open: bool,
    /// Of an open text: what stands at or behind this byte may yet read otherwise.
    pub(super) firm: usize,
}

impl<'t> View<'t> {
    /// A text that is all there.
    pub(super) fn whole(text: &'t str) -> Self {
        Self { text, from: 0, open: false, firm: text.len() }
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
    is_spent: bool,
}

impl Work {
    /// What a text of this length may ask for, with all that is read in it.
    pub(super) fn of(text: &str) -> Self {
        let left = WORK_BYTES + text.len().saturating_mul(WORK_A_BYTE);
        Self { left, is_spent: false }
    }

    /// Whether so many more may be read.
    fn allows(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes.max(16)) {
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

impl Places {
    /// Adds what a literal calls for.
    fn add(&mut self, hit: Range<usize>, reach: (usize, usize), len: usize) {
        match self {
            Self::In(stretches) => stretch(stretches, hit, reach, len),
            // A match begins at or before the literal.
            Self::From(_, stretches) => {
                stretch(stretches, hit.start..hit.start + 1, (reach.0, 0), len);
            }
        }
    }

    /// All calls are in: the bytes that matches may begin at.
    fn settle(&mut self, pattern: &Pattern, stood: &Stood) {
        let Self::From(starts, stretches) = self else { return };
        for stretch in stretches {
            let reach = (0, stretch.len().saturating_sub(1));
            let places = pattern.beginnings.iter().flatten();
            let near = places.flat_map(|place| stood.near(*place, stretch.start, reach));
            starts.extend(near.map(|start| *start as usize));
        }
        starts.sort_unstable();
        starts.dedup();
    }
}

/// Where literals stood, by their place in `needs`; first as they come, then sorted.
struct Stood {
    /// By place, which of the lists is its own.
    lists: Vec<u32>,
    /// By list, how many entries it has; then, where it ends among the starts.
    ends: Vec<u32>,
    /// List and start, as they come.
    entries: Vec<(u32, u32)>,
    /// The starts of all lists, one list behind the other, each in the order of the text.
    starts: Vec<u32>,
}

/// No list.
const NONE: u32 = u32::MAX;

impl Stood {
    fn new(places: usize) -> Self {
        let (ends, entries, starts) = (Vec::new(), Vec::new(), Vec::new());
        Self { lists: vec![NONE; places], ends, entries, starts }
    }

    fn push(&mut self, place: usize, start: usize) {
        let Some(list) = self.lists.get_mut(place) else { return };
        if *list == NONE {
            *list = u32::try_from(self.ends.len()).unwrap_or(NONE);
            self.ends.push(0);
        }
        if let Some(count) = self.ends.get_mut(*list as usize) {
            *count += 1;
        }
        self.entries.push((*list, u32::try_from(start).unwrap_or(u32::MAX)));
    }

    /// Everything has come.
    fn sort(&mut self) {
        let mut end = 0;
        for count in &mut self.ends {
            (end, *count) = (end + *count, end);
        }
        self.starts.resize(self.entries.len(), 0);
        for (list, start) in &self.entries {
            let Some(next) = self.ends.get_mut(*list as usize) else { continue };
            if let Some(slot) = self.starts.get_mut(*next as usize) {
                *slot = *start;
            }
            *next += 1;
        }
    }

    fn list(&self, place: usize) -> &[u32] {
        let Some(list) = self.lists.get(place).copied().filter(|list| *list != NONE) else {
            return &[];
        };
        let list = list as usize;
        let first = list.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let end = self.ends.get(list).copied().unwrap_or(0);
        self.starts.get(first.unwrap_or(0) as usize..end as usize).unwrap_or_default()
    }

    /// Where a literal began, at most so far before a byte and so far behind it.
    fn near(&self, place: usize, at: usize, (before, behind): (usize, usize)) -> &[u32] {
        let list = self.list(place);
        let from = list.partition_point(|start| (*start as usize) + before < at);
        let to = list.partition_point(|start| (*start as usize) <= at + behind);
        list.get(from..to).unwrap_or_default()
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
        let (mut findings, mut candidates) = self.literals(view, rules);
        self.seed(view, rules, &mut candidates);
        // What only warns must not use up what is needed for blocking.
        let (warning, acting): (Vec<_>, Vec<_>) = candidates.iter().partition(|(index, _)| {
            self.patterns.get(**index).is_none_or(|one| !self.acts(one.rule, one.config.action))
        });
        for (index, places) in acting.into_iter().chain(warning) {
            let Some(pattern) = self.patterns.get(*index) else { continue };
            let from = resume.get(index).copied().unwrap_or(0).max(view.from);
            let (spans, is_done) = pattern.matches(view.text, from, places, work);
            let rule = pattern.rule;
            findings.extend(spans.into_iter().map(|(begins, span)| {
                let (start, end) = (span.start, span.end);
                Finding { start, end, rule, what: What::Pattern(*index), begins }
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

    /// Findings of literals, and by pattern the stretches around its anchors.
    fn literals(&self, view: View<'_>, rules: &RuleSet) -> (Vec<Finding>, Candidates) {
        let mut findings = Vec::new();
        let mut candidates = Candidates::new();
        let Some(automaton) = &self.literals else { return (findings, candidates) };
        let lower = view.text.to_ascii_lowercase();
        let input = aho_corasick::Input::new(&lower).range(view.from..);
        let mut calls: Vec<((usize, usize), Range<usize>)> = Vec::new();
        let mut stood = Stood::new(self.needed);
        for hit in automaton.find_overlapping_iter(input) {
            let literal = hit.pattern().as_usize();
            if let Some(place) = self.needs.get(literal).copied().flatten() {
                stood.push(place, hit.start());
            }
            for purpose in self.uses.get(literal).into_iter().flatten() {
                match *purpose {
                    Use::Literal(rule) if rules.contains(rule) => {
                        if !splits_word(view.text, &hit.range()) {
                            let (start, end) = (hit.start(), hit.end());
                            let begins = start;
                            findings.push(Finding {
                                start,
                                end,
                                rule,
                                what: What::Literal,
                                begins,
                            });
                        }
                    }
                    Use::Literal(_) => {}
                    Use::Anchor(index, branch) => calls.push(((index, branch), hit.range())),
                }
            }
        }
        stood.sort();
        // By set, whether any of its literals stood anywhere: most calls end with this.
        let mut is_there: Vec<Option<bool>> = vec![None; self.sets.len()];
        for ((index, branch), hit) in calls {
            let Some(pattern) = self.applying(index, rules) else { continue };
            let Seed::Literals(anchors) = &pattern.engine.seed else { continue };
            let others = pattern.others.get(branch).map(Vec::as_slice).unwrap_or_default();
            let mut stands = |set: &usize| {
                let places = self.sets.get(*set).map(Vec::as_slice).unwrap_or_default();
                let slot = is_there.get_mut(*set);
                let any = || places.iter().any(|place| !stood.list(*place).is_empty());
                slot.is_none_or(|slot| *slot.get_or_insert_with(any))
            };
            if !others.iter().all(|(set, _)| stands(set)) {
                continue;
            }
            let is_near = |(set, reach): &(usize, (usize, usize))| {
                let mut places = self.sets.get(*set).into_iter().flatten();
                places.any(|place| !stood.near(*place, hit.start, *reach).is_empty())
            };
            if others.iter().all(is_near)
                && let Some(anchors) = anchors.get(branch)
            {
                let place = candidates.entry(index).or_insert_with(|| pattern.places());
                place.add(hit, anchors.reach, view.text.len());
            }
        }
        for (index, places) in &mut candidates {
            if let Some(pattern) = self.patterns.get(*index) {
                places.settle(pattern, &stood);
            }
        }
        (findings, candidates)
    }

    /// The stretches of patterns that no literal calls for.
    fn seed(&self, view: View<'_>, rules: &RuleSet, candidates: &mut Candidates) {
        let mut places = None;
        for index in &self.seeded {
            let Some(pattern) = self.applying(*index, rules) else { continue };
            let (seed, bytes_max) = (&pattern.engine.seed, pattern.engine.bytes_max);
            let places = places.get_or_insert_with(|| seeds::Places::of(view.text, view.from));
            let of_seed = places.stretches(seed, bytes_max, view.text.len());
            if !of_seed.is_empty() {
                candidates.insert(*index, Places::In(of_seed));
            }
        }
    }

    /// A pattern, if it looks at these texts.
    fn applying(&self, index: usize, rules: &RuleSet) -> Option<&Pattern> {
        self.patterns
            .get(index)
            .filter(|one| rules.contains(one.rule) && (!one.is_turned || rules.is_request()))
    }

    /// The earliest places from which the end of an open text could still grow into a match.
    fn undecided(&self, view: View<'_>, rules: &RuleSet, resume: &Resume) -> Undecided {
        let mut undecided = Undecided { all: view.firm, enforced: view.firm };
        if !view.open {
            return undecided;
        }
        // What is not firm may vanish: what is before it may grow by what comes then.
        let text = view.text.get(..view.firm).unwrap_or_default();
        let bytes_max = self.literal_bytes_max.max(self.pattern_bytes_max);
        for start in starts(text, view.from, bytes_max) {
            let mut grows = |is_enforced: bool| {
                undecided.all = undecided.all.min(start);
                if is_enforced {
                    undecided.enforced = undecided.enforced.min(start);
                }
            };
            for rule in self.growing_literals(text, start) {
                if rules.contains(rule) {
                    grows(self.acts(rule, None));
                }
            }
            let first = text.as_bytes().get(start).copied().map(usize::from);
            let beginning = first.and_then(|byte| self.beginning.get(byte));
            for index in beginning.into_iter().flatten() {
                let Some(pattern) = self.applying(*index, rules) else { continue };
                let from = resume.get(index).copied().unwrap_or(0);
                if start >= from && pattern.grows(text, start) {
                    grows(self.acts(pattern.rule, pattern.config.action));
                }
            }
            if undecided.enforced <= start {
                break;
            }
        }
        undecided
    }

    /// Whether what a rule finds is more than reported.
    fn acts(&self, rule: usize, action: Option<Action>) -> bool {
        self.rules().get(rule).is_some_and(|rule| {
            rule.config.mode == Mode::Enforce
                && action.unwrap_or_else(|| rule.action()) != Action::Warn
        })
    }

    /// Rules with a literal that begins with the text from `start` to its end.
    fn growing_literals(&self, text: &str, start: usize) -> impl Iterator<Item = usize> + '_ {
        let tail = text.get(start..).unwrap_or_default();
        let known = tail.len() <= self.literal_bytes_max && begins_word(text, start);
        let tail = if known { tail.to_ascii_lowercase() } else { String::new() };
        let known = known && !tail.is_empty();
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
    /// No places yet, of the kind that this pattern has.
    fn places(&self) -> Places {
        match &self.beginnings {
            Some(_) => Places::From(Vec::new(), Vec::new()),
            None => Places::In(Vec::new()),
        }
    }

    /// Whole, valid matches that begin at or behind `from` in these places; and whether all of them were
    /// read.
    fn matches(
        &self,
        text: &str,
        from: usize,
        places: &Places,
        work: &mut Work,
    ) -> (Vec<(usize, Range<usize>)>, bool) {
        let mut found = Vec::new();
        // One that cannot be built has not looked, unless it is only turned.
        let Some(regex) = self.engine.regex() else { return (found, self.is_turned) };
        let mut at = from;
        match places {
            Places::From(starts, _) => {
                for start in starts {
                    if *start < at || (self.config.whole_word && !begins_word(text, *start)) {
                        continue;
                    }
                    let end = ceil_char(text, start + self.engine.bytes_max);
                    let input = Input::new(text).range(*start..end).anchored(Anchored::Yes);
                    if !work.allows(WORK_OF_START) {
                        return (found, false);
                    }
                    let Some(hit) = regex.find(input) else { continue };
                    if let Some(span) = self.whole(text, hit.range(), work) {
                        at = span.end.max(start + 1);
                        found.push((*start, span));
                    }
                }
            }
            Places::In(stretches) => {
                for stretch in stretches {
                    at = ceil_char(text, at.max(stretch.start));
                    let end = ceil_char(text, stretch.end);
                    while at < end {
                        let hit = regex.find(Input::new(text).range(at..end));
                        let read = hit.map_or(end, |hit| hit.end()) - at;
                        if !work.allows(read) {
                            return (found, false);
                        }
                        let Some(hit) = hit else { break };
                        match self.whole(text, hit.range(), work) {
                            Some(span) => {
                                at = span.end.max(hit.start() + 1);
                                found.push((hit.start(), span));
                            }
                            None => at = hit.start() + 1,
                        }
                        at = ceil_char(text, at);
                    }
                }
            }
        }
        (found, !work.is_spent)
    }

    /// What is found in a match, or in the longest other one from the same byte that is whole and valid.
    fn whole(&self, text: &str, span: Range<usize>, work: &mut Work) -> Option<Range<usize>> {
        // What begins in the middle of a word, or without its context, does so wherever it ends.
        if (self.config.whole_word && !begins_word(text, span.start))
            || (!self.config.context.is_empty() && !self.has_context(text, span.start))
        {
            return None;
        }
        if let Some(found) = self.accepts(text, &span, work) {
            return Some(found);
        }
        let is_cut = self.config.validate.is_none_or(Validate::holds_for_parts);
        work.allows(span.len()).then_some(())?;
        let ends = self.engine.ends(text, span.start)?;
        let others = ends.into_iter().filter(|end| *end != span.end && (is_cut || *end > span.end));
        let others = others.filter(|end| text.is_char_boundary(*end)).take(OTHERS_MAX);
        others.into_iter().find_map(|end| self.accepts(text, &(span.start..end), work))
    }

    /// What is found in a match, if it holds.
    fn accepts(&self, text: &str, span: &Range<usize>, work: &mut Work) -> Option<Range<usize>> {
        if self.config.whole_word && splits_word(text, span) {
            return None;
        }
        let found = if self.engine.has_group {
            work.allows(span.len() * GROUP_COST).then_some(())?;
            self.group(text, span)?
        } else {
            span.clone()
        };
        let matched = text.get(found.clone())?;
        let config = &self.config;
        let holds = config.validate.is_none_or(|validate| validate.accepts(matched))
            && config.entropy_min.is_none_or(|least| entropy(matched) >= least);
        holds.then_some(found)
    }

    fn group(&self, text: &str, span: &Range<usize>) -> Option<Range<usize>> {
        let regex = self.engine.regex()?;
        let mut captures = regex.create_captures();
        let input = Input::new(text).range(span.clone()).anchored(Anchored::Yes);
        regex.captures(input, &mut captures);
        Some(captures.get_group(1).map_or(span.clone(), |group| group.range()))
    }

    fn has_context(&self, text: &str, start: usize) -> bool {
        let reach = self.config.context_bytes.min(CONTEXT_BYTES_MAX);
        let first = text.ceil_char_boundary(start.saturating_sub(reach));
        let before = text.get(first..start).unwrap_or_default().to_lowercase();
        self.config.context.iter().any(|word| has_word(&before, word))
    }

    /// Whether the end of the text could still grow into a match that begins at `start`.
    fn grows(&self, text: &str, start: usize) -> bool {
        if text.len() - start > self.engine.bytes_max {
            return false;
        }
        (!self.config.whole_word || begins_word(text, start)) && self.engine.lives(text, start)
    }
}

/// Character boundaries in the last `bytes_max` bytes of an open text. A match of full length that
/// ends with the text is among them: its right edge is not known yet.
fn starts(text: &str, from: usize, bytes_max: usize) -> impl Iterator<Item = usize> {
    let end = text.len();
    let first = from.max(end.saturating_sub(bytes_max));
    (first..end).filter(move |at| text.is_char_boundary(*at))
}

fn ceil_char(text: &str, at: usize) -> usize {
    text.ceil_char_boundary(at.min(text.len()))
}
