//! The `format` syntax: `{name}` is a hole, `{{` and `}}` are braces, nothing else is special.
//!
//! Python's attribute walks, indexes, conversions and format specs are refused where the template is
//! saved, with a hint, rather than misread when it is used.

use serde_json::{Map, Value};

use super::{OUTPUT_BYTES_MAX, RenderError, SyntaxError, Used, place};

#[derive(Debug)]
pub(super) struct Format {
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    Literal(String),
    Hole(String),
}

impl Format {
    pub(super) fn parse(text: &str, used: &mut Used) -> Result<Self, SyntaxError> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut letters = text.char_indices().peekable();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '{' | '}' if letters.next_if(|(_, next)| *next == letter).is_some() => {
                    literal.push(letter);
                }
                '{' => {
                    let rest = text.get(at + 1..).unwrap_or_default();
                    let name = hole(rest).map_err(|what| at_place(text, at, what))?;
                    for _ in 0..=name.chars().count() {
                        letters.next();
                    }
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                    pieces.push(Piece::Hole(name.to_owned()));
                    used.entry(name.to_owned()).or_insert(at);
                }
                '}' => {
                    let what = "a closing brace without an opening one; write }} for a brace";
                    return Err(at_place(text, at, what.to_owned()));
                }
                _ => literal.push(letter),
            }
        }
        pieces.push(Piece::Literal(literal));
        Ok(Self { pieces })
    }

    pub(super) fn render(&self, values: &Map<String, Value>) -> Result<String, RenderError> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Hole(name) => match values.get(name) {
                    Some(Value::String(value)) => text.push_str(value),
                    Some(value) => text.push_str(&value.to_string()),
                    None => {}
                },
            }
            if text.len() > OUTPUT_BYTES_MAX {
                let what = format!("the rendered text is longer than {OUTPUT_BYTES_MAX} bytes");
                return Err(RenderError::Engine { what });
            }
        }
        Ok(text)
    }
}

/// The name in a hole, given the text behind its opening brace.
fn hole(rest: &str) -> Result<&str, String> {
    let Some((name, _)) = rest.split_once('}') else {
        return Err("an opening brace without a closing one; write {{ for a brace".to_owned());
    };
    let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    if is_name {
        return Ok(name);
    }
    Err(match name.find(['.', '[', '!', ':']) {
        Some(_) => "a hole takes a plain name; attributes, indexes, conversions and format specs \
                    are not supported"
            .to_owned(),
        None => "a hole takes a name such as {topic}; write {{ and }} for braces".to_owned(),
    })
}

fn at_place(text: &str, at: usize, what: String) -> SyntaxError {
    let (line, column) = place(text, at);
    SyntaxError { line, column, what }
}
