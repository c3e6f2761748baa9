//! The form that a version wants of its answers, in the words of the dialects that do not say it in `generationConfig`.

use serde_json::{Map, Value, json};

/// Raw JSON of the member `response_format`, by dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseFormat {
    /// Of a chat completion. `None`: it has no words for it.
    pub openai: Option<String>,
    /// Of an interaction.
    pub interaction: String,
    /// JSON of any form: a caller that wants JSON of its own form gets that.
    pub yields: bool,
}

impl ResponseFormat {
    /// What the settings ask for, their names in camelCase. `None`: nothing.
    pub(super) fn read(settings: &Map<String, Value>) -> Option<Self> {
        let mime_type = settings.get("responseMimeType")?.as_str()?;
        let schema = match settings.get("responseJsonSchema") {
            Some(schema) => Some(schema.clone()),
            None => settings.get("responseSchema").map(json_schema),
        };
        let openai = match (mime_type, &schema) {
            ("application/json", Some(schema)) => Some(json!({
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema},
            })),
            ("application/json", None) => Some(json!({"type": "json_object"})),
            ("text/plain", _) => Some(json!({"type": "text"})),
            _ => None,
        };
        let mut interaction = json!({"type": "text", "mime_type": mime_type});
        if let (Some(members), Some(schema)) = (interaction.as_object_mut(), &schema) {
            members.insert("schema".to_owned(), schema.clone());
        }
        Some(Self {
            openai: openai.map(|format| format.to_string()),
            interaction: interaction.to_string(),
            yields: mime_type == "application/json" && schema.is_none(),
        })
    }
}

/// A `responseSchema` as JSON Schema: Gemini writes types in upper case, and `nullable` beside them
/// (<https://ai.google.dev/api/caching#Schema>).
fn json_schema(schema: &Value) -> Value {
    match schema {
        Value::Object(members) => {
            let is_typed = members.contains_key("type");
            let is_nullable = members.get("nullable") == Some(&Value::Bool(true));
            let each = members.iter().filter(|(name, _)| *name != "nullable" || !is_typed);
            let each = each.map(|(name, value)| {
                let value = match (name.as_str(), value) {
                    ("type", Value::String(kind)) if is_nullable => {
                        json!([kind.to_ascii_lowercase(), "null"])
                    }
                    ("type", Value::String(kind)) => json!(kind.to_ascii_lowercase()),
                    // Values, no schemas.
                    ("enum" | "default" | "example", value) => value.clone(),
                    ("properties", Value::Object(named)) => {
                        let each = named.iter().map(|(name, one)| (name.clone(), json_schema(one)));
                        Value::Object(each.collect())
                    }
                    (_, value) => json_schema(value),
                };
                (name.clone(), value)
            });
            Value::Object(each.collect())
        }
        Value::Array(items) => items.iter().map(json_schema).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{ResponseFormat, json_schema};

    fn read(settings: &serde_json::Value) -> Option<ResponseFormat> {
        ResponseFormat::read(settings.as_object().unwrap())
    }

    #[test]
    fn each_dialect_says_it_in_its_words() {
        let schema = json!({"type": "OBJECT", "properties": {"type": {"type": "STRING"}}});
        let format =
            read(&json!({"responseMimeType": "application/json", "responseSchema": schema}))
                .unwrap();
        assert_eq!(
            format.openai.unwrap(),
            r#"{"type":"json_schema","json_schema":{"name":"answer","schema":{"type":"object","properties":{"type":{"type":"string"}}}}}"#
        );
        assert_eq!(
            format.interaction,
            r#"{"type":"text","mime_type":"application/json","schema":{"type":"object","properties":{"type":{"type":"string"}}}}"#
        );
        let format = read(&json!({"responseMimeType": "text/x.enum"})).unwrap();
        assert_eq!(format.openai, None);
        assert_eq!(format.interaction, r#"{"type":"text","mime_type":"text/x.enum"}"#);
        assert_eq!(read(&json!({"responseSchema": {"type": "STRING"}})), None);
    }

    #[test]
    fn schemas_become_json_schemas_and_their_values_stay() {
        let schema = json!({
            "type": "ARRAY",
            "items": {"type": "STRING", "nullable": true, "enum": ["A", {"type": "STRING"}]},
            "anyOf": [{"type": "INTEGER"}],
            "properties": {"default": {"type": "STRING"}, "nullable": {"type": "BOOLEAN"}},
        });
        let expected = json!({
            "type": "array",
            "items": {"type": ["string", "null"], "enum": ["A", {"type": "STRING"}]},
            "anyOf": [{"type": "integer"}],
            "properties": {"default": {"type": "string"}, "nullable": {"type": "boolean"}},
        });
        assert_eq!(json_schema(&schema), expected);
    }
}
