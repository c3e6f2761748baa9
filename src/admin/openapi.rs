//! The description of the admin API: what the handlers say of themselves, and what all of them share.

use axum::Json;
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, Required, ResponseBuilder, Server};

use super::{API, Document};

/// What any request may be answered.
const ANY: [(u16, &str); 6] = [
    (400, "The request does not read as it should"),
    (401, "No valid token"),
    (403, "The token may only read, or the page is of another origin"),
    (421, "The admin API does not answer to this name"),
    (429, "Too many wrong tokens from this address"),
    (503, "The database does not answer"),
];
/// What a request that sends something may be answered besides.
const SENDING: [(u16, &str); 5] = [
    (409, "Not as things stand"),
    (412, "If-Match names another state"),
    (413, "The body is too large"),
    (415, "The body is not JSON"),
    (422, "Well-formed, but not what is allowed"),
];

/// The document.
pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(describe())
}

fn describe() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    "Chaperone control plane".clone_into(&mut document.info.title);
    document.info.description =
        Some("Templates, guardrails, experiments, executions and their audit.".to_owned());
    document.servers = Some(vec![Server::new(API)]);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    document
        .components
        .get_or_insert_default()
        .add_security_scheme("token", SecurityScheme::Http(bearer));
    document.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], &str>("token", [])]);
    for (path, item) in &mut document.paths.paths {
        // A guardrail to test and the call that is spoken of are named in the body.
        let named =
            path.contains('{') || ["/guardrails/test", "/feedback"].contains(&path.as_str());
        let PathItem { get, post, put, delete, .. } = item;
        for (operation, sends) in [(get, false), (post, true), (put, true), (delete, true)] {
            if let Some(operation) = operation {
                share(operation, named, sends);
            }
        }
    }
    document
}

/// Adds what all operations share.
fn share(operation: &mut Operation, named: bool, sends: bool) {
    let missing = named.then_some((404, "There is nothing under this id"));
    let sending = if sends { SENDING.as_slice() } else { &[] };
    for (status, what) in ANY.iter().chain(missing.iter()).chain(sending) {
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response =
            ResponseBuilder::new().description(*what).content("application/problem+json", problem);
        operation.responses.responses.insert(status.to_string(), response.build().into());
    }
    let headers = if sends { ["If-Match", "Idempotency-Key"].as_slice() } else { &[] };
    for name in headers {
        let text = utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .build();
        let header = ParameterBuilder::new()
            .name(*name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .schema(Some(text));
        operation.parameters.get_or_insert_default().push(header.build().into());
    }
}
