//! The `jinja` syntax: `MiniJinja`, cut down to what a prompt needs and bounded in every direction.
//!
//! No includes, no macros, no `debug`, no `range`; an unknown name is an error; lists and objects
//! must go through `tojson`, since their bare form is Python's, not JSON's.

use std::collections::BTreeSet;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior};
use serde_json::{Map, Value};

use super::{OUTPUT_BYTES_MAX, RenderError, SyntaxError, Used, place};

/// Steps of the engine for one message.
const FUEL: u64 = 50_000;
const RECURSION_MAX: usize = 50;
const NAME: &str = "message";

#[derive(Debug)]
pub(super) struct Jinja {
    environment: Environment<'static>,
}

impl Jinja {
    pub(super) fn parse(text: &str, used: &mut Used) -> Result<Self, SyntaxError> {
        let mut environment = environment();
        environment
            .add_template_owned(NAME, text.to_owned())
            .map_err(|error| refused(text, &error))?;
        let names = environment
            .get_template(NAME)
            .map_err(|error| refused(text, &error))?
            .undeclared_variables(false);
        let globals: BTreeSet<String> =
            environment.globals().map(|(name, _)| name.to_owned()).collect();
        let names = names.into_iter().filter(|name| !globals.contains(name));
        used.extend(names.map(|name| (name.clone(), first_use(text, &name))));
        Ok(Self { environment })
    }

    pub(super) fn render(&self, values: &Map<String, Value>) -> Result<String, RenderError> {
        let mut output = Bounded(Vec::new());
        let template = self.environment.get_template(NAME).map_err(|error| failed("", &error))?;
        let context = minijinja::Value::from(Serde(values));
        template
            .render_captured_to(context, &mut output)
            .map_err(|error| failed(template.source(), &error))?;
        String::from_utf8(output.0)
            .map_err(|_not_utf8| RenderError::Engine { what: "the output is not UTF-8".to_owned() })
    }
}

/// The byte where a name first stands in a tag, not as an attribute, a keyword argument or within quotes.
/// The engine tells which names a text uses, not where.
fn first_use(text: &str, name: &str) -> usize {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = text.as_bytes();
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(b' ');
    let (mut at, mut tag, mut quote) = (0, None, None);
    while at < bytes.len() {
        let here = byte(at);
        match (tag, quote) {
            (None, _) if here == b'{' && b"{%#".contains(&byte(at + 1)) => {
                tag = Some(if byte(at + 1) == b'{' { b'}' } else { byte(at + 1) });
                at += 1;
            }
            (None, _) => {}
            (Some(_), Some(mark)) if here == b'\\' && mark != b'#' => at += 1,
            (Some(_), Some(mark)) if here == mark => quote = None,
            (Some(end), None) if here == end && byte(at + 1) == b'}' => tag = None,
            (Some(end), None) if b"'\"".contains(&here) && end != b'#' => quote = Some(here),
            (Some(end), None)
                if end != b'#' && is_letter(here) && !is_letter(byte(at.wrapping_sub(1))) =>
            {
                let word = bytes.get(at..).unwrap_or_default();
                let word = word.split(|one| !is_letter(*one)).next().unwrap_or_default();
                if word == name.as_bytes() && byte(at.wrapping_sub(1)) != b'.' {
                    return at;
                }
            }
            (Some(_), _) => {}
        }
        at += 1;
    }
    0
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // Errors would carry the values of a call.
    environment.set_debug(false);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    // The default strips the last line feed, which would change prompts.
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        environment.set_syntax(syntax);
    }
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION_MAX);
    environment.remove_global("debug");
    environment.remove_global("range");
    environment.set_formatter(format);
    environment
}

fn format(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &minijinja::Value,
) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Bool => {
            let text = if value.is_true() { "true" } else { "false" };
            out.write_str(text).map_err(Error::from)
        }
        ValueKind::Map | ValueKind::Seq | ValueKind::Iterable | ValueKind::None => {
            let kind = value.kind();
            let what = format!("a bare {kind} cannot be printed; write `| tojson`");
            Err(Error::new(ErrorKind::BadSerialization, what))
        }
        ValueKind::Undefined
        | ValueKind::Number
        | ValueKind::String
        | ValueKind::Bytes
        | ValueKind::Plain
        | ValueKind::Invalid
        | _ => minijinja::escape_formatter(out, state, value),
    }
}

/// A syntax error with its place.
fn refused(text: &str, error: &Error) -> SyntaxError {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let (line, column) = place_of(text, error).unwrap_or((1, 1));
    SyntaxError { line, column, what }
}

fn place_of(text: &str, error: &Error) -> Option<(usize, usize)> {
    match error.range() {
        Some(range) => Some(place(text, range.start)),
        None => error.line().map(|line| (line, 1)),
    }
}

/// A failure while rendering. The engine's detail can quote values, so only its kind and place leave.
fn failed(text: &str, error: &Error) -> RenderError {
    let what = match (error.kind(), error.detail()) {
        (ErrorKind::BadSerialization, Some(detail)) => detail.to_owned(),
        (ErrorKind::OutOfFuel, _) => format!("the template took more than {FUEL} steps"),
        (ErrorKind::WriteFailure, _) => {
            format!("the rendered text is longer than {OUTPUT_BYTES_MAX} bytes")
        }
        (kind, _) => kind.to_string(),
    };
    let what = match place_of(text, error) {
        Some((line, column)) => format!("line {line}, column {column}: {what}"),
        None => what,
    };
    RenderError::Engine { what }
}

struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
