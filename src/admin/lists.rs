//! What is in force: templates, guardrails and experiments of the catalog, so that the lists answer
//! even when the database is away.

use axum::Json;
use axum::extract::{Query, State, rejection::QueryRejection};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Admin;
use super::problem::Problem;
use crate::catalog::Catalog;
use crate::words::ids::Tenant;

/// The query of the lists.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    tenant: Option<String>,
    name: Option<String>,
}

type Parsed = Result<Query<Asked>, QueryRejection>;

pub(super) async fn templates(
    State(admin): State<Admin>,
    asked: Parsed,
) -> Result<Json<Value>, Problem> {
    let catalog = admin.refresher.current().load();
    let rows = &catalog.definitions.templates;
    page(&catalog, asked, rows, |row| (&row.tenant_id, &row.name))
}

pub(super) async fn guardrails(
    State(admin): State<Admin>,
    asked: Parsed,
) -> Result<Json<Value>, Problem> {
    let catalog = admin.refresher.current().load();
    let rows = &catalog.definitions.guardrails;
    page(&catalog, asked, rows, |row| (&row.tenant_id, &row.name))
}

pub(super) async fn experiments(
    State(admin): State<Admin>,
    asked: Parsed,
) -> Result<Json<Value>, Problem> {
    let catalog = admin.refresher.current().load();
    let rows = &catalog.definitions.experiments;
    page(&catalog, asked, rows, |row| (&row.tenant_id, &row.name))
}

fn page<T: Serialize>(
    catalog: &Catalog,
    asked: Parsed,
    rows: &[T],
    owner_and_name: impl Fn(&T) -> (&Tenant, &String),
) -> Result<Json<Value>, Problem> {
    let Query(asked) = asked.map_err(|error| Problem::bad_request(error.body_text()))?;
    let tenant = asked.tenant.map_or_else(Tenant::default, |name| Tenant(name.into()));
    let items: Vec<&T> = rows
        .iter()
        .filter(|row| {
            let (owner, name) = owner_and_name(row);
            *owner == tenant && asked.name.as_ref().is_none_or(|wanted| wanted == name)
        })
        .collect();
    Ok(Json(json!({
        "items": items,
        "next_cursor": null,
        "source": catalog.source,
        "generation": catalog.generation,
    })))
}
