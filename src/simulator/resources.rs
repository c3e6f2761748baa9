//! What there is beside calls of models: the models themselves, files, cached contents.

use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use super::{json_response, nothing_here};

const MODELS: [&str; 3] = ["gemini-2.5-flash", "gemini-2.5-pro", "gemini-embedding-001"];

pub(super) fn answer(method: &Method, path: &str) -> Response {
    let mut segments = path.rsplit('/').filter(|segment| !segment.is_empty());
    let (last, before) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
    let is_openai = path.contains("/openai/");
    let found = match (method.as_str(), before, last) {
        ("GET", _, "models") if is_openai => {
            json!({"object": "list", "data": MODELS.map(openai_model)})
        }
        ("GET", _, "models") => json!({"models": MODELS.map(native_model)}),
        ("GET", "models", model) if is_openai => openai_model(model),
        ("GET", "models", model) => native_model(model),
        ("GET", _, "cachedContents") => json!({"cachedContents": [cached("c1")]}),
        ("GET", "cachedContents", id) => cached(id),
        ("GET", _, "files") => json!({"files": [file("f1")]}),
        ("GET", "files", id) => file(id),
        ("DELETE", "cachedContents" | "files" | "interactions" | "batches", _) => json!({}),
        ("POST", "batches", id) if id.ends_with(":cancel") => json!({}),
        _ => return nothing_here(),
    };
    json_response(StatusCode::OK, &found)
}

fn native_model(name: &str) -> Value {
    json!({"name": format!("models/{name}"), "displayName": name, "inputTokenLimit": 1_048_576})
}

fn openai_model(name: &str) -> Value {
    json!({"id": format!("models/{name}"), "object": "model", "owned_by": "google"})
}

fn cached(id: &str) -> Value {
    json!({
        "name": format!("cachedContents/{id}"), "model": "models/gemini-2.5-flash",
        "usageMetadata": {"totalTokenCount": 40},
    })
}

fn file(id: &str) -> Value {
    json!({"name": format!("files/{id}"), "mimeType": "text/plain", "state": "ACTIVE"})
}
