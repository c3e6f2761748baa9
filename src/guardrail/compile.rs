//! From rules to automata, with a refusal for every rule that could not be kept to its word.

use std::sync::Arc;

use regex_automata::meta::Regex;

use super::clean::Clean;
use super::engine::{Engines, Turn};
use super::gate::Gates;
use super::growth::Beginnings;
use super::json;
use super::literals::{Caller, Literals, Needles};
use super::loose::Vocabulary;
use super::pattern::{CONTEXT_BYTES_MAX, Pattern};
use super::phrase;
use super::rule::{Action, Allow, Direction, Inspects, Mode, PatternConfig, Rule};
use super::scan::{Finding, RuleSet, What};
use super::seeds::Seed;
use super::verify::Context;

/// Bytes of one literal.
const LITERAL_BYTES_MAX: usize = 256;
/// Literals of one tenant.
const LITERALS_MAX: usize = 200_000;
/// Literals and patterns of one guardrail.
const RULE_LITERALS_MAX: usize = 20_000;
const RULE_PATTERNS_MAX: usize = 500;
const RULE_ALLOWS_MAX: usize = 500;
/// Literals of several words in one guardrail that are taken as phrases: their words may stand apart.
const LOOSE_LITERALS_MAX: usize = 200;
/// Of so many in all guardrails, none is looked for in ROT13 and backwards: each would be compiled thrice.
const TURNED_LITERALS_MAX: usize = 1_000;
/// The place of a pattern that is one of the literals.
const LITERALS: &str = "literals";

/// The compiled guardrails of one tenant.
#[derive(Debug)]
pub struct Guardrails {
    rules: Vec<Rule>,
    pub(super) literals: Literals,
    pub(super) patterns: Vec<Pattern>,
    /// By pattern, where it is tried.
    pub(super) gates: Gates,
    /// The patterns that are not called for by a literal.
    pub(super) seeded: Vec<usize>,
    /// What a stream's end could grow into.
    pub(super) beginnings: Beginnings,
    /// Literals of rules in lower case, sorted, with their rules: prefixes are looked up here.
    pub(super) sorted: Vec<(String, usize)>,
    pub(super) literal_bytes_max: usize,
    pub(super) pattern_bytes_max: usize,
    pub(super) vocabulary: Vocabulary,
    /// The rules that bound the length of a text.
    pub(super) bounding: Vec<usize>,
    /// The rules that require JSON.
    pub(super) wanting_json: Vec<usize>,
    /// Whether any rule looks at a share of the calls only.
    pub(super) has_samples: bool,
    allows: Vec<Vec<Allowed>>,
    /// What held nothing when it was looked at.
    pub(super) clean: Clean,
}

/// Something that is never reported.
#[derive(Debug)]
struct Allowed {
    /// As it reads.
    text: Option<String>,
    /// As it is written, and as it reads.
    regexes: Vec<Regex>,
    entity: Option<String>,
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
        let loose: usize = rules.iter().map(|rule| loose_literals(rule).count()).sum();
        let turns_literals = loose <= TURNED_LITERALS_MAX;
        let each = rules.iter().enumerate();
        let wanted: Vec<Wanted> =
            each.flat_map(|(index, rule)| wanted(index, rule, turns_literals)).collect();
        let engines = Engines::compile(wanted.iter().map(Wanted::key));
        let mut needles = Needles::default();
        let (mut sorted, mut gates) = (Vec::new(), Gates::default());
        let mut allows = Vec::with_capacity(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            check_sizes(rule)?;
            allows.push(allowed(rule)?);
            take_literals(&mut needles, &mut sorted, (index, rule))?;
        }
        let mut patterns = Vec::with_capacity(wanted.len());
        for one in wanted {
            let Some(rule) = rules.get(one.rule) else { continue };
            let engine = match engines.get(&one.key()) {
                // What cannot be turned is looked for as it stands, which is what its author asked for.
                Err(_) if one.turn.is_turned() => continue,
                Ok(engine) => engine,
                Err(what) => return Err(refuse(rule, one.place, what)),
            };
            let context = Context::new(&one.config.context);
            let context = context.map_err(|error| refuse(rule, one.place, error.to_string()))?;
            let is_turned = one.turn.is_turned();
            let acts = rule.acts(one.config.action);
            let (rule, config) = (one.rule, one.config);
            if let Seed::Literals(anchors) = &engine.seed {
                let caller = Caller::new((patterns.len(), rule), is_turned, !acts);
                needles.call(caller, anchors, config.whole_word);
            }
            gates.add(&engine.first, config.whole_word);
            patterns.push(Pattern { rule, config, engine, context, is_turned, acts });
        }
        sorted.sort();
        let literal_bytes_max = sorted.iter().map(|(literal, _)| literal.len()).max().unwrap_or(0);
        let seeded = patterns
            .iter()
            .enumerate()
            .filter(|(_, one)| !matches!(one.engine.seed, Seed::Literals(_)))
            .map(|(index, _)| index)
            .collect();
        let configs = || rules.iter().map(|rule| &rule.config).enumerate();
        let bounding = configs().filter(|(_, one)| one.max_bytes.is_some()).map(|(rule, _)| rule);
        Ok(Self {
            bounding: bounding.collect(),
            wanting_json: json::wanting(&rules),
            has_samples: configs().any(|(_, one)| one.sample_percent.is_some()),
            literals: needles.finish().map_err(|what| RuleError {
                rule: "all".to_owned(),
                place: LITERALS.to_owned(),
                what,
            })?,
            gates,
            seeded,
            beginnings: Beginnings::of(&patterns),
            sorted,
            literal_bytes_max,
            pattern_bytes_max: patterns.iter().map(|one| one.engine.bytes_max).max().unwrap_or(0),
            vocabulary: Vocabulary::new(words(&rules)),
            allows,
            clean: Clean::default(),
            patterns,
            rules,
        })
    }

    /// Whether guardrails stay within what all of them together may have.
    pub fn check_together(rules: &[&Rule]) -> Result<(), RuleError> {
        let mut literals = 0;
        for rule in rules {
            literals += rule.config.literals.len();
            if literals > LITERALS_MAX {
                return Err(too_many_literals(rule));
            }
        }
        Ok(())
    }

    /// Builds the expressions that are built when a text first calls for them.
    pub fn warm(&self) {
        for pattern in self.patterns.iter().filter(|one| !one.is_turned) {
            drop(pattern.engine.walker());
        }
    }

    /// Builds every expression, also those that no text has called for yet, or names the first that cannot be.
    pub fn check(&self) -> Result<(), RuleError> {
        for pattern in &self.patterns {
            let place = || format!("the expression of {}", pattern.config.entity);
            let refused = |what| match self.rules.get(pattern.rule) {
                Some(rule) => refuse(rule, place(), what),
                None => RuleError { rule: String::new(), place: place(), what },
            };
            pattern.engine.check().map_err(refused)?;
        }
        Ok(())
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
        let applies = self.rules.iter().map(|rule| {
            rule.looks_at(direction)
                && rule.covers(name, category)
                && (direction == Direction::Response || rule.config.inspects == inspects)
        });
        RuleSet::new(applies.collect(), direction)
    }

    /// What a finding is: the pattern's entity, or the kind of the rule for a literal.
    pub fn entity(&self, finding: &Finding) -> &str {
        let kind = self.rules.get(finding.rule).map_or("", |rule| rule.kind.name());
        match finding.what {
            What::Pattern(index) => {
                self.patterns.get(index).map_or(kind, |pattern| &pattern.config.entity)
            }
            What::Literal => kind,
            What::Length => "length",
            What::Json => "json",
            What::Limit => "work_limit",
        }
    }

    /// What a finding does; `None`: its guardrail is in shadow mode and only counts.
    pub fn action(&self, finding: &Finding) -> Option<Action> {
        let rule = self.rules.get(finding.rule)?;
        (rule.config.mode == Mode::Enforce).then(|| self.would(finding)).flatten()
    }

    /// What a finding does or, in shadow mode, would do.
    pub fn would(&self, finding: &Finding) -> Option<Action> {
        let rule = self.rules.get(finding.rule)?;
        let of_pattern = match finding.what {
            What::Pattern(index) => self.patterns.get(index).and_then(|one| one.config.action),
            What::Limit => rule.config.on_limit,
            What::Literal | What::Length | What::Json => None,
        };
        let action = of_pattern.unwrap_or_else(|| rule.action());
        // What was not looked at, or is too long or no JSON as a whole, has no span to replace.
        Some(if action == Action::Redact && !finding.has_place() { Action::Block } else { action })
    }

    /// The word in records and metrics for what a finding does, or would do.
    pub fn effect(&self, finding: &Finding) -> &'static str {
        let Some(action) = self.would(finding) else { return "warn" };
        match (self.action(finding), action) {
            (Some(_), action) => action.name(),
            (None, Action::Info) => "shadow_info",
            (None, Action::Warn) => "shadow_warn",
            (None, Action::Redact) => "shadow_redact",
            (None, Action::Block) => "shadow_block",
        }
    }

    /// Whether a finding is one that its guardrail never reports.
    pub(super) fn is_allowed(&self, finding: &Finding, matched: &str) -> bool {
        if !finding.has_place() {
            return false;
        }
        let allows = self.allows.get(finding.rule).map(Vec::as_slice).unwrap_or_default();
        allows.iter().any(|one| {
            one.entity.as_ref().is_none_or(|entity| entity == self.entity(finding))
                && (one.text.as_ref().is_some_and(|text| *text == phrase::plain(matched))
                    || one.regexes.iter().any(|regex| regex.is_match(matched)))
        })
    }
}

/// A pattern to be compiled.
struct Wanted {
    rule: usize,
    place: String,
    config: Arc<PatternConfig>,
    expression: Arc<str>,
    turn: Turn,
    streams: bool,
}

impl Wanted {
    fn key(&self) -> (Arc<str>, Turn, bool) {
        (self.expression.clone(), self.turn, self.streams)
    }
}

/// The patterns of a rule: as they stand, its literals of several words, and the phrases turned.
fn wanted(index: usize, rule: &Rule, turns_literals: bool) -> Vec<Wanted> {
    let mut all = Vec::new();
    let streams = rule.looks_at(Direction::Response);
    let mut add = |place: String, config: &Arc<PatternConfig>| {
        let is_phrase = !config.phrase.is_empty();
        let expression: Arc<str> = if is_phrase {
            phrase::expression(&phrase::plain_expression(&config.phrase)).into()
        } else {
            config.regex.as_str().into()
        };
        let turns: &[Turn] = match (
            is_phrase,
            rule.looks_at(Direction::Request) && (place != LITERALS || turns_literals),
        ) {
            (true, true) => &[Turn::Phrase, Turn::Backwards, Turn::Rot13],
            (true, false) => &[Turn::Phrase],
            (false, _) => &[Turn::Regex],
        };
        for turn in turns {
            let (config, expression) = (config.clone(), expression.clone());
            let (place, streams) = (place.clone(), streams && !turn.is_turned());
            all.push(Wanted { rule: index, place, config, expression, turn: *turn, streams });
        }
    };
    for (place, config) in rule.config.patterns.iter().enumerate().filter(|(_, one)| one.is_active)
    {
        add(format!("patterns[{place}]"), &Arc::new(config.clone()));
    }
    let loose: Vec<&str> = loose_literals(rule).collect();
    for literal in loose {
        let phrase = phrase::of_literal(literal);
        let entity = rule.kind.name().to_owned();
        let config = PatternConfig { entity, phrase, ..PatternConfig::default() };
        add(LITERALS.to_owned(), &Arc::new(config));
    }
    all
}

/// The literals of several words, if they are few enough to be phrases.
fn loose_literals(rule: &Rule) -> impl Iterator<Item = &str> {
    let is_loose = |literal: &&String| literal.split_whitespace().count() > 1;
    let count = rule.config.literals.iter().filter(is_loose).count();
    let all =
        rule.config.literals.iter().filter(move |one| is_loose(one) && count <= LOOSE_LITERALS_MAX);
    all.map(String::as_str)
}

/// Checks the literals of a rule and adds those that are no phrases.
fn take_literals(
    needles: &mut Needles,
    sorted: &mut Vec<(String, usize)>,
    (index, rule): (usize, &Rule),
) -> Result<(), RuleError> {
    let are_loose = loose_literals(rule).next().is_some();
    for (place, literal) in rule.config.literals.iter().enumerate() {
        let checked = checked_literal(literal)
            .map_err(|what| refuse(rule, format!("literals[{place}]"), what))?;
        if are_loose && literal.split_whitespace().count() > 1 {
            continue;
        }
        needles.literal(checked.clone(), index);
        sorted.push((checked, index));
    }
    if sorted.len() > LITERALS_MAX {
        return Err(too_many_literals(rule));
    }
    Ok(())
}

fn check_sizes(rule: &Rule) -> Result<(), RuleError> {
    let config = &rule.config;
    for (place, list, max) in [
        ("literals", config.literals.len(), RULE_LITERALS_MAX),
        ("patterns", config.patterns.len(), RULE_PATTERNS_MAX),
        ("allow", config.allow.len(), RULE_ALLOWS_MAX),
    ] {
        if list > max {
            let what = format!("{list} of them; {max} are allowed in one guardrail");
            return Err(refuse(rule, place.to_owned(), what));
        }
    }
    let bounds = config.max_bytes.is_some() || config.requires_json;
    if config.literals.is_empty() && config.patterns.is_empty() && !bounds {
        let what = "nothing to look for; give literals, patterns, max_bytes or requires_json";
        return Err(refuse(rule, "rule_config".to_owned(), what.to_owned()));
    }
    json::check(rule).map_err(|what| refuse(rule, "requires_json".to_owned(), what))?;
    let sampled = config.sample_percent.unwrap_or(100.0);
    if !(0.0..=100.0).contains(&sampled) {
        let what = "must be from 0 to 100".to_owned();
        return Err(refuse(rule, "sample_percent".to_owned(), what));
    }
    if config.redact.reversible && config.redact.form != super::rule::RedactForm::Placeholder {
        let what = "only a placeholder can be taken back: write with = \"placeholder\"".to_owned();
        return Err(refuse(rule, "redact.reversible".to_owned(), what));
    }
    for (place, pattern) in config.patterns.iter().enumerate() {
        let refuse = |what: &str| Err(refuse(rule, format!("patterns[{place}]"), what.to_owned()));
        if pattern.regex.is_empty() == pattern.phrase.is_empty() {
            return refuse("give regex or phrase, and not both");
        }
        if pattern.context_bytes > CONTEXT_BYTES_MAX {
            return refuse(&format!("context_bytes: at most {CONTEXT_BYTES_MAX}"));
        }
        if pattern.context.iter().any(|word| word.trim().is_empty()) {
            return refuse("context: an empty word stands everywhere");
        }
    }
    Ok(())
}

fn allowed(rule: &Rule) -> Result<Vec<Allowed>, RuleError> {
    let read = |(place, one): (usize, &Allow)| {
        let refuse = |what: String| refuse(rule, format!("allow[{place}]"), what);
        if one.text.is_some() == one.regex.is_some() {
            return Err(refuse("give text or regex, and not both".to_owned()));
        }
        if one.reason.trim().is_empty() {
            return Err(refuse("reason: say why this is never reported".to_owned()));
        }
        let written = one.regex.as_ref().map(|regex| super::engine::whole_text(regex)).transpose();
        let read = one.regex.as_ref().map(|regex| phrase::plain_expression(regex));
        let read = read.filter(|read| Some(read) != one.regex.as_ref());
        let read = read.and_then(|read| super::engine::whole_text(&read).ok());
        let regexes = written.map_err(refuse)?.into_iter().chain(read).collect();
        let text = one.text.as_ref().map(|text| phrase::plain(text));
        Ok(Allowed { text, regexes, entity: one.entity.clone() })
    };
    rule.config.allow.iter().enumerate().map(read).collect()
}

/// Words that lose letters or wear digits and are still read: those of phrases and literals.
fn words(rules: &[Rule]) -> impl Iterator<Item = String> {
    rules.iter().filter(|rule| rule.looks_at(Direction::Request)).flat_map(|rule| {
        let phrases = rule.config.patterns.iter().map(|one| &one.phrase);
        let texts = phrases.chain(&rule.config.literals);
        texts.flat_map(|text| phrase::words(text).collect::<Vec<_>>())
    })
}

fn checked_literal(literal: &str) -> Result<String, String> {
    if literal.trim().is_empty() {
        return Err("an empty literal matches everything".to_owned());
    }
    if literal.len() > LITERAL_BYTES_MAX {
        return Err(format!("longer than {LITERAL_BYTES_MAX} bytes"));
    }
    Ok(phrase::plain(literal))
}

fn too_many_literals(rule: &Rule) -> RuleError {
    let what = format!("more than {LITERALS_MAX} literals in all guardrails");
    refuse(rule, "literals".to_owned(), what)
}

fn refuse(rule: &Rule, place: String, what: String) -> RuleError {
    RuleError { rule: rule.name.clone(), place, what }
}
