//! Where the strings of a JSON document stand, without building a tree.
//!
//! `serde_json` decides what is valid; this walk only finds byte ranges in a valid document, so
//! that a body can be forwarded as it came and edited in place when it must change. It refuses what
//! two parsers could read differently: duplicate keys, the same field in both spellings
//! (`systemInstruction` beside `system_instruction`), text that is not UTF-8, absurd depth.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use serde::de::IgnoredAny;

/// Google's own parser stops at 100 levels; nothing legitimate comes near.
const DEPTH_MAX: usize = 128;

/// Members below these keys are the application's own names, where `a_b` and `aB` may differ.
const FREE_FORM: [&str; 10] = [
    "args",
    "arguments",
    "chaperone",
    "labels",
    "metadata",
    "parametersJsonSchema",
    "properties",
    "response",
    "responseJsonSchema",
    "result",
];

/// One step from the root towards a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'a> {
    /// A member of an object, its name decoded and in camelCase.
    Key(Cow<'a, str>),
    /// An element of an array.
    Index(usize),
}

impl Step<'_> {
    /// Whether this step is the member called `name` (in camelCase).
    pub fn is(&self, name: &str) -> bool {
        matches!(self, Self::Key(key) if key == name)
    }
}

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not UTF-8 from this byte on.
    #[error("the body is not UTF-8 from byte {0} on")]
    NotUtf8(usize),
    /// Not JSON.
    #[error("the body is not valid JSON at line {line}, column {column}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// A field that stands twice, in one spelling or in both.
    #[error("the field {0:?} stands twice in one object, which two parsers may read differently")]
    Duplicate(String),
    /// Nested too deeply.
    #[error("the body is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// More strings than anybody needs.
    #[error("the body holds more than {0} strings")]
    TooManyStrings(usize),
    /// A string with half a surrogate pair.
    #[error("the string at byte {0} holds half a surrogate pair")]
    LoneSurrogate(usize),
}

/// Checks that `bytes` are one JSON document in UTF-8 and gives them back as text.
pub fn check(bytes: &[u8]) -> Result<&str, JsonError> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| JsonError::NotUtf8(error.valid_up_to()))?;
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(text),
        Err(error) => Err(JsonError::Syntax { line: error.line(), column: error.column() }),
    }
}

/// What a visited string is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The name of a member below a free-form member: the application's own text.
    Name,
    /// A value.
    Value,
}

/// Whether a path leads below a member whose names are the application's own.
pub fn is_free(path: &[Step<'_>]) -> bool {
    path.iter().enumerate().any(|(at, step)| {
        let is_free_form = FREE_FORM.iter().any(|name| step.is(name));
        is_free_form && !holds_answers(path.get(..=at).unwrap_or_default(), path.get(at + 1))
    })
}

/// Whether a member holds what a batch made: the `response` of its operation or of one request in it, or the output
/// in the operation's `metadata`. Other members of these names are the application's.
fn holds_answers(path: &[Step<'_>], next: Option<&Step<'_>>) -> bool {
    let Some((last, before)) = path.split_last() else { return false };
    let is_of_operation = match before {
        [] => true,
        [list, Step::Index(_)] => list.is("operations"),
        _ => false,
    };
    match last {
        Step::Key(name) if name == "response" => {
            is_of_operation
                || matches!(before, [.., list, Step::Index(_)] if list.is("inlinedResponses"))
        }
        Step::Key(name) if name == "metadata" => {
            is_of_operation && next.is_some_and(|next| next.is("output"))
        }
        _ => false,
    }
}

/// Walks a document that [`check`] accepted and calls `visit` with the path and the range (quotes
/// included) of every string value and every free-form name, in document order.
pub fn walk<'a>(
    text: &'a str,
    mut visit: impl FnMut(&[Step<'a>], Range<usize>, Place),
) -> Result<(), JsonError> {
    let mut walk = Walk { path: Vec::new(), levels: Vec::new() };
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let end = string_end(bytes, at);
                if walk.expects_key() {
                    let is_free = is_free(&walk.path);
                    walk.key(text, at..end, is_free)?;
                    if is_free {
                        visit(&walk.path, at..end, Place::Name);
                    }
                } else {
                    visit(&walk.path, at..end, Place::Value);
                }
                at = end;
                continue;
            }
            b'{' => walk.open(Level::Object { names: HashSet::new(), key_next: true })?,
            b'[' => walk.open(Level::Array)?,
            b'}' | b']' => walk.close(),
            b',' => walk.next(),
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// The text of a string literal (given with its quotes), borrowed where nothing is escaped.
pub fn unquote(literal: &str) -> Option<Cow<'_, str>> {
    let inner = literal.get(1..literal.len().checked_sub(1)?)?;
    if inner.contains('\\') {
        serde_json::from_str(literal).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// A text as a JSON string literal, quotes included.
pub fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `snake_case` to `camelCase`: the one name of a proto3 field.
pub fn camel(name: Cow<'_, str>) -> Cow<'_, str> {
    if !name.contains('_') {
        return name;
    }
    let mut camel = String::with_capacity(name.len());
    let mut raise = false;
    for letter in name.chars() {
        if letter == '_' && !camel.is_empty() {
            raise = true;
        } else if std::mem::take(&mut raise) {
            camel.push(letter.to_ascii_uppercase());
        } else {
            camel.push(letter);
        }
    }
    Cow::Owned(camel)
}

enum Level<'a> {
    Object { names: HashSet<Cow<'a, str>>, key_next: bool },
    Array,
}

struct Walk<'a> {
    path: Vec<Step<'a>>,
    levels: Vec<Level<'a>>,
}

impl<'a> Walk<'a> {
    fn expects_key(&self) -> bool {
        matches!(self.levels.last(), Some(Level::Object { key_next: true, .. }))
    }

    fn open(&mut self, level: Level<'a>) -> Result<(), JsonError> {
        if self.levels.len() == DEPTH_MAX {
            return Err(JsonError::TooDeep);
        }
        if matches!(level, Level::Array) {
            self.path.push(Step::Index(0));
        }
        self.levels.push(level);
        Ok(())
    }

    fn key(
        &mut self,
        text: &'a str,
        literal: Range<usize>,
        is_free: bool,
    ) -> Result<(), JsonError> {
        let start = literal.start;
        let raw = text.get(literal).and_then(unquote).ok_or(JsonError::LoneSurrogate(start))?;
        let name = if is_free { raw } else { camel(raw) };
        if let Some(Level::Object { names, key_next }) = self.levels.last_mut() {
            if !names.insert(name.clone()) {
                return Err(JsonError::Duplicate(name.chars().take(64).collect()));
            }
            *key_next = false;
        }
        self.path.push(Step::Key(name));
        Ok(())
    }

    fn next(&mut self) {
        match self.levels.last_mut() {
            Some(Level::Object { key_next, .. }) => {
                self.path.pop();
                *key_next = true;
            }
            Some(Level::Array) => {
                if let Some(Step::Index(index)) = self.path.last_mut() {
                    *index += 1;
                }
            }
            None => {}
        }
    }

    fn close(&mut self) {
        match self.levels.pop() {
            // An empty object has pushed no key.
            Some(Level::Object { key_next: false, .. } | Level::Array) => {
                self.path.pop();
            }
            Some(Level::Object { key_next: true, .. }) | None => {}
        }
    }
}

/// The end (exclusive) of the string literal that starts at `start`.
pub(super) fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    loop {
        match bytes.get(at) {
            Some(b'\\') => at += 2,
            Some(b'"') => return at + 1,
            Some(_) => at += 1,
            None => return bytes.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{JsonError, Step, camel, check, unquote, walk};

    fn strings(text: &str) -> Result<Vec<String>, JsonError> {
        let mut found = Vec::new();
        walk(check(text.as_bytes())?, |path, range, _| {
            let path: Vec<String> = path
                .iter()
                .map(|step| match step {
                    Step::Key(key) => key.to_string(),
                    Step::Index(index) => index.to_string(),
                })
                .collect();
            found.push(format!(
                "{}={}",
                path.join("."),
                unquote(text.get(range).unwrap()).unwrap()
            ));
        })?;
        Ok(found)
    }

    #[test]
    fn finds_every_string_with_its_path() {
        let text = r#" {"a":"x","b":[1,"y",{"c_d":"z\n"},[]],"e":{},"f":{"g":{"h":"i"}},"j":"k"} "#;
        assert_eq!(strings(text).unwrap(), ["a=x", "b.1=y", "b.2.cD=z\n", "f.g.h=i", "j=k"]);
    }

    #[test]
    fn refuses_what_two_parsers_could_read_differently() {
        for (text, key) in [
            (r#"{"contents":1,"contents":2}"#, "contents"),
            (r#"{"contents":1,"c\u006fntents":2}"#, "contents"),
            (r#"{"system_instruction":1,"systemInstruction":2}"#, "systemInstruction"),
            (r#"[{"a":{"b_c":1,"bC":2}}]"#, "bC"),
        ] {
            assert_eq!(strings(text), Err(JsonError::Duplicate(key.to_owned())), "{text}");
        }
        assert!(strings(r#"{"args":{"b_c":1,"bC":2}}"#).is_ok(), "free-form names may differ");
    }

    #[test]
    fn refuses_rubbish_and_says_where() {
        assert_eq!(strings("{\"a\":\n tru}"), Err(JsonError::Syntax { line: 2, column: 5 }));
        assert_eq!(check(b"\"ab\xff\""), Err(JsonError::NotUtf8(3)));
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert!(strings(&deep).is_err());
    }

    #[test]
    fn camel_case_is_the_one_name() {
        for (from, to) in
            [("a_b", "aB"), ("ab", "ab"), ("_a", "_a"), ("max_output_tokens", "maxOutputTokens")]
        {
            assert_eq!(camel(from.into()), to);
        }
    }
}
