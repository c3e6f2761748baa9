//! A version's model and generation settings, prepared for splicing into bodies.

use serde_json::{Map, Value, json};

use crate::words::digest;

/// Native names with their names in the OpenAI-compatible dialect.
const OPENAI_NAMES: [(&str, &str); 8] = [
    ("temperature", "temperature"),
    ("topP", "top_p"),
    ("maxOutputTokens", "max_tokens"),
    ("stopSequences", "stop"),
    ("seed", "seed"),
    ("presencePenalty", "presence_penalty"),
    ("frequencyPenalty", "frequency_penalty"),
    ("candidateCount", "n"),
];

/// Settings of one version.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelConfig {
    /// The model to call instead of the one the caller named.
    pub model: Option<String>,
    /// Members of `generationConfig`, camelCase, values as raw JSON.
    pub native: Vec<(String, String)>,
    /// Members of a chat completion request, values as raw JSON.
    pub openai: Vec<(String, String)>,
    /// The settings as they were defined, for the record.
    pub defined: Value,
}

impl ModelConfig {
    /// Reads `model_config`: `model`, and `generationConfig` names in either spelling.
    pub fn read(config: &Map<String, Value>) -> Result<Self, String> {
        let mut read = Self { defined: Value::Object(config.clone()), ..Self::default() };
        for (key, value) in config {
            if key == "model" {
                let model = value.as_str().filter(|model| is_model(model));
                read.model = Some(model.ok_or("model must be a model name")?.to_owned());
                continue;
            }
            let name = crate::gemini::json::camel(key.into()).into_owned();
            if read.native.iter().any(|(known, _)| *known == name) {
                return Err(format!("{name} is given twice"));
            }
            if let Some((_, openai)) = OPENAI_NAMES.iter().find(|(native, _)| *native == name) {
                read.openai.push(((*openai).to_owned(), value.to_string()));
            }
            if name == "responseMimeType" && value == "application/json" {
                let format = json!({"type": "json_object"}).to_string();
                read.openai.push(("response_format".to_owned(), format));
            }
            read.native.push((name, value.to_string()));
        }
        Ok(read)
    }

    /// Bytes that go into the content hash.
    pub(super) fn fingerprint(&self) -> String {
        digest::sha256_hex(self.defined.to_string().as_bytes())
    }
}

/// Model names go into paths: only characters that need no encoding there.
fn is_model(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && name.chars().all(|one| one.is_ascii_alphanumeric() || "-_.@".contains(one))
}
