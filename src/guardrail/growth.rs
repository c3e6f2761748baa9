//! From where on a text that goes on is undecided: its end may be the beginning of a match.

use super::compile::Guardrails;
use super::first::ByteSet;
use super::pattern::Pattern;
use super::scan::{Resume, RuleSet};
use super::sweep::{Undecided, View};

/// Patterns by the byte that their matches begin with.
#[derive(Debug)]
pub(super) struct Beginnings {
    /// Those whose matches begin where a word does.
    of_words: Vec<Vec<usize>>,
    anywhere: Vec<Vec<usize>>,
}

impl Beginnings {
    /// Those of the patterns that follow streams.
    pub(super) fn of(patterns: &[Pattern]) -> Self {
        let none = || vec![Vec::new(); 256];
        let (mut of_words, mut anywhere) = (none(), none());
        for (index, pattern) in patterns.iter().enumerate() {
            let first = pattern.engine.streams().then_some(pattern.engine.first.bytes);
            let all = if pattern.config.whole_word { &mut of_words } else { &mut anywhere };
            for byte in first.iter().flat_map(ByteSet::iter) {
                if let Some(patterns) = all.get_mut(usize::from(byte)) {
                    patterns.push(index);
                }
            }
        }
        Self { of_words, anywhere }
    }

    /// The patterns that may match from a byte on. `cuts`: whether it stands inside a word.
    fn at(&self, text: &str, start: usize, cuts: bool) -> impl Iterator<Item = usize> + '_ {
        let first = text.as_bytes().get(start).copied().map(usize::from);
        let of_words = self.of_words.get(first.filter(|_| !cuts).unwrap_or(usize::MAX));
        let anywhere = self.anywhere.get(first.unwrap_or(usize::MAX));
        anywhere.into_iter().chain(of_words).flatten().copied()
    }
}

impl Undecided {
    /// A match of a rule that acts, or only reports, could begin here.
    fn grows(&mut self, start: usize, acts: bool) {
        self.all = self.all.min(start);
        if acts {
            self.enforced = self.enforced.min(start);
        }
    }
}

impl Guardrails {
    /// The earliest places from which the end of an open text could still grow into a match.
    pub(super) fn undecided(&self, view: View<'_>, rules: &RuleSet, resume: &Resume) -> Undecided {
        let mut undecided = Undecided { all: view.firm, enforced: view.firm };
        if !view.open {
            return undecided;
        }
        // What is not firm may vanish: what is before it may grow by what comes then.
        let text = view.text.get(..view.firm).unwrap_or_default();
        let bytes_max = self.literal_bytes_max.max(self.pattern_bytes_max);
        for start in starts(text, view.from, bytes_max) {
            let cuts = view.kinds.cuts(start);
            for rule in self.growing_literals(text, start, cuts) {
                if rules.contains(rule) {
                    undecided
                        .grows(start, self.rules().get(rule).is_some_and(|one| one.acts(None)));
                }
            }
            for index in self.beginnings.at(text, start, cuts) {
                if !self.gates.heads_allow(index, text, start) {
                    continue;
                }
                let Some(pattern) = self.applying(index, rules) else { continue };
                let from = resume.get(&index).copied().unwrap_or(0);
                let is_news = pattern.acts || start < undecided.all;
                if is_news && start >= from && pattern.grows(text, start) {
                    undecided.grows(start, pattern.acts);
                }
            }
            if undecided.enforced <= start {
                break;
            }
        }
        undecided
    }

    /// Rules with a literal that begins with the text from `start` to its end.
    fn growing_literals(
        &self,
        text: &str,
        start: usize,
        cuts: bool,
    ) -> impl Iterator<Item = usize> + '_ {
        let tail = text.get(start..).unwrap_or_default();
        let known = tail.len() <= self.literal_bytes_max && !cuts;
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

/// Character boundaries in the last `bytes_max` bytes of an open text. A match of full length that
/// ends with the text is among them: its right edge is not known yet.
fn starts(text: &str, from: usize, bytes_max: usize) -> impl Iterator<Item = usize> {
    let end = text.len();
    let first = from.max(end.saturating_sub(bytes_max));
    (first..end).filter(move |at| text.is_char_boundary(*at))
}
