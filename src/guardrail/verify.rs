//! Checks of a candidate that need more than its letters: word edges, words near it, entropy.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use aho_corasick::{AhoCorasick, BuildError};

use super::phrase;

/// Whether a span is cut out of a longer word: a letter or digit on both sides of an edge. `_` is no
/// letter, or Markdown italics would hide a phrase.
pub(super) fn splits_word(text: &str, span: &Range<usize>) -> bool {
    let at_edge = |at: usize| {
        let before = text.get(..at).and_then(|head| head.chars().next_back());
        let after = text.get(at..).and_then(|tail| tail.chars().next());
        before.is_some_and(is_word) && after.is_some_and(is_word)
    };
    at_edge(span.start) || at_edge(span.end)
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric()
}

/// Words and phrases of which one must stand before a match.
#[derive(Debug)]
pub(super) struct Context(AhoCorasick);

impl Context {
    /// `None` without words; an error if they are too many to be looked for.
    pub(super) fn new(words: &[String]) -> Result<Option<Self>, BuildError> {
        let forms = words.iter().flat_map(|word| [word.to_lowercase(), phrase::plain(word)]);
        let forms: BTreeSet<String> = forms.collect();
        (!words.is_empty()).then(|| AhoCorasick::new(&forms).map(Self)).transpose()
    }

    /// Whether one of them stands in a text, in any case and with whole edges.
    pub(super) fn stands_in(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let mut found = self.0.find_overlapping_iter(&text);
        found.any(|one| !splits_word(&text, &one.range()))
    }
}

/// Shannon's entropy in bits a character: 0 for one letter repeated, about 4.5 for a random token.
pub(super) fn entropy(text: &str) -> f64 {
    let mut counts = BTreeMap::new();
    for letter in text.chars() {
        *counts.entry(letter).or_insert(0_u32) += 1;
    }
    let all: f64 = counts.values().map(|count| f64::from(*count)).sum();
    counts.values().map(|count| f64::from(*count) / all).map(|share| -share * share.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::{Context, entropy};

    #[test]
    fn words_and_entropy() {
        let context = Context::new(&["SSN".to_owned(), "tax id".to_owned()]).unwrap().unwrap();
        assert!(context.stands_in("my Ssn: ") && context.stands_in("a tax id's"));
        let accent = Context::new(&["Straße".to_owned()]).unwrap().unwrap();
        assert!(accent.stands_in("straße 5") && accent.stands_in("strasse 5"));
        assert!(!context.stands_in("lessness") && !context.stands_in("tax idea"));
        assert!(Context::new(&[]).unwrap().is_none());
        assert!(entropy("aaaa").abs() < 1e-9 && (entropy("abcd") - 2.0).abs() < 1e-9);
    }
}
