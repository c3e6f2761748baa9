//! Where in a text a literal may begin at all, told by its rarest few bytes: the automaton then looks at
//! those places only, and what thousands of literals cost is one pass that fits the fastest cache.

use std::collections::BTreeMap;

use super::kinds::{Bits, Kinds};
use super::shares;

/// Bytes that a literal is told by; shorter ones by all of theirs.
const GRAM: usize = 4;
/// Only so far into a literal is its rarest stretch looked for.
const OFFSET_MAX: usize = 63;

/// What literals are told by.
#[derive(Debug)]
pub(super) struct Sieve {
    /// Which grams of two, three and four bytes there may be.
    pairs: Map<256>,
    triples: Map<512>,
    quads: Map<2048>,
    /// By gram, each at or behind the place of its hash; a power of two of them.
    places: Vec<Option<Place>>,
}

/// Where literals begin that have a gram.
#[derive(Debug, Clone, Copy)]
struct Place {
    gram: u32,
    /// How far behind the beginning of a literal the gram stands.
    offset: u8,
    /// What is known of the words around.
    edges: Edges,
    /// Bytes that all these literals begin with, and which of them count.
    head: (u64, u64),
}

/// What is known of the words around a literal wherever it counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Edges {
    /// It goes on no word.
    pub(super) begins_word: bool,
    /// No word goes on behind it.
    pub(super) ends_word: bool,
}

impl Edges {
    /// A word by itself.
    pub(super) const WORD: Self = Self { begins_word: true, ends_word: true };

    /// Whether edges are what is asked for.
    pub(super) fn allow(self, edges: Self) -> bool {
        (!self.begins_word || edges.begins_word) && (!self.ends_word || edges.ends_word)
    }

    fn both(self, other: Self) -> Self {
        Self {
            begins_word: self.begins_word && other.begins_word,
            ends_word: self.ends_word && other.ends_word,
        }
    }
}

/// Which grams there may be: a bit for each hash.
#[derive(Debug)]
struct Map<const WORDS: usize>(Box<[u64; WORDS]>);

impl<const WORDS: usize> Map<WORDS> {
    fn new() -> Self {
        Self(Box::new([0; WORDS]))
    }

    fn place(gram: u32) -> (usize, u32) {
        let hash = gram.wrapping_mul(0x9e37_79b1) >> 14;
        (hash as usize / 64 % WORDS, hash % 64)
    }

    fn has(&self, gram: u32) -> bool {
        let (place, bit) = Self::place(gram);
        self.0.get(place).is_some_and(|bits| bits >> bit & 1 == 1)
    }

    fn add(&mut self, gram: u32) {
        let (place, bit) = Self::place(gram);
        if let Some(bits) = self.0.get_mut(place) {
            *bits |= 1 << bit;
        }
    }
}

impl Sieve {
    /// For literals in lower case.
    pub(super) fn new<'l, L: Iterator<Item = (&'l str, Edges)>>(literals: L) -> Self {
        let (pairs, triples, quads) = (Map::new(), Map::new(), Map::new());
        let mut sieve = Self { pairs, triples, quads, places: Vec::new() };
        let mut places: BTreeMap<(u32, u8), Place> = BTreeMap::new();
        for (literal, edges) in literals {
            let (gram, offset) = shares::rarest(literal.as_bytes(), GRAM, OFFSET_MAX);
            let offset = u8::try_from(offset).unwrap_or(0);
            // Whether a word ends with it is known at the gram only if it ends with the gram.
            let ends_word = edges.ends_word && gram.len() == literal.len();
            let edges = Edges { ends_word, ..edges };
            let mut add = |gram: &[u8]| {
                let key = read(gram);
                match gram.len() {
                    2 => sieve.pairs.add(key),
                    3 => sieve.triples.add(key),
                    _ => sieve.quads.add(key),
                }
                let place = Place { gram: key, offset, edges, head: head(literal.as_bytes()) };
                places.entry((key, offset)).and_modify(|one| one.take(place)).or_insert(place);
            };
            match gram {
                [] => {}
                // Whatever follows it.
                [one] => (0..=u8::MAX).for_each(|next| add(&[*one, next.to_ascii_lowercase()])),
                _ => add(gram),
            }
        }
        sieve.places = vec![None; (places.len() * 2).next_power_of_two()];
        for place in places.into_values() {
            sieve.put(place);
        }
        sieve
    }

    fn put(&mut self, place: Place) {
        let mask = self.places.len() - 1;
        let mut slot = slot(place.gram) & mask;
        while self.places.get(slot).is_some_and(Option::is_some) {
            slot = (slot + 1) & mask;
        }
        if let Some(free) = self.places.get_mut(slot) {
            *free = Some(place);
        }
    }

    /// The places of a gram.
    fn places(&self, gram: u32) -> impl Iterator<Item = &Place> {
        let mask = self.places.len() - 1;
        let slots = (slot(gram)..).map(move |slot| slot & mask);
        let taken = slots.map_while(|slot| self.places.get(slot).and_then(Option::as_ref));
        taken.filter(move |place| place.gram == gram)
    }

    /// The bytes at or behind `from` at which a literal may begin. The text is in lower case.
    pub(super) fn beginnings(&self, lower: &[u8], kinds: &Kinds, from: usize) -> Bits {
        let mut found = Bits::none(lower.len());
        let mut mark = |gram: u32, len: usize, at: usize| {
            for place in self.places(gram) {
                let start = at.checked_sub(usize::from(place.offset));
                let Some(start) = start.filter(|start| *start >= from) else { continue };
                let is_cut = place.edges.begins_word && kinds.cuts(start)
                    || place.edges.ends_word && kinds.cuts(at + len);
                let (known, mask) = place.head;
                if !is_cut && head(lower.get(start..).unwrap_or_default()).0 & mask == known {
                    found.add(start);
                }
            }
        };
        let mut look = |at: usize, gram: u32| {
            let (pair, triple) = (gram & 0xffff, gram & 0xff_ffff);
            if self.quads.has(gram) {
                mark(gram, 4, at);
            }
            if self.triples.has(triple) {
                mark(triple, 3, at);
            }
            if self.pairs.has(pair) {
                mark(pair, 2, at);
            }
        };
        let ahead = lower.get(from..).unwrap_or_default();
        for (at, gram) in ahead.array_windows::<GRAM>().enumerate() {
            look(from + at, u32::from_le_bytes(*gram));
        }
        for at in ahead.len().saturating_sub(GRAM - 1)..ahead.len() {
            look(from + at, read(ahead.get(at..).unwrap_or_default()));
        }
        found
    }
}

impl Place {
    /// Makes it the place of another literal as well.
    fn take(&mut self, other: Self) {
        self.edges = self.edges.both(other.edges);
        let ((mine, of_mine), (others, of_others)) = (self.head, other.head);
        // Up to the first byte in which they differ.
        let same = (mine ^ others).trailing_zeros() / 8 * 8;
        let mask = of_mine & of_others & 1_u64.checked_shl(same).map_or(u64::MAX, |bit| bit - 1);
        self.head = (mine & mask, mask);
    }
}

fn slot(gram: u32) -> usize {
    (gram.wrapping_mul(0x85eb_ca6b) >> 12) as usize
}

/// Up to four bytes as a number, the first one lowest.
fn read(gram: &[u8]) -> u32 {
    gram.iter().rev().fold(0, |key, byte| key << 8 | u32::from(*byte))
}

/// Up to eight bytes as a number, the first one lowest, and which of the eight there are.
fn head(bytes: &[u8]) -> (u64, u64) {
    if let Some(eight) = bytes.first_chunk::<8>() {
        return (u64::from_le_bytes(*eight), u64::MAX);
    }
    let number = bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    (number, (1 << (8 * bytes.len())) - 1)
}

#[cfg(test)]
mod tests {
    use super::super::kinds::Kinds;
    use super::{Edges, Sieve};

    #[test]
    fn every_literal_is_let_through() {
        let edges = |begins_word, ends_word| Edges { begins_word, ends_word };
        let free = edges(false, false);
        let literals = [
            ("ignore", free),
            ("ignored", free),
            (":", free),
            ("::", free),
            ("nt", edges(false, true)),
            ("ass", edges(true, false)),
        ];
        let sieve = Sieve::new(literals.into_iter());
        let text = "a:ignore::nty class ass ignorant nt:";
        let found = sieve.beginnings(text.as_bytes(), &Kinds::of(text), 2);
        let all: Vec<usize> = found.within(0..text.len()).collect();
        assert_eq!(all, [2, 8, 9, 20, 30, 33, 35]);
        let none = sieve.beginnings(b"", &Kinds::of(""), 0);
        assert_eq!(none.next(0..0), None);
    }
}
