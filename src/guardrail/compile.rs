//! From rules to automata, with a refusal for every rule that could not be kept to its word.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex::Regex;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::util::pool::Pool;

use super::anchors;
use super::rule::{Direction, Inspects, PatternConfig, Rule};
use super::scan::{Finding, RuleSet};

/// Bytes of one literal.
const LITERAL_BYTES_MAX: usize = 256;
/// Literals of one tenant.
const LITERALS_MAX: usize = 200_000;
/// Literals and patterns of one guardrail.
const RULE_LITERALS_MAX: usize = 20_000;
const RULE_PATTERNS_MAX: usize = 500;
/// Bytes of one regular expression as it is written.
const EXPRESSION_BYTES_MAX: usize = 4096;
/// Bytes one regular expression may match: the most a stream may have to hold back.
const MATCH_BYTES_MAX: usize = 1024;
/// Fewer are not worth a thread.
const EXPRESSIONS_A_THREAD: usize = 32;
/// Memory of one compiled expression.
const REGEX_BYTES_MAX: usize = 1 << 20;
/// Above this many bytes of literals the automaton trades speed for memory.
const DFA_LITERAL_BYTES_MAX: usize = 200_000;

/// The compiled guardrails of one tenant.
#[derive(Debug)]
pub struct Guardrails {
    rules: Vec<Rule>,
    pub(super) literals: Option<AhoCorasick>,
    /// What each literal of the automaton is for.
    pub(super) uses: Vec<Vec<Use>>,
    pub(super) patterns: Vec<Pattern>,
    /// The patterns without anchors.
    pub(super) unanchored: Vec<usize>,
    /// Literals of rules in lower case, sorted, with their rules: prefixes are looked up here.
    pub(super) sorted: Vec<(String, usize)>,
    pub(super) literal_bytes_max: usize,
}

/// Why a literal is in the automaton.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It is a literal of this rule.
    Literal(usize),
    /// It calls for this pattern.
    Anchor(usize),
}

/// One pattern of a rule.
pub(super) struct Pattern {
    pub(super) rule: usize,
    pub(super) config: PatternConfig,
    pub(super) engine: Arc<Engine>,
}

/// A compiled regular expression, kept from one catalog to the next.
pub(super) struct Engine {
    pub(super) regex: Regex,
    pub(super) bytes_max: usize,
    /// Literals of which each match holds one: it runs only around them. Empty: it runs everywhere.
    pub(super) anchors: Vec<String>,
    /// For rules that look at answers, which may be streams.
    pub(super) growing: Option<Growing>,
}

/// Tells whether a tail of a stream could still become a match.
pub(super) struct Growing {
    pub(super) dfa: DFA,
    pub(super) caches: Pool<Cache, Box<dyn Fn() -> Cache + Send + Sync>>,
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pattern")
            .field("rule", &self.rule)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Why a rule is refused: which one, which pattern, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("guardrail {rule:?}, {place}: {what}")]
pub struct RuleError {
    /// The guardrail's name.
    pub rule: String,
    /// Where in its `rule_config`.
    pub place: String,
    /// What is wrong and what is allowed.
    pub what: String,
}

impl Guardrails {
    /// Compiles all rules of a tenant, or names the first that cannot be kept.
    pub fn compile(rules: Vec<Rule>) -> Result<Self, RuleError> {
        Self::recompile(rules, None)
    }

    /// The same, taking the expressions over that `previous` has compiled already.
    pub fn recompile(rules: Vec<Rule>, previous: Option<&Self>) -> Result<Self, RuleError> {
        let known = previous.map(Self::engines).unwrap_or_default();
        let fresh = Engine::compile_all(&rules, &known);
        let mut needles: BTreeMap<String, Vec<Use>> = BTreeMap::new();
        let mut sorted = Vec::new();
        let mut patterns = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            for (place, literal) in rule.config.literals.iter().enumerate() {
                let literal = checked_literal(literal)
                    .map_err(|what| refuse(rule, format!("literals[{place}]"), what))?;
                needles.entry(literal.clone()).or_default().push(Use::Literal(index));
                sorted.push((literal, index));
            }
            for (place, config) in rule.config.patterns.iter().enumerate() {
                let streams = rule.looks_at(Direction::Response);
                let key = (config.regex.as_str(), streams);
                let engine = match (known.get(&key), fresh.get(&key)) {
                    (Some(engine), _) => (*engine).clone(),
                    (None, Some(Ok(engine))) => engine.clone(),
                    (None, Some(Err(what))) => {
                        return Err(refuse(rule, format!("patterns[{place}]"), what.clone()));
                    }
                    (None, None) => {
                        let what = "the expression could not be compiled".to_owned();
                        return Err(refuse(rule, format!("patterns[{place}]"), what));
                    }
                };
                for anchor in &engine.anchors {
                    needles.entry(anchor.clone()).or_default().push(Use::Anchor(patterns.len()));
                }
                patterns.push(Pattern { rule: index, config: config.clone(), engine });
            }
            for (place, list, max) in [
                ("literals", rule.config.literals.len(), RULE_LITERALS_MAX),
                ("patterns", rule.config.patterns.len(), RULE_PATTERNS_MAX),
            ] {
                if list > max {
                    let what = format!("{list} of them; {max} are allowed in one guardrail");
                    return Err(refuse(rule, place.to_owned(), what));
                }
            }
            if rule.config.literals.is_empty() && rule.config.patterns.is_empty() {
                let what = "nothing to look for; give literals or patterns".to_owned();
                return Err(refuse(rule, "rule_config".to_owned(), what));
            }
            if sorted.len() > LITERALS_MAX {
                let what = format!("more than {LITERALS_MAX} literals in all guardrails");
                return Err(refuse(rule, "literals".to_owned(), what));
            }
        }
        sorted.sort();
        let literal_bytes_max = sorted.iter().map(|(literal, _)| literal.len()).max().unwrap_or(0);
        let (texts, uses): (Vec<_>, Vec<_>) = needles.into_iter().unzip();
        let literals = automaton(&texts)?;
        let is_unanchored = |pattern: &Pattern| pattern.engine.anchors.is_empty();
        let numbered = patterns.iter().enumerate();
        let unanchored =
            numbered.filter(|(_, one)| is_unanchored(one)).map(|(index, _)| index).collect();
        Ok(Self { rules, literals, uses, patterns, unanchored, sorted, literal_bytes_max })
    }

    /// The compiled expressions, by their text and whether they can follow a stream.
    fn engines(&self) -> HashMap<(&str, bool), &Arc<Engine>> {
        self.patterns
            .iter()
            .map(|one| ((one.config.regex.as_str(), one.engine.growing.is_some()), &one.engine))
            .collect()
    }

    /// The rules, in the order findings name them.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rules that look at texts of this kind going this way, for calls of this template.
    pub fn select(
        &self,
        direction: Direction,
        inspects: Inspects,
        template: Option<(&str, Option<&str>)>,
    ) -> RuleSet {
        let (name, category) =
            template.map_or((None, None), |(name, category)| (Some(name), category));
        self.rules
            .iter()
            .map(|rule| {
                rule.looks_at(direction)
                    && rule.covers(name, category)
                    && (direction == Direction::Response || rule.config.inspects == inspects)
            })
            .collect()
    }

    /// What a finding is: the pattern's entity, or the kind of the rule for a literal.
    pub fn entity(&self, finding: &Finding) -> &str {
        match finding.pattern.and_then(|pattern| self.patterns.get(pattern)) {
            Some(pattern) => &pattern.config.entity,
            None => self.rules.get(finding.rule).map_or("", |rule| rule.kind.name()),
        }
    }
}

/// An expression, and whether it must be able to follow a stream.
type Expression<'r> = (&'r str, bool);

impl Engine {
    /// Compiles the expressions of these rules that are not known yet, on all processors: thousands of
    /// them take seconds on one.
    fn compile_all<'r>(
        rules: &'r [Rule],
        known: &HashMap<(&str, bool), &Arc<Self>>,
    ) -> HashMap<Expression<'r>, Result<Arc<Self>, String>> {
        let new: BTreeSet<Expression<'r>> = rules
            .iter()
            .flat_map(|rule| rule.config.patterns.iter().map(move |one| (one, rule)))
            .map(|(one, rule)| (one.regex.as_str(), rule.looks_at(Direction::Response)))
            .filter(|key| !known.contains_key(key))
            .collect();
        let new: Vec<Expression<'r>> = new.into_iter().collect();
        let compile = |(one, streams): &Expression<'r>| {
            ((*one, *streams), Self::compile(one, *streams).map(Arc::new))
        };
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let share = new.len().div_ceil(workers).max(EXPRESSIONS_A_THREAD);
        std::thread::scope(|scope| {
            let threads: Vec<_> = new
                .chunks(share)
                .map(|some| scope.spawn(move || some.iter().map(compile).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect()
        })
    }

    fn compile(expression: &str, streams: bool) -> Result<Self, String> {
        if expression.len() > EXPRESSION_BYTES_MAX {
            return Err(format!("the expression is longer than {EXPRESSION_BYTES_MAX} bytes"));
        }
        let hir = regex_syntax::parse(expression)
            .map_err(|error| format!("the expression does not parse: {}", one_line(&error)))?;
        let properties = hir.properties();
        if properties.minimum_len().unwrap_or(0) == 0 {
            return Err("the expression matches the empty text".to_owned());
        }
        if !properties.look_set().is_empty() {
            return Err("anchors and word boundaries (^, $, \\b) are not supported; \
                        whole_word = true checks the edges"
                .to_owned());
        }
        let bytes_max = properties
            .maximum_len()
            .filter(|bytes| *bytes <= MATCH_BYTES_MAX)
            .ok_or_else(|| {
                format!(
                    "the expression can match more than {MATCH_BYTES_MAX} bytes; \
                         write {{1,40}} instead of + or *"
                )
            })?;
        let regex =
            regex::RegexBuilder::new(expression).size_limit(REGEX_BYTES_MAX).build().map_err(
                |_too_large| format!("the expression needs more than {REGEX_BYTES_MAX} bytes"),
            )?;
        let growing = streams.then(|| Growing::compile(expression)).transpose()?;
        let anchors = anchors::required(&hir).unwrap_or_default();
        Ok(Self { regex, bytes_max, anchors, growing })
    }
}

impl Growing {
    fn compile(regex: &str) -> Result<Self, String> {
        let dfa = DFA::builder()
            .build(regex)
            .map_err(|_too_large| "the expression is too large for streams".to_owned())?;
        let for_caches = dfa.clone();
        let caches: Box<dyn Fn() -> Cache + Send + Sync> =
            Box::new(move || for_caches.create_cache());
        Ok(Self { dfa, caches: Pool::new(caches) })
    }
}

fn checked_literal(literal: &str) -> Result<String, String> {
    if literal.trim().is_empty() {
        return Err("an empty literal matches everything".to_owned());
    }
    if literal.len() > LITERAL_BYTES_MAX {
        return Err(format!("longer than {LITERAL_BYTES_MAX} bytes"));
    }
    Ok(literal.to_ascii_lowercase())
}

fn automaton(texts: &[String]) -> Result<Option<AhoCorasick>, RuleError> {
    if texts.is_empty() {
        return Ok(None);
    }
    let bytes: usize = texts.iter().map(String::len).sum();
    let kind = if bytes <= DFA_LITERAL_BYTES_MAX {
        AhoCorasickKind::DFA
    } else {
        AhoCorasickKind::ContiguousNFA
    };
    AhoCorasick::builder()
        // All matches of all rules: one guardrail must not hide another's.
        .match_kind(MatchKind::Standard)
        .ascii_case_insensitive(true)
        .kind(Some(kind))
        .build(texts)
        .map(Some)
        .map_err(|error| RuleError {
            rule: "all".to_owned(),
            place: "literals".to_owned(),
            what: error.to_string(),
        })
}

fn refuse(rule: &Rule, place: String, what: String) -> RuleError {
    RuleError { rule: rule.name.clone(), place, what }
}

/// The last line of a multi-line regex error holds the reason.
fn one_line(error: &regex_syntax::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
