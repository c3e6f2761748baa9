//! What the simulator says, in both dialects.

use std::io::Write;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};

use super::script::Script;
use super::{error, json_response, schema};
use crate::gemini::json::camel;
use crate::gemini::route::Call;
use crate::gemini::stream::Framing;

/// That an answer with a call counts.
const LETTERS_OF_A_CALL: usize = 20;
/// Letters of a system instruction that an answer repeats.
const SYSTEM_SHOWN: usize = 60;

/// What a model says before its answer, to whoever wants to know its thoughts.
const THOUGHT: &str = "The user wants an echo.";
/// The signature of a part, in base64.
const SIGNATURE: &str = "c2lnbmVk";

/// What a request says, as far as the answer shows it.
#[derive(Default)]
pub(super) struct Asked {
    system: Option<String>,
    user: String,
    letters: usize,
    pub(super) tier: String,
    /// Whether thoughts are shown.
    thinks: bool,
    /// Whether the web may be searched.
    searches: bool,
}

pub(super) fn knows(model: &str) -> bool {
    model.starts_with("gemini-")
}

/// Reads a native body as strictly as the service does.
pub(super) fn native_request(body: &Bytes, call: Call) -> Result<Asked, String> {
    let Ok(request) = serde_json::from_slice::<Value>(body) else {
        return Err("Invalid JSON payload received.".to_owned());
    };
    let message =
        if call == Call::CountTokens { "CountTokensRequest" } else { "GenerateContentRequest" };
    if let Some(refusal) = schema::unknown(message, &request) {
        return Err(refusal);
    }
    let Value::Object(members) = request else {
        return Err("Invalid JSON payload received.".to_owned());
    };
    let members = match members.get("generateContentRequest") {
        Some(Value::Object(inner)) => inner.clone(),
        _ => members,
    };
    let contents = members.get("contents").and_then(Value::as_array).cloned().unwrap_or_default();
    if contents.is_empty() {
        return Err("* GenerateContentRequest.contents: contents is not specified".to_owned());
    }
    let member = |name: &str| members.iter().find(|(one, _)| camel(one.as_str().into()) == name);
    let system = member("systemInstruction").map(|(_, content)| parts_text(content));
    let tier = member("serviceTier").and_then(|(_, tier)| tier.as_str()).unwrap_or("standard");
    let holds = |name: &str, what: &str| {
        member(name).is_some_and(|(_, held)| held.to_string().contains(what))
    };
    let is_user =
        |content: &&Value| content.get("role").and_then(Value::as_str).unwrap_or("user") == "user";
    let user = contents.iter().rev().find(is_user).map(parts_text).unwrap_or_default();
    let letters = contents.iter().map(|content| parts_text(content).len()).sum::<usize>();
    Ok(Asked {
        letters: letters + system.as_ref().map_or(0, String::len),
        system,
        user,
        tier: tier.to_owned(),
        thinks: holds("generationConfig", "\"includeThoughts\":true")
            || holds("generationConfig", "\"include_thoughts\":true"),
        searches: holds("tools", "\"googleSearch\"") || holds("tools", "\"google_search\""),
    })
}

pub(super) fn native(call: Call, model: &str, asked: &Asked, script: &Script) -> Response {
    if call == Call::CountTokens {
        return json_response(StatusCode::OK, &json!({"totalTokens": tokens(asked.letters)}));
    }
    if let Some(function) = &script.call {
        let part = json!({"functionCall": {"name": function, "args": called()}});
        let frame = native_frame(model, asked, &part, Some(LETTERS_OF_A_CALL), script);
        return match call {
            Call::StreamGenerate(framing) => stream(&[frame], framing, script),
            _ => unary(&frame, script),
        };
    }
    let text = says(asked, script);
    let frame = |part: &Value, total| native_frame(model, asked, part, total, script);
    match call {
        Call::StreamGenerate(framing) => {
            let said = pieces(&text, script.chunk).into_iter().map(|(piece, done)| {
                frame(&text_part(piece, asked, done), done.then_some(text.len()))
            });
            let thoughts = asked.thinks.then(|| frame(&thought_part(), None));
            stream(&thoughts.into_iter().chain(said).collect::<Vec<_>>(), framing, script)
        }
        _ => {
            let mut whole = frame(&text_part(&text, asked, true), Some(text.len()));
            let parts = whole.pointer_mut("/candidates/0/content/parts");
            if let (true, Some(Value::Array(parts))) = (asked.thinks, parts) {
                parts.insert(0, thought_part());
            }
            unary(&whole, script)
        }
    }
}

fn thought_part() -> Value {
    json!({"text": THOUGHT, "thought": true})
}

/// The last part of an answer that was thought over is signed.
fn text_part(text: &str, asked: &Asked, is_last: bool) -> Value {
    if asked.thinks && is_last {
        return json!({"text": text, "thoughtSignature": SIGNATURE});
    }
    json!({"text": text})
}

pub(super) fn chat(body: &Bytes, script: &Script) -> Response {
    let Ok(request) = serde_json::from_slice::<Value>(body) else {
        return error(
            StatusCode::BAD_REQUEST,
            "INVALID_ARGUMENT",
            "Invalid JSON payload received.",
        );
    };
    if let Some(refusal) = schema::unknown("ChatCompletion", &request) {
        return error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", &refusal);
    }
    let model = request.get("model").and_then(Value::as_str).unwrap_or_default();
    let model = model.rsplit('/').next().unwrap_or_default().to_owned();
    if !knows(&model) {
        return error(StatusCode::NOT_FOUND, "NOT_FOUND", "the model is not found");
    }
    let messages = request.get("messages").and_then(Value::as_array).cloned().unwrap_or_default();
    let said_by = |role: &str| {
        let by = |one: &&Value| one.get("role").and_then(Value::as_str) == Some(role);
        messages.iter().rev().find(by).map(content_text)
    };
    let letters = messages.iter().map(|message| content_text(message).len()).sum();
    let asked = Asked {
        system: said_by("system"),
        user: said_by("user").unwrap_or_default(),
        letters,
        ..Asked::default()
    };
    let text = says(&asked, script);
    let is_streamed = request.get("stream") == Some(&Value::Bool(true));
    let member = if is_streamed { "delta" } else { "message" };
    let said = |text: &str| json!({"role": "assistant", "content": text});
    let frames: Vec<Value> = match &script.call {
        Some(function) => {
            let call = chat_call(function);
            vec![chat_frame(&model, &asked, (&call, member), Some(LETTERS_OF_A_CALL), script)]
        }
        None if !is_streamed => {
            vec![chat_frame(&model, &asked, (&said(&text), member), Some(text.len()), script)]
        }
        None => pieces(&text, script.chunk)
            .into_iter()
            .map(|(piece, done)| {
                let total = done.then_some(text.len());
                chat_frame(&model, &asked, (&said(piece), member), total, script)
            })
            .collect(),
    };
    if let (false, Some(frame)) = (is_streamed, frames.first()) {
        return unary(frame, script);
    }
    let mut bytes: Vec<Bytes> =
        frames.iter().map(|frame| Bytes::from(format!("data: {frame}\n\n"))).collect();
    bytes.push(Bytes::from_static(b"data: [DONE]\n\n"));
    streamed("text/event-stream", bytes, script)
}

/// `total` letters were said when this frame is the last.
fn native_frame(
    model: &str,
    asked: &Asked,
    part: &Value,
    total: Option<usize>,
    script: &Script,
) -> Value {
    let name = |name: &str, number: u64| -> Value {
        if script.numbers { number.into() } else { name.into() }
    };
    let prompt = tokens(asked.letters);
    let thought = if asked.thinks { tokens(THOUGHT.len()) } else { 0 };
    let mut candidate = Map::new();
    candidate.insert("content".to_owned(), json!({"parts": [part], "role": "model"}));
    candidate.insert("index".to_owned(), 0.into());
    let mut usage = json!({
        "promptTokenCount": prompt, "totalTokenCount": prompt,
        "promptTokensDetails": [{"modality": name("TEXT", 1), "tokenCount": prompt}],
    });
    if script.continues {
        candidate.insert("continuationToken".to_owned(), "Z28gb24=".into());
    }
    if let (Some(letters), Some(usage)) = (total, usage.as_object_mut()) {
        let said = tokens(letters);
        usage.insert("candidatesTokenCount".to_owned(), said.into());
        if thought > 0 {
            usage.insert("thoughtsTokenCount".to_owned(), thought.into());
        }
        usage.insert("totalTokenCount".to_owned(), (prompt + said + thought).into());
        if asked.searches {
            let grounding = json!({"webSearchQueries": [asked.user], "groundingChunks": [{"web": {"title": "t"}}]});
            candidate.insert("groundingMetadata".to_owned(), grounding);
        }
        if script.finish {
            candidate.insert("finishReason".to_owned(), name("STOP", 1));
        }
    }
    json!({"candidates": [candidate], "usageMetadata": usage, "modelVersion": model, "responseId": "simulated"})
}

fn chat_call(function: &str) -> Value {
    let call = json!({"name": function, "arguments": called().to_string()});
    let call = json!({"index": 0, "id": "call_1", "type": "function", "function": call});
    json!({"role": "assistant", "content": null, "tool_calls": [call]})
}

/// What a function is called with.
fn called() -> Value {
    json!({"town": "Ulm"})
}

fn chat_frame(
    model: &str,
    asked: &Asked,
    (said, member): (&Value, &str),
    total: Option<usize>,
    script: &Script,
) -> Value {
    let reason = if script.call.is_some() { "tool_calls" } else { "stop" };
    let reason = total.filter(|_| script.finish).map(|_| reason);
    let choice = json!({"index": 0, member: said, "finish_reason": reason});
    let object = if member == "delta" { "chat.completion.chunk" } else { "chat.completion" };
    let prompt = tokens(asked.letters);
    let said = tokens(total.unwrap_or(0));
    json!({
        "id": "simulated", "object": object, "created": 1_700_000_000, "model": model, "choices": [choice],
        "usage": {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said},
    })
}

pub(super) fn unary(frame: &Value, script: &Script) -> Response {
    if !script.gzip {
        return json_response(StatusCode::OK, frame);
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let coded = encoder.write_all(frame.to_string().as_bytes()).and_then(|()| encoder.finish());
    let headers = [(CONTENT_TYPE, "application/json; charset=UTF-8"), (CONTENT_ENCODING, "gzip")];
    (headers, coded.unwrap_or_default()).into_response()
}

fn stream(frames: &[Value], framing: Framing, script: &Script) -> Response {
    match framing {
        Framing::Sse => {
            let frames =
                frames.iter().map(|frame| Bytes::from(format!("data: {frame}\r\n\r\n"))).collect();
            streamed("text/event-stream", frames, script)
        }
        Framing::JsonArray => {
            let mut bytes: Vec<Bytes> = Vec::new();
            for (index, frame) in frames.iter().enumerate() {
                let before = if index == 0 { "[" } else { ",\r\n" };
                bytes.push(format!("{before}{frame}").into());
            }
            bytes.push(Bytes::from_static(b"\r\n]"));
            streamed("application/json; charset=UTF-8", bytes, script)
        }
    }
}

pub(super) fn streamed(
    content_type: &'static str,
    mut frames: Vec<Bytes>,
    script: &Script,
) -> Response {
    if script.cut {
        frames.truncate(frames.len() / 2);
    }
    let gap = script.gap.unwrap_or(Duration::ZERO);
    let cut = script.cut;
    let frames = futures_util::stream::unfold(
        (frames.into_iter(), cut),
        move |(mut frames, cut)| async move {
            if let Some(frame) = frames.next() {
                if !gap.is_zero() {
                    tokio::time::sleep(gap).await;
                }
                return Some((Ok(frame), (frames, cut)));
            }
            // An error in a body makes hyper break the connection off.
            cut.then(|| (Err(std::io::Error::other("cut")), (frames, false)))
        },
    );
    ([(CONTENT_TYPE, content_type)], Body::from_stream(frames)).into_response()
}

fn says(asked: &Asked, script: &Script) -> String {
    if let Some(say) = &script.say {
        return say.clone();
    }
    match &asked.system {
        Some(system) => {
            let shown: String = system.chars().take(SYSTEM_SHOWN).collect();
            format!("[system: {shown}] Echo: {}", asked.user)
        }
        None => format!("Echo: {}", asked.user),
    }
}

/// The text in pieces of `letters`, each with whether it is the last.
pub(super) fn pieces(text: &str, letters: usize) -> Vec<(&str, bool)> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((at, _)) = rest.char_indices().nth(letters) {
        let (piece, after) = rest.split_at(at);
        pieces.push((piece, false));
        rest = after;
    }
    pieces.push((rest, true));
    pieces
}

fn parts_text(content: &Value) -> String {
    let parts = content.get("parts").and_then(Value::as_array).cloned().unwrap_or_default();
    parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
}

fn content_text(message: &Value) -> String {
    match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
        }
        _ => String::new(),
    }
}

/// About four letters a token.
pub(super) fn tokens(letters: usize) -> u64 {
    (letters as u64).div_ceil(4)
}
