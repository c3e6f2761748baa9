//! A version tried without a call: what would be sent, and what the guardrails say of it.

use serde_json::{Map, Value};

use super::{Scope, Version};
use crate::guardrail::{Finding, Guardrails, RuleSet, Verdict};
use crate::template::variables::{Trust, Variable};
use crate::template::{RenderError, Rendered};

/// Characters of English text that make up a token, as Gemini's documentation has it.
const CHARS_A_TOKEN: usize = 4;

/// What came of it.
#[derive(Debug)]
pub struct Trial {
    /// What would be sent.
    pub messages: Vec<Rendered>,
    /// The strictest over everything found.
    pub verdict: Verdict,
    /// What was found, and where: `variables.NAME` or `messages[INDEX]`.
    pub found: Vec<(Finding, String)>,
    /// Four characters a token: an estimate.
    pub token_estimate: usize,
}

impl Version {
    /// Renders with values, and inspects by the guardrails that look at calls of this template.
    pub fn try_out(
        &self,
        guardrails: Option<(&Guardrails, &Scope)>,
        values: &Map<String, Value>,
    ) -> Result<Trial, RenderError> {
        let messages = self.template.render(values)?;
        let chars: usize = messages.iter().map(|message| message.text.chars().count()).sum();
        let token_estimate = chars.div_ceil(CHARS_A_TOKEN);
        let (mut verdict, mut found) = (Verdict::Allow, Vec::new());
        let mut inspect = |guardrails: &Guardrails, rules: &RuleSet, text: &str, place: String| {
            let findings = guardrails.scan(text, rules);
            verdict = verdict.max(guardrails.judge(&findings));
            found.extend(findings.into_iter().map(|finding| (finding, place.clone())));
        };
        if let Some((guardrails, scope)) = guardrails {
            let given = self.template.variables().iter();
            for variable in given.filter(|one| one.trust == Trust::Untrusted) {
                if let Some(text) = untrusted_text(variable, values) {
                    let place = format!("variables.{}", variable.name);
                    inspect(guardrails, &scope.untrusted, &text, place);
                }
            }
            for (index, message) in messages.iter().enumerate() {
                let place = format!("messages[{index}]");
                inspect(guardrails, &scope.rendered, &message.text, place);
            }
        }
        Ok(Trial { messages, verdict, found, token_estimate })
    }
}

/// What guardrails see of a value: strings as they are, anything else as its JSON.
fn untrusted_text(variable: &Variable, values: &Map<String, Value>) -> Option<String> {
    match values.get(&variable.name).or(variable.default.as_ref())? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
