//! `chaperone scan`: the guardrails on text from standard input.

use std::io::{BufRead, IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use serde_json::{Value, json};

use super::arguments::Direction as Asked;
use super::{say, settings};
use crate::app;
use crate::config::Settings;
use crate::guardrail::{Direction, Finding, Guardrails, Inspects, RuleSet, Verdict};
use crate::words::ids::Tenant;

/// The guardrails of the configuration directory on texts going one way.
pub(super) struct Inspector {
    guardrails: Arc<Guardrails>,
    rules: RuleSet,
}

impl Inspector {
    pub(super) fn new(settings: &Settings, asked: Asked) -> anyhow::Result<Self> {
        let catalog = app::file_catalog(settings)?;
        let tenant = catalog.tenant(&Tenant::default()).context("the default tenant")?;
        let guardrails = tenant.guardrails.clone();
        let direction = match asked {
            Asked::Request => Direction::Request,
            Asked::Response => Direction::Response,
        };
        let select = |inspects| guardrails.select(direction, inspects, None);
        let rules = select(Inspects::Untrusted).union(&select(Inspects::Rendered));
        Ok(Self { guardrails, rules })
    }

    /// Builds everything now, so that no text waits for it.
    pub(super) fn warm(&self) {
        self.guardrails.warm();
    }

    pub(super) fn find(&self, text: &str) -> Vec<Finding> {
        self.guardrails.scan_whole(text, &self.rules)
    }

    pub(super) fn judge(&self, findings: &[Finding]) -> Verdict {
        self.guardrails.judge(findings)
    }

    fn report(&self, text: &str) -> Value {
        let findings = self.find(text);
        let violations: Vec<Value> = findings
            .iter()
            .filter_map(|finding| {
                let rule = self.guardrails.rules().get(finding.rule)?;
                Some(json!({
                    "guardrail": rule.name,
                    "type": rule.kind,
                    "entity": self.guardrails.entity(finding),
                    "start": finding.start,
                    "end": finding.end,
                }))
            })
            .collect();
        json!({"verdict": self.judge(&findings), "violations": violations})
    }

    /// For eyes: the verdict, and each finding in its line.
    fn show(&self, text: &str) {
        let findings = self.find(text);
        say(format!("{BOLD}{}{PLAIN}", self.judge(&findings).name()));
        for finding in &findings {
            let Some(rule) = self.guardrails.rules().get(finding.rule) else { continue };
            let does = self.guardrails.action(finding).map_or("shadow", |action| action.name());
            let found = text.get(finding.span()).unwrap_or_default();
            let before = text.get(..finding.start).unwrap_or_default();
            let line = before.rsplit('\n').next().unwrap_or_default();
            let rest = text.get(finding.end..).unwrap_or_default();
            let rest = rest.split('\n').next().unwrap_or_default();
            let (entity, start, end) =
                (self.guardrails.entity(finding), finding.start, finding.end);
            say(format!("{does} {} {entity} {start}..{end}", rule.name));
            say(format!("    {line}{RED}{found}{PLAIN}{rest}"));
        }
    }
}

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// Scans one text, or one text a line.
pub fn scan(file: Option<&Path>, jsonl: bool, asked: Asked) -> anyhow::Result<()> {
    let inspector = Inspector::new(&settings(file)?, asked)?;
    let input = std::io::stdin();
    if !jsonl {
        let mut text = String::new();
        input.lock().read_to_string(&mut text).context("standard input")?;
        let text = text.trim_end_matches('\n');
        if std::io::stdout().is_terminal() {
            inspector.show(text);
        } else {
            say(inspector.report(text));
        }
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
        say(inspector.report(text));
    }
    Ok(())
}
