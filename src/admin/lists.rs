//! What this sidecar serves right now, from memory: answers even when the database is away.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Admin;
use super::call::{self, Params};
use super::problem::Problem;
use crate::catalog::Source;

const NAMES_MAX: usize = 500;

/// What is in force.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InForce {
    #[schema(value_type = String)]
    source: Source,
    generation: u64,
    #[schema(value_type = String, format = DateTime)]
    compiled_at: Timestamp,
    /// By name; at most 500.
    templates: Vec<ServedTemplate>,
    /// Names of the guardrails that look at texts.
    guardrails: Vec<String>,
}

/// What serves a name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ServedTemplate {
    name: String,
    template_id: Uuid,
    version: u32,
    /// Where this version came from.
    #[schema(value_type = String)]
    source: Source,
    /// Of everything that decides what is sent; also in every execution.
    content_hash: String,
    /// The experiment that decides on this name, if one runs.
    experiment_id: Option<Uuid>,
}

/// What to show.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// The tenant; `default` unless told otherwise.
    tenant: Option<String>,
    /// Only this name.
    name: Option<String>,
}

#[utoipa::path(get, path = "/in-force", params(Asked), responses((status = 200, body = InForce)))]
pub(super) async fn in_force(
    State(admin): State<Admin>,
    Params(asked): Params<Asked>,
) -> Result<Json<InForce>, Problem> {
    let catalog = admin.refresher.current().load();
    let tenant = catalog.tenant(&call::tenant(asked.tenant.as_deref())?).cloned();
    let mut templates: Vec<ServedTemplate> = tenant
        .iter()
        .flat_map(|tenant| tenant.templates())
        .filter(|(name, _)| asked.name.as_ref().is_none_or(|wanted| wanted == *name))
        .filter_map(|(name, all)| {
            let served = all.active.as_ref()?;
            Some(ServedTemplate {
                name: name.clone(),
                template_id: served.version.id.0,
                version: served.version.number,
                source: served.source,
                content_hash: served.version.content_hash.clone(),
                experiment_id: all.experiment.as_ref().map(|running| running.experiment.id.0),
            })
        })
        .collect();
    templates.sort_by(|one, other| one.name.cmp(&other.name));
    templates.truncate(NAMES_MAX);
    let rules = tenant.iter().flat_map(|tenant| tenant.guardrails.rules());
    Ok(Json(InForce {
        source: catalog.source,
        generation: catalog.generation,
        compiled_at: catalog.compiled_at,
        templates,
        guardrails: rules.map(|rule| rule.name.clone()).collect(),
    }))
}
