//! The one way a change is made: look whether it was made already, plan it, carry it out whole, put it in
//! force here, answer with what stands now.

use axum::http::header::{ETAG, HeaderValue, LOCATION};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use uuid::Uuid;

use super::Admin;
use super::call::{Call, stale};
use super::problem::Problem;
use crate::catalog::Source;
use crate::store::audit::Entry;
use crate::store::{Change, Done, Expect, Row, RowQuery, StoreError, Table};
use crate::words::clock;
use crate::words::ids::Tenant;

/// `false`: it is stored, but the catalog cannot be built; `/status` says why.
const IN_FORCE: HeaderName = HeaderName::from_static("x-chaperone-in-force");
/// How often a change is planned before its caller has to.
const PLANS_MAX: u32 = 4;
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A change, and what it is answered with.
pub(super) struct Plan {
    pub(super) change: Change,
    /// What it makes or changes.
    pub(super) object: Uuid,
    pub(super) status: StatusCode,
}

impl Plan {
    /// For what is as it should be already.
    pub(super) fn nothing(object: Uuid) -> Self {
        Self { change: Change::default(), object, status: StatusCode::OK }
    }
}

/// A change that was made, now or by an earlier request with the same key.
pub(super) struct Made {
    pub(super) object: Uuid,
    pub(super) status: StatusCode,
    replayed: bool,
    /// Whether this sidecar could put it in force; `None`: there was nothing to do.
    in_force: Option<bool>,
}

impl Call {
    /// Makes a change. Without `If-Match` a caller means whatever is there: where somebody was faster, it is
    /// planned once more upon what stands then.
    pub(super) async fn make(
        &self,
        admin: &Admin,
        plan: impl AsyncFnOnce() -> Result<Plan, Problem> + Clone,
    ) -> Result<Made, Problem> {
        if let Some(made) = self.made_before(admin).await? {
            return Ok(made);
        }
        let mut plans = 0;
        loop {
            plans += 1;
            let Plan { mut change, object, status } = match plan.clone()().await {
                Ok(plan) => plan,
                Err(problem) => return self.made_before(admin).await?.ok_or(problem),
            };
            if change.audit.is_empty() {
                return Ok(Made { object, status, replayed: false, in_force: None });
            }
            change.done = self.done(status, object);
            let error = match admin.store.commit(&change).await {
                Ok(()) => return Ok(self.made(admin, object, status, false).await),
                Err(error @ (StoreError::Exists(_) | StoreError::Moved { .. })) => error,
                Err(error) => return Err(error.into()),
            };
            // Perhaps it was this very request, sent twice.
            if let Some(made) = self.made_before(admin).await? {
                return Ok(made);
            }
            if self.is_conditional() && matches!(error, StoreError::Moved { .. }) {
                return Err(stale("which has just changed"));
            }
            if self.is_conditional() || plans == PLANS_MAX {
                return Err(error.into());
            }
        }
    }

    /// What a retry with the same key will find.
    fn done(&self, status: StatusCode, object: Uuid) -> Option<Done> {
        let key = self.key.clone()?;
        Some(Done {
            actor: self.caller.name.clone(),
            key,
            fingerprint: self.fingerprint.clone(),
            status: status.as_u16(),
            object_id: object.to_string(),
        })
    }

    /// Puts what was made in force here, and notes whether that worked.
    async fn made(&self, admin: &Admin, object: Uuid, status: StatusCode, replayed: bool) -> Made {
        let reloaded = admin.refresher.refresh().await;
        let works = reloaded.failures.iter().all(|one| one.source != Source::Database);
        Made { object, status, replayed, in_force: Some(works) }
    }

    /// What an earlier request with the same key did.
    async fn made_before(&self, admin: &Admin) -> Result<Option<Made>, Problem> {
        let Some(key) = &self.key else { return Ok(None) };
        let Some(done) = admin.store.done(&self.caller.name, key).await? else { return Ok(None) };
        if done.fingerprint != self.fingerprint {
            let detail = "this Idempotency-Key was used for another request; take a new one";
            return Err(Problem::unprocessable(detail));
        }
        let status = StatusCode::from_u16(done.status).unwrap_or(StatusCode::OK);
        let object = done.object_id.parse().unwrap_or_default();
        Ok(Some(self.made(admin, object, status, true).await))
    }

    /// What the books say of a change.
    pub(super) fn entry(
        &self,
        action: &str,
        object: (&'static str, String),
        tenant: &Tenant,
    ) -> Entry {
        Entry {
            id: Uuid::now_v7(),
            tenant_id: tenant.clone(),
            at: clock::now_micros(),
            actor: self.caller.name.clone(),
            action: action.to_owned(),
            object_type: object.0,
            object_id: object.1,
            before: None,
            after: None,
            reason: None,
            request_id: Some(self.caller.request_id.clone()),
        }
    }
}

/// An object as the books show it.
pub(super) fn shown(object: &impl Serialize) -> Option<String> {
    serde_json::to_string(object).ok()
}

impl Made {
    /// An answer with the object as it stands now, its tag and its place.
    pub(super) fn answer(&self, body: &impl Serialize, etag: &str, collection: &str) -> Response {
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        };
        set(ETAG, etag);
        if self.status == StatusCode::CREATED {
            set(LOCATION, &format!("{}{collection}/{}", super::API, self.object));
        }
        if self.replayed {
            set(REPLAYED, "true");
        }
        if let Some(in_force) = self.in_force {
            set(IN_FORCE, if in_force { "true" } else { "false" });
        }
        response
    }
}

/// The tag of a row: changes with it, and for a template with each newer version of its name.
pub(super) fn etag(row: &Row) -> String {
    match row.columns.get("latest_version") {
        Some(latest) => format!("\"{}-{latest}\"", row.revision),
        None => format!("\"{}\"", row.revision),
    }
}

/// The row of an id, or 404.
pub(super) async fn row(
    admin: &Admin,
    table: Table,
    tenant: &Tenant,
    id: Uuid,
) -> Result<Row, Problem> {
    let query = RowQuery { id: Some(id), ..RowQuery::of(table, tenant) };
    let found = admin.store.rows(&query).await?.into_iter().next();
    found.ok_or_else(|| {
        let kind = match table {
            Table::Templates => "template version",
            Table::Guardrails => "guardrail",
            Table::Experiments => "experiment",
        };
        Problem::not_found(format!("tenant {tenant} has no {kind} {id}"))
    })
}

/// That a row has not moved since it was read.
pub(super) fn expect(table: Table, id: Uuid, row: &Row) -> Expect {
    Expect { table, id, revision: Some(row.revision) }
}
