//! What each byte of a text is, as bits: one pass over the text, and the passes after it step from bit to
//! bit.

use std::ops::Range;

use super::classes::{self, BEYOND_HEX, CODE, DIGIT, LEET, LETTER, PLAIN, WORD};
use super::shapes::quad;

/// Bits of a text, one for each byte.
#[derive(Debug, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// Of a text of so many bytes, none.
    pub(super) fn none(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    pub(super) fn add(&mut self, at: usize) {
        if let Some(bits) = self.0.get_mut(at / 64) {
            *bits |= 1 << (at % 64);
        }
    }

    pub(super) fn has(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|bits| bits >> (at % 64) & 1 == 1)
    }

    /// The first byte in a stretch that has the bit.
    pub(super) fn next(&self, Range { start, end }: Range<usize>) -> Option<usize> {
        let mut place = start / 64;
        let mut bits = self.0.get(place)? & (u64::MAX << (start % 64));
        while bits == 0 {
            place += 1;
            if place * 64 >= end {
                return None;
            }
            bits = *self.0.get(place)?;
        }
        Some(place * 64 + bits.trailing_zeros() as usize).filter(|at| *at < end)
    }

    /// The bytes in a stretch that have the bit.
    pub(super) fn within(&self, span: Range<usize>) -> impl Iterator<Item = usize> + '_ {
        let mut from = span.start;
        std::iter::from_fn(move || {
            let at = self.next(from..span.end)?;
            from = at + 1;
            Some(at)
        })
    }

    /// The runs of bytes in a stretch that have the bit.
    pub(super) fn runs(&self, span: Range<usize>) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut from = span.start;
        std::iter::from_fn(move || {
            let start = self.next(from..span.end)?;
            let end = self.next_without(start..span.end);
            from = end;
            Some(start..end)
        })
    }

    /// The bits that are not set, of a text of this length.
    pub(super) fn inverse(&self, len: usize) -> Self {
        let of_text = |place: usize| u64::MAX >> 64_usize.saturating_sub(len - place * 64);
        let inverse = |(place, bits): (usize, &u64)| !bits & of_text(place);
        Self(self.0.iter().enumerate().map(inverse).collect())
    }

    /// The runs of at least so many bytes that have the bit; at most 64 are asked for.
    pub(super) fn long_runs(&self, min: u32) -> impl Iterator<Item = Range<usize>> + '_ {
        let end = self.0.len() * 64;
        let (mut place, mut from) = (0, 0);
        std::iter::from_fn(move || {
            while let Some(bits) = self.0.get(place) {
                let next = self.0.get(place + 1).copied().unwrap_or(0);
                let begin = begin_runs(*bits, next, min);
                let ahead = begin & (u64::MAX << (from.max(place * 64) % 64));
                if ahead != 0 {
                    let start = place * 64 + ahead.trailing_zeros() as usize;
                    from = self.next_without(start..end);
                    place = from / 64;
                    return Some(start..from);
                }
                place += 1;
            }
            None
        })
    }

    /// The first byte in a stretch that does not have the bit; the end if all have it.
    pub(super) fn next_without(&self, Range { start, end }: Range<usize>) -> usize {
        let mut place = start / 64;
        let mut mask = u64::MAX << (start % 64);
        while let Some(bits) = self.0.get(place) {
            let without = !bits & mask;
            if without != 0 {
                return end.min(place * 64 + without.trailing_zeros() as usize);
            }
            (place, mask) = (place + 1, u64::MAX);
        }
        end
    }
}

/// Which bits so many others in a row follow, with those of the next 64 bytes.
fn begin_runs(bits: u64, next: u64, min: u32) -> u64 {
    let mut runs = u128::from(next) << 64 | u128::from(bits);
    let mut len = 1;
    // A run is twice as long where a run goes on as a run.
    while len < min {
        let more = len.min(min - len);
        (runs, len) = (runs & runs >> more, len + more);
    }
    u64::try_from(runs & u128::from(u64::MAX)).unwrap_or(0)
}

/// Where a word begins, and with which bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) at: usize,
    /// What its first four bytes look like, see [`quad`].
    pub(super) quad: u32,
}

/// The kinds of the bytes of a text.
#[derive(Debug)]
pub(super) struct Kinds {
    /// All bytes of letters and digits, of any script.
    pub(super) words: Bits,
    /// The words in order.
    starts: Vec<Start>,
    /// By 64 bytes, how many words begin before them.
    ranks: Vec<u32>,
    /// What codes and tokens are written in: letters, digits, `+ / - _ =`.
    pub(super) codes: Bits,
    /// Those of them that no number in hexadecimal has.
    pub(super) beyond_hex: Bits,
    /// Decimal digits.
    pub(super) digits: Bits,
    /// What may read otherwise than it is written.
    pub(super) odd: Bits,
    /// Letters and digits of ASCII, and signs that are written for letters.
    pub(super) leet: Bits,
    /// Letters of ASCII.
    pub(super) letters: Bits,
    pub(super) is_ascii: bool,
}

impl Kinds {
    pub(super) fn of(text: &str) -> Self {
        let places = text.len().div_ceil(64);
        let with = || Vec::with_capacity(places);
        let (mut words, mut codes, mut digits, mut odd) = (with(), with(), with(), with());
        let (mut leet, mut letters, mut beyond_hex) = (with(), with(), with());
        for chunk in text.as_bytes().chunks(64) {
            let mut kinds = [0; 64];
            for (kinds, byte) in kinds.iter_mut().zip(chunk) {
                *kinds = classes::of(*byte);
            }
            words.push(gather(&kinds, WORD));
            codes.push(gather(&kinds, CODE));
            digits.push(gather(&kinds, DIGIT));
            leet.push(gather(&kinds, LEET));
            letters.push(gather(&kinds, LETTER));
            beyond_hex.push(gather(&kinds, BEYOND_HEX));
            odd.push(!gather(&kinds, PLAIN) & (u64::MAX >> (64 - chunk.len())));
        }
        let [mut words, codes, digits] = [words, codes, digits].map(Bits);
        let [odd, leet, letters, beyond_hex] = [odd, leet, letters, beyond_hex].map(Bits);
        let is_ascii = text.is_ascii();
        if !is_ascii {
            mark_letters(text, &odd, &mut words);
        }
        let (starts, ranks) = starts(text.as_bytes(), &words.0);
        Self { words, starts, ranks, codes, beyond_hex, digits, odd, leet, letters, is_ascii }
    }

    /// The words that begin at or behind a byte.
    pub(super) fn words_from(&self, at: usize) -> &[Start] {
        let block = self.ranks.get(at / 64).map_or(self.starts.len(), |rank| *rank as usize);
        let words = self.starts.get(block..).unwrap_or_default();
        let before = words.iter().take_while(|start| start.at < at).count();
        words.get(before..).unwrap_or_default()
    }

    /// Whether an edge at this byte cuts a word.
    pub(super) fn cuts(&self, at: usize) -> bool {
        self.words.has(at) && at.checked_sub(1).is_some_and(|before| self.words.has(before))
    }
}

/// One kind of 64 bytes, a bit for each.
fn gather(kinds: &[u8; 64], kind: u8) -> u64 {
    let (eights, _) = kinds.as_chunks::<8>();
    let bits = |(place, eight): (usize, &[u8; 8])| {
        let ones = u64::from_le_bytes(*eight) >> kind.trailing_zeros() & 0x0101_0101_0101_0101;
        // Moves the lowest bit of each byte into the highest byte, the first byte's to the lowest place.
        (ones.wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * place)
    };
    eights.iter().enumerate().map(bits).fold(0, |all, bits| all | bits)
}

/// Marks the letters beyond ASCII.
fn mark_letters(text: &str, odd: &Bits, words: &mut Bits) {
    for at in odd.within(0..text.len()) {
        let letter = text.get(at..).and_then(|tail| tail.chars().next());
        if let Some(letter) = letter.filter(|one| !one.is_ascii() && one.is_alphanumeric()) {
            (at..at + letter.len_utf8()).for_each(|byte| words.add(byte));
        }
    }
}

fn starts(bytes: &[u8], words: &[u64]) -> (Vec<Start>, Vec<u32>) {
    let mut all = Vec::with_capacity(bytes.len() / 4);
    let mut ranks = Vec::with_capacity(words.len());
    let mut before = 0;
    for (place, bits) in words.iter().enumerate() {
        ranks.push(u32::try_from(all.len()).unwrap_or(u32::MAX));
        let mut starts = bits & !(bits << 1 | before);
        before = bits >> 63;
        while starts != 0 {
            let at = place * 64 + starts.trailing_zeros() as usize;
            starts &= starts - 1;
            all.push(Start { at, quad: quad(bytes, at) });
        }
    }
    (all, ranks)
}

#[cfg(test)]
mod tests {
    use super::Kinds;

    #[test]
    fn bits_say_what_bytes_are() {
        let text = format!("{}Zoë’s 12 a_b-c= %41", "x".repeat(62));
        let kinds = Kinds::of(&text);
        let words: Vec<&str> =
            kinds.words.runs(0..text.len()).filter_map(|one| text.get(one)).collect();
        let long = format!("{}Zoë", "x".repeat(62));
        assert_eq!(words, [long.as_str(), "s", "12", "a", "b", "c", "41"]);
        let starts: Vec<usize> = kinds.words_from(0).iter().map(|one| one.at).collect();
        assert_eq!(starts, [0, 69, 71, 74, 76, 78, 82]);
        let codes: Vec<&str> =
            kinds.codes.runs(64..text.len()).filter_map(|one| text.get(one)).collect();
        assert_eq!(codes, ["s", "12", "a_b-c=", "41"].map(|one| one).to_vec());
        assert_eq!(kinds.digits.within(0..text.len()).collect::<Vec<_>>(), [71, 72, 82, 83]);
        assert_eq!(kinds.odd.next(70..text.len()), Some(81));
        let long = |bits: &super::Bits, min: u32| bits.long_runs(min).collect::<Vec<_>>();
        assert_eq!(long(&kinds.words, 64), vec![0..66]);
        assert_eq!(long(&kinds.codes, 5), [0..64, 74..80]);
        assert_eq!(long(&kinds.codes, 64), vec![0..64]);
        assert_eq!(long(&kinds.digits.inverse(text.len()), 9), [0..71, 73..82]);
        assert!(kinds.cuts(63) && kinds.cuts(64) && !kinds.cuts(66) && !kinds.cuts(69));
        assert!(!kinds.is_ascii && Kinds::of("plain").is_ascii);
    }
}
