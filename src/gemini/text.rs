//! Where text stands in requests and answers.
//!
//! Every string is text unless it is known not to be: a field added to the API tomorrow is inspected
//! today. Neighbouring parts of one turn form a run, because a phrase may be cut over them.

use std::ops::Range;

use super::Dialect;
use super::json::{JsonError, Step, unquote, walk};

/// One string of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The literal in the document, quotes included.
    pub literal: Range<usize>,
    /// Its text.
    pub text: String,
    /// What it is joined with; `None` stands alone.
    pub run: Option<Run>,
}

/// A sequence of segments that the model reads as one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run(pub usize);

/// What a request says, and whether it points to text that is elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Every string that is text.
    pub segments: Vec<Segment>,
    /// Whether it names files, addresses or cached content whose text nobody sees here.
    pub points_elsewhere: bool,
}

/// The text of a request body. `text` must have passed [`super::json::check`].
pub fn request(dialect: Dialect, text: &str) -> Result<Request, JsonError> {
    let mut points_elsewhere = false;
    let mut found = Vec::new();
    let mut roles: Vec<(usize, String)> = Vec::new();
    collect(dialect, text, |path, segment| {
        points_elsewhere |= is_pointer(path, &segment.text);
        if let Some(turn) = role_of(dialect, path) {
            roles.push((turn, segment.text.clone()));
        }
        found.push((turn_text(dialect, path), segment));
    })?;
    let turns = found.iter().filter_map(|(turn, _)| turn.map(|turn| turn + 1)).max().unwrap_or(0);
    let runs = number_runs(&roles, turns);
    let segments = found
        .into_iter()
        .map(|(turn, mut segment)| {
            segment.run = turn.map(|turn| Run(runs.get(turn).copied().unwrap_or(turn)));
            segment
        })
        .collect();
    Ok(Request { segments, points_elsewhere })
}

/// Whether a string names text that is fetched by the upstream.
fn is_pointer(path: &[Step<'_>], text: &str) -> bool {
    match path {
        [Step::Key(root)] => root == "cachedContent" && !text.is_empty(),
        [.., Step::Key(parent), Step::Key(last)] => {
            (parent == "fileData" && last == "fileUri")
                || (parent == "imageUrl" && last == "url" && !text.starts_with("data:"))
        }
        _ => false,
    }
}

/// The text of an answer or of one frame of a stream. Runs are numbered by candidate or choice.
pub fn answer(dialect: Dialect, text: &str) -> Result<Vec<Segment>, JsonError> {
    let mut found = Vec::new();
    let numbers = candidate_numbers(dialect, text);
    collect(dialect, text, |path, mut segment| {
        segment.run = candidate_text(dialect, path)
            .map(|position| Run(numbers.get(position).copied().unwrap_or(position)));
        found.push(segment);
    })?;
    Ok(found)
}

/// The `index` of each candidate in order: a frame of a stream may hold only the second one.
fn candidate_numbers(dialect: Dialect, text: &str) -> Vec<usize> {
    #[derive(serde::Deserialize)]
    struct Indexed {
        index: Option<usize>,
    }
    #[derive(serde::Deserialize)]
    struct Candidates {
        #[serde(alias = "choices")]
        candidates: Option<Vec<Indexed>>,
    }
    let key = match dialect {
        Dialect::Native => "\"candidates\"",
        Dialect::OpenAi => "\"choices\"",
    };
    if !text.contains(key) {
        return Vec::new();
    }
    serde_json::from_str::<Candidates>(text)
        .ok()
        .and_then(|answer| answer.candidates)
        .unwrap_or_default()
        .iter()
        .enumerate()
        .map(|(position, candidate)| candidate.index.unwrap_or(position))
        .collect()
}

fn collect(
    dialect: Dialect,
    text: &str,
    mut visit: impl FnMut(&[Step<'_>], Segment),
) -> Result<(), JsonError> {
    let mut broken = None;
    walk(text, |path, literal| {
        if is_opaque(dialect, path) {
            return;
        }
        match text.get(literal.clone()).and_then(unquote) {
            // An image inside the body; any other address is text.
            Some(decoded) if is_address(path) && decoded.starts_with("data:") => {}
            Some(decoded) => {
                visit(path, Segment { literal, text: decoded.into_owned(), run: None });
            }
            None => broken = broken.or(Some(literal.start)),
        }
    })?;
    broken.map_or(Ok(()), |at| Err(JsonError::LoneSurrogate(at)))
}

/// Strings that are data, not text: media bytes and the model's own signatures.
fn is_opaque(dialect: Dialect, path: &[Step<'_>]) -> bool {
    match (dialect, path) {
        (_, [Step::Key(root), ..]) if root == "chaperone" => true,
        (Dialect::Native, [.., Step::Key(last)]) if last == "thoughtSignature" => true,
        (Dialect::Native, [.., Step::Key(parent), Step::Key(last)]) => {
            parent == "inlineData" && last == "data"
        }
        (Dialect::OpenAi, [.., Step::Key(parent), Step::Key(last)]) => {
            parent == "inputAudio" && last == "data"
        }
        _ => false,
    }
}

fn is_address(path: &[Step<'_>]) -> bool {
    matches!(path, [.., Step::Key(parent), Step::Key(last)] if parent == "imageUrl" && last == "url")
}

fn role_of(dialect: Dialect, path: &[Step<'_>]) -> Option<usize> {
    match path {
        [Step::Key(list), Step::Index(turn), Step::Key(role)]
            if list == turns(dialect) && role == "role" =>
        {
            Some(*turn)
        }
        _ => None,
    }
}

/// The turn a text part belongs to.
fn turn_text(dialect: Dialect, path: &[Step<'_>]) -> Option<usize> {
    match (dialect, path) {
        (
            Dialect::Native,
            [Step::Key(list), Step::Index(turn), Step::Key(parts), Step::Index(_), Step::Key(text)],
        ) if list == "contents" && parts == "parts" && text == "text" => Some(*turn),
        (Dialect::OpenAi, [Step::Key(list), Step::Index(turn), Step::Key(content), ..])
            if list == "messages" && content == "content" && ends_in_text(path) =>
        {
            Some(*turn)
        }
        _ => None,
    }
}

fn ends_in_text(path: &[Step<'_>]) -> bool {
    path.last().is_some_and(|step| step.is("content") || step.is("text"))
}

fn turns(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Native => "contents",
        Dialect::OpenAi => "messages",
    }
}

/// Gives neighbouring turns of one role the same number. Google reads an absent role as `user`.
fn number_runs(roles: &[(usize, String)], turns: usize) -> Vec<usize> {
    let mut named = vec!["user"; turns];
    for (turn, role) in roles {
        if let Some(slot) = named.get_mut(*turn) {
            *slot = role;
        }
    }
    let mut runs: Vec<usize> = Vec::with_capacity(turns);
    let mut before: Option<(&str, usize)> = None;
    for (turn, role) in named.into_iter().enumerate() {
        let run = before.filter(|(named, _)| *named == role).map_or(turn, |(_, run)| run);
        runs.push(run);
        before = Some((role, run));
    }
    runs
}

fn candidate_text(dialect: Dialect, path: &[Step<'_>]) -> Option<usize> {
    match (dialect, path) {
        (
            Dialect::Native,
            [
                Step::Key(list),
                Step::Index(candidate),
                Step::Key(content),
                Step::Key(parts),
                Step::Index(_),
                Step::Key(text),
            ],
        ) if list == "candidates" && content == "content" && parts == "parts" && text == "text" => {
            Some(*candidate)
        }
        (
            Dialect::OpenAi,
            [Step::Key(list), Step::Index(choice), Step::Key(body), Step::Key(content), ..],
        ) if list == "choices"
            && (body == "message" || body == "delta")
            && content == "content"
            && ends_in_text(path) =>
        {
            Some(*choice)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Run, answer, request};
    use crate::gemini::Dialect;

    #[test]
    fn text_is_everything_that_is_not_data() {
        let body = r#"{"system_instruction":{"parts":[{"text":"s"}]},"contents":[
            {"parts":[{"text":"a"},{"text":"b"},{"inline_data":{"mime_type":"image/png","data":"AAAA"}}]},
            {"role":"user","parts":[{"text":"c","thoughtSignature":"zzz"}]},
            {"role":"model","parts":[{"functionCall":{"name":"f","args":{"x":["d"]}}}]}],
            "labels":{"l":"e"},"chaperone":{"variables":{"v":"f"}}}"#;
        let found: Vec<_> = request(Dialect::Native, body)
            .unwrap()
            .segments
            .into_iter()
            .map(|segment| (segment.text, segment.run.map(|Run(run)| run)))
            .collect();
        let expected = [
            ("s", None),
            ("a", Some(0)),
            ("b", Some(0)),
            ("image/png", None),
            ("user", None),
            ("c", Some(0)),
            ("model", None),
            ("f", None),
            ("d", None),
            ("e", None),
        ];
        assert_eq!(found, expected.map(|(text, run)| (text.to_owned(), run)));
    }

    #[test]
    fn chat_messages_have_two_forms() {
        let body = r#"{"messages":[{"role":"user","content":"a"},{"role":"user","content":[{"type":"text","text":"b"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}}]}]}"#;
        let found = request(Dialect::OpenAi, body).unwrap().segments;
        let runs: Vec<_> = found
            .iter()
            .filter(|segment| segment.run == Some(Run(0)))
            .map(|segment| segment.text.as_str())
            .collect();
        assert_eq!(runs, ["a", "b"]);
        assert!(found.iter().all(|segment| !segment.text.starts_with("data:")));
    }

    #[test]
    fn text_that_is_elsewhere_is_noticed() {
        for (dialect, body, elsewhere) in [
            (Dialect::Native, r#"{"cachedContent":"cachedContents/x"}"#, true),
            (Dialect::Native, r#"{"contents":[{"parts":[{"file_data":{"file_uri":"f"}}]}]}"#, true),
            (Dialect::Native, r#"{"contents":[{"parts":[{"inlineData":{"data":"AA"}}]}]}"#, false),
            (
                Dialect::OpenAi,
                r#"{"messages":[{"content":[{"image_url":{"url":"https://x"}}]}]}"#,
                true,
            ),
            (
                Dialect::OpenAi,
                r#"{"messages":[{"content":[{"image_url":{"url":"data:x"}}]}]}"#,
                false,
            ),
        ] {
            assert_eq!(request(dialect, body).unwrap().points_elsewhere, elsewhere, "{body}");
        }
    }

    #[test]
    fn answers_are_read_by_candidate() {
        let body = r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}},{"content":{"parts":[{"text":"b"}]},"finishMessage":"m"}]}"#;
        let runs: Vec<_> =
            answer(Dialect::Native, body).unwrap().iter().map(|segment| segment.run).collect();
        assert_eq!(runs, [Some(Run(0)), Some(Run(1)), None]);
    }
}
