//! Sets of what four bytes in a row may look like, all in one list: most bytes are ruled out by the first two.

use super::first::ByteSet;
use super::part::Part;
use super::shapes::{self, Quad};

/// What all sets hold.
#[derive(Debug, Default)]
pub(super) struct Quads(Vec<Quad>);

/// One set.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuadSet {
    /// Of the shapes of the first two bytes, a sum of both.
    pairs: ByteSet,
    /// Those of which all four shapes count, in order.
    whole: Part,
    /// The others.
    parts: Part,
}

impl Quads {
    /// Adds a set, those of which all four shapes count first and in order.
    pub(super) fn add(&mut self, set: &[Quad]) -> QuadSet {
        let mut pairs = ByteSet::default();
        for (known, mask) in set {
            let ([one, two, ..], [of_one, of_two, ..]) = (known.to_le_bytes(), mask.to_le_bytes());
            for first in shapes::all().filter(|shape| shape & of_one == one) {
                for second in shapes::all().filter(|shape| shape & of_two == two) {
                    pairs.add(pair(first, second));
                }
            }
        }
        let (whole, parts) = set.split_at(set.partition_point(|(_, mask)| *mask == u32::MAX));
        let whole = Part::add(&mut self.0, whole.iter().copied());
        let parts = Part::add(&mut self.0, parts.iter().copied());
        QuadSet { pairs, whole, parts }
    }

    /// Whether four shapes are in a set.
    pub(super) fn has(&self, set: &QuadSet, quad: u32) -> bool {
        let [first, second, ..] = quad.to_le_bytes();
        set.pairs.contains(pair(first, second))
            && (set.whole.of(&self.0).binary_search_by_key(&quad, |(known, _)| *known).is_ok()
                || set.parts.of(&self.0).iter().any(|(known, mask)| quad & mask == *known))
    }
}

fn pair(first: u8, second: u8) -> u8 {
    first.wrapping_mul(8) ^ second.wrapping_mul(37) >> 5
}

#[cfg(test)]
mod tests {
    use super::super::shapes::{beginnings, endings, quad, quad_before};
    use super::Quads;

    #[test]
    fn what_texts_begin_and_end_with() {
        let hir = regex_syntax::parse("(?i)(?:show|i)[ ,]{0,3}(?:the|[0-9]{2}) ?key").unwrap();
        let pieces = std::slice::from_ref(&hir);
        let mut quads = Quads::default();
        let (first, last) = (quads.add(&beginnings(pieces)), quads.add(&endings(pieces)));
        for (text, is_first, is_last) in [
            ("show the key", true, true),
            ("I, 12KEY", true, true),
            ("i the", true, false),
            ("ithe monkey", true, false),
            ("shy key", false, true),
            ("it", false, false),
            ("the key", false, true),
        ] {
            let bytes = text.as_bytes();
            assert_eq!(quads.has(&first, quad(bytes, 0)), is_first, "{text}");
            assert_eq!(quads.has(&last, quad_before(bytes, bytes.len())), is_last, "{text}");
        }
        let anything = quads.add(&beginnings(&[]));
        assert!(quads.has(&anything, quad(b"x", 0)) && quads.has(&anything, 0));
    }
}
