//! What may be called what: the rules for names and texts that admins choose.

use super::problem::{FieldError, Problem};

const NAME_CHARS_MAX: usize = 255;
/// Exports make files and folders of the parts.
const PART_BYTES_MAX: usize = 200;
const TEXT_CHARS_MAX: usize = 10_000;
const TAGS_MAX: usize = 32;
const TAG_CHARS_MAX: usize = 64;
const REASON_CHARS_MAX: usize = 1_000;

/// A reason that stands in a query.
pub(super) fn reason(reason: Option<String>) -> Result<Option<String>, Problem> {
    let chars = reason.as_ref().map_or(0, |reason| reason.chars().count());
    if chars > REASON_CHARS_MAX {
        let detail = format!("reason must have at most {REASON_CHARS_MAX} characters");
        return Err(Problem::bad_request(detail));
    }
    Ok(reason)
}

/// Collects everything that is wrong with a body.
#[derive(Debug, Default)]
pub(super) struct Check(Vec<FieldError>);

impl Check {
    pub(super) fn refuse(&mut self, field: &str, detail: impl Into<String>) {
        self.0.push(FieldError { field: field.to_owned(), detail: detail.into() });
    }

    /// Names stand in URLs, file names and metric labels.
    pub(super) fn name(&mut self, field: &str, name: &str) {
        let is_plain = |one: char| one.is_alphanumeric() || "_-./".contains(one);
        let fits = (1..=NAME_CHARS_MAX).contains(&name.chars().count())
            && name.chars().all(is_plain)
            && name.split('/').all(|part| {
                !part.is_empty() && part.len() <= PART_BYTES_MAX && !part.starts_with('.')
            });
        if !fits {
            self.refuse(
                field,
                format!(
                    "must have 1 to {NAME_CHARS_MAX} letters, digits, _ - . or /, and no part \
                     between slashes that is empty, begins with a dot or is longer than \
                     {PART_BYTES_MAX} bytes"
                ),
            );
        }
    }

    pub(super) fn text(&mut self, field: &str, text: Option<&str>) {
        if text.is_some_and(|text| text.chars().count() > TEXT_CHARS_MAX) {
            self.refuse(field, format!("must have at most {TEXT_CHARS_MAX} characters"));
        }
    }

    pub(super) fn tags(&mut self, tags: &[String]) {
        let fits = |tag: &String| (1..=TAG_CHARS_MAX).contains(&tag.chars().count());
        if tags.len() > TAGS_MAX || !tags.iter().all(fits) {
            let detail = format!("at most {TAGS_MAX} tags of 1 to {TAG_CHARS_MAX} characters");
            self.refuse("tags", detail);
        }
    }

    /// A null says the same as nothing, but neither files nor both stores can keep it.
    pub(super) fn without_nulls(&mut self, field: &str, value: &serde_json::Value) {
        if holds_null(value) {
            self.refuse(field, "must hold no null; leave the member out instead");
        }
    }

    pub(super) fn reason(&mut self, reason: Option<&str>) {
        if reason.is_some_and(|reason| reason.chars().count() > REASON_CHARS_MAX) {
            self.refuse("reason", format!("must have at most {REASON_CHARS_MAX} characters"));
        }
    }

    /// Refuses if anything is wrong, with the whole list.
    pub(super) fn done(self) -> Result<(), Problem> {
        self.refusal(Problem::unprocessable)
    }

    /// The same where the body is right, but things do not stand so that it could be done.
    pub(super) fn done_as_things_stand(self) -> Result<(), Problem> {
        self.refusal(Problem::conflict)
    }

    fn refusal(self, problem: impl FnOnce(String) -> Problem) -> Result<(), Problem> {
        if self.0.is_empty() {
            return Ok(());
        }
        let all: Vec<String> =
            self.0.iter().map(|error| format!("{}: {}", error.field, error.detail)).collect();
        Err(problem(all.join("; ")).with(self.0))
    }
}

fn holds_null(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null => true,
        serde_json::Value::Array(items) => items.iter().any(holds_null),
        serde_json::Value::Object(members) => members.values().any(holds_null),
        serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => false,
    }
}
