//! Probes, metrics, status, reload.

use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Admin;
use crate::catalog::Source;
use crate::telemetry::metrics::{Readings, readings};
use crate::words::clock;

/// The process lives.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// Whether traffic should come here, and what is not as it should be.
pub(super) async fn ready(State(admin): State<Admin>) -> (StatusCode, Json<Value>) {
    let draining = admin.draining.load(Relaxed);
    let degraded = degraded(&admin);
    let (code, status) = match (draining, degraded.is_empty()) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (false, true) => (StatusCode::OK, "ready"),
        (false, false) => (StatusCode::OK, "degraded"),
    };
    (code, Json(json!({"status": status, "degraded": degraded})))
}

/// Prometheus text.
pub(super) async fn metrics(State(admin): State<Admin>) -> String {
    let standing = admin.ledger.standing();
    let catalog = admin.refresher.current().load();
    readings(Readings {
        catalog_age_seconds: clock::now().duration_since(catalog.compiled_at).as_secs_f64(),
        accepted: standing.accepted,
        stored: standing.stored,
        dead: standing.dead,
        aside: standing.aside.count,
        lost: standing.lost,
        waiting: standing.waiting(),
        outbox_bytes: standing.bytes_kept(),
    });
    admin.metrics.run_upkeep();
    admin.metrics.render()
}

/// Where everything stands.
#[utoipa::path(get, path = "/status", responses((status = 200, description = "Version, store, catalog in force, executions, and what is not as it should be", body = Object)))]
pub(super) async fn status(State(admin): State<Admin>) -> Json<Value> {
    let catalog = admin.refresher.current().load();
    let standing = admin.ledger.standing();
    let active = catalog.definitions.templates.iter().filter(|one| one.is_active).count();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "store": admin.store.kind(),
        "catalog": {
            "source": catalog.source,
            "generation": catalog.generation,
            "compiled_at": catalog.compiled_at,
            "listening": admin.refresher.is_listening(),
            "templates": catalog.definitions.templates.len(),
            "active_templates": active,
            "guardrails": catalog.definitions.guardrails.len(),
            "experiments": catalog.definitions.experiments.len(),
        },
        "executions": {
            "accepted": standing.accepted,
            "stored": standing.stored,
            "waiting": standing.waiting(),
            "dead_lettered": standing.dead,
            "dead_letters": standing.aside.count,
            "lost": standing.lost,
            "outbox_bytes": standing.bytes_kept(),
        },
        "degraded": degraded(&admin),
    }))
}

/// Builds the catalog again, now.
#[utoipa::path(post, path = "/reload", responses((status = 200, description = "The catalog in force, and better sources that gave none", body = Object)))]
pub(super) async fn reload(State(admin): State<Admin>) -> Json<Value> {
    let reloaded = admin.refresher.reload().await;
    let failures: Vec<Value> = reloaded
        .failures
        .iter()
        .map(|failure| json!({"source": failure.source, "why": failure.why}))
        .collect();
    Json(json!({
        "source": reloaded.source,
        "generation": reloaded.generation,
        "failures": failures,
    }))
}

fn degraded(admin: &Admin) -> Vec<Value> {
    let mut degraded = Vec::new();
    let mut note = |what: &str, why: String| degraded.push(json!({"what": what, "why": why}));
    let source = admin.refresher.current().load().source;
    if source != Source::Database {
        note("catalog", format!("served from {}", source.name()));
    }
    for failure in admin.refresher.failures() {
        note("catalog", format!("{}: {}", failure.source.name(), failure.why));
    }
    let standing = admin.ledger.standing();
    if !standing.store_reachable {
        note(
            "executions",
            format!("{} wait in the outbox: the store does not take them", standing.waiting()),
        );
    }
    if !standing.writable {
        note("executions", "the disk of storage.data_dir does not take them".to_owned());
    }
    if standing.aside.count > 0 {
        let why = format!("{} were refused or spoilt and are kept aside", standing.aside.count);
        note("executions", why);
    }
    if standing.set_aside > 0 {
        let why = format!(
            "nobody knows what was in {} local files that could not be read; look at \
             chaperone.db.damaged-* in storage.data_dir, remove them and restart",
            standing.set_aside
        );
        note("executions", why);
    }
    if standing.lost > 0 {
        note("executions", format!("{} were lost", standing.lost));
    }
    degraded
}
