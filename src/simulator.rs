//! The bundled stand-in for Gemini: strict about requests, honest about usage, and scriptable, so that
//! tests and first tries need no key and no network.
//!
//! The header `x-simulate` scripts one call: `say=BASE64URL` fixes the answer's text, `status=503`
//! fails, `delay_ms=N` waits before the head, `gap_ms=N` between frames, `chunk=N` sets the letters of
//! a frame, `cut` breaks a stream off, `no_finish` ends it without a reason, `gzip` codes the answer,
//! `call=NAME` answers with a call of that function for the town of Ulm, `continues` gives every frame a token to go
//! on from.
//!
//! What the request asks for shapes the answer too: thoughts, a search, a tier of service, enums as integers.

mod answer;
mod dialects;
mod resources;
mod schema;
mod script;
mod upload;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use serde::Serialize;
use serde_json::{Value, json};

use crate::gemini::route::{Call, Route};
use crate::gemini::usage::TIER_HEADER;
use crate::words::digest;
use script::Script;
use upload::Uploads;

/// Requests kept for looking at.
const KEPT_MAX: usize = 20_000;
/// A page of them.
const SHOWN_MAX: usize = 1_000;
const BODY_BYTES_MAX: usize = 128 * 1024 * 1024;

/// One request as it arrived.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Received {
    pub method: String,
    pub path: String,
    pub query: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body_sha256: String,
    pub body: Value,
}

/// The simulator and what it received.
#[derive(Debug, Clone, Default)]
pub struct Simulator {
    received: Arc<Mutex<VecDeque<Received>>>,
    uploads: Uploads,
}

impl Simulator {
    /// All routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/simulator/requests", get(requests))
            .fallback(any(answered))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(self)
    }

    /// Everything received so far, oldest first.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn keep(&self, received: Received) {
        let mut kept = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(received);
    }
}

async fn requests(State(simulator): State<Simulator>) -> axum::Json<Vec<Received>> {
    let all = simulator.received();
    let from = all.len().saturating_sub(SHOWN_MAX);
    axum::Json(all.into_iter().skip(from).collect())
}

async fn answered(State(simulator): State<Simulator>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES_MAX).await else {
        return error(StatusCode::PAYLOAD_TOO_LARGE, "INVALID_ARGUMENT", "the body is too large");
    };
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().map(str::to_owned);
    simulator.keep(Received {
        method: parts.method.to_string(),
        path: path.clone(),
        query: query.clone(),
        headers: parts
            .headers
            .iter()
            .map(|(name, value)| {
                (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect(),
        body_sha256: digest::sha256_hex(&body),
        body: serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&body))),
    });
    let script = Script::read(&parts.headers, query.as_deref());
    if let Some(delay) = script.delay {
        tokio::time::sleep(delay).await;
    }
    if let Some(status) = script.status {
        return error(status, "UNAVAILABLE", "simulated failure");
    }
    if let Some(id) = upload::id(&path, query.as_deref()) {
        return simulator.uploads.carry_on(&id, &parts.headers, &body);
    }
    if !has_key(&parts.headers, query.as_deref()) {
        return error(
            StatusCode::FORBIDDEN,
            "PERMISSION_DENIED",
            "Method doesn't allow unregistered callers.",
        );
    }
    if path.starts_with("/upload/") {
        return simulator.uploads.begin(&path, &parts.headers, &body);
    }
    if path.starts_with("/echo") {
        return echo(&parts.headers, body);
    }
    let route = Route::read(&parts.method, &path, query.as_deref());
    serve(&parts.method, &route, &body, &script)
}

/// For byte-for-byte tests: what came in goes out, with the headers whose names begin with `x-kept`.
fn echo(headers: &HeaderMap, body: Bytes) -> Response {
    let mut response = ([(CONTENT_TYPE, "application/octet-stream")], body).into_response();
    let kept = headers.iter().filter(|(name, _)| name.as_str().starts_with("x-kept"));
    response.headers_mut().extend(kept.map(|(name, value)| (name.clone(), value.clone())));
    response
}

fn serve(method: &Method, route: &Route, body: &Bytes, script: &Script) -> Response {
    match route.call {
        Call::Generate | Call::StreamGenerate(_) | Call::CountTokens => {
            let model = route.model.clone().unwrap_or_default();
            if !answer::knows(&model) {
                return error(
                    StatusCode::NOT_FOUND,
                    "NOT_FOUND",
                    "models/… is not found for API version v1beta",
                );
            }
            match answer::native_request(body, route.call) {
                Ok(asked) => {
                    billed(answer::native(route.call, &model, &asked, script), &asked.tier)
                }
                Err(message) => error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", &message),
            }
        }
        Call::Chat => answer::chat(body, script),
        Call::Interact => dialects::interaction(body, script),
        Call::Submit(_, name) => dialects::submitted(name, body),
        Call::Read(_, name, _) => dialects::read(name, &route.path, script),
        Call::Opaque => resources::answer(method, &route.path),
        Call::Download => dialects::download(script),
        Call::Upload => nothing_here(),
    }
}

/// The tier of service that a call is billed at, where the service tells it.
fn billed(mut response: Response, tier: &str) -> Response {
    if let Ok(tier) = HeaderValue::from_str(tier) {
        response.headers_mut().insert(TIER_HEADER, tier);
    }
    response
}

fn nothing_here() -> Response {
    error(StatusCode::NOT_FOUND, "NOT_FOUND", "the simulator has nothing here")
}

fn has_key(headers: &HeaderMap, query: Option<&str>) -> bool {
    headers.contains_key("x-goog-api-key")
        || headers.contains_key("authorization")
        || query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with("key=")))
}

fn error(status: StatusCode, google: &str, message: &str) -> Response {
    let body = json!({"error": {"code": status.as_u16(), "message": message, "status": google}});
    json_response(status, &body)
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    let content_type = [(CONTENT_TYPE, "application/json; charset=UTF-8")];
    (status, content_type, Body::from(body.to_string())).into_response()
}
