//! Putting a rendered version into a body: it replaces or adds exactly what the version says, and
//! every other member keeps its bytes.

use serde_json::json;

use crate::catalog::Version;
use crate::gemini::Dialect;
use crate::gemini::members::{Members, elements};
use crate::gemini::route::{Call, Route};
use crate::template::{Rendered, Role};

/// What says in `generationConfig` which form an answer has.
const SCHEMAS: [&str; 4] =
    ["responseSchema", "responseJsonSchema", "_responseJsonSchema", "responseFormat"];

/// The body to send; `None` when a member has a shape that nothing can be added to.
pub(super) fn compose(
    (dialect, route): (Dialect, &Route),
    body: &str,
    version: &Version,
    messages: &[Rendered],
) -> Option<String> {
    let members = Members::parse(body)?;
    match (dialect, route.call) {
        (Dialect::OpenAi, _) => openai(members, version, messages),
        (Dialect::Interactions, _) => interaction(members, version, messages),
        // Vertex takes all of it at the root.
        (Dialect::Native, Call::CountTokens) if !route.path.contains("/publishers/") => {
            count_tokens(members, route, version, messages)
        }
        (Dialect::Native, _) => native(members, version, messages).map(|members| members.to_json()),
    }
}

fn native<'a>(
    mut members: Members<'a>,
    version: &Version,
    messages: &[Rendered],
) -> Option<Members<'a>> {
    let system = system_text(messages);
    if let Some(system) = &system {
        members.set("systemInstruction", json!({"parts": [{"text": system}]}).to_string());
    }
    let turns: Vec<String> = messages
        .iter()
        .filter_map(|message| {
            let role = match message.role {
                Role::System => return None,
                Role::User => "user",
                Role::Model => "model",
            };
            Some(json!({"role": role, "parts": [{"text": message.text}]}).to_string())
        })
        .collect();
    if !turns.is_empty() {
        let contents = with_existing(turns, members.get("contents"))?;
        members.set("contents", contents);
    }
    let settings = &version.model_config.native;
    // A schema takes the place of a caller's, however the one and the other are said.
    let has_schema = settings.iter().any(|(name, _)| SCHEMAS.contains(&name.as_str()));
    let replaced = if has_schema { SCHEMAS.as_slice() } else { &[] };
    add_settings(&mut members, "generationConfig", settings, replaced)?;
    if let (Some(model), Some(_)) = (&version.model_config.model, members.get("model")) {
        members.set("model", json!(format!("models/{model}")).to_string());
    }
    Some(members)
}

/// `countTokens` takes a system instruction only inside a whole `generateContentRequest`.
fn count_tokens(
    mut members: Members<'_>,
    route: &Route,
    version: &Version,
    messages: &[Rendered],
) -> Option<String> {
    let model =
        version.model_config.model.clone().or_else(|| route.model.clone()).unwrap_or_default();
    let inner = match members.remove("generateContentRequest") {
        Some(inner) => inner.into_owned(),
        None => {
            let contents = members.remove("contents");
            let mut inner = Members::default();
            if let Some(contents) = contents {
                inner.set("contents", contents.into_owned());
            }
            inner.to_json()
        }
    };
    let mut request = native(Members::parse(&inner)?, version, messages)?;
    request.set("model", json!(format!("models/{model}")).to_string());
    let request = request.to_json();
    members.set("generateContentRequest", request);
    Some(members.to_json())
}

fn openai(mut members: Members<'_>, version: &Version, messages: &[Rendered]) -> Option<String> {
    let system = system_text(messages);
    let mut turns: Vec<String> = Vec::new();
    if let Some(system) = &system {
        turns.push(json!({"role": "system", "content": system}).to_string());
    }
    turns.extend(messages.iter().filter_map(|message| {
        let role = match message.role {
            Role::System => return None,
            Role::User => "user",
            Role::Model => "assistant",
        };
        Some(json!({"role": role, "content": message.text}).to_string())
    }));
    let existing = members.get("messages").filter(|raw| *raw != "null").unwrap_or("[]");
    for message in elements(existing)? {
        // The version's system text replaces the application's.
        if system.is_none() || !is_system(message) {
            turns.push(message.to_owned());
        }
    }
    members.set("messages", format!("[{}]", turns.join(",")));
    for (name, raw) in &version.model_config.openai {
        // Its older and its newer name: two limits would be refused.
        if name == "max_tokens" {
            members.remove("max_completion_tokens");
        }
        members.set(name, raw.clone());
    }
    if let Some(format) = &version.model_config.response_format
        && let Some(own) = &format.openai
        && !(format.yields && wants_json(&members))
    {
        members.set("response_format", own.clone());
    }
    if let Some(model) = &version.model_config.model {
        members.set("model", json!(model).to_string());
    }
    Some(members.to_json())
}

/// The version's turns become steps before the application's input.
fn interaction(
    mut members: Members<'_>,
    version: &Version,
    messages: &[Rendered],
) -> Option<String> {
    if let Some(system) = system_text(messages) {
        members.set("system_instruction", json!(system).to_string());
    }
    let step = |kind: &str, content: &str| format!(r#"{{"type":"{kind}","content":{content}}}"#);
    let texts = |text: &str| json!([{"type": "text", "text": text}]).to_string();
    let mut steps: Vec<String> = messages
        .iter()
        .filter_map(|message| match message.role {
            Role::System => None,
            Role::User => Some(step("user_input", &texts(&message.text))),
            Role::Model => Some(step("model_output", &texts(&message.text))),
        })
        .collect();
    if !steps.is_empty() {
        match members.get("input").unwrap_or("null") {
            "null" => {}
            raw if raw.starts_with('"') => {
                steps.push(step("user_input", &texts(&members.text("input")?)));
            }
            raw if raw.starts_with('[') => {
                let given = elements(raw)?;
                let is_step =
                    |one: &str| one.contains("\"content\"") || one.contains("\"call_id\"");
                if given.iter().all(|one| is_step(one)) {
                    steps.extend(given.into_iter().map(str::to_owned));
                } else {
                    steps.push(step("user_input", raw));
                }
            }
            raw => steps.push(step("user_input", &format!("[{raw}]"))),
        }
        members.set("input", format!("[{}]", steps.join(",")));
    }
    add_settings(&mut members, "generation_config", &version.model_config.interaction, &[])?;
    if let Some(format) = &version.model_config.response_format
        && !(format.yields && wants_json(&members))
    {
        members.remove("response_mime_type");
        members.set("response_format", format.interaction.clone());
    }
    if let Some(model) = &version.model_config.model {
        members.set("model", json!(model).to_string());
    }
    Some(members.to_json())
}

/// Puts settings into an object of them, in the place of the caller's and of the `replaced` ones.
fn add_settings(
    members: &mut Members<'_>,
    name: &str,
    settings: &[(String, String)],
    replaced: &[&str],
) -> Option<()> {
    if settings.is_empty() {
        return Some(());
    }
    let current = members.get(name).filter(|raw| *raw != "null").unwrap_or("{}").to_owned();
    let mut config = Members::parse(&current)?;
    for other in replaced {
        config.remove(other);
    }
    for (name, raw) in settings {
        config.set(name, raw.clone());
    }
    members.set(name, config.to_json());
    Some(())
}

/// The caller has a form of JSON of its own, perhaps with a schema.
fn wants_json(members: &Members<'_>) -> bool {
    const JSON: &str = "application/json";
    let format = members.get("response_format").unwrap_or_default();
    // An interaction may have several.
    let formats = elements(format).unwrap_or_else(|| vec![format]);
    let is_json = |format: &str| {
        let format = Members::parse(format);
        let text = |name| format.as_ref().and_then(|format| format.text(name)).unwrap_or_default();
        text("type") == "json_schema" || text("mime_type") == JSON
    };
    formats.into_iter().any(is_json)
        || members.text("response_mime_type").is_some_and(|own| own == JSON)
}

fn is_system(message: &str) -> bool {
    Members::parse(message)
        .and_then(|members| members.text("role"))
        .is_some_and(|role| role == "system" || role == "developer")
}

fn system_text(messages: &[Rendered]) -> Option<String> {
    let system: Vec<&str> = messages
        .iter()
        .filter(|message| message.role == Role::System)
        .map(|message| message.text.as_str())
        .collect();
    (!system.is_empty()).then(|| system.join("\n\n"))
}

/// The version's turns, then what the application sent.
fn with_existing(mut turns: Vec<String>, existing: Option<&str>) -> Option<String> {
    match existing.filter(|raw| *raw != "null") {
        None => {}
        Some(raw) if raw.starts_with('[') => {
            turns.extend(elements(raw)?.into_iter().map(str::to_owned));
        }
        // A single object where a list belongs is the upstream's to refuse.
        Some(raw) => turns.push(raw.to_owned()),
    }
    Some(format!("[{}]", turns.join(",")))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Map, json};

    use super::compose;
    use crate::catalog::definitions::Definitions;
    use crate::catalog::{Catalog, Source};
    use crate::gemini::Dialect;
    use crate::gemini::route::Route;
    use crate::words::ids::Tenant;

    fn composed(dialect: Dialect, path: &str, body: &str) -> String {
        let config = json!({"model": "gemini-x", "temperature": 0.2, "max_output_tokens": 5});
        composed_with(&config, dialect, path, body)
    }

    fn composed_with(
        config: &serde_json::Value,
        dialect: Dialect,
        path: &str,
        body: &str,
    ) -> String {
        let definitions = json!({"templates": [{
            "id": uuid::Uuid::nil(), "name": "t", "version": 1, "is_active": true,
            "messages": [
                {"role": "system", "text": "S"}, {"role": "user", "text": "Q"}, {"role": "model", "text": "A"},
            ],
            "model_config": config,
        }]});
        let definitions = Definitions::from_json(&definitions.to_string()).unwrap();
        let catalog =
            Catalog::compile(definitions, Source::File, 1, jiff::Timestamp::UNIX_EPOCH).unwrap();
        let tenant = catalog.tenant(&Tenant::default()).unwrap();
        let version = tenant.template("t").unwrap().active.clone().unwrap().version;
        let messages = version.template.render(&Map::new()).unwrap();
        let route = Route::read(&Method::POST, path, None);
        compose((dialect, &route), body, &version, &messages).unwrap()
    }

    #[test]
    fn native_bodies() {
        let path = "/v1beta/models/m:generateContent";
        let turns =
            r#"{"parts":[{"text":"Q"}],"role":"user"},{"parts":[{"text":"A"}],"role":"model"}"#
                .replace(
                    r#"{"parts":[{"text":"Q"}],"role":"user"}"#,
                    r#"{"role":"user","parts":[{"text":"Q"}]}"#,
                )
                .replace(
                    r#"{"parts":[{"text":"A"}],"role":"model"}"#,
                    r#"{"role":"model","parts":[{"text":"A"}]}"#,
                );
        assert_eq!(
            composed(
                Dialect::Native,
                path,
                r#"{"contents":[{"parts":[{"text": "app" }]}],"system_instruction":{"parts":[]},"generation_config":{"top_k": 1.0,"maxOutputTokens":9},"x":1.50}"#
            ),
            format!(
                r#"{{"contents":[{turns},{{"parts":[{{"text": "app" }}]}}],"system_instruction":{{"parts":[{{"text":"S"}}]}},"generation_config":{{"top_k":1.0,"maxOutputTokens":5,"temperature":0.2}},"x":1.50}}"#
            )
        );
        assert_eq!(
            composed(Dialect::Native, path, "{}"),
            format!(
                r#"{{"systemInstruction":{{"parts":[{{"text":"S"}}]}},"contents":[{turns}],"generationConfig":{{"temperature":0.2,"maxOutputTokens":5}}}}"#
            )
        );
    }

    #[test]
    fn count_tokens_counts_what_would_be_sent() {
        let counted =
            composed(Dialect::Native, "/v1beta/models/m:countTokens", r#"{"contents":[]}"#);
        let counted: serde_json::Value = serde_json::from_str(&counted).unwrap();
        let request = &counted["generateContentRequest"];
        assert_eq!(request["model"], "models/gemini-x");
        assert_eq!(request["contents"].as_array().unwrap().len(), 2);
        assert_eq!(request["systemInstruction"]["parts"][0]["text"], "S");
    }

    #[test]
    fn chat_completions() {
        let body = r#"{"model":"m","messages":[{"role":"developer","content":"old"},{"role":"user","content":"app"}],"temperature":1}"#;
        assert_eq!(
            composed(Dialect::OpenAi, "/v1beta/openai/chat/completions", body),
            r#"{"model":"gemini-x","messages":[{"role":"system","content":"S"},{"role":"user","content":"Q"},{"role":"assistant","content":"A"},{"role":"user","content":"app"}],"temperature":0.2,"max_tokens":5}"#
        );
    }

    #[test]
    fn what_only_the_native_form_knows_is_not_sent_in_others() {
        let config = json!({
            "topK": 3, "topP": 0.5, "responseMimeType": "application/json",
            "thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": true, "thinkingBudget": 9},
        });
        let asked = r#"{"model":"m","max_completion_tokens":9,"messages":[]}"#;
        let chat =
            composed_with(&config, Dialect::OpenAi, "/v1beta/openai/chat/completions", asked);
        assert!(
            chat.ends_with(
                r#"],"top_p":0.5,"reasoning_effort":"low","response_format":{"type":"json_object"}}"#
            ),
            "{chat}"
        );
        assert!(chat.contains(r#""max_completion_tokens":9"#), "{chat}");
        let asked = r#"{"model":"m","response_mime_type":"text/plain","input":[]}"#;
        let interaction =
            composed_with(&config, Dialect::Interactions, "/v1beta/interactions", asked);
        assert!(
            interaction.ends_with(
                r#""generation_config":{"top_p":0.5,"thinking_level":"low","thinking_summaries":"auto"},"response_format":{"type":"text","mime_type":"application/json"}}"#
            ),
            "{interaction}"
        );
        assert!(!interaction.contains("text/plain"), "{interaction}");
    }

    #[test]
    fn the_newer_name_of_the_token_limit_makes_room() {
        let asked = r#"{"model":"m","max_completion_tokens":9,"messages":[]}"#;
        let chat = composed(Dialect::OpenAi, "/v1beta/openai/chat/completions", asked);
        assert!(
            chat.contains(r#""max_tokens":5"#) && !chat.contains("completion_tokens"),
            "{chat}"
        );
    }

    #[test]
    fn a_schema_of_the_caller_stays_unless_the_version_has_one() {
        let json_form = json!({"responseMimeType": "application/json"});
        let with_schema =
            json!({"responseMimeType": "application/json", "responseSchema": {"type": "STRING"}});
        let calls = [
            (
                Dialect::OpenAi,
                "/v1beta/openai/chat/completions",
                r#"{"model":"m","messages":[],"response_format":{"type":"json_schema","json_schema":{"schema":{"title":"own"}}}}"#,
            ),
            (
                Dialect::Interactions,
                "/v1beta/interactions",
                r#"{"model":"m","input":"x","response_format":{"type":"text","mime_type":"application/json","schema":{"title":"own"}}}"#,
            ),
            (
                Dialect::Interactions,
                "/v1beta/interactions",
                r#"{"model":"m","input":"x","response_format":[{"type":"audio"},{"type":"text","mime_type":"application/json","schema":{"title":"own"}}]}"#,
            ),
            (
                Dialect::Interactions,
                "/v1beta/interactions",
                r#"{"model":"m","input":"x","response_mime_type":"application/json","response_format":{"title":"own"}}"#,
            ),
            (
                Dialect::Native,
                "/v1beta/models/m:generateContent",
                r#"{"contents":[],"generationConfig":{"responseJsonSchema":{"title":"own"}}}"#,
            ),
        ];
        for (dialect, path, body) in calls {
            let kept = composed_with(&json_form, dialect, path, body);
            assert!(kept.contains(r#"{"title":"own"}"#), "{kept}");
            let replaced = composed_with(&with_schema, dialect, path, body);
            assert!(!replaced.contains("own"), "{replaced}");
            assert!(replaced.to_lowercase().contains(r#"{"type":"string"}"#), "{replaced}");
        }
    }
}
