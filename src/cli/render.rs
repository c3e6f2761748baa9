//! `chaperone render`: a template of the configuration directory, filled in and inspected, without a call.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use super::arguments::Rendering;
use super::{say, settings};
use crate::app;
use crate::catalog::trial::Trial;
use crate::catalog::{self, Served, TenantCatalog};
use crate::template::RenderError;
use crate::words::ids::Tenant;

/// Prints what would be sent and what the guardrails say of it, as JSON.
pub fn render(file: Option<&Path>, asked: &Rendering) -> anyhow::Result<()> {
    let catalog = app::file_catalog(&settings(file)?)?;
    let tenant = catalog.tenant(&Tenant::default()).context("the default tenant")?;
    let served = served(tenant, &asked.template)?;
    let values = values(asked.variables.as_deref())?;
    let guardrails = Some((tenant.guardrails.as_ref(), served.scope.as_ref()));
    let tried = served.version.try_out(guardrails, &values);
    let trial = tried.map_err(|error| match error {
        RenderError::Variables(problems) => {
            let all = problems.iter().map(|one| format!("\n  {} {}", one.name, one.what));
            anyhow::anyhow!("the variables do not fit:{}", all.collect::<String>())
        }
        RenderError::Engine { what } => anyhow::anyhow!(what),
    })?;
    say(format_args!("{:#}", shown(&served, tenant, &trial)));
    Ok(())
}

/// The version that a name, or `name@version`, stands for.
fn served(tenant: &TenantCatalog, asked: &str) -> anyhow::Result<Served> {
    let (name, number) = catalog::named(asked).context("a version is a whole number")?;
    let Some(template) = tenant.template(name) else {
        let mut known: Vec<&str> = tenant.templates().map(|(name, _)| name.as_str()).collect();
        known.sort_unstable();
        bail!("there is no template {name:?}; there are {}", known.join(", "));
    };
    let Some(number) = number else {
        let active = template.active.clone();
        return active
            .with_context(|| format!("{name} has no active version; name one, as in {name}@1"));
    };
    match template.version(number) {
        Some(served) => served.map_err(|why| anyhow::anyhow!("{asked} does not compile: {why}")),
        None => bail!("{name} has no version {number}"),
    }
}

/// Variables as an object: given, or from standard input for `-`.
fn values(given: Option<&str>) -> anyhow::Result<Map<String, Value>> {
    let mut text = given.unwrap_or("{}").to_owned();
    if text == "-" {
        text.clear();
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
    }
    serde_json::from_str(&text).context("the variables must be a JSON object")
}

fn shown(served: &Served, tenant: &TenantCatalog, trial: &Trial) -> Value {
    let guardrails = &tenant.guardrails;
    let violations: Vec<Value> = trial
        .found
        .iter()
        .filter_map(|(finding, place)| {
            let rule = guardrails.rules().get(finding.rule)?;
            Some(json!({
                "guardrail": rule.name,
                "type": rule.kind,
                "entity": guardrails.entity(finding),
                "action": guardrails.effect(finding),
                "place": place,
                "start": finding.start,
                "end": finding.end,
            }))
        })
        .collect();
    let version = &served.version;
    json!({
        "template": format!("{}@{}", version.name, version.number),
        "content_hash": version.content_hash,
        "messages": trial.messages,
        "model": version.model_config.model,
        "model_config": version.model_config.defined,
        "verdict": trial.verdict,
        "violations": violations,
        "token_estimate": trial.token_estimate,
    })
}
