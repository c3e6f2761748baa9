//! What the service takes in a request, at any depth: a name that it does not know is a 400 there, and here.
//!
//! From the public description of the API; a value whose type is `""` is not looked into.

use serde_json::Value;

use crate::gemini::json::camel;

/// The members of a message, each with the type of its value.
type Members = &'static [(&'static str, &'static str)];

const MESSAGES: [(&str, Members); 41] = [
    (
        "GenerateContentRequest",
        &[
            ("contents", "Content"),
            ("systemInstruction", "Content"),
            ("tools", "Tool"),
            ("toolConfig", "ToolConfig"),
            ("safetySettings", "SafetySetting"),
            ("generationConfig", "GenerationConfig"),
            ("cachedContent", ""),
            ("labels", ""),
            ("serviceTier", ""),
            ("store", ""),
            ("continuationToken", ""),
            ("model", ""),
        ],
    ),
    (
        "CountTokensRequest",
        &[("contents", "Content"), ("generateContentRequest", "GenerateContentRequest")],
    ),
    (
        // In the dialect of OpenAI, whose names are read as the native ones are.
        "ChatCompletion",
        &[
            ("extraBody", ""),
            ("frequencyPenalty", ""),
            ("logprobs", ""),
            ("maxCompletionTokens", ""),
            ("maxTokens", ""),
            ("messages", "ChatMessage"),
            ("metadata", ""),
            ("modalities", ""),
            ("model", ""),
            ("n", ""),
            ("parallelToolCalls", ""),
            ("presencePenalty", ""),
            ("reasoningEffort", ""),
            ("responseFormat", ""),
            ("seed", ""),
            ("serviceTier", ""),
            ("stop", ""),
            ("store", ""),
            ("stream", ""),
            ("streamOptions", ""),
            ("temperature", ""),
            ("toolChoice", ""),
            ("tools", "ChatTool"),
            ("topLogprobs", ""),
            ("topP", ""),
            ("user", ""),
        ],
    ),
    (
        "ChatMessage",
        &[
            ("audio", ""),
            ("content", "ChatPart"),
            ("extraContent", ""),
            ("functionCall", ""),
            ("name", ""),
            ("reasoningContent", ""),
            ("refusal", ""),
            ("role", ""),
            ("toolCallId", ""),
            ("toolCalls", "ChatCall"),
        ],
    ),
    ("ChatPart", &[("type", ""), ("text", ""), ("imageUrl", ""), ("inputAudio", ""), ("file", "")]),
    (
        "ChatCall",
        &[("id", ""), ("index", ""), ("type", ""), ("function", ""), ("extraContent", "")],
    ),
    ("ChatTool", &[("type", ""), ("function", "ChatFunction")]),
    ("ChatFunction", &[("name", ""), ("description", ""), ("parameters", ""), ("strict", "")]),
    (
        "Embeddings",
        &[("dimensions", ""), ("encodingFormat", ""), ("input", ""), ("model", ""), ("user", "")],
    ),
    (
        "Images",
        &[
            ("model", ""),
            ("n", ""),
            ("prompt", ""),
            ("quality", ""),
            ("responseFormat", ""),
            ("size", ""),
            ("style", ""),
            ("user", ""),
        ],
    ),
    (
        "Interaction",
        &[
            ("agent", ""),
            ("agentConfig", ""),
            ("background", ""),
            ("cachedContent", ""),
            ("continuationToken", ""),
            ("environment", ""),
            ("generationConfig", "InteractionConfig"),
            ("input", ""),
            ("labels", ""),
            ("model", ""),
            ("previousInteractionId", ""),
            ("responseFormat", ""),
            ("responseMimeType", ""),
            ("responseModalities", ""),
            ("safetySettings", "SafetySetting"),
            ("serviceTier", ""),
            ("store", ""),
            ("stream", ""),
            ("systemInstruction", ""),
            ("tools", ""),
            ("webhookConfig", ""),
        ],
    ),
    (
        "InteractionConfig",
        &[
            ("imageConfig", ""),
            ("maxOutputTokens", ""),
            ("seed", ""),
            ("speechConfig", ""),
            ("stopSequences", ""),
            ("temperature", ""),
            ("thinkingLevel", ""),
            ("thinkingSummaries", ""),
            ("toolChoice", ""),
            ("topP", ""),
            ("transcriptionConfig", ""),
            ("videoConfig", ""),
        ],
    ),
    (
        "EmbedContentRequest",
        &[
            ("content", "Content"),
            ("embedContentConfig", ""),
            ("model", ""),
            ("outputDimensionality", ""),
            ("taskType", ""),
            ("title", ""),
        ],
    ),
    ("BatchEmbedContentsRequest", &[("requests", "EmbedContentRequest")]),
    (
        "CachedContent",
        &[
            ("contents", "Content"),
            ("displayName", ""),
            ("expireTime", ""),
            ("model", ""),
            ("name", ""),
            ("systemInstruction", "Content"),
            ("toolConfig", "ToolConfig"),
            ("tools", "Tool"),
            ("ttl", ""),
        ],
    ),
    ("BatchRequest", &[("batch", "Batch")]),
    (
        "Batch",
        &[
            ("displayName", ""),
            ("inputConfig", "InputConfig"),
            ("model", ""),
            ("name", ""),
            ("priority", ""),
        ],
    ),
    ("InputConfig", &[("fileName", ""), ("requests", "InlinedRequests")]),
    ("InlinedRequests", &[("requests", "InlinedRequest")]),
    ("InlinedRequest", &[("metadata", ""), ("request", "GenerateContentRequest")]),
    ("EmbedBatchRequest", &[("batch", "EmbedBatch")]),
    (
        "EmbedBatch",
        &[
            ("displayName", ""),
            ("inputConfig", "EmbedInputConfig"),
            ("model", ""),
            ("name", ""),
            ("priority", ""),
        ],
    ),
    ("EmbedInputConfig", &[("fileName", ""), ("requests", "EmbedRequests")]),
    ("EmbedRequests", &[("requests", "EmbedRequest")]),
    ("EmbedRequest", &[("metadata", ""), ("request", "EmbedContentRequest")]),
    ("Predict", &[("instances", ""), ("parameters", "")]),
    ("Content", &[("role", ""), ("parts", "Part")]),
    (
        "Part",
        &[
            ("text", ""),
            ("inlineData", "Blob"),
            ("fileData", "FileData"),
            ("functionCall", "FunctionCall"),
            ("functionResponse", "FunctionResponse"),
            ("executableCode", "ExecutableCode"),
            ("codeExecutionResult", "CodeExecutionResult"),
            ("toolCall", ""),
            ("toolResponse", ""),
            ("thought", ""),
            ("thoughtSignature", ""),
            ("videoMetadata", ""),
            ("mediaResolution", ""),
            ("audioTranscription", ""),
            ("partMetadata", ""),
        ],
    ),
    ("Blob", &[("mimeType", ""), ("data", ""), ("displayName", "")]),
    ("FileData", &[("mimeType", ""), ("fileUri", ""), ("displayName", "")]),
    (
        "FunctionCall",
        &[("id", ""), ("name", ""), ("args", ""), ("partialArgs", ""), ("willContinue", "")],
    ),
    (
        "FunctionResponse",
        &[
            ("id", ""),
            ("name", ""),
            ("response", ""),
            ("parts", ""),
            ("scheduling", ""),
            ("willContinue", ""),
        ],
    ),
    ("ExecutableCode", &[("id", ""), ("language", ""), ("code", "")]),
    ("CodeExecutionResult", &[("id", ""), ("outcome", ""), ("output", "")]),
    ("SafetySetting", &[("category", ""), ("threshold", ""), ("method", "")]),
    (
        "GenerationConfig",
        &[
            ("candidateCount", ""),
            ("stopSequences", ""),
            ("maxOutputTokens", ""),
            ("temperature", ""),
            ("topP", ""),
            ("topK", ""),
            ("seed", ""),
            ("responseMimeType", ""),
            ("responseSchema", ""),
            ("responseJsonSchema", ""),
            ("_responseJsonSchema", ""),
            ("responseFormat", ""),
            ("presencePenalty", ""),
            ("frequencyPenalty", ""),
            ("responseLogprobs", ""),
            ("logprobs", ""),
            ("enableEnhancedCivicAnswers", ""),
            ("responseModalities", ""),
            ("speechConfig", ""),
            ("imageConfig", ""),
            ("mediaResolution", ""),
            ("thinkingConfig", "ThinkingConfig"),
            ("audioTimestamp", ""),
            ("audioTranscriptionConfig", ""),
            ("translationConfig", ""),
            ("routingConfig", ""),
            ("modelSelectionConfig", ""),
        ],
    ),
    ("ThinkingConfig", &[("includeThoughts", ""), ("thinkingBudget", ""), ("thinkingLevel", "")]),
    (
        "Tool",
        &[
            ("functionDeclarations", "FunctionDeclaration"),
            ("googleSearch", ""),
            ("googleSearchRetrieval", ""),
            ("googleMaps", ""),
            ("urlContext", ""),
            ("codeExecution", ""),
            ("computerUse", ""),
            ("fileSearch", ""),
            ("mcpServers", ""),
            ("retrieval", ""),
            ("enterpriseWebSearch", ""),
            ("exaAiSearch", ""),
            ("parallelAiSearch", ""),
        ],
    ),
    (
        "FunctionDeclaration",
        &[
            ("name", ""),
            ("description", ""),
            ("parameters", ""),
            ("parametersJsonSchema", ""),
            ("response", ""),
            ("responseJsonSchema", ""),
            ("behavior", ""),
        ],
    ),
    ("ToolConfig", &[("functionCallingConfig", "FunctionCallingConfig"), ("retrievalConfig", "")]),
    (
        "FunctionCallingConfig",
        &[("mode", ""), ("allowedFunctionNames", ""), ("streamFunctionCallArguments", "")],
    ),
];

/// The service's own words for the first name in a message that it does not know.
pub(super) fn unknown(message: &str, value: &Value) -> Option<String> {
    find(message, value, "").map(|(place, name)| {
        let at = if place.is_empty() { String::new() } else { format!(" at '{place}'") };
        format!("Invalid JSON payload received. Unknown name \"{name}\"{at}: Cannot find field.")
    })
}

/// Where it is, and the name.
pub(super) fn find(message: &str, value: &Value, place: &str) -> Option<(String, String)> {
    let (_, known) = MESSAGES.iter().find(|(name, _)| *name == message)?;
    match value {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| find(message, item, &format!("{place}[{index}]"))),
        Value::Object(members) => members.iter().find_map(|(name, value)| {
            let spelled = camel(name.as_str().into());
            let Some((_, inner)) = known.iter().find(|(known, _)| *known == spelled) else {
                return Some((place.to_owned(), name.clone()));
            };
            let dot = if place.is_empty() { "" } else { "." };
            find(inner, value, &format!("{place}{dot}{name}"))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::unknown;

    #[test]
    fn the_first_name_that_is_not_known_is_told_with_its_place() {
        let told = |body| unknown("GenerateContentRequest", &body);
        let part = json!({"functionCall": {"name": "f", "args": {"any": {"thing": 1}}}, "thought_signature": "x"});
        assert_eq!(told(json!({"contents": [{"role": "user", "parts": [part]}]})), None);
        assert_eq!(
            told(json!({"contents": [{"parts": [{"text": "a"}, {"txt": "b"}]}]})).unwrap(),
            "Invalid JSON payload received. Unknown name \"txt\" at 'contents[0].parts[1]': Cannot find field."
        );
        assert!(told(json!({"chaperone": {}})).unwrap().contains("name \"chaperone\": Cannot"));
        let config = json!({"generation_config": {"thinking_config": {"budget": 1}}});
        assert!(told(config).unwrap().contains("at 'generation_config.thinking_config'"));
    }
}
