//! `chaperone scan`: the guardrails on text from standard input.

use std::io::{BufRead, Read};
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use super::arguments::Direction as Asked;
use super::{say, settings};
use crate::app;
use crate::guardrail::{Direction, Guardrails, Inspects, RuleSet};
use crate::words::ids::Tenant;

/// Scans one text, or one text a line.
pub fn scan(file: Option<&Path>, jsonl: bool, asked: Asked) -> anyhow::Result<()> {
    let settings = settings(file)?;
    let catalog = app::file_catalog(&settings)?;
    let tenant = catalog.tenant(&Tenant::default()).context("the default tenant")?;
    let guardrails = &tenant.guardrails;
    let direction = match asked {
        Asked::Request => Direction::Request,
        Asked::Response => Direction::Response,
    };
    let rules = guardrails.select(direction, Inspects::Untrusted, None).union(&guardrails.select(
        direction,
        Inspects::Rendered,
        None,
    ));
    let input = std::io::stdin();
    if !jsonl {
        let mut text = String::new();
        input.lock().read_to_string(&mut text).context("standard input")?;
        say(report(guardrails, &rules, text.trim_end_matches('\n')));
        return Ok(());
    }
    for (index, line) in input.lock().lines().enumerate() {
        let line = line.context("standard input")?;
        if line.trim().is_empty() {
            continue;
        }
        let number = index + 1;
        let object: Value =
            serde_json::from_str(&line).with_context(|| format!("line {number} is not JSON"))?;
        let text = object.get("text").and_then(Value::as_str);
        let text = text.with_context(|| format!("line {number} has no \"text\""))?;
        say(report(guardrails, &rules, text));
    }
    Ok(())
}

fn report(guardrails: &Guardrails, rules: &RuleSet, text: &str) -> Value {
    let findings = guardrails.scan(text, rules);
    let violations: Vec<Value> = findings
        .iter()
        .filter_map(|finding| {
            let rule = guardrails.rules().get(finding.rule)?;
            Some(json!({
                "guardrail": rule.name,
                "type": rule.kind,
                "entity": guardrails.entity(finding),
                "start": finding.start,
                "end": finding.end,
            }))
        })
        .collect();
    json!({"verdict": guardrails.judge(&findings), "violations": violations})
}
