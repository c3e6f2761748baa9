//! All literals of all guardrails as one automaton, and what each of them is for.
//!
//! A literal of a rule is a finding once its word edges are checked. An anchor calls a pattern to the place
//! where it stands, if the other literals that the pattern needs stand around it.

use std::collections::{BTreeMap, BTreeSet};

use aho_corasick::automaton::Automaton as _;
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind};

use super::anchors::{Anchors, Around, Needle};
use super::first::ByteSet;
use super::part::Part;
use super::quads::{QuadSet, Quads};
use super::scan::{Finding, RuleSet, What};
use super::shapes::{Quad, quad, quad_before};
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
    /// By literal.
    purposes: Vec<Purpose>,
    uses: Vec<Use>,
    needed: usize,
    /// Sets of literals that patterns need around anchors, by their places among such; each set once.
    sets: Vec<Vec<usize>>,
    /// What must stand around anchors.
    others: Vec<Others>,
    /// What may stand right beside anchors, each set once.
    besides: Vec<QuadSet>,
    quads: Quads,
    /// What may stand between the beginning of a match and an anchor.
    leads: Vec<ByteSet>,
}

/// Why a literal is looked for.
#[derive(Debug, Clone, Copy)]
struct Purpose {
    /// Its place among those that patterns need around their anchors.
    need: Option<u32>,
    /// Where in `uses` its own are.
    uses: Part,
}

/// What a literal is used for.
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
    before: u32,
    /// Where in `leads` the bytes are that may stand between.
    lead: Option<u32>,
    edges: Edges,
    /// Where in `others` what must stand around it is.
    others: Part,
    /// Where in `besides` what may stand right before and behind it is; none: anything.
    beside: [Option<u32>; 2],
}

/// Which pattern is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pattern: u32,
    rule: u32,
    /// Only in requests.
    is_turned: bool,
    /// What it finds is only reported.
    is_warning: bool,
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
        let (text, lower) = (view.text.as_bytes(), view.text.to_ascii_lowercase());
        let mut stood = Stood::new(self.needed);
        let mut hit = |literal: usize, start: usize, end: usize| {
            let Some(purpose) = self.purposes.get(literal) else { return };
            if let Some(place) = purpose.need {
                stood.push(place as usize, start);
            }
            if purpose.uses.len() == 0 {
                return;
            }
            let edges =
                Edges { begins_word: !view.kinds.cuts(start), ends_word: !view.kinds.cuts(end) };
            let beside = [quad_before(text, start), quad(text, end)];
            for one in purpose.uses.of(&self.uses) {
                match one {
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
        (findings, self.called(text, &calls, &stood))
    }

    /// Whether what stands right beside an anchor may.
    fn allows(&self, call: &Call, beside: [u32; 2]) -> bool {
        call.beside.iter().zip(beside).all(|(allowed, quad)| {
            let allowed = allowed.and_then(|one| self.besides.get(one as usize));
            allowed.is_none_or(|allowed| self.quads.has(allowed, quad))
        })
    }

    /// The places of the calls around which everything stands that they need.
    fn called(&self, text: &[u8], calls: &[(&Call, usize)], stood: &Stood) -> Vec<Place> {
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
            let others = call.others.of(&self.others);
            others.iter().all(&mut stands) && others.iter().all(|others| is_near(others, *at))
        };
        // By lead, up to where it was followed already.
        let mut followed = vec![0; self.leads.len()];
        let place = |(call, at): &(&Call, usize)| {
            let Caller { is_warning, pattern, .. } = call.caller;
            let mut start = at.saturating_sub(call.before as usize);
            if let Some((lead, end)) = self.lead(call, &mut followed) {
                start = lead_of(text, (start.max(*end), *at), lead);
                *end = at + 1;
            }
            Place { is_warning, pattern: pattern as usize, start, end: at + 1 }
        };
        calls.iter().filter(is_whole).map(place).collect()
    }

    /// What may stand between the beginning of a match and an anchor, if anything may, and its entry in a list.
    fn lead<'f>(&self, call: &Call, list: &'f mut [usize]) -> Option<(&ByteSet, &'f mut usize)> {
        let lead = call.lead.filter(|_| call.before > 0)? as usize;
        Some((self.leads.get(lead)?, list.get_mut(lead)?))
    }
}

impl Caller {
    /// The pattern at this position, of this rule.
    pub(super) fn new((pattern, rule): (usize, usize), is_turned: bool, is_warning: bool) -> Self {
        Self { pattern: number(pattern), rule: number(rule), is_turned, is_warning }
    }

    fn looks(self, rules: &RuleSet) -> bool {
        rules.contains(self.rule as usize) && (!self.is_turned || rules.is_request())
    }
}

/// Where what stands right before a byte begins that is of these bytes only, at `first` or behind it.
fn lead_of(text: &[u8], (first, at): (usize, usize), lead: &ByteSet) -> usize {
    let before = text.get(first..at).unwrap_or_default().iter().rev();
    at - before.take_while(|byte| lead.contains(**byte)).count()
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
        // Shorter ones that end here begin later; no two are the same.
        let mut ending = (0..matches).map(|index| automaton.match_pattern(state, index));
        let whole = ending.find(|literal| automaton.pattern_len(*literal) == at + 1 - start);
        if let Some(literal) = whole {
            hit(literal.as_usize(), start, at + 1);
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
    besides: Vec<QuadSet>,
    quads: Quads,
    /// Where in `besides` a set is: many anchors have the same beside them.
    known: BTreeMap<Vec<Quad>, u32>,
    leads: Vec<ByteSet>,
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
            let others = Part::between(first, self.others.len());
            let lead = one.lead.map(|lead| {
                self.leads.push(lead);
                number(self.leads.len() - 1)
            });
            for needle in &one.literals {
                let edges = if caller.is_turned { Edges::WORD } else { edges(needle, whole_word) };
                let before = if needle.is_first { 0 } else { number(one.reach.0) };
                let beside = [&needle.before, &needle.after].map(|around| self.beside(around));
                let call = Call { caller, before, lead, edges, others, beside };
                self.texts.entry(needle.text.clone()).or_default().push(Use::Anchor(call));
            }
        }
    }

    /// Where in `besides` these are.
    fn beside(&mut self, around: &Around) -> Option<u32> {
        let Around::These(set) = around else { return None };
        let add = || {
            self.besides.push(self.quads.add(set));
            number(self.besides.len() - 1)
        };
        Some(*self.known.entry(set.to_vec()).or_insert_with(add))
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
        let sieve = Sieve::new(self.texts.iter().map(|(text, uses)| {
            let edges = if place(text).is_some() { Edges::default() } else { common(text, uses) };
            (text.as_str(), edges)
        }));
        // All matches of all rules: one guardrail must not hide another's.
        let texts = self.texts.keys();
        let build = || NFA::builder().match_kind(MatchKind::Standard).build(texts);
        let automaton = (!self.texts.is_empty()).then(build).transpose();
        let automaton = automaton.map_err(|error| error.to_string())?;
        let mut uses = Vec::new();
        let purpose = |(text, of_text)| {
            let need = place(&text).map(number);
            Purpose { need, uses: Part::add(&mut uses, of_text) }
        };
        let purposes = self.texts.into_iter().map(purpose).collect();
        let (needed, others) = (needed.len(), self.others);
        let (besides, quads, leads) = (self.besides, self.quads, self.leads);
        Ok(Literals {
            automaton,
            sieve,
            purposes,
            uses,
            needed,
            sets,
            others,
            besides,
            quads,
            leads,
        })
    }
}

/// No list is that long.
fn number(one: usize) -> u32 {
    u32::try_from(one).unwrap_or(u32::MAX)
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
