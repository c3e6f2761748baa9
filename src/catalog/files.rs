//! Definitions as files: one readable file per template version, one per guardrail.
//!
//! A template file is TOML between two `+++` lines, then the template's text. The seeds are such
//! files, compiled in, so that a fresh database, the file fallback and a binary without any files
//! all start with the same.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::definitions::{Definitions, GuardrailDefinition, TemplateDefinition};

const FENCE: &str = "+++";

/// The seeds: file name and content.
const SEEDS: [(&str, &str); 6] = [
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
    /// Adds what one file defines; files of other kinds are skipped.
    pub fn add_file(&mut self, name: &str, content: &str) -> Result<(), FileError> {
        let refuse = |why: String| FileError { file: name.to_owned(), why };
        let ends_in = |extension: &str| {
            std::path::Path::new(name).extension().is_some_and(|found| found == extension)
        };
        if ends_in("prompt") {
            self.templates.push(Arc::new(template(content).map_err(refuse)?));
        } else if ends_in("toml") {
            self.guardrails.push(Arc::new(guardrail(content).map_err(refuse)?));
        }
        Ok(())
    }
}

fn template(content: &str) -> Result<TemplateDefinition, String> {
    let (front, body) = content
        .strip_prefix(FENCE)
        .and_then(|rest| rest.split_once(&format!("\n{FENCE}")))
        .ok_or_else(|| format!("a template file begins with TOML between two {FENCE} lines"))?;
    // The line feed that ends the fence belongs to the fence, the one that ends the file to the file.
    let body = body.strip_prefix('\n').unwrap_or(body);
    let body = body.strip_suffix('\n').unwrap_or(body);
    let mut table: Table = toml::from_str(front).map_err(|error| error.to_string())?;
    if !body.is_empty() {
        table.insert("template_text".to_owned(), Value::String(body.to_owned()));
    }
    from_table(table)
}

fn guardrail(content: &str) -> Result<GuardrailDefinition, String> {
    from_table(toml::from_str(content).map_err(|error| error.to_string())?)
}

fn from_table<T: DeserializeOwned>(table: Table) -> Result<T, String> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Whole<T>(T);
    let whole: Whole<T> = table.try_into().map_err(|error: toml::de::Error| error.to_string())?;
    Ok(whole.0)
}
