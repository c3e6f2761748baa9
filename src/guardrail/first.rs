//! What the matches of an expression begin with: most places of a text are ruled out by a byte or two.

use regex_syntax::hir::{Class, Hir, HirKind};

use super::heads::Heads;
use super::shapes::{self, Quad};

/// What matches begin with.
#[derive(Debug)]
pub(super) struct First {
    /// Their first bytes.
    pub(super) bytes: ByteSet,
    /// The shapes of their first four bytes, and what of each counts.
    pub(super) quads: Vec<Quad>,
    /// What their first bytes may be, place by place.
    pub(super) heads: Heads,
    /// Whether all begin with a letter or digit.
    pub(super) is_word: bool,
}

impl First {
    pub(super) fn of(hir: &Hir) -> Self {
        let (quads, heads) = (shapes::beginnings(std::slice::from_ref(hir)), Heads::of(hir));
        let mut first = Self { bytes: ByteSet::default(), quads, heads, is_word: true };
        first.mark(hir);
        first
    }

    /// Marks the bytes that a match may begin with; whether it may also be empty.
    fn mark(&mut self, hir: &Hir) -> bool {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => true,
            HirKind::Literal(literal) => {
                let text = std::str::from_utf8(&literal.0).unwrap_or_default();
                literal.0.first().into_iter().for_each(|byte| self.bytes.add(*byte));
                self.is_word &= text.chars().next().is_some_and(char::is_alphanumeric);
                literal.0.is_empty()
            }
            HirKind::Class(class) => {
                self.bytes.add_firsts(class);
                self.is_word = self.is_word && are_words(class);
                false
            }
            HirKind::Repetition(repetition) => self.mark(&repetition.sub) || repetition.min == 0,
            HirKind::Capture(capture) => self.mark(&capture.sub),
            HirKind::Concat(parts) => parts.iter().all(|part| self.mark(part)),
            HirKind::Alternation(parts) => parts.iter().filter(|part| self.mark(part)).count() > 0,
        }
    }
}

/// Whether all characters of a class are letters or digits.
fn are_words(class: &Class) -> bool {
    match class {
        Class::Bytes(class) => class
            .ranges()
            .iter()
            .all(|range| (range.start()..=range.end()).all(|byte| byte.is_ascii_alphanumeric())),
        Class::Unicode(class) => class
            .ranges()
            .iter()
            .all(|range| (range.start()..=range.end()).all(char::is_alphanumeric)),
    }
}

/// A set of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ByteSet([u64; 4]);

impl ByteSet {
    /// Adds the first bytes of the characters of a class.
    pub(super) fn add_firsts(&mut self, class: &Class) {
        let lead =
            |letter: char| letter.encode_utf8(&mut [0; 4]).as_bytes().first().copied().unwrap_or(0);
        let mut add = |from: u8, to: u8| (from..=to).for_each(|byte| self.add(byte));
        match class {
            Class::Bytes(class) => {
                class.ranges().iter().for_each(|range| add(range.start(), range.end()));
            }
            Class::Unicode(class) => {
                class.ranges().iter().for_each(|range| add(lead(range.start()), lead(range.end())));
            }
        }
    }

    /// Adds every byte that texts of an expression may hold.
    pub(super) fn add_all(&mut self, hir: &Hir) {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => {}
            HirKind::Literal(literal) => literal.0.iter().for_each(|byte| self.add(*byte)),
            HirKind::Class(Class::Bytes(class)) => {
                let bytes = class.ranges().iter().flat_map(|range| range.start()..=range.end());
                bytes.for_each(|byte| self.add(byte));
            }
            HirKind::Class(Class::Unicode(class)) => {
                for range in class.ranges() {
                    let ascii = range.start()..=range.end().min('\u{7f}');
                    ascii.filter_map(|one| u8::try_from(one).ok()).for_each(|byte| self.add(byte));
                    if !range.end().is_ascii() {
                        (0x80..=u8::MAX).for_each(|byte| self.add(byte));
                    }
                }
            }
            HirKind::Repetition(repetition) => self.add_all(&repetition.sub),
            HirKind::Capture(capture) => self.add_all(&capture.sub),
            HirKind::Concat(parts) | HirKind::Alternation(parts) => {
                for part in parts {
                    self.add_all(part);
                }
            }
        }
    }

    pub(super) fn add(&mut self, byte: u8) {
        if let Some(bits) = self.0.get_mut(usize::from(byte / 64)) {
            *bits |= 1 << (byte % 64);
        }
    }

    pub(super) fn contains(&self, byte: u8) -> bool {
        self.0.get(usize::from(byte / 64)).is_some_and(|bits| bits >> (byte % 64) & 1 == 1)
    }

    /// Whether none of them is ASCII.
    pub(super) fn is_odd(&self) -> bool {
        matches!(self.0, [0, 0, _, _])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=u8::MAX).filter(|byte| self.contains(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::super::quads::Quads;
    use super::super::shapes::quad;
    use super::First;

    #[test]
    fn what_matches_begin_with() {
        let first = |regex: &str| First::of(&regex_syntax::parse(regex).unwrap());
        let allows = |first: &First, text: &str| {
            let mut quads = Quads::default();
            let set = quads.add(&first.quads);
            first.bytes.contains(text.as_bytes()[0]) && quads.has(&set, quad(text.as_bytes(), 0))
        };
        let words = first("(?i)(?:ignore|forget|no)[ ,]{1,3}all");
        assert!(words.is_word);
        for (text, may_begin) in [
            ("Ignore", true),
            ("fOrget", true),
            ("No, all", true),
            ("no", false),
            ("igloo", false),
            ("all", false),
        ] {
            assert_eq!(allows(&words, text), may_begin, "{text}");
        }
        let loose = first("[+(]?[0-9]{2}");
        assert!(
            !loose.is_word
                && allows(&loose, "+12")
                && allows(&loose, "12")
                && !allows(&loose, "1x")
        );
        assert!(first("(?i)so").is_word && !first("[^a]b").is_word);
    }
}
