//! The control plane: what admins, Prometheus and probes connect to. Never reachable through the data
//! plane, and knows nothing of how requests are proxied.

mod activation;
mod assignment;
mod audit;
mod auth;
mod backtest;
mod call;
mod dead_letters;
mod details;
mod diff;
mod door;
mod erasure;
mod executions;
mod experiments;
mod feedback;
mod groups;
mod guardrails;
mod health;
mod json;
mod lifecycle;
mod lists;
mod names;
mod openapi;
mod performance;
mod planning;
mod problem;
mod promotion;
mod reallocation;
mod suggestions;
mod templates;
mod tokens;
mod try_out;
mod write;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post, put};
use axum::{Extension, Router};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::outbox::{DeadLetters, Ledger};
use crate::refresh::Refresher;
use crate::store::Store;

pub use audit::Unfinished;
pub use auth::Throttle;
pub use tokens::{Role, Token, TokenFile, Tokens};

/// Under which the admin API lives.
pub const API: &str = "/api/v1/admin/prompts";
/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Ends of paths that are posted to but change nothing: a viewer may use them.
const ASKING: [&str; 3] = ["/render", "/guardrails/test", "/backtest"];
/// All that applications may use.
const FEEDBACK: &str = "/feedback";

/// Everything a handler may borrow.
#[derive(Debug, Clone)]
pub struct Admin(Arc<Shared>);

/// The parts behind [`Admin`].
#[derive(Debug)]
pub struct Shared {
    /// Where definitions, executions and the audit are.
    pub store: Arc<dyn Store>,
    /// The catalog in force, and how to reload it.
    pub refresher: Arc<Refresher>,
    /// The counts of the audit trail.
    pub ledger: Arc<Ledger>,
    /// What the store refused.
    pub dead_letters: DeadLetters,
    /// The metrics.
    pub metrics: PrometheusHandle,
    /// Who may do what.
    pub tokens: Tokens,
    /// Sources of wrong tokens.
    pub throttle: Throttle,
    /// A check of the audit's chain that took longer than a request may.
    pub unfinished: Unfinished,
    /// Names, beside IP addresses and `localhost`, under which the admin API answers.
    pub allowed_hosts: Vec<String>,
    /// Set when the process stops.
    pub draining: AtomicBool,
}

impl std::ops::Deref for Admin {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// From one list: the router of the admin API, the names of its routes, and the document that
/// describes them.
macro_rules! routes {
    ($($method:ident $path:literal $module:ident::$handler:ident;)*) => {
        /// Every route of the admin API: method, and path under [`API`].
        pub const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),*];

        fn api() -> Router<Admin> {
            Router::new()$(.route($path, $method($module::$handler)))*
        }

        #[derive(utoipa::OpenApi)]
        #[openapi(paths($($module::$handler),*), components(schemas(problem::Problem)))]
        struct Document;
    };
}

routes! {
    get "/templates" templates::list;
    post "/templates" templates::create;
    get "/templates/{id}" templates::read;
    put "/templates/{id}" templates::update;
    post "/templates/{id}/activate" activation::activate;
    post "/templates/{id}/deactivate" activation::deactivate;
    post "/templates/{id}/rollback" activation::rollback;
    get "/templates/{id}/activations" activation::history;
    post "/templates/{id}/render" try_out::render;
    get "/templates/{id}/diff/{other}" diff::compare;
    get "/guardrails" guardrails::list;
    post "/guardrails" guardrails::create;
    post "/guardrails/test" try_out::test;
    get "/guardrails/{id}" guardrails::read;
    put "/guardrails/{id}" guardrails::update;
    post "/guardrails/{id}/backtest" backtest::backtest;
    post "/guardrails/{id}/activate" guardrails::activate;
    post "/guardrails/{id}/deactivate" guardrails::deactivate;
    get "/performance/overview" performance::overview;
    get "/performance/suggestions" suggestions::suggestions;
    get "/performance/templates/{id}" performance::template;
    get "/ab-tests" experiments::list;
    post "/ab-tests" experiments::create;
    get "/ab-tests/{id}" experiments::read;
    put "/ab-tests/{id}" experiments::replace;
    get "/ab-tests/{id}/assignment" assignment::explain;
    post "/ab-tests/{id}/start" lifecycle::start;
    post "/ab-tests/{id}/stop" lifecycle::stop;
    post "/ab-tests/{id}/pause" lifecycle::pause;
    post "/ab-tests/{id}/resume" lifecycle::resume;
    post "/ab-tests/{id}/reallocate" reallocation::reallocate;
    post "/ab-tests/{id}/promote" promotion::promote;
    post "/feedback" feedback::give;
    get "/executions" executions::list;
    delete "/executions" erasure::erase;
    get "/executions/{id}" executions::read;
    get "/dead-letters" dead_letters::list;
    delete "/dead-letters" dead_letters::discard;
    post "/dead-letters/retry" dead_letters::retry;
    get "/audit" audit::list;
    get "/in-force" lists::in_force;
    get "/status" health::status;
    post "/reload" health::reload;
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

    /// The routes for connections from one address: wrong tokens are counted by it.
    pub fn seen_from(router: &Router, peer: IpAddr) -> Router {
        router.clone().layer(Extension(auth::Peer(peer)))
    }

    /// All routes. Probes, metrics and the API's description are open; everything else wants a token.
    pub fn router(self) -> Router {
        let api = api()
            .fallback(problem::no_route)
            .method_not_allowed_fallback(problem::no_method)
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .layer(from_fn_with_state(self.clone(), auth::require));
        Router::new()
            .route("/healthz", get(health::alive))
            .route("/readyz", get(health::ready))
            .route("/metrics", get(health::metrics))
            .route("/openapi.json", get(openapi::document))
            .nest(API, api)
            .fallback(problem::no_route)
            .method_not_allowed_fallback(problem::no_method)
            .with_state(self)
    }
}
