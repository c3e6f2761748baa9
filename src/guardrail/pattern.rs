//! One pattern of a rule on a text: followed from where a match may begin, and what it finds is checked.

use std::ops::Range;
use std::sync::Arc;

use regex_automata::meta::Regex;
use regex_automata::{Anchored, Input};

use super::engine::Engine;
use super::gate::Starts;
use super::rule::PatternConfig;
use super::sweep::{View, Work};
use super::validate::Validate;
use super::verify::{Context, entropy};

/// Bytes before a match in which its context may stand.
pub const CONTEXT_BYTES_MAX: usize = 128;
/// How many matches from one byte on are tried where the longest is cut out of a word.
const ENDS_MAX: usize = 16;
/// How many times slower a group is found than a match.
const GROUP_COST: usize = 16;

/// One pattern of a rule.
#[derive(Debug)]
pub(super) struct Pattern {
    pub(super) rule: usize,
    pub(super) config: Arc<PatternConfig>,
    pub(super) engine: Arc<Engine>,
    /// What must stand before a match.
    pub(super) context: Option<Context>,
    /// Looked for in requests only: the expression is turned.
    pub(super) is_turned: bool,
    /// Whether what it finds is more than reported.
    pub(super) acts: bool,
}

impl Pattern {
    /// Whole, valid matches from these bytes on: where each begins, and what of it was found; and whether all
    /// of them were read.
    pub(super) fn matches(
        &self,
        view: View<'_>,
        (first, mut starts): (usize, Starts<'_>),
        work: &mut Work,
    ) -> (Vec<(usize, Range<usize>)>, bool) {
        let mut found = Vec::new();
        if work.is_spent {
            return (found, false);
        }
        // One that cannot be built has not looked, unless it is only turned.
        let Some(mut walker) = self.engine.walker() else { return (found, self.is_turned) };
        let mut ends = Vec::new();
        let mut next = Some(first);
        while let Some(start) = next {
            ends.clear();
            let end = ceil_char(view.text, start + self.engine.bytes_max + 1);
            let (read, _) = walker.walk(view.text, start..end, |end| ends.push(end));
            if !work.allows(read) {
                return (found, false);
            }
            if let Some(span) = self.whole(view, (start, &ends), work) {
                starts.skip_to(span.end);
                found.push((start, span));
            }
            next = starts.next();
        }
        (found, !work.is_spent)
    }

    /// What is found in the longest match from one byte on that is whole and valid.
    fn whole(
        &self,
        view: View<'_>,
        (start, ends): (usize, &[usize]),
        work: &mut Work,
    ) -> Option<Range<usize>> {
        let has_context = |context: &Context| self.has_context(context, view.text, start);
        if ends.is_empty() || !self.context.as_ref().is_none_or(has_context) {
            return None;
        }
        let holds_for_parts = self.config.validate.is_none_or(Validate::holds_for_parts);
        let tried = if holds_for_parts { ENDS_MAX } else { 1 };
        let whole = |end: &&usize| {
            view.text.is_char_boundary(**end) && !(self.config.whole_word && view.kinds.cuts(**end))
        };
        let mut ends = ends.iter().rev().filter(whole).take(tried);
        ends.find_map(|end| self.accepts(view.text, &(start..*end), work))
    }

    /// What is found in a match, if it holds.
    fn accepts(&self, text: &str, span: &Range<usize>, work: &mut Work) -> Option<Range<usize>> {
        let found = match &self.engine.groups {
            Some(groups) => {
                work.allows(span.len() * GROUP_COST).then_some(())?;
                group(groups, text, span)
            }
            None => span.clone(),
        };
        let matched = text.get(found.clone())?;
        let config = &self.config;
        let holds = config.validate.is_none_or(|validate| validate.accepts(matched))
            && config.entropy_min.is_none_or(|least| entropy(matched) >= least);
        holds.then_some(found)
    }

    fn has_context(&self, context: &Context, text: &str, start: usize) -> bool {
        let reach = self.config.context_bytes.min(CONTEXT_BYTES_MAX);
        let first = text.ceil_char_boundary(start.saturating_sub(reach));
        context.stands_in(text.get(first..start).unwrap_or_default())
    }

    /// Whether the end of the text could still grow into a match that begins at `start`.
    pub(super) fn grows(&self, text: &str, start: usize) -> bool {
        if text.len() - start > self.engine.bytes_max {
            return false;
        }
        self.engine.lives(text, start)
    }
}

/// The first group of a match.
fn group(groups: &Regex, text: &str, span: &Range<usize>) -> Range<usize> {
    let mut captures = groups.create_captures();
    let input = Input::new(text).range(span.clone()).anchored(Anchored::Yes);
    groups.captures(input, &mut captures);
    captures.get_group(1).map_or(span.clone(), |group| group.range())
}

fn ceil_char(text: &str, at: usize) -> usize {
    text.ceil_char_boundary(at.min(text.len()))
}
