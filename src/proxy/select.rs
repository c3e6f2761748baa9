//! Step 3: which version serves this call: the one asked for, the arm, or the active one.

use std::sync::Arc;

use jiff::Timestamp;

use super::exchange::Exchange;
use super::identify::{Identified, TemplateRef, header_unit, short};
use super::refusal::{Kind, Refusal};
use crate::catalog::{ByGroup, Running, Scope, Served, TemplateName, Version};
use crate::experiment::Unit;
use crate::gemini::Dialect;
use crate::gemini::route::Call;
use crate::gemini::stream::Framing;
use crate::words::clock;

/// A call whose version is decided, if it wants a template at all.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) identified: Identified,
    pub(super) version: Option<Arc<Version>>,
    scope: Arc<Scope>,
}

impl Planned {
    /// What it asks for, in which dialect, and how it wants the answer framed.
    pub(super) fn call(&self) -> (Dialect, Call, Option<Framing>) {
        let arrived = &self.identified.arrived;
        (arrived.dialect, arrived.head.route.call, arrived.framing)
    }

    /// Which guardrails look at this call.
    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }
}

pub(super) fn select(identified: Identified, exchange: &mut Exchange) -> Result<Planned, Refusal> {
    let Some(wanted) = identified.template.clone() else {
        let scope = identified.tenant.scope.clone();
        return Ok(Planned { identified, version: None, scope });
    };
    let Served { version, scope, source } = version(&identified, &wanted, exchange)?;
    exchange.note(|execution| {
        source.name().clone_into(&mut execution.catalog_source);
        execution.template_id = Some(version.id);
        execution.template_version = Some(version.number);
        execution.template_content_hash = Some(version.content_hash.clone());
        execution.model_config = Some(version.model_config.defined.clone());
    });
    Ok(Planned { identified, version: Some(version), scope })
}

fn version(
    identified: &Identified,
    wanted: &TemplateRef,
    exchange: &mut Exchange,
) -> Result<Served, Refusal> {
    let missing = |what: String| Refusal::new(Kind::NotFound, what);
    let shown = short(&wanted.name);
    let name = identified
        .tenant
        .template(&wanted.name)
        .ok_or_else(|| missing(format!("there is no template {shown:?}")))?;
    if let Some(number) = wanted.version {
        return match name.version(number) {
            Some(Ok(served)) => Ok(served),
            Some(Err(why)) => {
                Err(missing(format!("template {shown:?} version {number} does not compile: {why}")))
            }
            None => Err(missing(format!("template {shown:?} has no version {number}"))),
        };
    }
    decided(identified, name, exchange)
        .or_else(|| name.active.clone())
        .ok_or_else(|| missing(format!("template {shown:?} has no active version")))
}

/// What a split says: the experiment's while it decides, else the one the versions carry themselves.
fn decided(
    identified: &Identified,
    name: &TemplateName,
    exchange: &mut Exchange,
) -> Option<Served> {
    let now = exchange.fact(|execution| execution.created_at).unwrap_or_else(clock::now);
    match (&name.experiment, &name.groups) {
        (Some(running), groups) if groups.is_none() || running.experiment.decides(now) => {
            arm(identified, running, now, exchange)
        }
        (_, Some(groups)) => group(identified, groups, now, exchange),
        (_, None) => None,
    }
}

/// The version of the arm this call's unit belongs to, with the decision noted.
fn arm(
    identified: &Identified,
    running: &Running,
    now: Timestamp,
    exchange: &mut Exchange,
) -> Option<Served> {
    let experiment = &running.experiment;
    let unit = match &experiment.unit {
        Unit::User => identified.user.clone(),
        Unit::Conversation => identified.conversation.clone(),
        Unit::Request => exchange.fact(|execution| execution.request_id.clone()),
        Unit::Header(header) => header_unit(&identified.arrived.head.headers, header),
    };
    let assignment = experiment.assign(now, unit.as_deref());
    exchange.note(|execution| {
        execution.unit_key = unit;
        execution.assignment_reason = Some(assignment.reason.name().to_owned());
        execution.enroll_bucket = assignment.enroll_bucket;
        execution.variant_bucket = assignment.variant_bucket;
        if let Some(arm) = assignment.arm {
            execution.ab_test_experiment_id = Some(experiment.id);
            execution.ab_test_group = Some(arm.key.clone());
        }
    });
    running.arm(assignment.arm?.template).cloned()
}

/// The version of the group this call's user falls into, with the decision noted.
fn group(
    identified: &Identified,
    by_group: &ByGroup,
    now: Timestamp,
    exchange: &mut Exchange,
) -> Option<Served> {
    let unit = identified.user.clone();
    let grouped = by_group.groups.assign(now, unit.as_deref());
    exchange.note(|execution| {
        execution.unit_key = unit;
        execution.assignment_reason = Some(grouped.reason.name().to_owned());
        execution.variant_bucket = grouped.variant_bucket;
        execution.ab_test_group = grouped.group.map(|group| group.name.clone());
    });
    by_group.arm(grouped.group?.template).cloned()
}
