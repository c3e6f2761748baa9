//! The control plane: what admins, Prometheus and probes connect to. Never reachable through the data
//! plane, and knows nothing of how requests are proxied.

mod auth;
mod executions;
mod health;
mod lists;
mod problem;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::outbox::Ledger;
use crate::refresh::Refresher;
use crate::store::Store;

pub use auth::Tokens;

/// Under which the admin API lives.
const API: &str = "/api/v1/admin/prompts";

/// Everything a handler may borrow.
#[derive(Debug, Clone)]
pub struct Admin(Arc<Shared>);

/// The parts behind [`Admin`].
#[derive(Debug)]
pub struct Shared {
    /// The store, for lists.
    pub store: Arc<dyn Store>,
    /// The catalog in force, and how to reload it.
    pub refresher: Arc<Refresher>,
    /// The counts of the audit trail.
    pub ledger: Arc<Ledger>,
    /// The metrics.
    pub metrics: PrometheusHandle,
    /// Who may do what.
    pub tokens: Tokens,
    /// Set when the process stops.
    pub draining: AtomicBool,
}

impl std::ops::Deref for Admin {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Admin {
    /// Wires the parts together.
    pub fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// From now on `/readyz` refuses.
    pub fn start_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    /// All routes. Probes and metrics are open; everything else wants a token.
    pub fn router(self) -> Router {
        let api = Router::new()
            .route("/status", get(health::status))
            .route("/reload", post(health::reload))
            .route("/executions", get(executions::list))
            .route("/templates", get(lists::templates))
            .route("/guardrails", get(lists::guardrails))
            .route("/ab-tests", get(lists::experiments))
            .fallback(problem::no_route)
            .method_not_allowed_fallback(problem::no_method)
            .layer(from_fn_with_state(self.clone(), auth::require));
        Router::new()
            .route("/healthz", get(health::alive))
            .route("/readyz", get(health::ready))
            .route("/metrics", get(health::metrics))
            .nest(API, api)
            .fallback(problem::no_route)
            .method_not_allowed_fallback(problem::no_method)
            .with_state(self)
    }
}
