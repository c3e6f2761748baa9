//! Where in a document a string stands, in words for a record: without names that are the application's own.

use std::collections::{BTreeMap, BTreeSet};

use super::json::{Place, Step, is_free, walk};

/// Names of the API under which text stands. Others may be a caller's own words.
const NAMES: [&str; 60] = [
    "arguments",
    "batch",
    "candidates",
    "choices",
    "code",
    "codeExecutionResult",
    "content",
    "contents",
    "data",
    "delta",
    "description",
    "displayName",
    "documents",
    "enum",
    "executableCode",
    "fileData",
    "fileUri",
    "format",
    "function",
    "functionCall",
    "functionDeclarations",
    "functionResponse",
    "generateContentRequest",
    "generationConfig",
    "imageUrl",
    "inlineData",
    "inlinedRequests",
    "inlinedResponses",
    "input",
    "inputAudio",
    "inputConfig",
    "instances",
    "message",
    "messages",
    "name",
    "output",
    "outputs",
    "parameters",
    "parts",
    "prediction",
    "predictions",
    "prompt",
    "reasoningContent",
    "refusal",
    "request",
    "requests",
    "responses",
    "response",
    "role",
    "steps",
    "stop",
    "stopSequences",
    "summary",
    "systemInstruction",
    "text",
    "thought",
    "title",
    "toolCalls",
    "tools",
    "url",
];

/// The places of the strings that begin at these bytes of a document, such as `contents[2].parts[0].text`.
pub fn of_strings(document: &str, starts: &BTreeSet<usize>) -> BTreeMap<usize, String> {
    let mut places = BTreeMap::new();
    if starts.is_empty() {
        return places;
    }
    let walked = walk(document, |path, literal, kind| {
        if kind == Place::Value && starts.contains(&literal.start) {
            places.insert(literal.start, name(path));
        }
    });
    // What cannot be walked was refused before anything was found in it.
    walked.map(|()| places).unwrap_or_default()
}

/// A path in words, down to where names are the application's own.
fn name(path: &[Step<'_>]) -> String {
    let free = (0..path.len()).find(|depth| is_free(path.get(..*depth).unwrap_or_default()));
    let known = path.iter().take(free.unwrap_or(path.len()));
    let mut name = known.fold(String::new(), |name, step| match step {
        Step::Index(index) => format!("{name}[{index}]"),
        Step::Key(key) if NAMES.contains(&key.as_ref()) => format!("{name}.{key}"),
        Step::Key(_) => name + ".*",
    });
    if free.is_some() {
        name.push_str(".*");
    }
    name.trim_start_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::of_strings;

    #[test]
    fn places_have_names_of_the_api_only() {
        let document = r#"{"contents":[{"parts":[{"text":"x1"}]},{"parts":[{"function_call":{"args":{"my secret":["x2"]}}}]}],"own":{"4111":"x3"}}"#;
        let starts: BTreeSet<usize> =
            (1..=3).map(|one| document.find(&format!("\"x{one}")).unwrap()).collect();
        let places: Vec<String> = of_strings(document, &starts).into_values().collect();
        assert_eq!(
            places,
            ["contents[0].parts[0].text", "contents[1].parts[0].functionCall.*.*", "*.*"]
        );
    }
}
