//! One expression, compiled: checked at the door, kept from one catalog to the next.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};

use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::meta::{self, Regex};
use regex_automata::util::pool::Pool;
use regex_automata::{Anchored, Input, MatchKind};
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
    regex: OnceLock<Option<Regex>>,
    pub(super) bytes_max: usize,
    /// Where it can match at all.
    pub(super) seed: Seed,
    /// Literals, one of which every match begins with, where there are such.
    pub(super) beginnings: Option<Vec<String>>,
    /// Whether a group of it is what is found.
    pub(super) has_group: bool,
    /// Follows all ways to match at once.
    automaton: OnceLock<Option<Automaton>>,
    /// For rules that look at answers, which may be streams: whether a match may begin with a byte.
    pub(super) first: Option<Vec<bool>>,
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
        let in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        new.retain(|key| match in_use.get(key).and_then(Weak::upgrade) {
            Some(engine) => all.0.insert(key.clone(), Ok(engine)).is_some(),
            None => true,
        });
        drop(in_use);
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
        let (expression, turn, streams) = key;
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
        let regex = OnceLock::new();
        if !is_phrase {
            drop(regex.set(Some(build(&source)?)));
        }
        let first = streams.then(|| {
            let mut first = vec![false; 256];
            first_bytes(&hir, &mut first);
            first
        });
        let has_group = hir.properties().explicit_captures_len() > 0;
        let seed = Seed::of(&hir);
        let beginnings = anchors::beginnings(&hir).filter(|_| seed.is_literal());
        let key = key.clone();
        let automaton = OnceLock::new();
        Ok(Self { key, source, regex, bytes_max, seed, beginnings, has_group, automaton, first })
    }

    /// Why it could not be built, which else shows when a text calls for it.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.key.1 {
            Turn::Regex | Turn::Phrase => build(&self.source).map(drop),
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
        .map_err(|_too_large| format!("the expression needs more than {REGEX_BYTES_MAX} bytes"))
}

/// An expression that must match all of a text, in any case.
pub(super) fn whole_text(expression: &str) -> Result<Regex, String> {
    parse(expression, false)?;
    build(&format!("(?i)^(?:{expression})$"))
}

impl Engine {
    /// Whether some continuation of the text is a match that begins at `start`. What cannot be told
    /// counts as yes: holding back is always safe.
    pub(super) fn lives(&self, text: &str, start: usize) -> bool {
        self.walk(text, start..text.len(), |_end| {}).unwrap_or(true)
    }

    /// Where matches that begin at `start` end, the longest first; `None` if it cannot be told.
    pub(super) fn ends(&self, text: &str, start: usize) -> Option<Vec<usize>> {
        let mut ends = Vec::new();
        let end = text.floor_char_boundary(start.saturating_add(self.bytes_max + 1));
        self.walk(text, start..end, |end| ends.push(end))?;
        ends.reverse();
        Some(ends)
    }

    /// Follows a text from one byte on, telling where matches end; whether it could go on. `None`: what is
    /// too large cannot be followed.
    fn walk(&self, text: &str, span: Range<usize>, mut matched: impl FnMut(usize)) -> Option<bool> {
        let Automaton { dfa, caches } = self.automaton()?;
        let mut cache = caches.get();
        let input = Input::new(text).range(span.clone()).anchored(Anchored::Yes);
        let mut state = dfa.start_state_forward(&mut cache, &input).ok()?;
        let bytes = text.as_bytes().get(span.clone()).unwrap_or_default();
        for (at, byte) in (span.start..).zip(bytes) {
            state = dfa.next_state(&mut cache, state, *byte).ok()?;
            // A match is told one byte late.
            if state.is_match() {
                matched(at);
            } else if state.is_dead() {
                return Some(false);
            } else if state.is_quit() {
                return None;
            }
        }
        let last = dfa.next_eoi_state(&mut cache, state).ok()?;
        if last.is_match() {
            matched(span.end);
        }
        Some(true)
    }

    fn automaton(&self) -> Option<&Automaton> {
        let build = || {
            let all = DFA::config().match_kind(MatchKind::All);
            let dfa = DFA::builder().configure(all).build(&self.source).ok()?;
            let for_caches = dfa.clone();
            let caches: Box<dyn Fn() -> Cache + Send + Sync> =
                Box::new(move || for_caches.create_cache());
            Some(Automaton { dfa, caches: Pool::new(caches) })
        };
        self.automaton.get_or_init(build).as_ref()
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
