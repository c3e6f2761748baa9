//! Definitions as files: one readable file per template version, guardrail and experiment.
//!
//! A template file is TOML between two `+++` lines, then the template's text. The seeds are such
//! files, compiled in, so that a fresh database, the file fallback and a binary without any files
//! all start with the same. What the store exports is such files too.

use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::definitions::{Definition, Definitions, TemplateDefinition};
use crate::words::ids::Tenant;
use crate::words::telling::without_values;

const FENCE: &str = "+++";

/// Where the files of each kind are.
pub const FOLDERS: [&str; 3] = ["templates", "guardrails", "experiments"];

/// The seeds: file name and content.
const SEEDS: [(&str, &str); 11] = [
    (
        "templates/nlu_topic_extraction.v1.prompt",
        include_str!("../../config/templates/nlu_topic_extraction.v1.prompt"),
    ),
    (
        "templates/clarification_question_generation.v1.prompt",
        include_str!("../../config/templates/clarification_question_generation.v1.prompt"),
    ),
    (
        "templates/educational_script_generation.v1.prompt",
        include_str!("../../config/templates/educational_script_generation.v1.prompt"),
    ),
    (
        "guardrails/pii_detection_basic.toml",
        include_str!("../../config/guardrails/pii_detection_basic.toml"),
    ),
    (
        "guardrails/toxic_content_filter.toml",
        include_str!("../../config/guardrails/toxic_content_filter.toml"),
    ),
    (
        "guardrails/prompt_injection_detection.toml",
        include_str!("../../config/guardrails/prompt_injection_detection.toml"),
    ),
    (
        "guardrails/jailbreak_detection.toml",
        include_str!("../../config/guardrails/jailbreak_detection.toml"),
    ),
    (
        "guardrails/hidden_text_detection.toml",
        include_str!("../../config/guardrails/hidden_text_detection.toml"),
    ),
    (
        "guardrails/pii_identifiers.toml",
        include_str!("../../config/guardrails/pii_identifiers.toml"),
    ),
    (
        "guardrails/secret_detection.toml",
        include_str!("../../config/guardrails/secret_detection.toml"),
    ),
    ("guardrails/toxic_language.toml", include_str!("../../config/guardrails/toxic_language.toml")),
];

/// A file that is not a definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {why}")]
pub struct FileError {
    /// Its name.
    pub file: String,
    /// What is wrong.
    pub why: String,
}

/// The templates and guardrails every installation starts with.
pub fn seeds() -> Result<Definitions, FileError> {
    let mut definitions = Definitions::default();
    for (name, content) in SEEDS {
        definitions.add_file(name, content)?;
    }
    Ok(definitions)
}

impl Definitions {
    /// Adds what one file defines, by the folder it is in; files of other kinds are skipped.
    pub fn add_file(&mut self, name: &str, content: &str) -> Result<(), FileError> {
        let refuse = |why: String| FileError { file: name.to_owned(), why };
        let path = std::path::Path::new(name);
        let ends_in = |extension: &str| path.extension().is_some_and(|found| found == extension);
        let is_in =
            |folder: &str| path.components().next().is_some_and(|one| one.as_os_str() == folder);
        if ends_in("prompt") {
            self.templates.push(Arc::new(template(content).map_err(refuse)?));
        } else if ends_in("toml") && is_in("experiments") {
            self.experiments.push(Arc::new(plain(content).map_err(refuse)?));
        } else if ends_in("toml") {
            self.guardrails.push(Arc::new(plain(content).map_err(refuse)?));
        }
        Ok(())
    }

    /// The files that define the same, by name. Each is read back before it is believed.
    pub fn to_files(&self) -> Result<Vec<(String, String)>, FileError> {
        let mut files = Vec::new();
        for one in &self.templates {
            let name = format!("{}.v{}.prompt", place("templates", one.as_ref()), one.version);
            let content = template_file(one);
            files.push(checked(name, content, one.as_ref(), template)?);
        }
        for one in &self.guardrails {
            let name = format!("{}.toml", place("guardrails", one.as_ref()));
            files.push(checked(name, table(one).map(|one| one.to_string()), one.as_ref(), plain)?);
        }
        for one in &self.experiments {
            let name = format!("{}.toml", place("experiments", one.as_ref()));
            files.push(checked(name, table(one).map(|one| one.to_string()), one.as_ref(), plain)?);
        }
        Ok(files)
    }
}

/// Where a definition is, without its extension. No name has an `@`, so tenants stay apart.
fn place(folder: &str, definition: &impl Definition) -> String {
    let (tenant, name, _) = definition.place();
    if *tenant == Tenant::default() {
        return format!("{folder}/{name}");
    }
    format!("{folder}/@{}/{name}", utf8_percent_encode(&tenant.0, NON_ALPHANUMERIC))
}

fn checked<T: PartialEq>(
    file: String,
    content: Result<String, String>,
    definition: &T,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<(String, String), FileError> {
    let written = content.and_then(|content| {
        let is_whole = read(&content)? == *definition;
        is_whole
            .then_some(content)
            .ok_or_else(|| "it holds something that a file cannot say".to_owned())
    });
    match written {
        Ok(content) => Ok((file, content)),
        Err(why) => Err(FileError { file, why }),
    }
}

fn template_file(definition: &TemplateDefinition) -> Result<String, String> {
    let mut front = table(definition)?;
    let Some(Value::String(text)) = front.remove("template_text") else {
        return Err("it has no text".to_owned());
    };
    Ok(format!("{FENCE}\n{front}{FENCE}\n{text}\n"))
}

/// A definition as TOML, which has no null: what is null is left out.
fn table(definition: &impl Serialize) -> Result<Table, String> {
    let mut json = serde_json::to_value(definition).map_err(|error| error.to_string())?;
    without_nulls(&mut json);
    Table::try_from(json).map_err(|error| error.to_string())
}

fn without_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(without_nulls);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(without_nulls),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

fn template(content: &str) -> Result<TemplateDefinition, String> {
    let shape = || format!("a template file begins with TOML between two {FENCE} lines");
    let rest = content.strip_prefix(FENCE).ok_or_else(shape)?;
    let end = format!("\n{FENCE}");
    let mut refused = shape();
    // A text within the TOML may hold such a line too: the fence is the first behind which the TOML is
    // complete.
    for (at, _) in rest.match_indices(&end) {
        let (front, body) = rest.split_at(at);
        match toml::from_str::<Table>(front) {
            Ok(table) => return with_text(table, body.strip_prefix(&end).unwrap_or(body)),
            Err(error) => refused = told(front, &error),
        }
    }
    Err(refused)
}

fn with_text(mut table: Table, body: &str) -> Result<TemplateDefinition, String> {
    // The line feed that ends the fence belongs to the fence, the one that ends the file to the file.
    let body = body.strip_prefix('\n').unwrap_or(body);
    let body = body.strip_suffix('\n').unwrap_or(body);
    if !body.is_empty() {
        table.insert("template_text".to_owned(), Value::String(body.to_owned()));
    }
    from_table(table)
}

/// What is wrong with a file and where; its own text is left out.
fn told(text: &str, error: &toml::de::Error) -> String {
    let what = without_values(error.message());
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {what}", before.matches('\n').count() + 1),
        None => what,
    }
}

fn plain<T: DeserializeOwned>(content: &str) -> Result<T, String> {
    from_table(toml::from_str(content).map_err(|error| told(content, &error))?)
}

fn from_table<T: DeserializeOwned>(table: Table) -> Result<T, String> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Whole<T>(T);
    let whole: Whole<T> =
        table.try_into().map_err(|error: toml::de::Error| without_values(error.message()))?;
    Ok(whole.0)
}
