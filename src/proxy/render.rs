//! Step 5: the template filled in and put into the body.

use bytes::Bytes;
use serde_json::Value;

use super::compose;
use super::exchange::Exchange;
use super::inspect::Screened;
use super::refusal::{Kind, Refusal};
use super::select::Planned;
use super::vault::Vault;
use crate::template::{RenderError, Rendered as Message};

/// A call as it would be sent.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) planned: Planned,
    pub(super) messages: Vec<Message>,
    pub(super) path: String,
    pub(super) body: Bytes,
    pub(super) vault: Vault,
}

pub(super) fn render(screened: Screened, exchange: &mut Exchange) -> Result<Rendered, Refusal> {
    let (planned, body, variables, vault) = screened.into_parts();
    let route = &planned.identified.arrived.head.route;
    let Some(version) = planned.version.clone() else {
        if !variables.is_empty() {
            let message = "variables are given, but no template is named";
            return Err(Refusal::new(Kind::Variables, message));
        }
        let path = route.path.clone();
        return Ok(Rendered { planned, messages: Vec::new(), path, body, vault });
    };
    let messages = version.template.render(&variables).map_err(refuse)?;
    let kept = serde_json::to_value(&messages).unwrap_or_default();
    exchange.note(|execution| {
        execution.rendered_prompt = Some(kept);
        execution.variables_used = Some(Value::Object(variables));
    });
    let model = version.model_config.model.as_deref();
    let path = model.map_or_else(|| route.path.clone(), |model| route.with_model(model).path);
    if let Some(model) = model {
        exchange.note(|execution| execution.model_name = Some(model.to_owned()));
    }
    let dialect = planned.identified.arrived.dialect;
    let text = std::str::from_utf8(&body).unwrap_or_default();
    let body = compose::compose((dialect, route), text, &version, &messages)
        .ok_or_else(|| Refusal::new(Kind::Malformed, "the body's shape does not fit a template"))?;
    Ok(Rendered { planned, messages, path, body: body.into(), vault })
}

fn refuse(error: RenderError) -> Refusal {
    match error {
        RenderError::Variables(problems) => {
            let list = |declared_only: bool| {
                let of = problems.iter().filter(|one| one.declared || !declared_only);
                of.map(|one| format!("{} {}", one.name, one.what)).collect::<Vec<_>>().join("; ")
            };
            Refusal::new(Kind::Variables, format!("variables: {}", list(false)))
                .recorded(format!("variables: {}", list(true)))
        }
        RenderError::Engine { what } => {
            Refusal::new(Kind::Render, format!("the template failed: {what}"))
        }
    }
}
