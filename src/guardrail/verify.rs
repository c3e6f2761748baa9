//! Checks of a candidate that need more than its letters: word edges, words near it, entropy.

use std::ops::Range;

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

/// Whether a text, in lower case, has a word or phrase with whole edges.
pub(super) fn has_word(text: &str, word: &str) -> bool {
    let word = word.to_lowercase();
    text.match_indices(&word).any(|(at, _)| !splits_word(text, &(at..at + word.len())))
}

/// Shannon's entropy in bits a character: 0 for one letter repeated, about 4.5 for a random token.
pub(super) fn entropy(text: &str) -> f64 {
    let mut counts = std::collections::BTreeMap::new();
    for letter in text.chars() {
        *counts.entry(letter).or_insert(0_u32) += 1;
    }
    let all: f64 = counts.values().map(|count| f64::from(*count)).sum();
    counts.values().map(|count| f64::from(*count) / all).map(|share| -share * share.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::{entropy, has_word};

    #[test]
    fn words_and_entropy() {
        assert!(has_word("my ssn: ", "SSN") && !has_word("lessness", "ssn"));
        assert!(entropy("aaaa").abs() < 1e-9 && (entropy("abcd") - 2.0).abs() < 1e-9);
    }
}
