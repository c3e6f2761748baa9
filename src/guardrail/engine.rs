//! One expression, compiled: checked at the door, kept from one catalog to the next.

use std::collections::HashMap;
use std::sync::Arc;

use regex::Regex;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::util::pool::Pool;
use regex_automata::{Anchored, Input};
use regex_syntax::hir::Hir;

use super::phrase;
use super::seeds::Seed;

/// Bytes of one regular expression as it is written.
const EXPRESSION_BYTES_MAX: usize = 4096;
/// What a phrase may grow to when its spaces are written out.
const PHRASE_BYTES_MAX: usize = 16 * 1024;
/// Bytes one regular expression may match: the most a stream may have to hold back.
const MATCH_BYTES_MAX: usize = 1024;
/// Memory of one compiled expression.
const REGEX_BYTES_MAX: usize = 2 << 20;
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
    pub(super) regex: Regex,
    pub(super) bytes_max: usize,
    /// Where it can match at all.
    pub(super) seed: Seed,
    /// Whether a group of it is what is found.
    pub(super) has_group: bool,
    /// For rules that look at answers, which may be streams.
    pub(super) growing: Option<Growing>,
}

/// Tells whether a tail of a stream could still become a match.
pub(super) struct Growing {
    dfa: DFA,
    pub(super) caches: Pool<Cache, Box<dyn Fn() -> Cache + Send + Sync>>,
    /// Whether a match may begin with a byte.
    pub(super) first: Vec<bool>,
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
        let bytes_max = check(&hir)?;
        let source = match turn {
            Turn::None => expression.to_string(),
            Turn::Backwards | Turn::Rot13 => hir.to_string(),
        };
        let regex = build(&source)?;
        let growing = streams.then(|| Growing::compile(&source)).transpose()?;
        let has_group = regex.captures_len() > 1;
        Ok(Self { key: key.clone(), regex, bytes_max, seed: Seed::of(&hir), has_group, growing })
    }
}

fn parse(expression: &str) -> Result<Hir, String> {
    let bytes_max =
        if expression.starts_with("(?i)") { PHRASE_BYTES_MAX } else { EXPRESSION_BYTES_MAX };
    if expression.len() > bytes_max {
        return Err(format!("the expression is longer than {EXPRESSION_BYTES_MAX} bytes"));
    }
    regex_syntax::parse(expression)
        .map_err(|error| format!("the expression does not parse: {}", one_line(&error)))
}

/// The longest match of an expression that can be kept.
fn check(hir: &Hir) -> Result<usize, String> {
    let properties = hir.properties();
    if properties.minimum_len().unwrap_or(0) == 0 {
        return Err("the expression matches the empty text".to_owned());
    }
    if !properties.look_set().is_empty() {
        return Err("anchors and word boundaries (^, $, \\b) are not supported; \
                    whole_word = true checks the edges"
            .to_owned());
    }
    properties.maximum_len().filter(|bytes| *bytes <= MATCH_BYTES_MAX).ok_or_else(|| {
        format!(
            "the expression can match more than {MATCH_BYTES_MAX} bytes; \
             write {{1,40}} instead of + or *"
        )
    })
}

fn build(expression: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(expression)
        .size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|_too_large| format!("the expression needs more than {REGEX_BYTES_MAX} bytes"))
}

/// An expression that must match all of a text, in any case.
pub(super) fn whole_text(expression: &str) -> Result<Regex, String> {
    parse(expression)?;
    build(&format!("(?i)^(?:{expression})$"))
}

impl Growing {
    fn compile(expression: &str) -> Result<Self, String> {
        let dfa = DFA::builder()
            .build(expression)
            .map_err(|_too_large| "the expression is too large for streams".to_owned())?;
        let first = {
            let mut cache = dfa.create_cache();
            (0..=255).map(|byte: u8| begins(&dfa, &mut cache, byte)).collect()
        };
        let for_caches = dfa.clone();
        let caches: Box<dyn Fn() -> Cache + Send + Sync> =
            Box::new(move || for_caches.create_cache());
        Ok(Self { dfa, caches: Pool::new(caches), first })
    }

    /// Whether some continuation of the text is a match that begins at `start`.
    pub(super) fn lives(&self, cache: &mut Cache, text: &str, start: usize) -> bool {
        let input = Input::new(text).range(start..).anchored(Anchored::Yes);
        // A state that cannot be built counts as alive.
        let Ok(mut state) = self.dfa.start_state_forward(cache, &input) else { return true };
        for byte in text.as_bytes().get(start..).unwrap_or_default() {
            match self.dfa.next_state(cache, state, *byte) {
                Ok(next) if next.is_dead() => return false,
                Ok(next) if next.is_quit() => return true,
                Ok(next) => state = next,
                Err(_) => return true,
            }
        }
        true
    }
}

/// Whether a match may begin with this byte; a state that cannot be built counts as yes.
fn begins(dfa: &DFA, cache: &mut Cache, byte: u8) -> bool {
    let input = Input::new("").anchored(Anchored::Yes);
    let Ok(state) = dfa.start_state_forward(cache, &input) else { return true };
    dfa.next_state(cache, state, byte).map_or(true, |next| !next.is_dead())
}

/// The last line of a multi-line regex error holds the reason.
fn one_line(error: &regex_syntax::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
