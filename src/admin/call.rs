//! What every handler asks of a request: parameters, a body, a condition, a key for retries.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header::{CONTENT_TYPE, IF_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::IntoParams;
use uuid::Uuid;

use super::Admin;
use super::auth::Caller;
use super::json;
use super::problem::Problem;
use crate::words::digest;
use crate::words::ids::Tenant;

const TENANT_CHARS_MAX: usize = 128;
const KEY_CHARS_MAX: usize = 255;
/// In a tag, before what only says from which data an answer was made: no part of what a change changes.
pub(super) const WATERMARK: &str = "-w";
const PAGE_DEFAULT: u32 = 50;
const PAGE_MAX: u32 = 500;

/// The query of a request.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Admin> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        if target.contains("%00") {
            return Err(Problem::bad_request("the address holds U+0000, which no text here does"));
        }
        if percent_decode_str(target).decode_utf8().is_err() {
            return Err(Problem::bad_request("the address holds bytes that are no UTF-8"));
        }
        let Query(params) = Query::from_request_parts(parts, admin)
            .await
            .map_err(|error| Problem::bad_request(error.body_text()))?;
        Ok(Self(params))
    }
}

/// An id in the path.
pub(super) struct Id(pub(super) Uuid);

impl FromRequestParts<Admin> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, admin)
            .await
            .map_err(|error| Problem::bad_request(error.body_text()))?;
        parse_id(&path.0).map(Self)
    }
}

pub(super) fn parse_id(text: &str) -> Result<Uuid, Problem> {
    let missing = |_no_uuid| Problem::not_found("ids are UUIDs; there is nothing under this one");
    text.parse().map_err(missing)
}

/// Whose objects are meant.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Whose {
    /// The tenant; `default` unless told otherwise.
    #[param(max_length = 128)]
    pub(super) tenant: Option<String>,
}

impl Whose {
    pub(super) fn tenant(&self) -> Result<Tenant, Problem> {
        tenant(self.tenant.as_deref())
    }
}

/// A tenant's name.
pub(super) fn tenant(name: Option<&str>) -> Result<Tenant, Problem> {
    let Some(name) = name else { return Ok(Tenant::default()) };
    let fits = !name.is_empty()
        && name.chars().count() <= TENANT_CHARS_MAX
        && !name.chars().any(char::is_control);
    if fits {
        Ok(Tenant(name.into()))
    } else {
        Err(Problem::bad_request(format!(
            "tenant must have 1 to {TENANT_CHARS_MAX} characters and no control characters"
        )))
    }
}

/// The size of a page.
pub(super) fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    match asked.unwrap_or(PAGE_DEFAULT) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        _ => Err(Problem::bad_request(format!("limit must be from 1 to {PAGE_MAX}"))),
    }
}

/// A request that may change something.
pub(super) struct Call {
    pub(super) caller: Arc<Caller>,
    /// `If-Match`.
    condition: Option<String>,
    /// `Idempotency-Key`.
    pub(super) key: Option<String>,
    /// SHA-256 of method, path and body.
    pub(super) fingerprint: String,
    body: Bytes,
}

impl FromRequest<Admin> for Call {
    type Rejection = Problem;

    async fn from_request(request: Request, admin: &Admin) -> Result<Self, Problem> {
        let caller: Option<&Arc<Caller>> = request.extensions().get();
        let caller = caller.cloned().ok_or_else(|| {
            Problem::new(StatusCode::UNAUTHORIZED, "this request has not passed the token check")
        })?;
        let condition = text(request.headers(), IF_MATCH.as_str())?;
        let key = text(request.headers(), "idempotency-key")?;
        if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > KEY_CHARS_MAX) {
            let detail = format!("Idempotency-Key must have 1 to {KEY_CHARS_MAX} characters");
            return Err(Problem::bad_request(detail));
        }
        let is_json =
            text(request.headers(), CONTENT_TYPE.as_str())?.is_some_and(|kind| is_json(&kind));
        let target = format!("{} {}\n", request.method(), request.uri());
        let body = Bytes::from_request(request, admin)
            .await
            .map_err(|error| Problem::new(error.status(), error.body_text()))?;
        if !body.is_empty() && !is_json {
            let detail = "the body must be JSON, and content-type must say application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let fingerprint = digest::sha256_hex(&[target.as_bytes(), &body].concat());
        Ok(Self { caller, condition, key, fingerprint, body })
    }
}

fn text(headers: &HeaderMap, name: &str) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let refuse = |_not_ascii| Problem::bad_request(format!("{name} must be visible ASCII"));
    value.to_str().map(|text| Some(text.to_owned())).map_err(refuse)
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

impl Call {
    /// The body as what it should be; a missing one is an empty object. Says which field is wrong.
    pub(super) fn body<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let bytes: &[u8] = if self.body.is_empty() { b"{}" } else { &self.body };
        let value = json::read(bytes).map_err(|error| {
            let what = if error.is_data() { "the body" } else { "the body is not JSON" };
            Problem::bad_request(format!("{what}: {error}"))
        })?;
        if !value.is_object() {
            return Err(Problem::unprocessable("the body must be a JSON object"));
        }
        if let Some(place) = nul(&value, "") {
            let detail = format!("{place}: U+0000 cannot be stored");
            return Err(Problem::unprocessable(detail));
        }
        serde_path_to_error::deserialize(value).map_err(|error| {
            let (path, what) = (error.path().to_string(), error.inner().to_string());
            Problem::unprocessable(if path == "." { what } else { format!("{path}: {what}") })
        })
    }

    /// Whether an `If-Match` was sent.
    pub(super) fn is_conditional(&self) -> bool {
        self.condition.is_some()
    }

    /// Refuses when `If-Match` names another state than `etag`.
    pub(super) fn check(&self, etag: &str) -> Result<(), Problem> {
        match &self.condition {
            Some(condition) if !names(condition, etag) => Err(stale(etag)),
            _ => Ok(()),
        }
    }
}

/// Whether `If-Match` names this tag. A weak tag never does: what it stands for may have changed.
fn names(condition: &str, etag: &str) -> bool {
    let state = |one: &str| one.split_once(WATERMARK).map(|(state, _)| format!("{state}\""));
    condition
        .split(',')
        .map(str::trim)
        .any(|one| one == "*" || one == etag || state(one).is_some_and(|state| state == etag))
}

/// Whether `If-None-Match` names this tag; proxies on the way make tags weak when they compress.
pub(super) fn has(condition: &str, etag: &str) -> bool {
    let strong = |one: &str| one.strip_prefix("W/").unwrap_or(one) == etag;
    condition.split(',').map(str::trim).any(|one| one == "*" || strong(one))
}

/// Somebody was faster.
pub(super) fn stale(etag: &str) -> Problem {
    let detail = format!("If-Match does not name the present state, {etag}; read it again");
    Problem::new(StatusCode::PRECONDITION_FAILED, detail)
}

/// Where a text holds U+0000, which PostgreSQL cannot store.
fn nul(value: &Value, place: &str) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(|| place.to_owned()),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| nul(item, &format!("{place}[{index}]"))),
        Value::Object(members) => members.iter().find_map(|(name, value)| {
            let dot = if place.is_empty() { "" } else { "." };
            if name.contains('\0') {
                return Some(format!("{place}{dot}(a name)"));
            }
            nul(value, &format!("{place}{dot}{name}"))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{has, is_json, names, nul};

    #[test]
    fn conditions_and_content_types() {
        for (condition, matches, none_match) in [
            ("*", true, true),
            ("\"1\"", true, true),
            ("\"0\", \"1\"", true, true),
            ("\"2\"", false, false),
            ("W/\"1\"", false, true),
            ("\"2\",W/\"1\"", false, true),
            ("W/\"2\"", false, false),
            ("\"1-wabc\"", true, false),
            ("\"2-wabc\"", false, false),
            ("", false, false),
        ] {
            assert_eq!(names(condition, "\"1\""), matches, "{condition}");
            assert_eq!(has(condition, "\"1\""), none_match, "{condition}");
        }
        assert!(is_json("Application/JSON; charset=utf-8") && !is_json("text/plain"));
    }

    #[test]
    fn the_place_of_a_nul_is_named() {
        let value = json!({"a": [{"b": "x\u{0}"}]});
        assert_eq!(nul(&value, "").as_deref(), Some("a[0].b"));
        assert_eq!(nul(&json!({"a": ["ok"]}), ""), None);
    }
}
