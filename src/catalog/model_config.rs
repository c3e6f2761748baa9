//! A version's model and generation settings, prepared for splicing into bodies.

use serde_json::{Map, Value, json};

use super::response_format::ResponseFormat;
use crate::gemini::json::camel;
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

/// Native names with their names in the `generation_config` of an interaction, which takes no others.
const INTERACTION_NAMES: [(&str, &str); 11] = [
    ("temperature", "temperature"),
    ("topP", "top_p"),
    ("maxOutputTokens", "max_output_tokens"),
    ("stopSequences", "stop_sequences"),
    ("seed", "seed"),
    ("speechConfig", "speech_config"),
    ("imageConfig", "image_config"),
    ("videoConfig", "video_config"),
    ("thinkingLevel", "thinking_level"),
    ("thinkingSummaries", "thinking_summaries"),
    ("toolChoice", "tool_choice"),
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
    /// Members of an interaction's `generation_config`, values as raw JSON.
    pub interaction: Vec<(String, String)>,
    /// What the dialects above say apart from their settings.
    pub response_format: Option<ResponseFormat>,
    /// The settings as they were defined, for the record.
    pub defined: Value,
}

impl ModelConfig {
    /// Reads `model_config`: `model`, and `generationConfig` names in either spelling.
    pub fn read(config: &Map<String, Value>) -> Result<Self, String> {
        let mut read = Self { defined: Value::Object(config.clone()), ..Self::default() };
        let mut settings = Map::new();
        for (key, value) in config {
            if key == "model" {
                let model = value.as_str().filter(|model| is_model(model));
                read.model = Some(model.ok_or("model must be a model name")?.to_owned());
                continue;
            }
            let name = camel(key.into()).into_owned();
            if settings.insert(name.clone(), value.clone()).is_some() {
                return Err(format!("{name} is given twice"));
            }
        }
        read.native =
            settings.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
        read.openai = renamed(&settings, &OPENAI_NAMES);
        read.interaction = renamed(&settings, &INTERACTION_NAMES);
        if let Some(Value::Object(thinking)) = settings.get("thinkingConfig") {
            read.add_thinking(thinking);
        }
        read.response_format = ResponseFormat::read(&settings);
        Ok(read)
    }

    /// Adds how much to think, for the dialects that say it with a word.
    fn add_thinking(&mut self, config: &Map<String, Value>) {
        for (key, value) in config {
            match (camel(key.into()).as_ref(), value) {
                ("thinkingLevel", Value::String(level)) => {
                    let level = json!(level.to_ascii_lowercase()).to_string();
                    self.openai.push(("reasoning_effort".to_owned(), level.clone()));
                    self.interaction.push(("thinking_level".to_owned(), level));
                }
                ("includeThoughts", Value::Bool(shown)) => {
                    let summaries = json!(if *shown { "auto" } else { "none" }).to_string();
                    self.interaction.push(("thinking_summaries".to_owned(), summaries));
                }
                _ => {}
            }
        }
    }

    /// Bytes that go into the content hash.
    pub(super) fn fingerprint(&self) -> String {
        digest::sha256_hex(digest::canonical(&self.defined).to_string().as_bytes())
    }
}

/// The settings that a dialect knows, under its names, as raw JSON.
fn renamed(settings: &Map<String, Value>, names: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |native: &str| names.iter().find(|(name, _)| *name == native).map(|(_, own)| *own);
    let known = settings.iter().filter_map(|(native, value)| Some((own(native)?, value)));
    known.map(|(name, value)| (name.to_owned(), value.to_string())).collect()
}

/// What a setting may be.
enum Kind {
    /// A number between two.
    Number(f64, f64),
    /// A whole number between two.
    Whole(i64, i64),
    Flag,
    Text,
    /// One of these words, in upper or lower case.
    Word(&'static [&'static str]),
    /// At most so many texts.
    Texts(usize),
    /// Some of these words.
    Words(&'static [&'static str]),
    Object,
}

const INT32_MAX: i64 = i32::MAX as i64;

/// `generationConfig` as Gemini documents it. Settings that are not here pass: the API grows faster than
/// this list.
const KNOWN: [(&str, Kind); 21] = [
    ("temperature", Kind::Number(0.0, 2.0)),
    ("topP", Kind::Number(0.0, 1.0)),
    ("topK", Kind::Whole(1, INT32_MAX)),
    ("candidateCount", Kind::Whole(1, 8)),
    ("maxOutputTokens", Kind::Whole(1, INT32_MAX)),
    ("stopSequences", Kind::Texts(5)),
    ("seed", Kind::Whole(-INT32_MAX - 1, INT32_MAX)),
    ("presencePenalty", Kind::Number(-2.0, 2.0)),
    ("frequencyPenalty", Kind::Number(-2.0, 2.0)),
    ("responseMimeType", Kind::Word(&["text/plain", "application/json", "text/x.enum"])),
    ("responseSchema", Kind::Object),
    ("responseJsonSchema", Kind::Object),
    ("responseModalities", Kind::Words(&["TEXT", "IMAGE", "AUDIO"])),
    ("responseLogprobs", Kind::Flag),
    ("logprobs", Kind::Whole(0, 20)),
    ("enableEnhancedCivicAnswers", Kind::Flag),
    ("audioTimestamp", Kind::Flag),
    ("mediaResolution", Kind::Text),
    ("speechConfig", Kind::Object),
    ("imageConfig", Kind::Object),
    ("thinkingConfig", Kind::Object),
];

const THINKING: [(&str, Kind); 3] = [
    ("includeThoughts", Kind::Flag),
    ("thinkingBudget", Kind::Whole(-1, INT32_MAX)),
    ("thinkingLevel", Kind::Word(&["MINIMAL", "LOW", "MEDIUM", "HIGH"])),
];

/// What of a `model_config` the API would refuse: every field, with what it may be.
pub fn check(config: &Map<String, Value>) -> Result<(), String> {
    let mut problems = Vec::new();
    for (key, value) in config {
        problems.extend(problem("model_config", &KNOWN, key, value));
        if let ("thinkingConfig", Value::Object(members)) = (camel(key.into()).as_ref(), value) {
            let place = format!("model_config.{key}");
            problems.extend(
                members.iter().filter_map(|(key, value)| problem(&place, &THINKING, key, value)),
            );
        }
    }
    // In one order, whatever order a store keeps members in.
    problems.sort();
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

fn problem(place: &str, known: &[(&str, Kind)], key: &str, value: &Value) -> Option<String> {
    let name = camel(key.into());
    let (_, kind) = known.iter().find(|(known, _)| *known == name)?;
    (!kind.fits(value)).then(|| format!("{place}.{key} must be {}", kind.allowed()))
}

impl Kind {
    fn fits(&self, value: &Value) -> bool {
        let is_word = |words: &[&str], value: &Value| {
            value
                .as_str()
                .is_some_and(|text| words.iter().any(|one| one.eq_ignore_ascii_case(text)))
        };
        match self {
            Self::Number(low, high) => {
                value.as_f64().is_some_and(|number| (*low..=*high).contains(&number))
            }
            Self::Whole(low, high) => {
                let whole = digest::canonical(value).as_i64();
                whole.is_some_and(|number| (*low..=*high).contains(&number))
            }
            Self::Flag => value.is_boolean(),
            Self::Text => value.is_string(),
            Self::Word(words) => is_word(words, value),
            Self::Texts(most) => value.as_array().is_some_and(|items| {
                items.len() <= *most
                    && items.iter().all(|one| one.as_str().is_some_and(|text| !text.is_empty()))
            }),
            Self::Words(words) => {
                value.as_array().is_some_and(|items| items.iter().all(|one| is_word(words, one)))
            }
            Self::Object => value.is_object(),
        }
    }

    fn allowed(&self) -> String {
        match self {
            Self::Number(low, high) => format!("a number from {low} to {high}"),
            Self::Whole(low, high) => format!("a whole number from {low} to {high}"),
            Self::Flag => "true or false".to_owned(),
            Self::Text => "a text".to_owned(),
            Self::Word(words) => format!("one of {}", words.join(", ")),
            Self::Texts(most) => format!("a list of at most {most} texts, none empty"),
            Self::Words(words) => format!("a list of {}", words.join(", ")),
            Self::Object => "an object".to_owned(),
        }
    }
}

/// Model names go into paths: only characters that need no encoding there.
fn is_model(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && name.chars().all(|one| one.is_ascii_alphanumeric() || "-_.@".contains(one))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::check;

    fn checked(config: &Value) -> Result<(), String> {
        check(config.as_object().unwrap())
    }

    #[test]
    fn settings_that_the_api_takes_pass() {
        for config in [
            json!({"model": "gemini-2.5-flash", "temperature": 0, "topP": 1.0, "top_k": 40}),
            json!({"max_output_tokens": 8192.0, "stopSequences": ["a", "b"], "seed": -1}),
            json!({"responseMimeType": "application/json", "responseSchema": {"type": "STRING"}}),
            json!({"thinkingConfig": {"thinkingBudget": -1, "thinking_level": "low", "new": 1}}),
            json!({"responseModalities": ["TEXT"], "somethingNew": "hot"}),
        ] {
            assert_eq!(checked(&config), Ok(()), "{config}");
        }
    }

    #[test]
    fn settings_that_it_refuses_are_named_with_what_they_may_be() {
        for (config, expected) in [
            (
                json!({"temperature": "hot"}),
                "model_config.temperature must be a number from 0 to 2",
            ),
            (json!({"temperature": 2.5}), "model_config.temperature must be a number from 0 to 2"),
            (json!({"top_p": -0.1}), "model_config.top_p must be a number from 0 to 1"),
            (json!({"topK": 1.5}), "model_config.topK must be a whole number from 1 to 2147483647"),
            (
                json!({"stopSequences": ["1", "2", "3", "4", "5", "6"]}),
                "model_config.stopSequences must be a list of at most 5 texts, none empty",
            ),
            (json!({"responseLogprobs": 1}), "model_config.responseLogprobs must be true or false"),
            (
                json!({"thinkingConfig": {"thinkingLevel": "huge"}, "candidateCount": 0}),
                "model_config.candidateCount must be a whole number from 1 to 8; \
                 model_config.thinkingConfig.thinkingLevel must be one of MINIMAL, LOW, MEDIUM, HIGH",
            ),
        ] {
            assert_eq!(checked(&config), Err(expected.to_owned()), "{config}");
        }
    }
}
