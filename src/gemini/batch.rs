//! The answers of a batch, which its operation holds once it is done, or a file of one line for each.

use bytes::BytesMut;
use jiff::Timestamp;
use serde_json::Value;

use super::Dialect;
use super::answer::Answer;
use super::route::Call;
use crate::words::tokens::Usage;

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
    /// Reads an operation, or a list of them.
    pub fn read(payload: &[u8]) -> Vec<Self> {
        let document: Value = serde_json::from_slice(payload).unwrap_or_default();
        match document.get("operations") {
            Some(Value::Array(operations)) => operations.iter().filter_map(Self::of).collect(),
            _ => Self::of(&document).into_iter().collect(),
        }
    }

    /// Nothing, if its answers are not in it: it is not done or has failed, was of another kind, or they are in
    /// a file.
    fn of(operation: &Value) -> Option<Self> {
        let is_done = operation.get("done") == Some(&Value::Bool(true));
        let operation = Some(operation).filter(|_| is_done)?;
        let metadata = operation.get("metadata");
        let told = |name: &str| metadata.and_then(|all| all.get(name)?.as_str());
        let outputs = [operation.get("response"), metadata.and_then(|all| all.get("output"))];
        let answers = outputs.into_iter().flatten().find_map(answers)?;
        Some(Self {
            name: operation.get("name")?.as_str()?.to_owned(),
            created_at: told("createTime").and_then(|time| time.parse().ok()),
            model: told("model").map(str::to_owned),
            answers: answers.iter().map(answer).collect(),
        })
    }
}

/// The answers in a file, read as it arrives.
#[derive(Debug)]
pub struct AnswerFile {
    line_bytes_max: usize,
    /// The line that is not whole yet; `None` once it is clear that the file is another one.
    line: Option<BytesMut>,
    /// Of a line that is too long, the rest is not kept.
    is_cut: bool,
    lines: usize,
}

impl AnswerFile {
    /// Nothing of it read yet. Longer lines are not read.
    pub fn new(line_bytes_max: usize) -> Self {
        Self { line_bytes_max, line: Some(BytesMut::new()), is_cut: false, lines: 0 }
    }

    /// Takes in a piece of the file, and tells each answer that is whole with it, and its line, from 0. The last
    /// line needs no end: an empty piece ends it.
    pub fn read(&mut self, piece: &[u8], mut told: impl FnMut(usize, &Answer)) {
        if self.line.is_none() {
            return;
        }
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.add(part);
            if part.ends_with(b"\n") {
                self.end_line(&mut told);
            }
        }
        if piece.is_empty() {
            self.end_line(&mut told);
        }
    }

    fn add(&mut self, part: &[u8]) {
        let Some(line) = &mut self.line else { return };
        self.is_cut |= line.len() + part.len() > self.line_bytes_max;
        if !self.is_cut {
            line.extend_from_slice(part);
        }
        if self.lines == 0 && line.first().is_some_and(|first| *first != b'{') {
            self.line = None;
        }
    }

    fn end_line(&mut self, told: &mut impl FnMut(usize, &Answer)) {
        let Some(line) = &mut self.line else { return };
        let item = serde_json::from_slice(line).ok().filter(|_| !self.is_cut);
        line.clear();
        match item.as_ref().filter(|item| is_item(item)) {
            Some(item) => told(self.lines, &answer(item)),
            None if self.lines == 0 && !self.is_cut && !item.as_ref().is_some_and(is_named) => {
                self.line = None;
            }
            None => {}
        }
        self.is_cut = false;
        self.lines += 1;
    }
}

/// Whether a line of a file is what became of a request.
fn is_item(line: &Value) -> bool {
    let of_model = ["candidates", "usageMetadata", "promptFeedback", "embedding", "body"];
    match line.get("response").filter(|response| !response.is_null()) {
        Some(response) => {
            is_named(line) || of_model.iter().any(|name| response.get(name).is_some())
        }
        None => line.get("error").is_some_and(Value::is_object),
    }
}

/// Whether a line names the request that it belongs to.
fn is_named(line: &Value) -> bool {
    ["key", "custom_id"].iter().any(|name| line.get(name).is_some())
}

/// The answers in an output, of text or of embeddings.
fn answers(output: &Value) -> Option<&Vec<Value>> {
    let kinds = ["inlinedResponses", "inlinedEmbedContentResponses"];
    let list = kinds.iter().find_map(|kind| output.get(kind))?;
    list.get("inlinedResponses").unwrap_or(list).as_array()
}

/// Of one request: a response, or an error.
fn answer(item: &Value) -> Answer {
    let document = item.get("response").filter(|response| !response.is_null()).unwrap_or(item);
    if document.get("embedding").is_some() {
        return embedding(document);
    }
    let mut answer = Answer::to(Call::Generate);
    match document.get("body") {
        Some(body) => answer.read(Dialect::OpenAi, body.to_string().as_bytes()),
        None => answer.read(Dialect::Native, document.to_string().as_bytes()),
    };
    answer
}

/// It tells its tokens itself; 64 bits come as a text.
fn embedding(document: &Value) -> Answer {
    let mut answer = Answer::to(Call::Submit(Dialect::Native, "embedContent"));
    let tokens = document.get("tokenCount");
    let tokens = tokens.and_then(|count| count.as_u64().or_else(|| count.as_str()?.parse().ok()));
    answer.usage = tokens.map(|tokens| Usage { prompt: tokens, total: tokens, ..Usage::default() });
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
        let nested = json!({"inlinedResponses": {"inlinedResponses": items}});
        let mut told_there = metadata.clone();
        told_there["output"] = nested.clone();
        for (response, metadata) in [
            (nested.clone(), &metadata),
            (json!({"inlinedResponses": items}), &metadata),
            (nested, &told_there),
            (json!({"@type": "t"}), &told_there),
        ] {
            let operation = json!({"name": "batches/b1", "done": true, "metadata": metadata,
                                   "response": response});
            let listed = json!({"operations": [operation, {"name": "batches/b2", "done": false}]});
            let batches = Batch::read(listed.to_string().as_bytes());
            assert_eq!(batches, Batch::read(operation.to_string().as_bytes()));
            let [batch] = batches.as_slice() else { panic!("{batches:?}") };
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
            assert_eq!(Batch::read(other.to_string().as_bytes()), [], "{other}");
        }
    }

    #[test]
    fn a_file_of_answers_is_read_however_it_arrives() {
        let said = |tokens: u64| {
            let used = json!({"promptTokenCount": tokens, "totalTokenCount": tokens});
            json!({"key": "k", "response": {"candidates": [], "usageMetadata": used}})
        };
        let chat = json!({"model": "m", "usage": {"prompt_tokens": 4, "total_tokens": 4}});
        let lines = [
            said(3).to_string(),
            json!({"custom_id": "c", "response": {"status_code": 200, "body": chat}}).to_string(),
            format!("{}{}", said(9), " ".repeat(500)),
            json!({"key": "e", "error": {"message": "no", "status": "S"}}).to_string(),
            json!({"custom_id": "c", "response": null, "error": {"message": "no"}}).to_string(),
            json!({"key": "k", "response": {"modelVersion": "m"}}).to_string(),
            "no answer".to_owned(),
            said(5).to_string(),
        ];
        let read = |file: &[u8], size: usize| {
            let mut reader = AnswerFile::new(300);
            let mut all = Vec::new();
            for piece in file.chunks(size).chain([&[][..]]) {
                reader.read(piece, |line, one| all.push((line, one.used().map(|used| used.total))));
            }
            all
        };
        for end in ["\n", "\r\n"] {
            for last in ["", end] {
                let file = lines.join(end) + last;
                for size in [1, 7, 100, 4096] {
                    let all = read(file.as_bytes(), size);
                    let failed = [(3, None), (4, None), (5, None)];
                    assert_eq!(
                        all,
                        [&[(0, Some(3)), (1, Some(4))], &failed[..], &[(7, Some(5))]].concat()
                    );
                }
            }
        }
        // Which line is the first does not matter.
        for first in 3..6 {
            let file = format!("{}\n{}\n", lines[first], lines[0]);
            assert_eq!(read(file.as_bytes(), 9), [(0, None), (1, Some(3))], "{}", lines[first]);
        }
        for other in ["{\"a\": 1}\n", "\u{89}PNG\n", "[]\n", "\n"] {
            assert_eq!(read(format!("{other}{}\n", said(3)).as_bytes(), 5), [], "{other}");
        }
    }

    #[test]
    fn embeddings_of_a_batch_tell_their_tokens() {
        let one =
            |count| json!({"response": {"embedding": {"values": [0.5]}, "tokenCount": count}});
        let items = json!({"inlinedResponses": [one(json!("5")), one(json!(6)), one(json!(null))]});
        for kind in ["inlinedResponses", "inlinedEmbedContentResponses"] {
            let operation = json!({"name": "batches/e", "done": true, "response": {kind: items}});
            let batches = Batch::read(operation.to_string().as_bytes());
            let used: Vec<_> =
                batches[0].answers.iter().map(|one| one.used().map(|used| used.prompt)).collect();
            assert_eq!(used, [Some(5), Some(6), None], "{kind}");
            assert!(batches[0].answers.iter().all(Answer::is_success));
        }
    }
}
