//! An execution as a span, in the JSON form of OTLP and the words of OpenTelemetry for generative AI.
//!
//! <https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/> for `gen_ai.*`; what is Chaperone's own
//! stands under `chaperone.*`. No prompt, no answer and no user is in it.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use serde::Serialize;
use serde_json::{Value, json};

use crate::execution::Execution;

/// OTLP's numbers for a span that calls out, and for an error.
const CLIENT: u8 = 3;
const ERROR: u8 = 2;
/// The bit of a `traceparent` that says that its trace is kept.
const SAMPLED: u8 = 1;

/// Makes spans of calls to one upstream.
#[derive(Debug)]
pub(super) struct Spans {
    host: String,
    provider: &'static str,
}

/// In OTLP's spelling.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Span<'e> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: String,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'e>>,
}

#[derive(Serialize)]
struct Status<'e> {
    code: u8,
    message: &'e str,
}

/// Where a span hangs.
struct Place {
    trace: String,
    parent: Option<String>,
}

impl Spans {
    /// `upstream` is its address.
    pub(super) fn to(upstream: &str) -> Self {
        let address: Option<http::Uri> = upstream.parse().ok();
        let host = address.as_ref().and_then(http::Uri::host).unwrap_or_default();
        let is_vertex = host.ends_with("aiplatform.googleapis.com");
        let provider = if is_vertex { "gcp.vertex_ai" } else { "gcp.gemini" };
        Self { host: host.to_owned(), provider }
    }

    /// The span of an execution; `None` where the caller's trace is not kept.
    pub(super) fn of(&self, execution: &Execution) -> Option<Vec<u8>> {
        let id = execution.id?.0;
        let trace = match &execution.trace_parent {
            Some(parent) => Place::under(parent)?,
            None => Place { trace: id.simple().to_string(), parent: None },
        };
        let start = execution.created_at;
        let took = SignedDuration::try_from_secs_f64(execution.execution_time_ms / 1e3);
        let end = took.ok().and_then(|took| start.checked_add(took).ok()).unwrap_or(start);
        let operation = operation(&execution.call);
        let name = match &execution.model_name {
            Some(model) => format!("{operation} {model}"),
            None => operation.to_owned(),
        };
        let span = Span {
            trace_id: trace.trace,
            // The last half: a version 7 UUID has its chance there.
            span_id: id.simple().to_string().split_off(16),
            parent_span_id: trace.parent,
            name,
            kind: CLIENT,
            start_time_unix_nano: start.as_nanosecond().to_string(),
            end_time_unix_nano: end.as_nanosecond().to_string(),
            attributes: self.attributes(execution, operation),
            status: execution.error_type.as_deref().map(|message| Status { code: ERROR, message }),
        };
        serde_json::to_vec(&span).ok()
    }

    fn attributes(&self, execution: &Execution, operation: &str) -> Vec<Value> {
        let mut attributes = Attributes::default();
        let output = execution
            .candidates_tokens
            .map(|said| said + execution.thoughts_tokens.unwrap_or_default());
        let input = execution
            .prompt_tokens
            .map(|asked| asked + execution.tool_use_tokens.unwrap_or_default());
        attributes.text("gen_ai.operation.name", Some(operation));
        attributes.text("gen_ai.provider.name", Some(self.provider));
        attributes.text("server.address", Some(&self.host));
        attributes.text("gen_ai.request.model", execution.model_name.as_deref());
        attributes.text("gen_ai.conversation.id", execution.conversation_id.as_deref());
        attributes
            .texts("gen_ai.response.finish_reasons", execution.finish_reason.as_deref().as_slice());
        attributes.number("gen_ai.usage.input_tokens", input);
        attributes.number("gen_ai.usage.output_tokens", output);
        attributes.number("gen_ai.usage.cache_read.input_tokens", execution.cached_tokens);
        attributes.number("gen_ai.usage.reasoning.output_tokens", execution.thoughts_tokens);
        attributes.text("error.type", execution.error_type.as_deref());
        attributes.number("http.response.status_code", execution.http_status.map(u64::from));
        own(execution, &mut attributes);
        attributes.0
    }
}

/// What OpenTelemetry has no words for.
fn own(execution: &Execution, attributes: &mut Attributes) {
    let tenant = execution.tenant_id.to_string();
    attributes.text("chaperone.request.id", Some(&execution.request_id));
    attributes.text("chaperone.tenant", Some(&tenant));
    attributes.text("chaperone.outcome", Some(execution.outcome.name()));
    attributes.text("chaperone.template.name", execution.template_name.as_deref());
    attributes.number("chaperone.template.version", execution.template_version.map(u64::from));
    let experiment = execution.ab_test_experiment_id.map(|id| id.to_string());
    attributes.text("chaperone.experiment.id", experiment.as_deref());
    attributes.text("chaperone.experiment.arm", execution.ab_test_group.as_deref());
    attributes.real("chaperone.time_to_first_token_ms", execution.time_to_first_token_ms);
    attributes.real("chaperone.overhead_ms", execution.overhead_ms);
    let cost = execution.estimated_cost_usd.map(|cost| cost.to_string());
    attributes.text("chaperone.cost_usd", cost.as_deref());
    let found: BTreeSet<String> = execution
        .guardrail_violations
        .iter()
        .map(|found| format!("{}={}", found.rule_name, found.action))
        .collect();
    attributes.texts("chaperone.guardrails", &found.iter().map(String::as_str).collect::<Vec<_>>());
}

/// The body of a request with these spans in it.
pub(super) fn request(spans: &[&[u8]]) -> Vec<u8> {
    let resource = json!([
        {"key": "service.name", "value": {"stringValue": env!("CARGO_PKG_NAME")}},
        {"key": "service.version", "value": {"stringValue": env!("CARGO_PKG_VERSION")}},
    ]);
    let scope = json!({"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")});
    let head = format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":{resource}}},"scopeSpans":[{{"scope":{scope},"spans":["#
    );
    [head.as_bytes(), &spans.join(&b','), b"]}]}]}"].concat()
}

fn operation(call: &str) -> &str {
    match call {
        "generateContent" | "streamGenerateContent" => "generate_content",
        "chat/completions" | "interactions" => "chat",
        "embedContent" | "batchEmbedContents" | "embeddings" => "embeddings",
        other => other,
    }
}

impl Place {
    /// Below the span that a `traceparent` names (<https://www.w3.org/TR/trace-context/>): version, trace, span
    /// and flags.
    fn under(parent: &str) -> Option<Self> {
        let mut parts = parent.split('-').skip(1);
        let (trace, span) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
        (flags & SAMPLED != 0).then_some(Self { trace, parent: Some(span) })
    }
}

#[derive(Default)]
struct Attributes(Vec<Value>);

impl Attributes {
    fn push(&mut self, key: &str, value: &Value) {
        self.0.push(json!({"key": key, "value": value}));
    }

    fn text(&mut self, key: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.push(key, &json!({"stringValue": text}));
        }
    }

    fn texts(&mut self, key: &str, texts: &[&str]) {
        let values: Vec<Value> = texts.iter().map(|text| json!({"stringValue": text})).collect();
        if !values.is_empty() {
            self.push(key, &json!({"arrayValue": {"values": values}}));
        }
    }

    /// Whole numbers are text in this form.
    fn number(&mut self, key: &str, number: Option<u64>) {
        if let Some(number) = number {
            self.push(key, &json!({"intValue": number.to_string()}));
        }
    }

    fn real(&mut self, key: &str, real: Option<f64>) {
        if let Some(real) = real {
            self.push(key, &json!({"doubleValue": real}));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::Outcome;
    use crate::words::ids::ExecutionId;

    fn execution() -> Execution {
        Execution {
            id: Some(ExecutionId("0197a0b0-0000-7000-8000-0123456789ab".parse().unwrap())),
            request_id: "r-1".to_owned(),
            call: "streamGenerateContent".to_owned(),
            user_id: Some("ann".to_owned()),
            rendered_prompt: Some("hello".into()),
            model_name: Some("gemini-2.5-flash".to_owned()),
            prompt_tokens: Some(10),
            candidates_tokens: Some(5),
            thoughts_tokens: Some(2),
            execution_time_ms: 1.5,
            outcome: Outcome::Success,
            finish_reason: Some("STOP".to_owned()),
            created_at: "2026-11-27T08:00:00Z".parse().unwrap(),
            ..Execution::default()
        }
    }

    fn span(execution: &Execution) -> Value {
        let bytes = Spans::to("https://generativelanguage.googleapis.com").of(execution).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    fn attribute(span: &Value, key: &str) -> Value {
        let all = span["attributes"].as_array().unwrap();
        all.iter().find(|one| one["key"] == key).map_or(Value::Null, |one| one["value"].clone())
    }

    #[test]
    fn a_span_says_what_happened_and_nothing_that_was_said() {
        let span = span(&execution());
        assert_eq!(span["traceId"], "0197a0b0000070008000 0123456789ab".replace(' ', ""));
        assert_eq!(span["spanId"], "80000123456789ab");
        assert_eq!(span["name"], "generate_content gemini-2.5-flash");
        assert_eq!(span["startTimeUnixNano"], "1795766400000000000");
        assert_eq!(span["endTimeUnixNano"], "1795766400001500000");
        assert_eq!((&span["parentSpanId"], &span["status"]), (&Value::Null, &Value::Null));
        for (key, value) in [
            ("gen_ai.operation.name", json!({"stringValue": "generate_content"})),
            ("gen_ai.provider.name", json!({"stringValue": "gcp.gemini"})),
            ("gen_ai.usage.input_tokens", json!({"intValue": "10"})),
            ("gen_ai.usage.output_tokens", json!({"intValue": "7"})),
            (
                "gen_ai.response.finish_reasons",
                json!({"arrayValue": {"values": [{"stringValue": "STOP"}]}}),
            ),
            ("chaperone.outcome", json!({"stringValue": "success"})),
        ] {
            assert_eq!(attribute(&span, key), value, "{key}");
        }
        let text = span.to_string();
        assert!(!text.contains("ann") && !text.contains("hello"), "{text}");
    }

    #[test]
    fn a_span_hangs_where_the_caller_says_or_not_at_all() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let under = |flags: &str| Execution {
            trace_parent: Some(format!("00-{trace}-00f067aa0ba902b7-{flags}")),
            ..execution()
        };
        let span = span(&under("01"));
        assert_eq!(
            (&span["traceId"], &span["parentSpanId"]),
            (&json!(trace), &json!("00f067aa0ba902b7"))
        );
        assert_eq!(span["spanId"], "80000123456789ab");
        assert_eq!(Spans::to("http://x").of(&under("00")), None);
    }

    #[test]
    fn an_error_is_an_error_and_a_block_is_none() {
        let failed = Execution {
            error_type: Some("upstream_timeout".to_owned()),
            outcome: Outcome::Failed,
            ..execution()
        };
        assert_eq!(span(&failed)["status"], json!({"code": 2, "message": "upstream_timeout"}));
        let body = request(&[b"{\"a\":1}", b"{}"]);
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["resourceSpans"][0]["scopeSpans"][0]["spans"], json!([{"a": 1}, {}]));
    }
}
