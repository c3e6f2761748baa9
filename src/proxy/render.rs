//! Step 5: the template filled in and put into the body.

use bytes::Bytes;
use serde_json::{Value, json};

use super::Proxy;
use super::compose;
use super::exchange::Exchange;
use super::inspect::Screened;
use super::refusal::{Kind, Refusal};
use super::select::Planned;
use crate::config::StorePrompts;
use crate::template::{RenderError, Rendered as Message};
use crate::words::digest;

/// A call as it would be sent.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) planned: Planned,
    pub(super) messages: Vec<Message>,
    pub(super) path: String,
    pub(super) body: Bytes,
}

pub(super) fn render(
    proxy: &Proxy,
    screened: Screened,
    exchange: &mut Exchange,
) -> Result<Rendered, Refusal> {
    let (planned, body, variables) = screened.into_parts();
    let route = &planned.identified.arrived.head.route;
    let Some(version) = planned.version.clone() else {
        if !variables.is_empty() {
            let message = "variables are given, but no template is named";
            return Err(Refusal::new(Kind::Variables, message));
        }
        let path = route.path.clone();
        return Ok(Rendered { planned, messages: Vec::new(), path, body });
    };
    let messages = version.template.render(&variables).map_err(refuse)?;
    keep(proxy, exchange, Value::Object(variables), &messages);
    let model = version.model_config.model.as_deref();
    let path = model.map_or_else(|| route.path.clone(), |model| route.with_model(model).path);
    if let Some(model) = model {
        exchange.note(|execution| execution.model_name = Some(model.to_owned()));
    }
    let dialect = planned.identified.arrived.dialect;
    let text = std::str::from_utf8(&body).unwrap_or_default();
    let body = compose::compose((dialect, route), text, &version, &messages)
        .ok_or_else(|| Refusal::new(Kind::Malformed, "the body's shape does not fit a template"))?;
    Ok(Rendered { planned, messages, path, body: body.into() })
}

/// What of the prompt goes into the record.
fn keep(proxy: &Proxy, exchange: &mut Exchange, variables: Value, messages: &[Message]) {
    let rendered = serde_json::to_value(messages).unwrap_or_default();
    let hashed =
        |value: &Value| json!({"sha256": digest::sha256_hex(value.to_string().as_bytes())});
    let hash = match proxy.rules.store_prompts {
        StorePrompts::Full => false,
        StorePrompts::Hash => true,
        // What a guardrail found and let pass is still in there; redacting the record is stricter
        // than redacting the call, and a hash is what certainly holds nothing of it.
        StorePrompts::Redacted => {
            exchange.fact(|execution| !execution.guardrail_violations.is_empty()).unwrap_or(true)
        }
    };
    exchange.note(|execution| {
        execution.rendered_prompt = Some(if hash { hashed(&rendered) } else { rendered });
        execution.variables_used = Some(if hash { hashed(&variables) } else { variables });
    });
}

fn refuse(error: RenderError) -> Refusal {
    match error {
        RenderError::Variables(problems) => {
            let problems: Vec<String> = problems
                .iter()
                .map(|problem| format!("{} {}", problem.name, problem.what))
                .collect();
            Refusal::new(Kind::Variables, format!("variables: {}", problems.join("; ")))
        }
        RenderError::Engine { what } => {
            Refusal::new(Kind::Render, format!("the template failed: {what}"))
        }
    }
}
