//! All literals of all guardrails as one automaton, and what each of them is for.
//!
//! A literal of a rule is a finding once its word edges are checked. An anchor calls a pattern to the place
//! where it stands, if the other literals that the pattern needs stand around it.

use std::collections::{BTreeMap, BTreeSet};

use aho_corasick::automaton::Automaton as _;
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind};

use super::anchors::{Anchors, Around, Needle};
use super::scan::{Finding, RuleSet, What};
use super::shapes::{Quad, is_among, quad, quad_before};
use super::sieve::{Edges, Sieve};
use super::stood::Stood;
use super::sweep::{Place, View};

/// All literals.
#[derive(Debug)]
pub(super) struct Literals {
    /// Looked for from one byte on.
    automaton: Option<NFA>,
    /// Where one may begin.
    sieve: Sieve,
    /// What each is for.
    uses: Vec<Vec<Use>>,
    /// The place of each among those that patterns need around their anchors.
    needs: Vec<Option<usize>>,
    needed: usize,
    /// Sets of such literals, by their places; each once: many patterns need the same.
    sets: Vec<Vec<usize>>,
    /// By call, one behind the other: what must stand around the anchor.
    others: Vec<Others>,
    /// What may stand right beside anchors.
    quads: Vec<Quad>,
}

/// Why a literal is in the automaton.
#[derive(Debug, Clone, Copy)]
enum Use {
    /// It is a literal of this rule.
    Literal(usize),
    /// It calls for a pattern.
    Anchor(Call),
}

/// What an anchor calls for.
#[derive(Debug, Clone, Copy)]
struct Call {
    caller: Caller,
    /// How far before the anchor a match may begin.
    before: usize,
    edges: Edges,
    /// Where in `others` what must stand around it is, and how many they are.
    others: (usize, usize),
    /// Where in `quads` what may stand right before and behind it is, and how many; none: anything.
    beside: [(usize, usize); 2],
}

/// Which pattern is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) pattern: usize,
    pub(super) rule: usize,
    /// Only in requests.
    pub(super) is_turned: bool,
    /// What it finds is only reported.
    pub(super) is_warning: bool,
}

/// A set of literals of which one must begin so far before or behind an anchor.
#[derive(Debug, Clone, Copy)]
struct Others {
    set: usize,
    reach: (usize, usize),
}

impl Literals {
    /// Findings of literals, and the places that anchors call patterns to.
    pub(super) fn find(&self, view: View<'_>, rules: &RuleSet) -> (Vec<Finding>, Vec<Place>) {
        let (mut findings, mut calls) = (Vec::new(), Vec::new());
        let Some(automaton) = &self.automaton else { return (findings, Vec::new()) };
        let lower = view.text.to_ascii_lowercase();
        let mut stood = Stood::new(self.needed);
        let mut hit = |literal: usize, start: usize, end: usize| {
            if let Some(place) = self.needs.get(literal).copied().flatten() {
                stood.push(place, start);
            }
            let edges =
                Edges { begins_word: !view.kinds.cuts(start), ends_word: !view.kinds.cuts(end) };
            let beside =
                [quad_before(view.text.as_bytes(), start), quad(view.text.as_bytes(), end)];
            for purpose in self.uses.get(literal).into_iter().flatten() {
                match purpose {
                    Use::Literal(rule) if rules.contains(*rule) && edges == Edges::WORD => {
                        let (rule, what, begins) = (*rule, What::Literal, start);
                        findings.push(Finding { start, end, rule, what, begins });
                    }
                    Use::Anchor(call)
                        if call.edges.allow(edges)
                            && call.caller.looks(rules)
                            && self.allows(call, beside) =>
                    {
                        calls.push((call, start));
                    }
                    Use::Literal(_) | Use::Anchor(_) => {}
                }
            }
        };
        let beginnings = self.sieve.beginnings(lower.as_bytes(), view.kinds, view.from);
        for start in beginnings.within(view.from..view.text.len()) {
            from_here(automaton, lower.as_bytes(), start, &mut hit);
        }
        stood.sort();
        (findings, self.called(&calls, &stood))
    }

    /// Whether what stands right beside an anchor may.
    fn allows(&self, call: &Call, beside: [u32; 2]) -> bool {
        call.beside.iter().zip(beside).all(|((first, count), quad)| {
            let allowed = self.quads.get(*first..first + count).unwrap_or_default();
            allowed.is_empty() || is_among(quad, allowed)
        })
    }

    /// The places of the calls around which everything stands that they need.
    fn called(&self, calls: &[(&Call, usize)], stood: &Stood) -> Vec<Place> {
        // By set, whether any of its literals stood anywhere: most calls end with this.
        let mut is_there: Vec<Option<bool>> = vec![None; self.sets.len()];
        let set = |set: usize| self.sets.get(set).map(Vec::as_slice).unwrap_or_default();
        let mut stands = |others: &Others| {
            let any = || set(others.set).iter().any(|place| stood.is_anywhere(*place));
            is_there.get_mut(others.set).is_none_or(|slot| *slot.get_or_insert_with(any))
        };
        let is_near = |others: &Others, at: usize| {
            set(others.set).iter().any(|place| stood.is_near(*place, at, others.reach))
        };
        let is_whole = |(call, at): &&(&Call, usize)| {
            let (first, count) = call.others;
            let others = self.others.get(first..first + count).unwrap_or_default();
            others.iter().all(&mut stands) && others.iter().all(|others| is_near(others, *at))
        };
        let place = |(call, at): &(&Call, usize)| {
            let Caller { is_warning, pattern, .. } = call.caller;
            Place { is_warning, pattern, start: at.saturating_sub(call.before), end: at + 1 }
        };
        calls.iter().filter(is_whole).map(place).collect()
    }
}

impl Caller {
    fn looks(self, rules: &RuleSet) -> bool {
        rules.contains(self.rule) && (!self.is_turned || rules.is_request())
    }
}

/// Every literal that begins at a byte.
fn from_here(
    automaton: &NFA,
    lower: &[u8],
    start: usize,
    hit: &mut impl FnMut(usize, usize, usize),
) {
    let Ok(mut state) = automaton.start_state(Anchored::Yes) else { return };
    for (at, byte) in (start..).zip(lower.get(start..).unwrap_or_default()) {
        state = automaton.next_state(Anchored::Yes, state, *byte);
        if !automaton.is_special(state) {
            continue;
        }
        if automaton.is_dead(state) {
            return;
        }
        let matches = if automaton.is_match(state) { automaton.match_len(state) } else { 0 };
        for literal in (0..matches).map(|index| automaton.match_pattern(state, index)) {
            // Shorter ones that end here begin later.
            if automaton.pattern_len(literal) == at + 1 - start {
                hit(literal.as_usize(), start, at + 1);
            }
        }
    }
}

/// Literals on their way into the automaton.
#[derive(Debug, Default)]
pub(super) struct Needles {
    texts: BTreeMap<String, Vec<Use>>,
    needed: BTreeSet<String>,
    sets: BTreeMap<Vec<String>, usize>,
    others: Vec<Others>,
    quads: Vec<Quad>,
    /// Where in `quads` a list is: many anchors have the same beside them.
    known: BTreeMap<Vec<Quad>, usize>,
}

impl Needles {
    /// Adds a literal of a rule.
    pub(super) fn literal(&mut self, text: String, rule: usize) {
        self.texts.entry(text).or_default().push(Use::Literal(rule));
    }

    /// Adds the anchors that call for a pattern, and what must stand around them. Turned patterns make do with
    /// the first: they are many. A text that is turned is turned as a whole: its words stand apart.
    pub(super) fn call(&mut self, caller: Caller, anchors: &[Anchors], whole_word: bool) {
        for one in anchors {
            let first = self.others.len();
            for other in one.others.iter().filter(|_| !caller.is_turned) {
                self.needed.extend(other.literals.iter().cloned());
                let next = self.sets.len();
                let set = *self.sets.entry(other.literals.clone()).or_insert(next);
                self.others.push(Others { set, reach: other.reach });
            }
            let others = (first, self.others.len() - first);
            for needle in &one.literals {
                let edges = if caller.is_turned { Edges::WORD } else { edges(needle, whole_word) };
                let before = if needle.is_first { 0 } else { one.reach.0 };
                let beside = [&needle.before, &needle.after].map(|around| self.beside(around));
                let call = Call { caller, before, edges, others, beside };
                self.texts.entry(needle.text.clone()).or_default().push(Use::Anchor(call));
            }
        }
    }

    /// Where in `quads` these are.
    fn beside(&mut self, around: &Around) -> (usize, usize) {
        let quads = around.quads();
        let next = self.quads.len();
        let first = *self.known.entry(quads.to_vec()).or_insert(next);
        if first == next {
            self.quads.extend_from_slice(quads);
        }
        (first, quads.len())
    }

    /// All of them, or why they are too many.
    pub(super) fn finish(mut self) -> Result<Literals, String> {
        for literal in &self.needed {
            self.texts.entry(literal.clone()).or_default();
        }
        let needed: Vec<String> = self.needed.into_iter().collect();
        let place = |literal: &String| needed.binary_search(literal).ok();
        let mut sets = vec![Vec::new(); self.sets.len()];
        for (literals, set) in &self.sets {
            if let Some(places) = sets.get_mut(*set) {
                *places = literals.iter().filter_map(place).collect();
            }
        }
        let needs: Vec<Option<usize>> = self.texts.keys().map(place).collect();
        let (texts, uses): (Vec<String>, Vec<Vec<Use>>) = self.texts.into_iter().unzip();
        let each = texts.iter().zip(&uses).zip(&needs);
        let sieve = Sieve::new(each.map(|((text, uses), need)| {
            let edges = if need.is_some() { Edges::default() } else { common(text, uses) };
            (text.as_str(), edges)
        }));
        // All matches of all rules: one guardrail must not hide another's.
        let build = || NFA::builder().match_kind(MatchKind::Standard).build(&texts);
        let automaton = (!texts.is_empty()).then(build).transpose();
        let automaton = automaton.map_err(|error| error.to_string())?;
        let (needed, others, quads) = (needed.len(), self.others, self.quads);
        Ok(Literals { automaton, sieve, uses, needs, needed, sets, others, quads })
    }
}

/// The edges of an anchor that must be edges of words.
fn edges(needle: &Needle, whole_word: bool) -> Edges {
    let of_text = of_words(&needle.text);
    Edges {
        begins_word: whole_word && needle.is_first && of_text.begins_word,
        ends_word: whole_word && needle.is_last && of_text.ends_word,
    }
}

/// The edges that all uses of a literal ask for.
fn common(text: &str, uses: &[Use]) -> Edges {
    let asked = uses.iter().map(|one| match one {
        Use::Literal(_) => of_words(text),
        Use::Anchor(call) => call.edges,
    });
    let both = |one: Edges, other: Edges| Edges {
        begins_word: one.begins_word && other.begins_word,
        ends_word: one.ends_word && other.ends_word,
    };
    asked.reduce(both).unwrap_or_default()
}

/// Whether a text begins and ends with letters or digits.
fn of_words(text: &str) -> Edges {
    let is_word = |letter: Option<char>| letter.is_some_and(char::is_alphanumeric);
    Edges {
        begins_word: is_word(text.chars().next()),
        ends_word: is_word(text.chars().next_back()),
    }
}
