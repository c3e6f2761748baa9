//! Checks of a candidate that need more than its letters: word edges and number rules.

use std::ops::Range;

use super::rule::Validate;

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

/// Whether a match could begin here as a whole word.
pub(super) fn begins_word(text: &str, at: usize) -> bool {
    !splits_word(text, &(at..text.len()))
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric()
}

impl Validate {
    /// Whether what was matched can be the real thing.
    pub(super) fn accepts(self, matched: &str) -> bool {
        match self {
            Self::Ssn => is_ssn(matched),
        }
    }
}

/// The Social Security Administration never issued area 000, 666 or 900 to 999, group 00 or serial
/// 0000; 078-05-1120 and 219-09-9999 were printed in advertisements.
fn is_ssn(matched: &str) -> bool {
    let digits: String = matched.chars().filter(char::is_ascii_digit).collect();
    let (Some(area), Some(group), Some(serial)) =
        (digits.get(..3), digits.get(3..5), digits.get(5..9))
    else {
        return false;
    };
    digits.len() == 9
        && area != "000"
        && area != "666"
        && !area.starts_with('9')
        && group != "00"
        && serial != "0000"
        && digits != "078051120"
        && digits != "219099999"
}
