//! Phrases: expressions over words, and the same expressions in disguise.
//!
//! In a phrase a space stands for whatever may stand between two words, also for nothing. A phrase is also
//! looked for backwards and in ROT13: not by turning every text around, but by turning the expression, so
//! that it costs what one more expression costs.

use regex_syntax::hir::{
    Capture, Class, ClassBytes, ClassBytesRange, ClassUnicode, ClassUnicodeRange, Hir, HirKind,
    Repetition,
};

use super::letters::{Folded, folded};

/// Between two words: white space and punctuation. Typographic marks are here and not only in the folded
/// text, so that a text with nothing but curly quotes need not be folded.
const BETWEEN: &str = r"(?:[\t-\r -/:-@\[-`{-~]{0,5}|[\t-\r -/:-@\[-`{-~]{0,2}(?u:[\u{a0}\u{b7}\u{2010}-\u{2027}]){1,2}[\t-\r -/:-@\[-`{-~]{0,2})";

/// What the expression of a phrase begins with. The folded text has ASCII letters, whose case
/// is a smaller matter than that of all letters.
const HEADS: [&str; 2] = ["(?i-u)(?:", "(?i)(?:"];

/// The regular expression of a phrase.
pub(super) fn expression(phrase: &str) -> String {
    let needs_unicode = !phrase.is_ascii()
        || ["[^", "\\S", "\\W", "\\D", "\\p", "\\P", "\\x", "\\u"]
            .iter()
            .any(|one| phrase.contains(one));
    let [ascii, unicode] = HEADS;
    let mut out = String::with_capacity(phrase.len() * 3);
    out.push_str(if needs_unicode { unicode } else { ascii });
    let mut in_class = false;
    let mut escaped = false;
    for letter in phrase.chars() {
        match letter {
            ' ' if !in_class && !escaped => out.push_str(BETWEEN),
            '.' if !in_class && !escaped => out.push_str("(?u:.)"),
            _ => out.push(letter),
        }
        match letter {
            '[' if !escaped => in_class = true,
            ']' if !escaped => in_class = false,
            _ => {}
        }
        escaped = letter == '\\' && !escaped;
    }
    out.push(')');
    out
}

/// A text as the folded one has it, in lower case.
pub(super) fn plain(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), plain_letter).to_ascii_lowercase()
}

/// An expression over letters as the folded text has them. In a class such a letter stands beside what it passes
/// for; a range stays as it is.
pub(super) fn plain_expression(expression: &str) -> String {
    let mut out = String::with_capacity(expression.len());
    let (mut in_class, mut escaped) = (false, false);
    let mut letters = expression.chars().peekable();
    let mut before = None;
    while let Some(letter) = letters.next() {
        match letter {
            '[' if !escaped => in_class = true,
            ']' if !escaped => in_class = false,
            _ => {}
        }
        let is_range = before == Some('-') || letters.peek() == Some(&'-');
        if !in_class {
            out = plain_letter(out, letter);
        } else if letter.is_ascii() || is_range {
            out.push(letter);
        } else {
            out.push(letter);
            out = plain_letter(out, letter);
        }
        escaped = letter == '\\' && !escaped;
        before = Some(letter);
    }
    out
}

/// Adds a letter as the folded text has it. Signs stay: in a phrase they mean what they are.
fn plain_letter(mut text: String, letter: char) -> String {
    match folded(letter) {
        Folded::Ascii(ascii) if ascii.bytes().all(|one| one.is_ascii_alphanumeric()) => {
            text.push_str(ascii);
        }
        Folded::Small(small) => text.push(small),
        Folded::Ascii(_) | Folded::Same | Folded::Gone => text.push(letter),
    }
    text
}

/// A phrase that is these words and nothing else.
pub(super) fn of_literal(literal: &str) -> String {
    literal.split_whitespace().map(regex_syntax::escape).collect::<Vec<_>>().join(" ")
}

/// The words of a phrase: runs of three letters and more.
pub(super) fn words(phrase: &str) -> impl Iterator<Item = String> + '_ {
    phrase
        .split(|letter: char| !letter.is_ascii_alphabetic())
        .filter(|word| word.len() >= 3)
        .map(str::to_ascii_lowercase)
}

/// The expression that matches the texts of this one read backwards.
pub(super) fn reversed(hir: &Hir) -> Hir {
    match hir.kind() {
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) => Hir::literal(text.chars().rev().collect::<String>().into_bytes()),
            Err(_) => hir.clone(),
        },
        HirKind::Concat(parts) => Hir::concat(parts.iter().rev().map(reversed).collect()),
        HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) => hir.clone(),
        HirKind::Repetition(_) | HirKind::Capture(_) | HirKind::Alternation(_) => {
            inside(hir, reversed)
        }
    }
}

/// The expression that matches the texts of this one in ROT13.
pub(super) fn rotated(hir: &Hir) -> Hir {
    match hir.kind() {
        HirKind::Literal(literal) => {
            Hir::literal(literal.0.iter().map(|byte| rotate(*byte)).collect::<Vec<u8>>())
        }
        HirKind::Class(Class::Unicode(class)) => Hir::class(Class::Unicode(ClassUnicode::new(
            class.ranges().iter().copied().flat_map(rotated_range),
        ))),
        HirKind::Class(Class::Bytes(class)) => {
            let bytes = class.ranges().iter().flat_map(|range| range.start()..=range.end());
            let turned = bytes.map(rotate).map(|byte| ClassBytesRange::new(byte, byte));
            Hir::class(Class::Bytes(ClassBytes::new(turned)))
        }
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(rotated).collect()),
        HirKind::Empty | HirKind::Look(_) => hir.clone(),
        HirKind::Repetition(_) | HirKind::Capture(_) | HirKind::Alternation(_) => {
            inside(hir, rotated)
        }
    }
}

/// Turns what an expression is made of.
fn inside(hir: &Hir, turn: fn(&Hir) -> Hir) -> Hir {
    match hir.kind() {
        HirKind::Repetition(repetition) => Hir::repetition(Repetition {
            min: repetition.min,
            max: repetition.max,
            greedy: repetition.greedy,
            sub: Box::new(turn(&repetition.sub)),
        }),
        HirKind::Capture(capture) => Hir::capture(Capture {
            index: capture.index,
            name: capture.name.clone(),
            sub: Box::new(turn(&capture.sub)),
        }),
        HirKind::Alternation(parts) => Hir::alternation(parts.iter().map(turn).collect()),
        HirKind::Empty
        | HirKind::Literal(_)
        | HirKind::Class(_)
        | HirKind::Look(_)
        | HirKind::Concat(_) => hir.clone(),
    }
}

/// Letters of ASCII move half way round the alphabet, the rest of a range stays.
fn rotated_range(range: ClassUnicodeRange) -> Vec<ClassUnicodeRange> {
    let (start, end) = (range.start(), range.end());
    let mut parts: Vec<ClassUnicodeRange> = (start..=end.min('\u{7f}'))
        .filter_map(|letter| u8::try_from(letter).ok())
        .map(|byte| char::from(rotate(byte)))
        .map(|letter| ClassUnicodeRange::new(letter, letter))
        .collect();
    if end > '\u{7f}' {
        parts.push(ClassUnicodeRange::new(start.max('\u{80}'), end));
    }
    parts
}

fn rotate(byte: u8) -> u8 {
    let turn = |first: u8| first + (byte - first + 13) % 26;
    match byte {
        b'a'..=b'z' => turn(b'a'),
        b'A'..=b'Z' => turn(b'A'),
        _ => byte,
    }
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::{expression, of_literal, plain, plain_expression, reversed, rotated, words};

    #[test]
    fn letters_are_folded_but_not_the_ranges_of_classes() {
        assert_eq!(plain("Café Strаße"), "cafe strasse");
        assert_eq!(plain_expression("café [éà] [ο-ω] \\[é"), "cafe [éeàa] [ο-ω] \\[e");
        assert!(!Regex::new(&plain_expression("[ο-ω]{3}")).unwrap().is_match("oow"));
    }

    const PHRASE: &str = "ignore (?:(?:all|any) ){0,2}pre[vc]ious instructions?";

    #[test]
    fn words_are_joined_by_anything_or_nothing() {
        let regex = Regex::new(&expression(PHRASE)).unwrap();
        for text in [
            "Ignore all previous instructions",
            "ignore,\n *any* precious - instruction",
            "ignoreallpreviousinstructions",
        ] {
            assert!(regex.is_match(text), "{text}");
        }
        assert!(!regex.is_match("ignore no previous instructions"));
        assert!(
            Regex::new(&expression(&of_literal("die  in a (fire)")))
                .unwrap()
                .is_match("die-in a (fire)")
        );
        assert_eq!(words("go (?:now|at) once[a-z]").collect::<Vec<_>>(), ["now", "once"]);
    }

    #[test]
    fn turned_expressions_match_turned_texts() {
        let hir = regex_syntax::parse(&expression(PHRASE)).unwrap();
        let backwards = Regex::new(&reversed(&hir).to_string()).unwrap();
        assert!(backwards.is_match("snoitcurtsni suoiverp lla erongi"));
        let rot13 = Regex::new(&rotated(&hir).to_string()).unwrap();
        assert!(rot13.is_match("Vtaber nyy cerivbhf vafgehpgvbaf"));
        assert!(!rot13.is_match("ignore all previous instructions"));
    }
}
