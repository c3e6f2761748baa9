//! Resumable uploads: begun with a description, carried on at the address that the answer names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::http::header::HOST;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{error, json_response};
use crate::words::digest;

const COMMAND: &str = "x-goog-upload-command";
const STATUS: &str = "x-goog-upload-status";
const URL: &str = "x-goog-upload-url";
const OFFSET: &str = "x-goog-upload-offset";
/// Uploads at once.
const OPEN_MAX: usize = 100;

/// Uploads under way by their ids.
#[derive(Debug, Clone, Default)]
pub(super) struct Uploads(Arc<Mutex<HashMap<String, Upload>>>);

#[derive(Debug, Default)]
struct Upload {
    described: Value,
    bytes: Vec<u8>,
}

/// The id in the address of an upload that is under way: it is all that such a request needs.
pub(super) fn id(path: &str, query: Option<&str>) -> Option<String> {
    let pairs = query.filter(|_| path.starts_with("/upload/"))?.split('&');
    pairs.into_iter().find_map(|pair| pair.strip_prefix("upload_id=")).map(str::to_owned)
}

impl Uploads {
    /// Begins an upload.
    pub(super) fn begin(&self, path: &str, headers: &HeaderMap, body: &Bytes) -> Response {
        if text(headers, COMMAND) != Some("start") {
            return invalid("an upload begins with X-Goog-Upload-Command: start");
        }
        let described = if body.is_empty() { Ok(json!({})) } else { serde_json::from_slice(body) };
        let Ok(Value::Object(described)) = described else {
            return invalid("an upload begins with an object that describes the file");
        };
        let described = described.get("file").cloned().unwrap_or_else(|| json!({}));
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() == OPEN_MAX {
            return error(StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED", "too many uploads");
        }
        let id = Uuid::new_v4().simple().to_string();
        let host = text(headers, HOST.as_str()).unwrap_or_default();
        let url = format!("http://{host}{path}?upload_id={id}&upload_protocol=resumable");
        open.insert(id, Upload { described, bytes: Vec::new() });
        (StatusCode::OK, [(URL, url.as_str()), (STATUS, "active")], ()).into_response()
    }

    /// Takes in a part of one.
    pub(super) fn carry_on(&self, id: &str, headers: &HeaderMap, body: &Bytes) -> Response {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(upload) = open.get_mut(id) else {
            return error(StatusCode::NOT_FOUND, "NOT_FOUND", "there is no such upload");
        };
        let commands: Vec<&str> =
            text(headers, COMMAND).unwrap_or_default().split(',').map(str::trim).collect();
        let offset = text(headers, OFFSET).and_then(|offset| offset.parse().ok());
        if commands.contains(&"upload") {
            if offset != Some(upload.bytes.len()) {
                return invalid("X-Goog-Upload-Offset is not where the upload stands");
            }
            upload.bytes.extend_from_slice(body);
        }
        if !commands.contains(&"finalize") {
            return (StatusCode::OK, [(STATUS, "active")], ()).into_response();
        }
        let file = file(id, &open.remove(id).unwrap_or_default());
        let mut response = json_response(StatusCode::OK, &json!({ "file": file }));
        response.headers_mut().insert(STATUS, HeaderValue::from_static("final"));
        response
    }
}

fn file(id: &str, upload: &Upload) -> Value {
    let described = |names: [&str; 2]| {
        names.iter().find_map(|name| upload.described.get(*name)).cloned().unwrap_or_default()
    };
    json!({
        "name": format!("files/{id}"),
        "displayName": described(["displayName", "display_name"]),
        "mimeType": described(["mimeType", "mime_type"]),
        "sizeBytes": upload.bytes.len().to_string(),
        // As upstream: the hexadecimal digits, in base64 again.
        "sha256Hash": STANDARD.encode(digest::sha256_hex(&upload.bytes)),
        "uri": format!("https://generativelanguage.googleapis.com/v1beta/files/{id}"),
        "state": "ACTIVE",
    })
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn invalid(message: &str) -> Response {
    error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message)
}
