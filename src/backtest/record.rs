//! One execution as it stands in the store, and what a guardrail finds in it.

use serde_json::Value;
use uuid::Uuid;

use super::Example;
use crate::execution::Outcome;
use crate::guardrail::{Direction, Finding, Guardrails, Inspects, Verdict};
use crate::store::Cursor;

/// Bytes of text of one execution. The time for a step is asked between executions, so one alone must
/// not take it all; longer ones are not looked at.
const TEXT_BYTES_MAX: usize = 1024 * 1024;
/// Characters of a matched text that are shown: a text that is too long is matched as a whole.
const SHOWN_CHARS_MAX: usize = 200;

/// One execution.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) at: Cursor,
    pub(super) template_id: Option<Uuid>,
    pub(super) category: Option<String>,
    pub(super) was_blocked: bool,
    template_name: Option<String>,
    /// `None`: the record holds no prompt, or only its hash.
    texts: Option<Vec<Text>>,
}

/// A text of a prompt.
#[derive(Debug)]
struct Text {
    /// A variable or a message.
    place: String,
    text: String,
    /// Which guardrails look at it.
    inspects: Inspects,
}

/// One violation.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) verdict: Verdict,
    pub(super) entity: String,
    place: String,
    start: usize,
    end: usize,
    matched: String,
}

impl Record {
    /// Reads a row; `None` if it is none, which neither store gives.
    pub(super) fn read(mut row: Value) -> Option<Self> {
        let text = |name| row.get(name).and_then(Value::as_str);
        let at =
            Cursor { created_at: text("created_at")?.parse().ok()?, id: text("id")?.parse().ok()? };
        Some(Self {
            at,
            template_id: text("template_id").and_then(|id| id.parse().ok()),
            category: None,
            was_blocked: text("outcome") == Some(Outcome::Blocked.name()),
            template_name: text("template_name").map(str::to_owned),
            texts: texts(&mut row),
        })
    }

    /// What the guardrails would have found; `None`: there is nothing to look at.
    pub(super) fn look(&self, guardrails: &Guardrails) -> Option<Vec<Hit>> {
        let texts = self.texts.as_ref()?;
        let template = self.template_name.as_deref().map(|name| (name, self.category.as_deref()));
        let select = |inspects| guardrails.select(Direction::Request, inspects, template);
        let (untrusted, rendered) = (select(Inspects::Untrusted), select(Inspects::Rendered));
        let mut hits = Vec::new();
        for text in texts {
            let rules = match text.inspects {
                Inspects::Untrusted => &untrusted,
                Inspects::Rendered => &rendered,
            };
            let findings = guardrails.scan(&text.text, rules);
            hits.extend(findings.iter().map(|finding| Hit::new(guardrails, finding, text)));
        }
        Some(hits)
    }

    /// This execution as an example of what was found in it.
    pub(super) fn example(&self, hit: Hit, show_text: bool) -> Example {
        Example {
            execution_id: self.at.id,
            created_at: format!("{:.6}", self.at.created_at),
            template_name: self.template_name.clone(),
            verdict: hit.verdict,
            entity: hit.entity,
            place: hit.place,
            start: hit.start,
            end: hit.end,
            text: show_text.then_some(hit.matched),
        }
    }
}

impl Hit {
    fn new(guardrails: &Guardrails, finding: &Finding, text: &Text) -> Self {
        let matched = text.text.get(finding.span()).unwrap_or_default();
        Self {
            // What a guardrail in shadow mode would do is what a backtest is asked for.
            verdict: guardrails.would(finding).map_or(Verdict::Allow, Verdict::from),
            entity: guardrails.entity(finding).to_owned(),
            place: text.place.clone(),
            start: finding.start,
            end: finding.end,
            matched: matched.chars().take(SHOWN_CHARS_MAX).collect(),
        }
    }
}

/// The texts of a row. Values of variables for guardrails that look at what the application sent; the
/// messages, which hold these too, for those that look at the whole prompt: nothing is found twice.
fn texts(row: &mut Value) -> Option<Vec<Text>> {
    let mut take = |name| row.get_mut(name).map(Value::take).unwrap_or_default();
    let (variables, prompt) = (take("variables_used"), take("rendered_prompt"));
    // Both are kept as they are, or both as `{"sha256": "…"}`; a variable may have that name too.
    let Value::Array(messages) = prompt else { return None };
    let mut texts = Vec::new();
    if let Value::Object(variables) = variables {
        for (name, value) in variables {
            strings(value, &mut |text| {
                let place = format!("variables.{name}");
                texts.push(Text { place, text, inspects: Inspects::Untrusted });
            });
        }
    }
    for (index, mut message) in messages.into_iter().enumerate() {
        if let Some(Value::String(text)) = message.get_mut("text").map(Value::take) {
            let place = format!("messages[{index}]");
            texts.push(Text { place, text, inspects: Inspects::Rendered });
        }
    }
    let bytes: usize = texts.iter().map(|one| one.text.len()).sum();
    (bytes <= TEXT_BYTES_MAX).then_some(texts)
}

/// Every string in a value, names of members included: guardrails look at those too.
fn strings(value: Value, each: &mut impl FnMut(String)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(items) => items.into_iter().for_each(|item| strings(item, each)),
        Value::Object(members) => {
            for (name, member) in members {
                each(name);
                strings(member, each);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Record;

    fn places(variables: &serde_json::Value, prompt: &serde_json::Value) -> Option<Vec<String>> {
        let row = json!({"id": uuid::Uuid::nil(), "created_at": "2026-11-22T20:00:00.123456Z",
            "variables_used": variables, "rendered_prompt": prompt});
        let texts = Record::read(row).unwrap().texts?;
        Some(texts.into_iter().map(|one| format!("{}={}", one.place, one.text)).collect())
    }

    #[test]
    fn what_a_record_holds_of_a_prompt() {
        let prompt = json!([{"role": "user", "text": "a b"}]);
        let variables = json!({"x": "a", "sha256": ["b", {"c": 1}]});
        let all = ["variables.x=a", "variables.sha256=b", "variables.sha256=c", "messages[0]=a b"];
        assert_eq!(places(&variables, &prompt).unwrap(), all);
        let hash = json!({"sha256": "00"});
        assert_eq!(places(&hash, &hash), None, "only hashes");
        assert_eq!(places(&json!(null), &json!(null)), None, "no template, no prompt");
        assert_eq!(places(&json!({"x": "a".repeat(1024 * 1024)}), &prompt), None, "too long");
    }
}
