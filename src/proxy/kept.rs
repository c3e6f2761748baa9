//! What is kept of a prompt, once everything is known about its call.

use serde_json::{Value, json};

use crate::config::StorePrompts;
use crate::execution::Execution;
use crate::words::digest;

/// A shorter text stands in too many other words to be taken out of them.
const BYTES_MIN: usize = 3;

/// What guardrails found in those parts of a prompt that are recorded; gone with the call.
#[derive(Default)]
pub(super) struct Found {
    texts: Vec<Text>,
    /// Whether something was found that cannot be taken out.
    has_more: bool,
}

struct Text {
    text: String,
    entity: String,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Found")
    }
}

impl Found {
    /// Notes a text to be taken out, and what it is.
    pub(super) fn add(&mut self, text: &str, entity: &str) {
        if text.len() < BYTES_MIN {
            self.has_more = true;
        } else {
            self.texts.push(Text { text: text.to_owned(), entity: entity.to_owned() });
        }
    }

    /// Notes that something was found that cannot be taken out.
    pub(super) fn add_unplaced(&mut self) {
        self.has_more = true;
    }

    /// Applies the operator's choice to a record.
    pub(super) fn keep(mut self, choice: StorePrompts, execution: &mut Execution) {
        let parts = [&mut execution.rendered_prompt, &mut execution.variables_used];
        for part in parts.into_iter().flatten() {
            match choice {
                StorePrompts::Full => {}
                StorePrompts::Hash => *part = hash(part),
                StorePrompts::Redacted => self.take_out(part),
            }
        }
    }

    /// Takes out what was found. What a template has changed on its way is not found again: then the hash
    /// stands for the whole.
    fn take_out(&mut self, part: &mut Value) {
        // The longest first: others may be within it.
        self.texts.sort_by_key(|one| std::cmp::Reverse(one.text.len()));
        let (mut redacted, written) = (part.clone(), part.to_string());
        let all = self.texts.iter().all(|one| {
            let is_there = written.contains(&quoted(&one.text));
            replace(&mut redacted, one);
            is_there
        });
        *part = if all && !self.has_more { redacted } else { hash(part) };
    }
}

fn replace(value: &mut Value, found: &Text) {
    match value {
        Value::String(text) => {
            *text = text.replace(&found.text, &format!("[REDACTED:{}]", found.entity));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, found)),
        Value::Object(members) => members.values_mut().for_each(|member| replace(member, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A text as it stands within a string of JSON.
fn quoted(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
}

fn hash(value: &Value) -> Value {
    json!({"sha256": digest::sha256_hex(value.to_string().as_bytes())})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is kept of a prompt and its variables, in which these were found.
    fn kept(prompt: &str, found: &[(&str, &str)]) -> (Value, Value) {
        let mut execution = Execution {
            rendered_prompt: Some(json!([{"role": "user", "text": prompt}])),
            variables_used: Some(json!({"a": ["Ann, ann@acme.test \"x\"", 1]})),
            ..Execution::default()
        };
        let mut all = Found::default();
        for (text, entity) in found {
            all.add(text, entity);
        }
        all.keep(StorePrompts::Redacted, &mut execution);
        (execution.rendered_prompt.unwrap(), execution.variables_used.unwrap())
    }

    #[test]
    fn what_was_found_is_taken_out_wherever_it_stands() {
        let (prompt, variables) = kept(
            "ann@acme.test and ann@acme.test \"x\"",
            &[("acme.test", "domain"), ("ann@acme.test", "email"), ("t \"x", "odd")],
        );
        assert_eq!(prompt[0]["text"], "[REDACTED:email] and [REDACTED:email] \"x\"");
        assert_eq!(variables, json!({"a": ["Ann, [REDACTED:email] \"x\"", 1]}));
        assert_eq!(kept("plain", &[]).0[0]["text"], "plain");
    }

    #[test]
    fn what_cannot_be_found_again_leaves_a_hash() {
        let (prompt, variables) = kept("ANN@ACME.TEST", &[("ann@acme.test", "email")]);
        assert_eq!(prompt["sha256"].as_str().unwrap().len(), 64);
        assert_eq!(variables["a"][0], "Ann, [REDACTED:email] \"x\"");
        let (prompt, variables) = kept("Ann, an", &[("an", "short")]);
        assert!(prompt["sha256"].is_string() && variables["sha256"].is_string());
    }
}
