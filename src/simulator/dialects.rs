//! Interactions, and the calls that take text and answer without candidates.

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::answer::{pieces, streamed, tokens, unary};
use super::script::Script;
use super::{error, json_response, nothing_here, schema};

/// What the other calls take.
const SUBMITTED: [(&str, &str); 10] = [
    ("asyncBatchEmbedContent", "EmbedBatchRequest"),
    ("batchEmbedContents", "BatchEmbedContentsRequest"),
    ("batchGenerateContent", "BatchRequest"),
    ("cachedContents", "CachedContent"),
    ("embedContent", "EmbedContentRequest"),
    ("embeddings", "Embeddings"),
    ("images/generations", "Images"),
    ("predict", "Predict"),
    ("updateEmbedContentBatch", "EmbedBatch"),
    ("updateGenerateContentBatch", "Batch"),
];

pub(super) fn interaction(body: &Bytes, script: &Script) -> Response {
    let refuse = |code: &str, message: String| {
        let error = json!({"error": {"code": code, "message": message}});
        json_response(StatusCode::BAD_REQUEST, &error)
    };
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let Value::Object(members) = &request else {
        return refuse("invalid_request", "the body is no JSON object".to_owned());
    };
    if let Some((_, name)) = schema::find("Interaction", &request, "") {
        return refuse("parameter_unknown", format!("Unknown parameter: {name}"));
    }
    let input = members.get("input").map(input_text).unwrap_or_default();
    let text = script.say.clone().unwrap_or_else(|| format!("Echo: {input}"));
    let model = members.get("model").and_then(Value::as_str).unwrap_or("gemini-2.5-flash");
    let (read, said) = (tokens(body.len()), tokens(text.len()));
    if members.get("background") == Some(&Value::Bool(true)) {
        let started =
            json!({"id": "i1", "object": "interaction", "status": "in_progress", "model": model});
        return json_response(StatusCode::OK, &started);
    }
    let whole = json!({
        "id": "i1", "object": "interaction", "status": "completed", "model": model,
        "steps": [{"type": "model_output", "content": [{"type": "text", "text": text}]}],
        "usage": {"total_input_tokens": read, "total_output_tokens": said, "total_tokens": read + said},
    });
    if members.get("stream") != Some(&Value::Bool(true)) {
        return unary(&whole, script);
    }
    let event = |name: &str, mut data: Value| {
        if let Some(members) = data.as_object_mut() {
            members.insert("event_type".to_owned(), name.into());
        }
        Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
    };
    let mut frames = vec![
        event("interaction.created", json!({"interaction": {"id": "i1", "status": "in_progress"}})),
        event("step.start", json!({"index": 0, "step": {"type": "model_output"}})),
    ];
    frames.extend(pieces(&text, script.chunk).into_iter().map(|(piece, _)| {
        event("step.delta", json!({"index": 0, "delta": {"type": "text", "text": piece}}))
    }));
    frames.push(event("step.stop", json!({"index": 0})));
    frames.push(event("interaction.completed", json!({"interaction": whole})));
    frames.push(Bytes::from_static(b"event: done\ndata: [DONE]\n\n"));
    streamed("text/event-stream", frames, script)
}

fn input_text(input: &Value) -> String {
    match input {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(input_text).collect(),
        Value::Object(item) => {
            item.get("text").or_else(|| item.get("content")).map(input_text).unwrap_or_default()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => String::new(),
    }
}

pub(super) fn submitted(name: &str, body: &Bytes) -> Response {
    let refuse = |message: String| error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", &message);
    let Some((_, message)) = SUBMITTED.iter().find(|(of, _)| *of == name) else {
        return nothing_here();
    };
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let Value::Object(members) = &request else {
        return refuse("Invalid JSON payload received.".to_owned());
    };
    if let Some(refusal) = schema::unknown(message, &request) {
        return refuse(refusal);
    }
    let read = tokens(body.len());
    let vector = json!([0.25, -0.5, 0.125]);
    let many = |list: &str| match members.get(list) {
        Some(Value::Array(items)) => items.len(),
        _ => 1,
    };
    let answer = match name {
        "embedContent" => json!({
            "embedding": {"values": vector},
            "usageMetadata": {"promptTokenCount": read, "totalTokenCount": read},
        }),
        "batchEmbedContents" => {
            json!({"embeddings": vec![json!({"values": vector}); many("requests")]})
        }
        "embeddings" => {
            let is_coded = members.get("encoding_format") == Some(&"base64".into());
            let vector = if is_coded { Value::from(coded(&vector)) } else { vector };
            let one = |index| json!({"object": "embedding", "index": index, "embedding": vector});
            json!({
                "object": "list", "model": members.get("model"),
                "data": (0..many("input")).map(one).collect::<Vec<_>>(),
                "usage": {"prompt_tokens": read, "total_tokens": read},
            })
        }
        "images/generations" => json!({
            "created": 1_700_000_000, "data": [{"b64_json": STANDARD.encode(b"a picture")}],
        }),
        "predict" => json!({"predictions": [{"embeddings": {"values": vector}}]}),
        "cachedContents" => {
            json!({"name": "cachedContents/c1", "usageMetadata": {"totalTokenCount": read}})
        }
        _ => json!({"name": "batches/b1", "done": false}),
    };
    json_response(StatusCode::OK, &answer)
}

/// A vector as the clients of `OpenAI` ask for it: floats of four bytes, the smallest first, in base64.
fn coded(vector: &Value) -> String {
    let numbers = vector.as_array().into_iter().flatten().filter_map(Value::as_f64);
    #[expect(clippy::cast_possible_truncation, reason = "these have an exact form in 32 bits")]
    let bytes: Vec<u8> = numbers.flat_map(|number| (number as f32).to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

/// The answers of batches with such ids are in files.
const FILED: &str = "filed";

/// What became of the three requests of a batch.
fn answers(text: &str) -> [Value; 3] {
    let one = json!({"response": {
        "candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}],
        "modelVersion": EARLIER_MODEL,
        "usageMetadata": {"promptTokenCount": 1000, "candidatesTokenCount": 100, "totalTokenCount": 1100},
    }});
    let refused = json!({"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}});
    [one.clone(), one, refused]
}

/// A file: the answers of a batch, a line for each.
pub(super) fn download(script: &Script) -> Response {
    let lines = answers(script.say.as_deref().unwrap_or("Echo"));
    let lines = lines.map(|line| Bytes::from(format!("{line}\n")));
    streamed("application/octet-stream", lines.into(), script)
}

const EARLIER_MODEL: &str = "gemini-2.5-flash";
const EARLIER: &str = "2026-11-26T10:00:00Z";

/// What was made earlier: it says what the call is told to say.
pub(super) fn read(name: &str, path: &str, script: &Script) -> Response {
    let text = script.say.as_deref().unwrap_or("Echo");
    let is_cancelled = name == "interactions.cancel";
    let id = path.rsplit('/').nth(usize::from(is_cancelled)).unwrap_or_default();
    let answer = if name.starts_with("interactions") {
        let status = if is_cancelled { "cancelled" } else { "completed" };
        json!({
            "id": id, "object": "interaction", "status": status, "model": EARLIER_MODEL, "created": EARLIER,
            "steps": [{"type": "model_output", "content": [{"type": "text", "text": text}]}],
            "usage": {"total_input_tokens": 1, "total_output_tokens": 2, "total_tokens": 3},
        })
    } else {
        let is_list = name == "batches.list";
        let id = if is_list { "b7" } else { id };
        let output = if id.starts_with(FILED) {
            json!({"responsesFile": format!("files/{id}")})
        } else {
            json!({"inlinedResponses": {"inlinedResponses": answers(text)}})
        };
        let operation = json!({
            "name": format!("batches/{id}"), "done": true,
            "metadata": {
                "model": format!("models/{EARLIER_MODEL}"), "createTime": EARLIER,
                "state": "BATCH_STATE_SUCCEEDED", "output": output,
            },
            "response": output,
        });
        if is_list { json!({"operations": [operation]}) } else { operation }
    };
    unary(&answer, script)
}
