//! The answers of a batch, which its operation holds once it is done.

use jiff::Timestamp;
use serde_json::Value;

use super::Dialect;
use super::answer::Answer;
use super::route::Call;

/// A batch that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its name, `batches/…`.
    pub name: String,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// The model it was given to.
    pub model: Option<String>,
    /// What became of its requests, in their order.
    pub answers: Vec<Answer>,
}

impl Batch {
    /// Reads an operation. Nothing, if its answers are not in it: it has failed, was of another kind, or they
    /// are in a file.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let operation: Value = serde_json::from_slice(payload).ok()?;
        let metadata = operation.get("metadata");
        let told = |name: &str| metadata.and_then(|all| all.get(name)?.as_str());
        let output = operation.get("response")?.get("inlinedResponses")?;
        let answers = output.get("inlinedResponses").unwrap_or(output).as_array()?;
        Some(Self {
            name: operation.get("name")?.as_str()?.to_owned(),
            created_at: told("createTime").and_then(|time| time.parse().ok()),
            model: told("model").map(str::to_owned),
            answers: answers.iter().map(answer).collect(),
        })
    }
}

/// Of one request: a response, or an error.
fn answer(item: &Value) -> Answer {
    let mut answer = Answer::to(Call::Generate);
    let document = item.get("response").unwrap_or(item);
    answer.read(Dialect::Native, document.to_string().as_bytes());
    answer
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_answer_of_a_batch_is_read_and_nothing_of_another_operation() {
        let said = json!({
            "candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7},
        });
        let items = json!([{"response": said, "metadata": {"key": "a"}},
                           {"error": {"code": 400, "status": "INVALID_ARGUMENT"}}]);
        let metadata =
            json!({"model": "models/gemini-2.5-flash", "createTime": "2026-11-26T10:00:00.25Z"});
        for output in [json!({"inlinedResponses": items}), items] {
            let operation = json!({"name": "batches/b1", "done": true, "metadata": metadata,
                                   "response": {"inlinedResponses": output}});
            let batch = Batch::read(operation.to_string().as_bytes()).unwrap();
            assert_eq!(batch.name, "batches/b1");
            assert_eq!(batch.created_at, "2026-11-26T10:00:00.25Z".parse().ok());
            assert_eq!(batch.answers.len(), 2);
            assert_eq!(batch.answers[0].used().unwrap().total, 7);
            assert!(batch.answers[0].is_success() && batch.answers[1].used().is_none());
            assert_eq!(batch.answers[1].error.as_deref(), Some("INVALID_ARGUMENT"));
        }
        for other in [
            json!({"name": "batches/b1", "done": false, "metadata": metadata}),
            json!({"name": "batches/b1", "done": true, "response": {"responsesFile": "files/f"}}),
            json!({"name": "batches/b1", "done": true, "error": {"code": 13}}),
        ] {
            assert_eq!(Batch::read(other.to_string().as_bytes()), None, "{other}");
        }
    }
}
