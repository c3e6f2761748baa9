//! Where text stands in requests and answers.
//!
//! Every string is text unless it is known not to be: a field added to the API tomorrow is inspected
//! today. Strings that the model reads as one text form a run, because a phrase may be cut over them.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::Dialect;
use super::json::{JsonError, Place, Step, is_free, unquote, walk};
use super::members::Members;

/// Strings of one document.
const STRINGS_MAX: usize = 100_000;
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
            Some(text) => segments.push(Segment { literal: 0..0, text, run: None }),
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
    Ok(found.into_iter().map(|(_, segment)| segment).collect())
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

/// The model's own signature of a part: bytes, not text.
fn is_signature(dialect: Dialect, path: &[Step<'_>]) -> bool {
    let is_here = match dialect {
        Dialect::Native => matches!(path, [.., Step::Key(parts), Step::Index(_), Step::Key(last)]
            if parts == "parts" && last == "thoughtSignature"),
        Dialect::Interactions => matches!(path,
            [Step::Key(root), .., Step::Key(last)] if last == "signature" && holds_steps(root)),
        Dialect::OpenAi => {
            matches!(path, [.., Step::Key(extra), Step::Key(google), Step::Key(last)]
            if extra == "extraContent" && google == "google" && last == "thoughtSignature")
        }
    };
    is_here && !is_free(path)
}

/// Whether a member of an interaction, or of an event of its stream, holds what was said.
fn holds_steps(root: &str) -> bool {
    ["steps", "input", "delta", "step", "interaction"].contains(&root)
}

/// Sound and pictures in the body of a chat completion, pictures among predictions and images.
fn is_media(dialect: Dialect, path: &[Step<'_>], text: &str) -> bool {
    if dialect == Dialect::Native && path.last().is_some_and(|step| step.is("bytesBase64Encoded")) {
        return !is_free(path)
            && path.first().is_some_and(|step| step.is("instances") || step.is("predictions"));
    }
    if let (Dialect::OpenAi, [Step::Key(data), Step::Index(_), Step::Key(last)]) = (dialect, path) {
        return data == "data" && last == "b64Json";
    }
    let [
        Step::Key(list),
        Step::Index(_),
        Step::Key(content),
        Step::Index(_),
        Step::Key(parent),
        Step::Key(last),
    ] = path
    else {
        return false;
    };
    let is_audio = parent == "inputAudio" && last == "data";
    let is_image = parent == "imageUrl" && last == "url" && text.starts_with("data:image/");
    dialect == Dialect::OpenAi
        && list == "messages"
        && content == "content"
        && (is_audio || is_image)
}

/// Whether a string names text that is fetched by the upstream.
fn is_pointer(path: &[Step<'_>], text: &str) -> bool {
    let Some((Step::Key(last), before)) = path.split_last() else { return false };
    let parent = before.last();
    let under = |name: &str| parent.is_some_and(|step| step.is(name));
    match last.as_ref() {
        "cachedContent" | "previousInteractionId" | "gcsUri" => !text.is_empty() && !is_free(path),
        "fileUri" => under("fileData"),
        "fileName" => under("inputConfig"),
        "url" => under("imageUrl") && !text.starts_with("data:image/"),
        // Media of an interaction that are fetched; in a list of the input or of a step.
        "uri" => matches!(path.first(), Some(Step::Key(root)) if root == "input") && !is_free(path),
        _ => false,
    }
}

/// The types of media in parts, by part. Those of a text type are text in another coat.
#[derive(Debug, Default)]
struct MediaTypes(HashMap<String, String>);

impl MediaTypes {
    /// The part when the string is its data; looks at the type.
    fn data_of(&mut self, dialect: Dialect, path: &[Step<'_>], text: &str) -> Option<String> {
        let is_here = match (dialect, path) {
            (
                Dialect::Native,
                [.., Step::Key(parts), Step::Index(_), Step::Key(parent), Step::Key(_)],
            ) => parts == "parts" && parent == "inlineData",
            (Dialect::Interactions, [Step::Key(root), .., Step::Key(_)]) => holds_steps(root),
            _ => false,
        };
        let (Step::Key(last), before) = path.split_last().filter(|_| is_here && !is_free(path))?
        else {
            return None;
        };
        match last.as_ref() {
            "data" => Some(shown(before)),
            "mimeType" => {
                self.0.insert(shown(before), text.to_ascii_lowercase());
                None
            }
            _ => None,
        }
    }

    /// Whether the data of a part are pictures or sound, as their type says.
    fn are_media(&self, part: &str) -> bool {
        let media = ["image/", "audio/", "video/", "application/pdf"];
        let kind = self.0.get(part);
        kind.is_some_and(|kind| media.iter().any(|media| kind.starts_with(media)))
    }
}

/// Either base64 alphabet, padded or not, as the service takes it.
fn decoded(data: &str) -> Option<String> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let alphabet =
        if data.contains(['-', '_']) { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
    let bytes = GeneralPurpose::new(alphabet, config).decode(data).ok()?;
    String::from_utf8(bytes).ok()
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
        let candidate =
            |position: usize| self.candidates.as_ref().and_then(|all| all.get(position));
        let number = |position: usize| {
            candidate(position).and_then(|one| one.index).unwrap_or(position as u64)
        };
        match (dialect, path) {
            (
                Dialect::Native,
                [
                    Step::Key(list),
                    Step::Index(position),
                    Step::Key(content),
                    Step::Key(parts),
                    Step::Index(part),
                    Step::Key(text),
                ],
            ) if list == "candidates"
                && content == "content"
                && parts == "parts"
                && text == "text" =>
            {
                let parts =
                    candidate(*position).and_then(|one| one.content.as_ref()?.parts.as_ref());
                let thought = parts.and_then(|parts| parts.get(*part)?.thought).unwrap_or(false);
                Some(Run(number(*position) * 2 + u64::from(thought)))
            }
            (
                Dialect::OpenAi,
                [Step::Key(list), Step::Index(position), Step::Key(body), Step::Key(content), ..],
            ) if list == "choices"
                && (body == "message" || body == "delta")
                && content == "content"
                && path.last().is_some_and(|step| step.is("content") || step.is("text")) =>
            {
                Some(Run(number(*position) * 2))
            }
            (Dialect::Interactions, _) if is_free(path) && !is_fragment_of_step(path) => None,
            (Dialect::Interactions, [Step::Key(delta), rest @ .., Step::Key(last)])
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
            (
                Dialect::Interactions,
                [
                    ..,
                    Step::Key(steps),
                    Step::Index(at),
                    Step::Key(content),
                    Step::Index(_),
                    Step::Key(last),
                ],
            ) if steps == "steps" && last == "text" => {
                Some(Run(*at as u64 * 2 + u64::from(content == "summary")))
            }
            (
                Dialect::Native | Dialect::OpenAi,
                [Step::Key(_), Step::Index(_), .., Step::Key(last)],
            ) if FRAGMENTS.contains(&last.as_ref()) => {
                let mut hash = DefaultHasher::new();
                shown(path).hash(&mut hash);
                Some(Run(hash.finish() | Run::FRAGMENT))
            }
            _ => None,
        }
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
        let texts = |dialect, body| -> Vec<String> {
            answer(dialect, body).unwrap().into_iter().map(|one| one.text).collect()
        };
        let native = r#"{"candidates":[{"content":{"parts":[{"inlineData":{"data":"kys","mimeType":"image/png"}},
            {"inlineData":{"data":"plain","mimeType":"text/plain"}},{"functionCall":{"args":{"inlineData":
            {"data":"kys","mimeType":"image/png"}}}}]}}]}"#;
        let all = texts(Dialect::Native, native);
        assert_eq!(all.iter().filter(|text| *text == "kys").count(), 1, "{all:?}");
        assert!(all.contains(&"plain".to_owned()));
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
}
