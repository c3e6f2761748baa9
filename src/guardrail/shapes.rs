//! What the bytes of a text look like, four at a time: which letter whatever its case, a digit, anything else.
//! What cannot be a match is ruled out by them before an expression is asked.

use regex_syntax::hir::{Class, Hir, HirKind, Repetition};

use super::first::ByteSet;

/// Four shapes, and what of them counts.
pub(super) type Quad = (u32, u32);

/// More beginnings than this are as good as none.
const PREFIXES_MAX: usize = 128;
/// More letters than this are any letter.
const LETTERS_MAX: usize = 8;
/// What all letters have of their shape, and where.
const LETTER: (u8, u8) = (0x60, 0xe0);

/// The shapes of four bytes of a text from one on, the first one lowest; zeros behind the end of the text.
pub(super) fn quad(bytes: &[u8], at: usize) -> u32 {
    four(bytes.get(at..).unwrap_or_default().iter())
}

/// The shapes of the four bytes before one, the last one lowest.
pub(super) fn quad_before(bytes: &[u8], at: usize) -> u32 {
    four(bytes.get(..at).unwrap_or_default().iter().rev())
}

fn four<'b, B: Iterator<Item = &'b u8>>(bytes: B) -> u32 {
    bytes.zip([0, 8, 16, 24]).fold(0, |quad, (byte, bits)| quad | u32::from(shape(*byte)) << bits)
}

/// Every shape there is.
pub(super) fn all() -> impl Iterator<Item = u8> {
    (b'a'..=b'z').chain([b'0', b' ', 0x80, 0])
}

/// What is the same for all letters of either case, for all digits, for all other characters of ASCII, and for
/// all bytes beyond.
fn shape(byte: u8) -> u8 {
    SHAPES.get(usize::from(byte)).copied().unwrap_or(0)
}

#[expect(
    clippy::indexing_slicing,
    reason = "in a constant, what is out of bounds does not compile"
)]
static SHAPES: [u8; 256] = {
    let mut shapes = [0x80; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        shapes[byte as usize] = match byte {
            b'a'..=b'z' | b'A'..=b'Z' => byte | 0x20,
            b'0'..=b'9' => b'0',
            _ => b' ',
        };
        byte += 1;
    }
    shapes
};

/// What texts of these expressions in a row begin with, the shorter the more there would be.
pub(super) fn beginnings(pieces: &[Hir]) -> Vec<Quad> {
    Way::Forwards.quads(pieces)
}

/// What they end with: the last byte first.
pub(super) fn endings(pieces: &[Hir]) -> Vec<Quad> {
    Way::Backwards.quads(pieces)
}

/// What texts begin with: the shapes of up to four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix {
    quad: Quad,
    /// How many shapes there are; four once it is not known what follows.
    len: u32,
}

impl Prefix {
    const NOTHING: Self = Self { quad: (0, 0), len: 0 };
    const CLOSED: u32 = 4;

    fn is_closed(self) -> bool {
        self.len == Self::CLOSED
    }

    fn then(self, (shape, mask): (u8, u8)) -> Self {
        let (known, of_known) = self.quad;
        let at = |one: u8| u32::from(one) << (8 * self.len);
        Self { quad: (known | at(shape), of_known | at(mask)), len: self.len + 1 }
    }

    fn closed(self) -> Self {
        Self { len: Self::CLOSED, ..self }
    }
}

/// Which way a text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Forwards,
    Backwards,
}

impl Way {
    /// Those of which all four shapes count come first, in order: most of them are looked up.
    fn quads(self, pieces: &[Hir]) -> Vec<Quad> {
        let prefixes = self.follow_all(pieces, vec![Prefix::NOTHING]);
        let mut all: Vec<Quad> = prefixes.into_iter().map(|prefix| prefix.quad).collect();
        all.sort_unstable_by_key(|(known, mask)| (*mask != u32::MAX, *known, *mask));
        all.dedup();
        // One that says nothing allows everything.
        if all.iter().any(|(_, mask)| *mask == 0) { vec![(0, 0)] } else { all }
    }

    fn follow_all(self, pieces: &[Hir], mut prefixes: Vec<Prefix>) -> Vec<Prefix> {
        for place in 0..pieces.len() {
            let place = if self == Self::Forwards { place } else { pieces.len() - 1 - place };
            let Some(piece) = pieces.get(place) else { break };
            if prefixes.iter().all(|one| one.is_closed()) {
                break;
            }
            prefixes = self.follow(piece, &prefixes);
        }
        prefixes
    }

    /// Prefixes that go on with an expression.
    fn follow(self, hir: &Hir, before: &[Prefix]) -> Vec<Prefix> {
        let mut after = match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => before.to_vec(),
            HirKind::Literal(literal) => {
                before.iter().map(|prefix| self.literal(*prefix, &literal.0)).collect()
            }
            HirKind::Class(class) => of_class(class, before),
            HirKind::Capture(capture) => self.follow(&capture.sub, before),
            HirKind::Concat(parts) => self.follow_all(parts, before.to_vec()),
            HirKind::Alternation(parts) => {
                parts.iter().flat_map(|part| self.follow(part, before)).collect()
            }
            HirKind::Repetition(repetition) => self.repeated(repetition, before),
        };
        after.sort_unstable();
        after.dedup();
        if after.len() > PREFIXES_MAX {
            after = before.iter().map(|one| one.closed()).collect();
        }
        after
    }

    fn literal(self, mut prefix: Prefix, bytes: &[u8]) -> Prefix {
        for place in 0..bytes.len() {
            let place = if self == Self::Forwards { place } else { bytes.len() - 1 - place };
            if prefix.is_closed() {
                break;
            }
            prefix = prefix.then((shape(bytes.get(place).copied().unwrap_or(0)), u8::MAX));
        }
        prefix
    }

    fn repeated(self, repetition: &Repetition, before: &[Prefix]) -> Vec<Prefix> {
        let max = repetition.max.map_or(usize::MAX, |max| max as usize);
        let mut all = Vec::new();
        let mut copies = before.to_vec();
        for copy in 0..=max.min(Prefix::CLOSED as usize) {
            if copy >= repetition.min as usize {
                all.extend_from_slice(&copies);
            }
            if copies.iter().all(|one| one.is_closed()) {
                break;
            }
            copies = self.follow(&repetition.sub, &copies);
        }
        // All that it begins with stands in fewer copies than it has.
        if all.is_empty() { copies } else { all }
    }
}

fn of_class(class: &Class, before: &[Prefix]) -> Vec<Prefix> {
    let mut bytes = ByteSet::default();
    bytes.add_firsts(class);
    let mut shapes: Vec<(u8, u8)> = bytes.iter().map(|byte| (shape(byte), u8::MAX)).collect();
    shapes.sort_unstable();
    shapes.dedup();
    let is_letter = |(shape, _): &(u8, u8)| shape & LETTER.1 == LETTER.0;
    if shapes.iter().filter(|shape| is_letter(shape)).count() > LETTERS_MAX {
        shapes.retain(|shape| !is_letter(shape));
        shapes.push(LETTER);
    }
    let mut after = Vec::with_capacity(before.len() * shapes.len());
    for prefix in before {
        if prefix.is_closed() {
            after.push(*prefix);
            continue;
        }
        // Of a character beyond ASCII there are more bytes.
        after.extend(shapes.iter().map(|shape| {
            let next = prefix.then(*shape);
            if shape.0.is_ascii() { next } else { next.closed() }
        }));
    }
    after
}
