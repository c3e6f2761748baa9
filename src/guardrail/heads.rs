//! What the first bytes of an expression's matches may be, place by place. Shapes do not tell capitals from small
//! letters, nor one script from another: bytes do.

use regex_syntax::hir::{Class, Hir, HirKind, Repetition};
use regex_syntax::utf8::Utf8Sequences;

use super::first::ByteSet;

/// Places that are looked at.
const PLACES: usize = 4;

/// By place, the bytes that may stand there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Heads([ByteSet; PLACES]);

/// How many bytes may stand before something: a bit for each number below [`PLACES`].
type Lens = u8;

impl Heads {
    pub(super) fn of(hir: &Hir) -> Self {
        let mut heads = Self::default();
        let ends = heads.follow(hir, 1);
        // Behind a short match anything may stand.
        let first = ends.trailing_zeros() as usize;
        for set in heads.0.iter_mut().skip(first) {
            (0..=u8::MAX).for_each(|byte| set.add(byte));
        }
        heads
    }

    /// Whether a match may begin at a byte, as far as the text goes.
    pub(super) fn allow(&self, bytes: &[u8], at: usize) -> bool {
        let ahead = bytes.get(at..).unwrap_or_default();
        self.0.iter().zip(ahead).all(|(set, byte)| set.contains(*byte))
    }

    /// Adds what an expression has behind so many bytes; how many may stand before what follows it.
    fn follow(&mut self, hir: &Hir, before: Lens) -> Lens {
        if before == 0 {
            return 0;
        }
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => before,
            HirKind::Literal(literal) => {
                let bytes = literal.0.iter();
                bytes.fold(before, |before, byte| self.add(before, (*byte, *byte)))
            }
            HirKind::Class(Class::Bytes(class)) => {
                let ranges = class.ranges().iter();
                ranges.fold(0, |after, one| after | self.add(before, (one.start(), one.end())))
            }
            HirKind::Class(Class::Unicode(class)) => {
                let ranges = class.ranges().iter();
                let letters = ranges.flat_map(|one| Utf8Sequences::new(one.start(), one.end()));
                letters.fold(0, |after, letter| {
                    let bytes = letter.as_slice().iter();
                    after | bytes.fold(before, |at, one| self.add(at, (one.start, one.end)))
                })
            }
            HirKind::Capture(capture) => self.follow(&capture.sub, before),
            HirKind::Concat(parts) => {
                parts.iter().fold(before, |before, part| self.follow(part, before))
            }
            HirKind::Alternation(parts) => {
                parts.iter().fold(0, |after, part| after | self.follow(part, before))
            }
            HirKind::Repetition(repetition) => self.repeated(repetition, before),
        }
    }

    /// More copies than there are places add nothing: either each has a byte, or they may be empty.
    fn repeated(&mut self, repetition: &Repetition, before: Lens) -> Lens {
        let min = (repetition.min as usize).min(PLACES);
        let max = repetition.max.map_or(PLACES, |max| (max as usize).min(PLACES));
        let mut after = if min == 0 { before } else { 0 };
        let mut copies = before;
        for copy in 1..=max {
            copies = self.follow(&repetition.sub, copies);
            after |= if copy >= min { copies } else { 0 };
        }
        after
    }

    /// Adds bytes behind so many; how many stand before what follows them.
    fn add(&mut self, before: Lens, (first, last): (u8, u8)) -> Lens {
        for (place, set) in self.0.iter_mut().enumerate() {
            if before >> place & 1 == 1 {
                (first..=last).for_each(|byte| set.add(byte));
            }
        }
        before << 1 & ((1 << PLACES) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::Heads;

    #[test]
    fn what_stands_at_each_of_the_first_places() {
        for (regex, may, may_not) in [
            ("[A-Z]{3}[0-9]", &["ABC1", "AB", "XYZ9é"][..], &["abc1", "ABCD", "é"][..]),
            ("ab?c", &["abc", "ac", "acx", "abcd"], &["ad", "bc"]),
            ("a", &["a", "ab", "aé"], &["b"]),
            ("(?:a?){5,9}bc", &["bc", "aabc", "aaaa", "abcz"], &["cb", "ca"]),
            ("заб|про", &["забудь", "про"], &["год", "zab"]),
            (
                "\\x{1F3F4}?[\\x{E0020}-\\x{E007E}]",
                &["\u{1f3f4}", "\u{e0061}"],
                &["\u{1f600}", "a"],
            ),
            ("[^a]x", &["bx", "éx", "bxy"], &["ax", "bb"]),
        ] {
            let heads = Heads::of(&regex_syntax::parse(regex).unwrap());
            for text in may {
                assert!(heads.allow(text.as_bytes(), 0), "{regex} on {text}");
            }
            for text in may_not {
                assert!(!heads.allow(text.as_bytes(), 0), "{regex} on {text}");
            }
        }
    }
}
