//! What a guardrail must pass before it is let in: it compiles, also together with the others; it is
//! cheap on the worst text there is for it; what it is limited to exists.

use std::time::Duration;

use axum::http::StatusCode;

use super::Admin;
use super::names::Check;
use super::problem::Problem;
use crate::catalog::definitions::GuardrailDefinition;
use crate::guardrail::{Direction, Guardrails, Inspects, Rule, RuleError, RuleSet};
use crate::store::{RowQuery, Table};
use crate::words::clock;

/// Names that a guardrail may be limited to.
const SCOPE_MAX: usize = 100;
/// Bytes of the text that a guardrail is tried on.
const PROBE_BYTES: usize = 32 * 1024;
/// How many times slower than a plain expression a guardrail may be on its worst text. A ratio, because
/// it is the same on every machine.
const SLOWNESS_MAX: f64 = 250.0;
/// What it is compared with.
const PLAIN: &str = "[0-9]{3}[a-z]{2}";
const TRIES: usize = 3;

/// Everyday texts: a blocking guardrail that finds something in most of them finds it in everything.
const HARMLESS: [&str; 8] = [
    "Please summarise the attached meeting notes in three bullet points.",
    "What is the capital of France, and how many people live there?",
    "Write a short birthday greeting for a colleague who likes gardening.",
    "def add(a, b):\n    return a + b",
    "Explain photosynthesis to a ten-year-old.",
    "The train leaves at 10:35 from platform 4.",
    "Translate to German: The weather is lovely today.",
    "List five healthy breakfast ideas with their calories.",
];

/// Refuses a guardrail that does not keep what it promises, and says what to write instead.
pub(super) async fn admit(admin: &Admin, definition: &GuardrailDefinition) -> Result<(), Problem> {
    scope(admin, definition).await?;
    let rule = Rule::from(definition);
    let catalog = admin.refresher.current().load();
    let others = catalog.tenant(&definition.tenant_id).filter(|_| definition.is_active).cloned();
    // Off the threads that serve calls: compiling thousands of expressions takes its time.
    let trying = tokio::task::spawn_blocking(move || {
        let alone = Guardrails::compile(vec![rule.clone()]).map_err(refused)?;
        alone.check().map_err(refused)?;
        if let Some(others) = others {
            with_the_others(&others.guardrails, &rule)?;
        }
        Ok::<f64, Problem>(slowness(&alone))
    });
    let slowness = trying.await.map_err(|_panicked| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the guardrail could not be tried")
    })??;
    if slowness > SLOWNESS_MAX {
        return Err(Problem::unprocessable(format!(
            "rule_config: on its worst text it is {slowness:.0} times as slow as a plain expression, \
             {SLOWNESS_MAX} times is allowed; write shorter repetitions, or words that every match holds"
        )));
    }
    Ok(())
}

pub(super) fn refused(RuleError { place, what, .. }: RuleError) -> Problem {
    let inside = if place == "rule_config" { place } else { format!("rule_config.{place}") };
    Problem::unprocessable(format!("{inside}: {what}"))
}

/// What all guardrails together may not exceed.
fn with_the_others(known: &Guardrails, rule: &Rule) -> Result<(), Problem> {
    let others = known.rules().iter().filter(|one| one.id != rule.id);
    let all: Vec<&Rule> = others.chain([rule]).collect();
    Guardrails::check_together(&all).map_err(refused)
}

/// Templates and categories it is limited to must exist: a misspelt one would look at nothing.
async fn scope(admin: &Admin, definition: &GuardrailDefinition) -> Result<(), Problem> {
    let tenant = &definition.tenant_id;
    let mut check = Check::default();
    for (field, names) in [
        ("applies_to_templates", &definition.applies_to_templates),
        ("applies_to_categories", &definition.applies_to_categories),
    ] {
        if names.len() > SCOPE_MAX {
            check.refuse(field, format!("at most {SCOPE_MAX} names"));
            continue;
        }
        for (index, name) in names.iter().enumerate() {
            let mut query = RowQuery::of(Table::Templates, tenant);
            let by_name = field == "applies_to_templates";
            *(if by_name { &mut query.name } else { &mut query.group }) = Some(name.clone());
            if admin.store.rows(&query).await?.is_empty() {
                let what = if by_name { "template" } else { "template of category" };
                let detail = format!("tenant {tenant} has no {what} {name:?}");
                check.refuse(&format!("{field}[{index}]"), detail);
            }
        }
    }
    check.done()
}

/// What its author should look at.
pub(super) fn warnings(definition: &GuardrailDefinition) -> Vec<String> {
    let Ok(alone) = Guardrails::compile(vec![Rule::from(definition)]) else {
        return vec!["it does not compile, so it cannot be activated".to_owned()];
    };
    let rules = every_rule(&alone);
    let hits = HARMLESS.iter().filter(|text| !alone.scan(text, &rules).is_empty()).count();
    if hits * 2 < HARMLESS.len() {
        return Vec::new();
    }
    let all = HARMLESS.len();
    vec![format!("it finds something in {hits} of {all} harmless texts: is it meant to?")]
}

fn every_rule(guardrails: &Guardrails) -> RuleSet {
    RuleSet::new(vec![true; guardrails.rules().len()], Direction::Request)
}

/// How many times slower than a plain expression these are on the worst of some texts.
fn slowness(guardrails: &Guardrails) -> f64 {
    let plain = Guardrails::compile(vec![plain()]);
    let Ok(plain) = plain else { return 0.0 };
    guardrails
        .worst_texts(PROBE_BYTES)
        .iter()
        .map(|text| {
            time(guardrails, text).as_secs_f64() / time(&plain, text).as_secs_f64().max(1e-9)
        })
        .fold(0.0, f64::max)
}

/// The best of some tries: noise only adds.
fn time(guardrails: &Guardrails, text: &str) -> Duration {
    let rules = every_rule(guardrails);
    let once = || {
        let start = clock::monotonic();
        let found = guardrails.scan(text, &rules).len();
        std::hint::black_box(found);
        start.elapsed()
    };
    (0..TRIES).map(|_| once()).min().unwrap_or_default()
}

fn plain() -> Rule {
    use crate::guardrail::{Kind, PatternConfig, RuleConfig, Severity};
    let pattern = PatternConfig {
        entity: "plain".to_owned(),
        regex: PLAIN.to_owned(),
        whole_word: false,
        ..PatternConfig::default()
    };
    Rule {
        id: crate::words::ids::GuardrailId::new(),
        name: "plain".to_owned(),
        kind: Kind::Custom,
        severity: Severity::Info,
        blocking: false,
        config: RuleConfig {
            applies_to: vec![Direction::Request],
            inspects: Inspects::Untrusted,
            patterns: vec![pattern],
            ..RuleConfig::default()
        },
        templates: Vec::new(),
        categories: Vec::new(),
    }
}
