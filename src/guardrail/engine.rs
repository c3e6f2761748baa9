//! One expression, compiled: checked at the door, kept from one catalog to the next.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::meta::{self, Regex};
use regex_automata::util::pool::Pool;
use regex_automata::{Anchored, Input};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::anchors;
use super::phrase;
use super::seeds::Seed;

/// Bytes of one regular expression as it is written.
const EXPRESSION_BYTES_MAX: usize = 4096;
/// What a phrase may grow to when its spaces are written out.
const PHRASE_BYTES_MAX: usize = 16 * 1024;
/// Bytes one regular expression may match: the most a stream may have to hold back.
const MATCH_BYTES_MAX: usize = 1024;
/// Of a phrase, whose spaces may be several characters wide.
const PHRASE_MATCH_BYTES_MAX: usize = 2048;
/// Memory of one compiled expression.
const REGEX_BYTES_MAX: usize = 2 << 20;
/// Letters of a word that calls for a turned expression.
const TURNED_WORD_MIN: usize = 5;
/// Fewer are not worth a thread.
const EXPRESSIONS_A_THREAD: usize = 32;

/// How an expression is turned before it is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Turn {
    /// Not at all.
    None,
    /// Texts read from their end.
    Backwards,
    /// Letters moved half way round the alphabet.
    Rot13,
}

/// An expression, how it is turned, and whether it must be able to follow a stream.
pub(super) type Key = (Arc<str>, Turn, bool);

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Engine {
    key: Key,
    source: String,
    /// Phrases are many, and most never meet a text that calls for them: they are built when one does.
    regex: OnceLock<Option<Regex>>,
    pub(super) bytes_max: usize,
    /// Where it can match at all.
    pub(super) seed: Seed,
    /// Literals, one of which every match begins with, where there are such.
    pub(super) beginnings: Option<Vec<String>>,
    /// Whether a group of it is what is found.
    pub(super) has_group: bool,
    /// For rules that look at answers, which may be streams.
    pub(super) growing: Option<Growing>,
}

/// Tells whether a tail of a stream could still become a match.
pub(super) struct Growing {
    source: String,
    built: OnceLock<Option<Automaton>>,
    /// Whether a match may begin with a byte.
    pub(super) first: Vec<bool>,
}

struct Automaton {
    dfa: DFA,
    caches: Pool<Cache, Box<dyn Fn() -> Cache + Send + Sync>>,
}

impl std::fmt::Debug for Growing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Growing")
    }
}

/// Compiled expressions, each once.
#[derive(Debug, Default)]
pub(super) struct Engines(HashMap<Key, Result<Arc<Engine>, String>>);

impl Engines {
    pub(super) fn of(engines: impl Iterator<Item = Arc<Engine>>) -> Self {
        Self(engines.map(|engine| (engine.key.clone(), Ok(engine))).collect())
    }

    /// Compiles what is not known yet, on all processors: thousands of expressions take seconds on one.
    pub(super) fn compile(wanted: impl Iterator<Item = Key>, known: Self) -> Self {
        let mut all = known;
        let mut new: Vec<Key> = wanted.filter(|key| !all.0.contains_key(key)).collect();
        new.sort();
        new.dedup();
        let compile = |key: &Key| (key.clone(), Engine::compile(key).map(Arc::new));
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let share = new.len().div_ceil(workers).max(EXPRESSIONS_A_THREAD);
        std::thread::scope(|scope| {
            let threads: Vec<_> = new
                .chunks(share)
                .map(|some| scope.spawn(move || some.iter().map(compile).collect::<Vec<_>>()))
                .collect();
            all.0.extend(threads.into_iter().filter_map(|thread| thread.join().ok()).flatten());
        });
        all
    }

    pub(super) fn get(&self, key: &Key) -> Result<Arc<Engine>, String> {
        let missing = || Err("the expression could not be compiled".to_owned());
        self.0.get(key).cloned().unwrap_or_else(missing)
    }
}

impl Engine {
    fn compile(key: &Key) -> Result<Self, String> {
        let (expression, turn, streams) = key;
        let hir = parse(expression)?;
        let hir = match turn {
            Turn::None => hir,
            Turn::Backwards => phrase::reversed(&hir),
            Turn::Rot13 => phrase::rotated(&hir),
        };
        let bytes_max = check(&hir, phrase::is_phrase(expression))?;
        let source = match turn {
            Turn::None => expression.to_string(),
            Turn::Backwards | Turn::Rot13 => hir.to_string(),
        };
        let regex = OnceLock::new();
        if !phrase::is_phrase(expression) {
            drop(regex.set(Some(build(&source)?)));
        }
        let growing = streams.then(|| Growing::new(&source, &hir));
        let has_group = hir.properties().explicit_captures_len() > 0;
        let seed = Seed::of(&hir);
        let beginnings = anchors::beginnings(&hir).filter(|_| seed.is_literal());
        let key = key.clone();
        Ok(Self { key, source, regex, bytes_max, seed, beginnings, has_group, growing })
    }

    /// Why it could not be built, which else shows when a text calls for it.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.key.1 {
            Turn::None => build(&self.source).map(drop),
            Turn::Backwards | Turn::Rot13 => Ok(()),
        }
    }

    /// Whether all literals that call for it are words that stand in no other.
    pub(super) fn is_called_by_long_words(&self) -> bool {
        let Seed::Literals(anchors) = &self.seed else { return false };
        let mut literals = anchors.iter().flat_map(|one| &one.literals);
        literals.all(|literal| literal.len() >= TURNED_WORD_MIN)
    }

    /// The expression; `None` if it is too large.
    pub(super) fn regex(&self) -> Option<&Regex> {
        self.regex.get_or_init(|| build(&self.source).ok()).as_ref()
    }
}

fn parse(expression: &str) -> Result<Hir, String> {
    let bytes_max =
        if phrase::is_phrase(expression) { PHRASE_BYTES_MAX } else { EXPRESSION_BYTES_MAX };
    if expression.len() > bytes_max {
        return Err(format!("the expression is longer than {EXPRESSION_BYTES_MAX} bytes"));
    }
    regex_syntax::parse(expression)
        .map_err(|error| format!("the expression does not parse: {}", one_line(&error)))
}

/// The longest match of an expression that can be kept.
fn check(hir: &Hir, is_phrase: bool) -> Result<usize, String> {
    let bytes_max = if is_phrase { PHRASE_MATCH_BYTES_MAX } else { MATCH_BYTES_MAX };
    let properties = hir.properties();
    if properties.minimum_len().unwrap_or(0) == 0 {
        return Err("the expression matches the empty text".to_owned());
    }
    if !properties.look_set().is_empty() {
        return Err("anchors and word boundaries (^, $, \\b) are not supported; \
                    whole_word = true checks the edges"
            .to_owned());
    }
    properties.maximum_len().filter(|bytes| *bytes <= bytes_max).ok_or_else(|| {
        format!(
            "the expression can match more than {bytes_max} bytes; \
             write {{1,40}} instead of + or *"
        )
    })
}

fn build(expression: &str) -> Result<Regex, String> {
    meta::Builder::new()
        .configure(meta::Config::new().nfa_size_limit(Some(REGEX_BYTES_MAX)))
        .build(expression)
        .map_err(|_too_large| format!("the expression needs more than {REGEX_BYTES_MAX} bytes"))
}

/// An expression that must match all of a text, in any case.
pub(super) fn whole_text(expression: &str) -> Result<Regex, String> {
    parse(expression)?;
    build(&format!("(?i)^(?:{expression})$"))
}

impl Growing {
    fn new(source: &str, hir: &Hir) -> Self {
        let mut first = vec![false; 256];
        first_bytes(hir, &mut first);
        Self { source: source.to_owned(), built: OnceLock::new(), first }
    }

    /// Whether some continuation of the text is a match that begins at `start`. What cannot be told
    /// counts as yes: holding back is always safe.
    pub(super) fn lives(&self, text: &str, start: usize) -> bool {
        let Some(Automaton { dfa, caches }) = self.automaton() else { return true };
        let mut cache = caches.get();
        let input = Input::new(text).range(start..).anchored(Anchored::Yes);
        let Ok(mut state) = dfa.start_state_forward(&mut cache, &input) else { return true };
        for byte in text.as_bytes().get(start..).unwrap_or_default() {
            match dfa.next_state(&mut cache, state, *byte) {
                Ok(next) if next.is_dead() => return false,
                Ok(next) if next.is_quit() => return true,
                Ok(next) => state = next,
                Err(_) => return true,
            }
        }
        true
    }

    fn automaton(&self) -> Option<&Automaton> {
        let build = || {
            let dfa = DFA::builder().build(&self.source).ok()?;
            let for_caches = dfa.clone();
            let caches: Box<dyn Fn() -> Cache + Send + Sync> =
                Box::new(move || for_caches.create_cache());
            Some(Automaton { dfa, caches: Pool::new(caches) })
        };
        self.built.get_or_init(build).as_ref()
    }
}

/// Marks the bytes that a match may begin with; whether it may also be empty.
fn first_bytes(hir: &Hir, first: &mut [bool]) -> bool {
    let mut mark = |from: u8, to: u8| {
        let range = usize::from(from)..=usize::from(to);
        first.get_mut(range).into_iter().flatten().for_each(|byte| *byte = true);
    };
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => literal.0.first().map(|byte| mark(*byte, *byte)).is_none(),
        HirKind::Class(Class::Bytes(class)) => {
            class.ranges().iter().for_each(|range| mark(range.start(), range.end()));
            false
        }
        HirKind::Class(Class::Unicode(class)) => {
            let lead = |letter: char| letter.encode_utf8(&mut [0; 4]).as_bytes().first().copied();
            for range in class.ranges() {
                mark(lead(range.start()).unwrap_or(0), lead(range.end()).unwrap_or(u8::MAX));
            }
            false
        }
        HirKind::Repetition(repetition) => {
            first_bytes(&repetition.sub, first) || repetition.min == 0
        }
        HirKind::Capture(capture) => first_bytes(&capture.sub, first),
        HirKind::Concat(parts) => parts.iter().all(|part| first_bytes(part, first)),
        HirKind::Alternation(parts) => {
            parts.iter().filter(|part| first_bytes(part, first)).count() > 0
        }
    }
}

/// The last line of a multi-line regex error holds the reason.
fn one_line(error: &regex_syntax::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
