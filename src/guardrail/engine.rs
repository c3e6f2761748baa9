//! One expression, compiled: checked at the door, kept from one catalog to the next.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};

use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::meta::{self, Regex};
use regex_automata::nfa::thompson;
use regex_automata::util::pool::{Pool, PoolGuard};
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::Hir;

use super::first::First;
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

/// What kind of expression it is, and how it is turned before it is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Turn {
    /// A regular expression as its author wrote it.
    Regex,
    /// A phrase, written out.
    Phrase,
    /// Texts read from their end.
    Backwards,
    /// Letters moved half way round the alphabet.
    Rot13,
}

impl Turn {
    /// Whether it is another expression than its author wrote.
    pub(super) fn is_turned(self) -> bool {
        matches!(self, Self::Backwards | Self::Rot13)
    }
}

/// An expression, how it is turned, and whether it must be able to follow a stream.
pub(super) type Key = (Arc<str>, Turn, bool);

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Engine {
    key: Key,
    source: String,
    /// Phrases are many, and most never meet a text that calls for them: they are built when one does.
    automaton: OnceLock<Option<Automaton>>,
    pub(super) bytes_max: usize,
    /// Where it can match at all.
    pub(super) seed: Seed,
    /// What a match may begin with.
    pub(super) first: First,
    /// Tells the group that is what is found, where there is one.
    pub(super) groups: Option<Regex>,
}

/// An automaton that knows all matches from one byte on, however its alternatives are ordered.
struct Automaton {
    dfa: DFA,
    caches: Pool<Cache, Box<dyn Fn() -> Cache + Send + Sync>>,
}

impl std::fmt::Debug for Automaton {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Automaton")
    }
}

/// Expressions in use anywhere in this process: tenants and catalogs share them.
static IN_USE: LazyLock<Mutex<HashMap<Key, Weak<Engine>>>> = LazyLock::new(Mutex::default);

/// Turned expressions that are not looked for: to find that out costs as much as to compile them.
static IN_VAIN: LazyLock<Mutex<HashSet<Key>>> = LazyLock::new(Mutex::default);
/// More of them are found out again.
const IN_VAIN_MAX: usize = 50_000;

/// Compiled expressions, each once.
#[derive(Debug, Default)]
pub(super) struct Engines(HashMap<Key, Result<Arc<Engine>, String>>);

impl Engines {
    /// Compiles what is not in use yet, on all processors: thousands of expressions take seconds on one.
    pub(super) fn compile(wanted: impl Iterator<Item = Key>) -> Self {
        let mut all = Self::default();
        let mut new: Vec<Key> = wanted.collect();
        new.sort();
        new.dedup();
        let in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        new.retain(|key| match in_use.get(key).and_then(Weak::upgrade) {
            Some(engine) => all.0.insert(key.clone(), Ok(engine)).is_some(),
            None => true,
        });
        drop(in_use);
        let in_vain = IN_VAIN.lock().unwrap_or_else(PoisonError::into_inner);
        new.retain(|key| !in_vain.contains(key));
        drop(in_vain);
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
        let mut in_vain = IN_VAIN.lock().unwrap_or_else(PoisonError::into_inner);
        if in_vain.len() > IN_VAIN_MAX {
            in_vain.clear();
        }
        let turned = new.iter().filter(|key| key.1.is_turned());
        in_vain.extend(turned.filter(|key| !all.0.get(key).is_some_and(Result::is_ok)).cloned());
        drop(in_vain);
        let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        in_use.retain(|_, engine| engine.strong_count() > 0);
        for key in new {
            if let Some(Ok(engine)) = all.0.get(&key) {
                in_use.insert(key, Arc::downgrade(engine));
            }
        }
        drop(in_use);
        all
    }

    pub(super) fn get(&self, key: &Key) -> Result<Arc<Engine>, String> {
        let missing = || Err("the expression could not be compiled".to_owned());
        self.0.get(key).cloned().unwrap_or_else(missing)
    }
}

impl Engine {
    fn compile(key: &Key) -> Result<Self, String> {
        let (expression, turn, _) = key;
        let is_phrase = *turn != Turn::Regex;
        let hir = parse(expression, is_phrase)?;
        let hir = match turn {
            Turn::Regex | Turn::Phrase => hir,
            Turn::Backwards => phrase::reversed(&hir),
            Turn::Rot13 => phrase::rotated(&hir),
        };
        let bytes_max = check(&hir, is_phrase)?;
        let source = match turn {
            Turn::Regex | Turn::Phrase => expression.to_string(),
            Turn::Backwards | Turn::Rot13 => hir.to_string(),
        };
        let automaton = OnceLock::new();
        if !is_phrase {
            drop(automaton.set(Some(Automaton::build(&source)?)));
        }
        let has_group = hir.properties().explicit_captures_len() > 0;
        let groups = has_group.then(|| build(&source)).transpose()?;
        let seed = Seed::of(&hir);
        if turn.is_turned() && !is_called_by_long_words(&seed) {
            return Err("turned short words stand in other words".to_owned());
        }
        let first = First::of(&hir);
        let key = key.clone();
        Ok(Self { key, source, automaton, bytes_max, seed, first, groups })
    }

    /// Why it could not be built, which else shows when a text calls for it.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.key.1 {
            Turn::Regex | Turn::Phrase => Automaton::build(&self.source).map(drop),
            Turn::Backwards | Turn::Rot13 => Ok(()),
        }
    }

    /// Whether it must be able to follow a stream.
    pub(super) fn streams(&self) -> bool {
        self.key.2
    }
}

/// Whether all literals that call for it are words that stand in no other.
fn is_called_by_long_words(seed: &Seed) -> bool {
    let Seed::Literals(anchors) = seed else { return false };
    let mut literals = anchors.iter().flat_map(|one| &one.literals);
    literals.all(|literal| literal.text.len() >= TURNED_WORD_MIN)
}

fn parse(expression: &str, is_phrase: bool) -> Result<Hir, String> {
    let bytes_max = if is_phrase { PHRASE_BYTES_MAX } else { EXPRESSION_BYTES_MAX };
    if expression.len() > bytes_max {
        return Err(format!("the expression is longer than {bytes_max} bytes"));
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
        .map_err(|_too_large| too_large())
}

fn too_large() -> String {
    format!("the expression needs more than {REGEX_BYTES_MAX} bytes")
}

/// An expression that must match all of a text, in any case.
pub(super) fn whole_text(expression: &str) -> Result<Regex, String> {
    parse(expression, false)?;
    build(&format!("(?i)^(?:{expression})$"))
}

impl Engine {
    /// What follows texts byte by byte; `None` if the expression is too large.
    pub(super) fn walker(&self) -> Option<Walker<'_>> {
        let built = self.automaton.get_or_init(|| Automaton::build(&self.source).ok());
        let Automaton { dfa, caches } = built.as_ref()?;
        let mut cache = caches.get();
        let first = first_state(dfa, &mut cache)?;
        Some(Walker { dfa, cache, first })
    }

    /// Whether some continuation of the text is a match that begins at `start`. What cannot be told
    /// counts as yes: holding back is always safe.
    pub(super) fn lives(&self, text: &str, start: usize) -> bool {
        self.walker().is_none_or(|mut one| one.walk(text, start..text.len(), |_end| {}).1)
    }
}

/// Follows all matches of an expression at once.
pub(super) struct Walker<'e> {
    dfa: &'e DFA,
    cache: PoolGuard<'e, Cache, Box<dyn Fn() -> Cache + Send + Sync>>,
    /// Where it begins, and how often the cache had been cleared by then.
    first: (LazyStateID, usize),
}

fn first_state(dfa: &DFA, cache: &mut Cache) -> Option<(LazyStateID, usize)> {
    let state = dfa.start_state(cache, &start::Config::new().anchored(Anchored::Yes)).ok()?;
    Some((state, cache.clear_count()))
}

impl Walker<'_> {
    /// Follows a text from one byte on, telling where matches end; how many bytes were read, and whether a
    /// match could go on behind the last one.
    pub(super) fn walk(
        &mut self,
        text: &str,
        span: Range<usize>,
        mut matched: impl FnMut(usize),
    ) -> (usize, bool) {
        let Range { start, end } = span;
        if self.first.1 != self.cache.clear_count() {
            let Some(first) = first_state(self.dfa, &mut self.cache) else { return (0, true) };
            self.first = first;
        }
        let mut state = self.first.0;
        let bytes = text.as_bytes().get(start..end).unwrap_or_default();
        for (at, byte) in bytes.iter().enumerate() {
            let Ok(next) = self.dfa.next_state(&mut self.cache, state, *byte) else {
                return (at, true);
            };
            state = next;
            if state.is_tagged() {
                // A match is told one byte late.
                if state.is_match() {
                    matched(start + at);
                } else if state.is_dead() {
                    return (at + 1, false);
                }
            }
        }
        if let Ok(last) = self.dfa.next_eoi_state(&mut self.cache, state)
            && last.is_match()
        {
            matched(end);
        }
        (bytes.len(), true)
    }
}

impl Automaton {
    fn build(expression: &str) -> Result<Self, String> {
        let all = DFA::config().match_kind(MatchKind::All).skip_cache_capacity_check(true);
        let bounded = thompson::Config::new().nfa_size_limit(Some(REGEX_BYTES_MAX));
        let built = DFA::builder().configure(all).thompson(bounded).build(expression);
        let dfa = built.map_err(|_too_large| too_large())?;
        let for_caches = dfa.clone();
        let caches: Box<dyn Fn() -> Cache + Send + Sync> =
            Box::new(move || for_caches.create_cache());
        Ok(Self { dfa, caches: Pool::new(caches) })
    }
}

/// The last line of a multi-line regex error holds the reason.
fn one_line(error: &regex_syntax::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
