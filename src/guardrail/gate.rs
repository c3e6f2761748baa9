//! Where a pattern is tried: at bytes that a match may begin with. What is asked of every pattern that is
//! called stands close together in memory, apart from the patterns, which are many and large.

use super::first::{ByteSet, First};
use super::heads::Heads;
use super::kinds::Start;
use super::quads::{QuadSet, Quads};
use super::shapes::quad;
use super::sweep::{Place, View};

/// The gates of all patterns, in their order.
#[derive(Debug, Default)]
pub(super) struct Gates {
    all: Vec<Gate>,
    quads: Quads,
}

/// What tells whether a match may begin at a byte.
#[derive(Debug)]
struct Gate {
    /// What the first four bytes look like.
    quads: QuadSet,
    /// Whether all its matches begin where a word does.
    begins_words: bool,
    whole_word: bool,
    bytes: ByteSet,
    heads: Heads,
}

impl Gates {
    /// Adds the gate of the next pattern.
    pub(super) fn add(&mut self, first: &First, whole_word: bool) {
        let quads = self.quads.add(&first.quads);
        let begins_words = whole_word && first.is_word;
        let (bytes, heads) = (first.bytes, first.heads);
        self.all.push(Gate { quads, begins_words, whole_word, bytes, heads });
    }

    /// Whether a match of a pattern may begin at a byte of a text that may go on.
    pub(super) fn heads_allow(&self, pattern: usize, text: &str, at: usize) -> bool {
        self.all.get(pattern).is_none_or(|gate| gate.heads.allow(text.as_bytes(), at))
    }

    fn allows(&self, gate: &Gate, quad: u32) -> bool {
        self.quads.has(&gate.quads, quad)
    }
}

/// The bytes at which a pattern is tried, in order.
#[derive(Debug)]
pub(super) struct Starts<'s> {
    gates: &'s Gates,
    gate: Option<&'s Gate>,
    view: View<'s>,
    places: &'s [Place],
    at: usize,
}

impl<'s> Starts<'s> {
    /// Those at or behind a byte in places of one pattern.
    pub(super) fn new(
        gates: &'s Gates,
        view: View<'s>,
        (from, places): (usize, &'s [Place]),
    ) -> Self {
        let gate = places.first().and_then(|place| gates.all.get(place.pattern));
        Self { gates, gate, view, places, at: from }
    }

    /// Leaves out those before a byte.
    pub(super) fn skip_to(&mut self, at: usize) {
        self.at = self.at.max(at);
    }

    fn next_in(&self, place: &Place) -> Option<usize> {
        let (gate, kinds) = (self.gate?, self.view.kinds);
        let span = self.at.max(place.start)..place.end;
        let bytes = self.view.text.as_bytes();
        if gate.begins_words {
            let mut words = kinds.words_from(span.start).iter();
            let may_begin = |word: &Start| {
                self.gates.allows(gate, word.quad) && gate.heads.allow(bytes, word.at)
            };
            let word = words.find(|word| word.at >= span.end || may_begin(word));
            return word.map(|word| word.at).filter(|at| *at < span.end);
        }
        let may_begin = |at: &usize| {
            gate.heads.allow(bytes, *at)
                && !(gate.whole_word && kinds.cuts(*at))
                && self.gates.allows(gate, quad(bytes, *at))
        };
        if gate.bytes.is_odd() {
            kinds.odd.within(span).find(may_begin)
        } else {
            span.into_iter().find(may_begin)
        }
    }
}

impl Iterator for Starts<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while let Some(place) = self.places.first() {
            if let Some(start) = self.next_in(place) {
                self.at = start + 1;
                return Some(start);
            }
            // The next place may lie over this one.
            self.skip_to(place.end);
            self.places = self.places.get(1..).unwrap_or_default();
        }
        None
    }
}
