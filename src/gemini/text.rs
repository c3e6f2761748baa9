//! Where text stands in requests and answers.
//!
//! Every string is text unless it is known not to be: a field added to the API tomorrow is inspected
//! today. Strings that the model reads as one text form a run, because a phrase may be cut over them.

mod media;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use serde::Deserialize;

use super::Dialect;
use super::json::{JsonError, Place, Step, is_free, unquote, walk};
use super::members::Members;
use media::{MediaTypes, decoded, is_media, is_pointer, is_signature};

/// Strings of one document: those of a batch that fills the 20 MB it may have are fewer.
const STRINGS_MAX: usize = 1_000_000;
/// Members of a streamed answer whose strings arrive in fragments, beside its text.
const FRAGMENTS: [&str; 6] =
    ["arguments", "code", "output", "reasoningContent", "refusal", "stringValue"];

/// One string of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The literal in the document, quotes included; empty when the text cannot be replaced there.
    pub literal: Range<usize>,
    /// Its text.
    pub text: String,
    /// What it is joined with; `None` stands alone.
    pub run: Option<Run>,
}

/// A sequence of segments that the model reads as one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run(pub u64);

/// What a request says, and whether it points to text that is elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Every string that is text.
    pub segments: Vec<Segment>,
    /// Whether it names files, addresses or cached content whose text nobody sees here, or holds
    /// text in a form that cannot be read.
    pub points_elsewhere: bool,
}

/// A turn: the list it stands in, and its place there.
type Turn = (String, usize);

/// The text of a request body. `text` must have passed [`super::json::check`].
pub fn request(dialect: Dialect, text: &str) -> Result<Request, JsonError> {
    let mut found: Vec<(Option<Turn>, Segment)> = Vec::new();
    let mut roles: BTreeMap<Turn, String> = BTreeMap::new();
    let (mut types, mut inline) = (MediaTypes::default(), Vec::new());
    let mut points_elsewhere = false;
    collect(dialect, text, |path, segment| {
        points_elsewhere |= is_pointer(path, &segment.text);
        if path.last().is_some_and(|step| step.is("role"))
            && let Some(turn) = turn_at(path, 1)
        {
            roles.insert(turn, segment.text.clone());
        }
        match types.data_of(dialect, path, &segment.text) {
            Some(part) => inline.push((part, segment.text)),
            None => found.push((turn_of(dialect, path), segment)),
        }
    })?;
    let runs = number_runs(&found, &roles);
    let mut segments: Vec<Segment> = found
        .into_iter()
        .map(|(turn, mut segment)| {
            segment.run = turn.and_then(|turn| runs.get(&turn).copied());
            segment
        })
        .collect();
    for (_, data) in inline.iter().filter(|(part, _)| !types.are_media(part)) {
        match decoded(data) {
            Some(text) => segments.push(lone(text)),
            None => points_elsewhere = true,
        }
    }
    points_elsewhere |= dialect == Dialect::OpenAi && holds_tokens(text);
    Ok(Request { segments, points_elsewhere })
}

/// Whether the texts to embed came as numbers of tokens, which only the upstream can read.
fn holds_tokens(text: &str) -> bool {
    let Some(members) = Members::parse(text).filter(|_| text.contains("\"input\"")) else {
        return false;
    };
    let first = members.get("input").and_then(|raw| raw.trim_start().strip_prefix('['));
    first.is_some_and(|list| list.trim_start().starts_with(|next: char| next != '"' && next != ']'))
}

/// The text of an answer or of one frame of a stream. A run is one candidate's text, its thoughts, or
/// one member that arrives in fragments.
pub fn answer(dialect: Dialect, text: &str) -> Result<Vec<Segment>, JsonError> {
    let (mut found, mut types) = (Vec::new(), MediaTypes::default());
    let shape = AnswerShape::read(text);
    collect(dialect, text, |path, mut segment| {
        segment.run = shape.run(dialect, path);
        found.push((types.data_of(dialect, path, &segment.text), segment));
    })?;
    found.retain(|(part, _)| part.as_ref().is_none_or(|part| !types.are_media(part)));
    let texts = found.into_iter().map(|(part, segment)| match part {
        Some(_) => decoded(&segment.text).map_or(segment, lone),
        None => segment,
    });
    Ok(texts.collect())
}

/// A text in another coat: it cannot be replaced where it stands.
fn lone(text: String) -> Segment {
    Segment { literal: 0..0, text, run: None }
}

fn collect(
    dialect: Dialect,
    text: &str,
    mut visit: impl FnMut(&[Step<'_>], Segment),
) -> Result<(), JsonError> {
    let mut refused = None;
    let mut strings = 0;
    walk(text, |path, literal, place| {
        strings += 1;
        if strings > STRINGS_MAX {
            refused = refused.take().or(Some(JsonError::TooManyStrings(STRINGS_MAX)));
        }
        if refused.is_some() || (place == Place::Value && is_signature(dialect, path)) {
            return;
        }
        match text.get(literal.clone()).and_then(unquote) {
            // An image inside the body; any other address is text.
            Some(decoded) if is_media(dialect, path, &decoded) => {}
            Some(decoded) => {
                let literal = if place == Place::Name { 0..0 } else { literal };
                visit(path, Segment { literal, text: decoded.into_owned(), run: None });
            }
            None => refused = Some(JsonError::LoneSurrogate(literal.start)),
        }
    })?;
    refused.map_or(Ok(()), Err)
}

/// The turn a text part belongs to.
fn turn_of(dialect: Dialect, path: &[Step<'_>]) -> Option<Turn> {
    match (dialect, path) {
        (Dialect::Native, [.., Step::Key(parts), Step::Index(_), Step::Key(text)])
            if parts == "parts" && text == "text" =>
        {
            turn_at(path, 3)
        }
        (Dialect::Native, [.., Step::Key(parts), Step::Key(text)])
            if parts == "parts" && text == "text" =>
        {
            turn_at(path, 2)
        }
        (Dialect::OpenAi, [.., Step::Key(content)]) if content == "content" => turn_at(path, 1),
        (Dialect::OpenAi, [.., Step::Key(content), Step::Index(_), Step::Key(text)])
            if content == "content" && text == "text" =>
        {
            turn_at(path, 3)
        }
        // Texts of the input, alone or as the content of steps, one behind the other.
        (Dialect::Interactions, [Step::Key(input), .., Step::Key(text)])
            if input == "input" && text == "text" && !is_free(path) =>
        {
            Some((".input".to_owned(), 0))
        }
        // Texts to embed, each its own.
        _ => None,
    }
}

/// The turn at a path without its last `steps`.
fn turn_at(path: &[Step<'_>], steps: usize) -> Option<Turn> {
    let turn = path.get(..path.len().checked_sub(steps)?)?;
    Some(match turn.split_last() {
        Some((Step::Index(place), list)) => (shown(list), *place),
        _ => (shown(turn), 0),
    })
}

fn shown(path: &[Step<'_>]) -> String {
    path.iter().fold(String::new(), |text, step| match step {
        Step::Key(key) => text + "." + key,
        Step::Index(index) => text + "." + &index.to_string(),
    })
}

fn hash(path: &[Step<'_>]) -> u64 {
    let mut hash = DefaultHasher::new();
    shown(path).hash(&mut hash);
    hash.finish()
}

impl Run {
    const FRAGMENT: u64 = 1 << 63;

    /// Whether it is a member that arrives in fragments, beside a candidate's text.
    pub fn is_fragment(self) -> bool {
        self.0 & Self::FRAGMENT != 0
    }

    /// Whether it is what a candidate of an answer says, and neither its thoughts nor a fragment.
    pub fn is_said(self) -> bool {
        !self.is_fragment() && self.0.is_multiple_of(2)
    }

    /// The candidate of an answer whose text this is; of a fragment, the first.
    pub fn candidate(self) -> u64 {
        if self.is_fragment() { 0 } else { self.0 / 2 }
    }
}

/// Gives neighbouring turns of one role the same run. Google reads an absent role as `user`.
fn number_runs(
    found: &[(Option<Turn>, Segment)],
    roles: &BTreeMap<Turn, String>,
) -> BTreeMap<Turn, Run> {
    let turns: std::collections::BTreeSet<&Turn> =
        found.iter().filter_map(|(turn, _)| turn.as_ref()).collect();
    let mut runs = BTreeMap::new();
    let mut before: Option<(&Turn, &str)> = None;
    let mut number = 0;
    for turn in turns {
        let role = roles.get(turn).map_or("user", String::as_str);
        let joins = before.is_some_and(|(other, spoken)| other.0 == turn.0 && spoken == role);
        number += u64::from(!joins);
        runs.insert(turn.clone(), Run(number));
        before = Some((turn, role));
    }
    runs
}

/// The numbers and thoughts of an answer, which no string tells.
#[derive(Debug, Default, Deserialize)]
struct AnswerShape {
    /// The step of an interaction that a frame goes on with.
    index: Option<u64>,
    #[serde(alias = "choices", default)]
    candidates: Option<Vec<CandidateShape>>,
}

#[derive(Debug, Default, Deserialize)]
struct CandidateShape {
    index: Option<u64>,
    content: Option<ContentShape>,
}

#[derive(Debug, Default, Deserialize)]
struct ContentShape {
    parts: Option<Vec<PartShape>>,
}

#[derive(Debug, Default, Deserialize)]
struct PartShape {
    thought: Option<bool>,
}

impl AnswerShape {
    fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    fn run(&self, dialect: Dialect, path: &[Step<'_>]) -> Option<Run> {
        match dialect {
            Dialect::Native => self.run_of_native(path).or_else(|| fragment(path)),
            Dialect::OpenAi => self.run_of_openai(path).or_else(|| fragment(path)),
            Dialect::Interactions => self.run_of_interaction(path),
        }
    }

    fn run_of_native(&self, path: &[Step<'_>]) -> Option<Run> {
        let (content, part) = match path {
            [content @ .., Step::Key(parts), Step::Index(part), Step::Key(text)]
                if parts == "parts" && text == "text" && !is_free(path) =>
            {
                (content, *part)
            }
            _ => return None,
        };
        match content {
            [Step::Key(list), Step::Index(position), Step::Key(content)]
                if list == "candidates" && content == "content" =>
            {
                let parts = self.candidate(*position).and_then(|one| one.content.as_ref());
                let parts = parts.and_then(|content| content.parts.as_ref());
                let thought = parts.and_then(|parts| parts.get(part)?.thought).unwrap_or(false);
                Some(Run(self.number(*position) * 2 + u64::from(thought)))
            }
            // One answer of a batch.
            _ => Some(Run(hash(content) & !Run::FRAGMENT & !1)),
        }
    }

    fn run_of_openai(&self, path: &[Step<'_>]) -> Option<Run> {
        match path {
            [Step::Key(list), Step::Index(position), Step::Key(body), Step::Key(content), ..]
                if list == "choices"
                    && (body == "message" || body == "delta")
                    && content == "content"
                    && path.last().is_some_and(|step| step.is("content") || step.is("text")) =>
            {
                Some(Run(self.number(*position) * 2))
            }
            _ => None,
        }
    }

    fn run_of_interaction(&self, path: &[Step<'_>]) -> Option<Run> {
        match path {
            _ if is_free(path) && !is_fragment_of_step(path) => None,
            [Step::Key(delta), rest @ .., Step::Key(last)]
                if delta == "delta" && (last == "text" || last == "arguments") =>
            {
                let step = self.index.unwrap_or(0) * 2;
                Some(match (last.as_ref(), rest) {
                    ("arguments", _) => Run(step | Run::FRAGMENT),
                    // Its thoughts come one level deeper.
                    (_, []) => Run(step),
                    _ => Run(step + 1),
                })
            }
            [
                ..,
                Step::Key(steps),
                Step::Index(at),
                Step::Key(content),
                Step::Index(_),
                Step::Key(last),
            ] if steps == "steps" && last == "text" => {
                Some(Run(*at as u64 * 2 + u64::from(content == "summary")))
            }
            _ => None,
        }
    }

    fn candidate(&self, position: usize) -> Option<&CandidateShape> {
        self.candidates.as_ref().and_then(|all| all.get(position))
    }

    fn number(&self, position: usize) -> u64 {
        self.candidate(position).and_then(|one| one.index).unwrap_or(position as u64)
    }
}

/// The run of a member that arrives in fragments.
fn fragment(path: &[Step<'_>]) -> Option<Run> {
    match path {
        [Step::Key(_), Step::Index(_), .., Step::Key(last)]
            if FRAGMENTS.contains(&last.as_ref()) =>
        {
            Some(Run(hash(path) | Run::FRAGMENT))
        }
        _ => None,
    }
}

/// Arguments of a function call that arrive in pieces of their JSON.
fn is_fragment_of_step(path: &[Step<'_>]) -> bool {
    matches!(path, [Step::Key(delta), Step::Key(last)] if delta == "delta" && last == "arguments")
}

#[cfg(test)]
mod tests {
    use super::{Run, answer, request};
    use crate::gemini::Dialect;

    /// The texts of each run, joined by bars, in the order of the runs; then the lone ones.
    fn joined(dialect: Dialect, body: &str) -> Vec<String> {
        let mut runs: std::collections::BTreeMap<Option<Run>, Vec<String>> =
            std::collections::BTreeMap::new();
        for segment in request(dialect, body).unwrap().segments {
            runs.entry(segment.run).or_default().push(segment.text);
        }
        runs.into_iter().rev().map(|(_, texts)| texts.join("|")).rev().collect()
    }

    #[test]
    fn text_is_everything_that_is_not_data() {
        let body = r#"{"system_instruction":{"parts":[{"text":"s"},{"text":"t"}]},"contents":[
            {"parts":[{"text":"a"},{"inline_data":{"mime_type":"image/png","data":"AAAA"}},{"text":"b"}]},
            {"role":"user","parts":[{"text":"c","thoughtSignature":"zzz"}]},
            {"role":"model","parts":[{"functionCall":{"name":"f","args":{"x":["d"]}}}]}],
            "labels":{"l":"e"}}"#;
        let lone = "image/png|user|model|f|x|d|l|e";
        assert_eq!(joined(Dialect::Native, body), [lone, "a|b|c", "s|t"]);
    }

    #[test]
    fn pictures_sound_and_signatures_in_answers_are_no_text() {
        let texts = |dialect, body: &str| -> Vec<String> {
            answer(dialect, body).unwrap().into_iter().map(|one| one.text).collect()
        };
        let native = r#"{"candidates":[{"content":{"parts":[{"inlineData":{"data":"kys","mimeType":"image/png"}},
            {"inlineData":{"data":"ZmluZCBtZQ","mimeType":"text/plain"}},
            {"inlineData":{"data":"no base64","mimeType":"text/plain"}},{"functionCall":{"args":{"inlineData":
            {"data":"kys","mimeType":"image/png"}}}}]}}]}"#;
        for body in [
            native.to_owned(),
            format!(
                r#"{{"done":true,"response":{{"inlinedResponses":{{"inlinedResponses":[{{"response":{native}}}]}}}}}}"#
            ),
        ] {
            let all = texts(Dialect::Native, &body);
            assert_eq!(all.iter().filter(|text| *text == "kys").count(), 1, "{all:?}");
            assert!(all.contains(&"find me".to_owned()) && all.contains(&"no base64".to_owned()));
        }
        let chat = r#"{"choices":[{"message":{"tool_calls":[{"extra_content":{"google":{"thought_signature":"kys"}},
            "function":{"arguments":"a"}}]}}],"data":[{"b64_json":"kys"}]}"#;
        assert_eq!(texts(Dialect::OpenAi, chat), ["a"]);
        let steps = r#"{"steps":[{"type":"model_output","content":[{"type":"image","mime_type":"image/png","data":"kys"}]}]}"#;
        assert!(!texts(Dialect::Interactions, steps).contains(&"kys".to_owned()));
    }

    #[test]
    fn runs_do_not_depend_on_what_stands_between() {
        for (dialect, body) in [
            (
                Dialect::Native,
                r#"{"contents":[{"role":"user","parts":[{"text":"a"}]},{"role":"user","parts":[{"text":"b"}]}]}"#,
            ),
            (
                Dialect::Native,
                r#"{"contents":[{"parts":[{"text":"a","partMetadata":{"k":"v"}},{"text":"b"}],"role":"user"}]}"#,
            ),
            (
                Dialect::Native,
                r#"{"generateContentRequest":{"contents":[{"parts":[{"text":"a"}]},{"parts":[{"text":"b"}]}]}}"#,
            ),
            (Dialect::Native, r#"{"contents":{"parts":[{"text":"a"},{"text":"b"}]}}"#),
            (
                Dialect::OpenAi,
                r#"{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}"#,
            ),
            (
                Dialect::OpenAi,
                r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}"#,
            ),
        ] {
            assert!(
                joined(dialect, body).contains(&"a|b".to_owned()),
                "{body}: {:?}",
                joined(dialect, body)
            );
        }
        let turns = r#"{"contents":[{"role":"user","parts":[{"text":"a"}]},{"role":"model","parts":[{"text":"b"}]}]}"#;
        assert_eq!(joined(Dialect::Native, turns), ["user|model", "a", "b"]);
    }

    #[test]
    fn data_is_only_where_the_api_has_data() {
        for body in [
            r#"{"contents":[{"parts":[{"functionResponse":{"response":{"thoughtSignature":"find me"}}}]}]}"#,
            r#"{"contents":[{"parts":[{"functionResponse":{"response":{"inlineData":{"data":"find me"}}}}]}]}"#,
            r#"{"contents":[{"parts":[{"functionCall":{"args":{"find me":1}}}]}]}"#,
            r#"{"contents":[{"parts":[{"inlineData":{"data":"ZmluZCBtZQ==","mimeType":"text/plain"}}]}]}"#,
            r#"{"contents":[{"parts":[{"inline_data":{"mime_type":"application/json","data":"ZmluZCBtZQ"}}]}]}"#,
            r#"{"tools":[{"functionDeclarations":[{"parameters":{"properties":{"find me":{}}}}]}]}"#,
        ] {
            let found = request(Dialect::Native, body).unwrap().segments;
            assert!(found.iter().any(|segment| segment.text == "find me"), "{body}");
        }
        let hidden = r#"{"x":{"image_url":{"url":"data:image/find me"}}}"#;
        assert!(!request(Dialect::OpenAi, hidden).unwrap().segments.is_empty());
    }

    #[test]
    fn text_that_is_elsewhere_is_noticed() {
        for (dialect, body, elsewhere) in [
            (Dialect::Native, r#"{"cachedContent":"cachedContents/x"}"#, true),
            (Dialect::Native, r#"{"contents":[{"parts":[{"file_data":{"file_uri":"f"}}]}]}"#, true),
            (
                Dialect::Native,
                r#"{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"AA"}}]}]}"#,
                false,
            ),
            (
                Dialect::Native,
                r#"{"contents":[{"parts":[{"inlineData":{"mimeType":"text/x","data":"!"}}]}]}"#,
                true,
            ),
            (
                Dialect::OpenAi,
                r#"{"messages":[{"content":[{"image_url":{"url":"https://x"}}]}]}"#,
                true,
            ),
            (
                Dialect::OpenAi,
                r#"{"messages":[{"content":[{"image_url":{"url":"data:image/x"}}]}]}"#,
                false,
            ),
        ] {
            assert_eq!(request(dialect, body).unwrap().points_elsewhere, elsewhere, "{body}");
        }
    }

    #[test]
    fn answers_are_read_by_candidate_thoughts_apart() {
        let body = r#"{"candidates":[
            {"index":1,"content":{"parts":[{"text":"a","thought":true},{"text":"b"}]},"finishMessage":"m"},
            {"content":{"parts":[{"text":"c"},{"executableCode":{"code":"d"}}]}}]}"#;
        let runs: Vec<_> = answer(Dialect::Native, body)
            .unwrap()
            .into_iter()
            .map(|one| (one.text, one.run))
            .collect();
        assert_eq!(runs[0], ("a".to_owned(), Some(Run(3))));
        assert_eq!(runs[1], ("b".to_owned(), Some(Run(2))));
        assert_eq!(runs[2], ("m".to_owned(), None));
        assert_eq!(runs[3].0, "c");
        assert!(runs[4].1.is_some_and(|run| run.0 > 1 << 62), "fragments have runs of their own");
    }

    #[test]
    fn answers_of_a_batch_are_read_by_candidate() {
        let body = r#"{"response":{"inlinedResponses":{"inlinedResponses":[
            {"response":{"candidates":[{"content":{"parts":[{"text":"a","thoughtSignature":"s"},{"text":"b"}]}}]}},
            {"response":{"candidates":[{"content":{"parts":[{"text":"c"}]}}]}}]}}}"#;
        let found = answer(Dialect::Native, body).unwrap();
        let texts: Vec<&str> = found.iter().map(|one| one.text.as_str()).collect();
        assert_eq!(texts, ["a", "b", "c"], "a signature is no text");
        assert!(found[0].run == found[1].run && found[1].run != found[2].run);
        assert!(found.iter().all(|one| one.run.is_some_and(Run::is_said)));
    }
}
