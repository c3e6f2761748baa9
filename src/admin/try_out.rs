//! Trying things out without a call: a version with values, a text against guardrails.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Admin;
use super::call::{self, Call, Id, Params, Whose};
use super::door;
use super::problem::{FieldError, Problem};
use super::templates::RoleName;
use super::write::row;
use crate::catalog::definitions::{GuardrailDefinition, TemplateDefinition};
use crate::catalog::{Scope, Version};
use crate::guardrail::{Direction, Finding, Guardrails, Inspects, Rule, RuleConfig, Salt, Verdict};
use crate::store::Table;
use crate::template::RenderError;

/// Bytes of a text to try.
const TEXT_BYTES_MAX: usize = 256 * 1024;

/// Values to render with.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Values {
    #[schema(value_type = Object)]
    variables: Map<String, Value>,
}

/// What would be sent, and what the guardrails say of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RenderedVersion {
    template_id: Uuid,
    name: String,
    version: u32,
    /// Of everything that decides what is sent.
    content_hash: String,
    messages: Vec<RenderedMessage>,
    /// The model the version asks for; null: the caller's.
    model: Option<String>,
    #[schema(value_type = Object)]
    model_config: Value,
    /// The strictest over all violations: `allow`, `warn`, `redact` or `block`.
    #[schema(value_type = String)]
    verdict: Verdict,
    violations: Vec<Violation>,
    /// Four characters a token: an estimate, made without a call.
    token_estimate: usize,
}

/// A message as it would be sent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RenderedMessage {
    #[schema(value_type = RoleName)]
    role: crate::template::Role,
    text: String,
}

/// What a guardrail found.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Violation {
    guardrail: String,
    #[serde(rename = "type")]
    #[schema(value_type = super::guardrails::KindName)]
    kind: crate::guardrail::Kind,
    #[schema(value_type = super::guardrails::SeverityName)]
    severity: crate::guardrail::Severity,
    /// `info`, `warn`, `redact` or `block`; with `shadow_` before it in shadow mode.
    action: &'static str,
    entity: String,
    /// Where it was found: a variable, a message, or null for a text tried by itself.
    place: Option<String>,
    /// Bytes of that text.
    start: usize,
    /// Exclusive.
    end: usize,
}

fn violation(guardrails: &Guardrails, finding: &Finding, place: Option<&str>) -> Option<Violation> {
    let rule = guardrails.rules().get(finding.rule)?;
    Some(Violation {
        guardrail: rule.name.clone(),
        kind: rule.kind,
        severity: rule.severity,
        action: guardrails.effect(finding),
        entity: guardrails.entity(finding).to_owned(),
        place: place.map(str::to_owned),
        start: finding.start,
        end: finding.end,
    })
}

#[utoipa::path(post, path = "/templates/{id}/render", params(("id" = Uuid, Path), Whose),
    request_body = Values, responses((status = 200, body = RenderedVersion)))]
pub(super) async fn render(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(whose): Params<Whose>,
    call: Call,
) -> Result<axum::Json<RenderedVersion>, Problem> {
    let tenant = whose.tenant()?;
    let values: Values = call.body()?;
    let row = row(&admin, Table::Templates, &tenant, id).await?;
    let definition: TemplateDefinition = row.definition(Table::Templates)?;
    let refuse = |why: String| Problem::unprocessable(format!("the version is broken: {why}"));
    let version = Version::compile(&definition).map_err(refuse)?;
    let catalog = admin.refresher.current().load();
    let guardrails = catalog.tenant(&tenant).map(|one| one.guardrails.clone());
    let named = Some((definition.name.as_str(), definition.category.as_deref()));
    let scoped = guardrails.as_deref().map(|guardrails| {
        let select = |inspects| Arc::new(guardrails.select(Direction::Request, inspects, named));
        let (untrusted, rendered) = (select(Inspects::Untrusted), select(Inspects::Rendered));
        (guardrails, Scope { untrusted, rendered, ..Scope::default() })
    });
    let scoped = scoped.as_ref().map(|(guardrails, scope)| (*guardrails, scope));
    let trial = version.try_out(scoped, &values.variables).map_err(unrendered)?;
    let violations = trial
        .found
        .iter()
        .filter_map(|(finding, place)| violation(guardrails.as_deref()?, finding, Some(place)))
        .collect();
    Ok(axum::Json(RenderedVersion {
        template_id: id,
        name: definition.name,
        version: definition.version,
        content_hash: version.content_hash,
        messages: trial
            .messages
            .into_iter()
            .map(|one| RenderedMessage { role: one.role, text: one.text })
            .collect(),
        model: version.model_config.model,
        model_config: version.model_config.defined,
        verdict: trial.verdict,
        violations,
        token_estimate: trial.token_estimate,
    }))
}

fn unrendered(error: RenderError) -> Problem {
    match error {
        RenderError::Variables(problems) => {
            let all: Vec<String> =
                problems.iter().map(|one| format!("{} {}", one.name, one.what)).collect();
            let errors = problems
                .into_iter()
                .map(|one| FieldError {
                    field: format!("variables.{}", one.name),
                    detail: one.what,
                })
                .collect();
            Problem::unprocessable(format!("variables: {}", all.join("; "))).with(errors)
        }
        RenderError::Engine { what } => Problem::unprocessable(what),
    }
}

/// A text to try.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Sample {
    text: String,
    /// `request` unless told otherwise.
    #[serde(default = "request")]
    #[schema(value_type = Option<DirectionName>)]
    direction: Direction,
    /// As if the call asked for this template.
    template: Option<String>,
    /// As if the template had this category.
    category: Option<String>,
    /// `default` unless told otherwise.
    tenant_id: Option<String>,
    /// Only this guardrail, active or not.
    guardrail_id: Option<Uuid>,
    /// Only this guardrail, which need not exist.
    guardrail: Option<Candidate>,
}

fn request() -> Direction {
    Direction::Request
}

/// Which way a text travels.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "names the words of an enum of the guardrail engine")]
pub(super) enum DirectionName {
    Request,
    Response,
}

/// A guardrail that need not exist.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Candidate {
    #[serde(default)]
    pub(super) blocking: bool,
    #[schema(value_type = Object)]
    pub(super) rule_config: RuleConfig,
}

/// What the guardrails say of a text.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Judged {
    /// `allow`, `warn`, `redact` or `block`.
    #[schema(value_type = String)]
    verdict: Verdict,
    violations: Vec<Violation>,
    /// The text as it would go on, unless it is blocked.
    text: Option<String>,
}

#[utoipa::path(post, path = "/guardrails/test", request_body = Sample, responses((status = 200, body = Judged)))]
pub(super) async fn test(
    State(admin): State<Admin>,
    call: Call,
) -> Result<axum::Json<Judged>, Problem> {
    let sample: Sample = call.body()?;
    let tenant = call::tenant(sample.tenant_id.as_deref())?;
    if sample.text.len() > TEXT_BYTES_MAX {
        return Err(Problem::unprocessable(format!(
            "text: at most {TEXT_BYTES_MAX} bytes are tried"
        )));
    }
    let rule = match (&sample.guardrail, sample.guardrail_id) {
        (Some(_), Some(_)) => {
            return Err(Problem::unprocessable("give guardrail or guardrail_id, not both"));
        }
        (Some(candidate), None) => Some(candidate.rule()),
        (None, Some(id)) => {
            let row = row(&admin, Table::Guardrails, &tenant, id).await?;
            let definition: GuardrailDefinition = row.definition(Table::Guardrails)?;
            Some(Rule { templates: Vec::new(), categories: Vec::new(), ..Rule::from(&definition) })
        }
        (None, None) => None,
    };
    let catalog = admin.refresher.current().load();
    let guardrails = match rule {
        Some(rule) => Guardrails::compile(vec![rule]).map(Arc::new).map_err(door::refused)?,
        None => match catalog.tenant(&tenant) {
            Some(tenant) => tenant.guardrails.clone(),
            None => return Ok(axum::Json(Judged::nothing(sample.text))),
        },
    };
    // Off the threads that serve calls: text and expressions are the caller's.
    let judging = tokio::task::spawn_blocking(move || judge(&guardrails, &sample));
    let judged = judging.await.map_err(|_panicked| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the guardrails could not be tried")
    })?;
    Ok(axum::Json(judged))
}

fn judge(guardrails: &Guardrails, sample: &Sample) -> Judged {
    let named = sample.template.as_deref().map(|name| (name, sample.category.as_deref()));
    let select = |inspects| guardrails.select(sample.direction, inspects, named);
    let rules = select(Inspects::Untrusted).union(&select(Inspects::Rendered));
    let findings = guardrails.scan_whole(&sample.text, &rules);
    let verdict = guardrails.judge(&findings);
    Judged {
        verdict,
        violations: findings.iter().filter_map(|one| violation(guardrails, one, None)).collect(),
        text: (verdict != Verdict::Block)
            .then(|| guardrails.redacted(&sample.text, &findings, &Salt::default())),
    }
}

impl Candidate {
    fn rule(&self) -> Rule {
        Rule {
            id: crate::words::ids::GuardrailId::new(),
            name: "candidate".to_owned(),
            kind: crate::guardrail::Kind::Custom,
            severity: crate::guardrail::Severity::Warning,
            blocking: self.blocking,
            config: self.rule_config.clone(),
            templates: Vec::new(),
            categories: Vec::new(),
        }
    }
}

impl Judged {
    fn nothing(text: String) -> Self {
        Self { verdict: Verdict::Allow, violations: Vec::new(), text: Some(text) }
    }
}
