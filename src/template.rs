//! Prompt templates: parse once, fill many times.
//!
//! A version is a list of messages with roles. Values are data: they are never parsed, and no value
//! can make a message or a role. Knows nothing of bodies, stores or experiments.

mod format;
mod jinja;
pub mod variables;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use variables::{Problem, Variable};

/// What a version was checked with. Engines change their output between releases.
pub const ENGINE_VERSION: &str = "minijinja 3.1";
/// A rendered message may not outgrow this.
pub const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Template text of one message.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;

/// How a template marks its holes. Fixed per version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Syntax {
    /// `{name}`, with `{{` and `}}` for braces: a strict subset of Python's `str.format`.
    #[default]
    Format,
    /// Jinja: conditions, loops, filters.
    Jinja,
}

/// Who speaks a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Becomes the system instruction.
    System,
    /// A turn of the user.
    User,
    /// A turn of the model, for few-shot examples.
    Model,
}

/// One message of a version before it is compiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The template text.
    pub text: String,
}

/// A compiled version.
#[derive(Debug)]
pub struct Template {
    messages: Vec<(Role, Text)>,
    variables: Vec<Variable>,
}

#[derive(Debug)]
enum Text {
    Format(format::Format),
    Jinja(Box<jinja::Jinja>),
}

/// A message ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rendered {
    /// Who speaks.
    pub role: Role,
    /// The text.
    pub text: String,
}

/// A version that cannot be used, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// There is nothing to send.
    #[error("a template needs text or messages")]
    Empty,
    /// The text does not parse.
    #[error("message {message}, line {line}, column {column}: {what}")]
    Syntax {
        /// Counted from 1.
        message: usize,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What is wrong and what to write instead.
        what: String,
    },
    /// The declaration of the variables is wrong.
    #[error("variables: {0}")]
    Declaration(String),
    /// Used but not declared.
    #[error("the text uses {0}, which the variables do not declare")]
    Undeclared(String),
    /// Longer than [`TEXT_BYTES_MAX`].
    #[error("message {0} is longer than {TEXT_BYTES_MAX} bytes")]
    TooLong(usize),
}

/// Why a call could not be rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenderError {
    /// The values do not fit the declaration; every problem is listed.
    Variables(Vec<Problem>),
    /// The engine stopped: too much output, too many steps, a value of the wrong shape.
    Engine {
        /// What happened, without any value.
        what: String,
    },
}

impl Template {
    /// Compiles a version. Either `messages`, or `text` as one message of `role`.
    pub fn compile(
        syntax: Syntax,
        messages: &[Message],
        variables: Vec<Variable>,
    ) -> Result<Self, TemplateError> {
        if messages.is_empty() {
            return Err(TemplateError::Empty);
        }
        let mut compiled = Vec::with_capacity(messages.len());
        let mut used = BTreeSet::new();
        for (index, message) in messages.iter().enumerate() {
            if message.text.len() > TEXT_BYTES_MAX {
                return Err(TemplateError::TooLong(index + 1));
            }
            let text = Text::parse(syntax, &message.text, &mut used)
                .map_err(|error| error.in_message(index + 1))?;
            compiled.push((message.role, text));
        }
        let declared: BTreeSet<&str> = variables.iter().map(|one| one.name.as_str()).collect();
        if let Some(name) = used.iter().find(|name| !declared.contains(name.as_str())) {
            return Err(TemplateError::Undeclared(name.clone()));
        }
        Ok(Self { messages: compiled, variables })
    }

    /// The declared variables.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// Fills in `values`, defaults included. Every missing or ill-typed variable is named.
    pub fn render(&self, values: &Map<String, Value>) -> Result<Vec<Rendered>, RenderError> {
        let values = variables::check(&self.variables, values).map_err(RenderError::Variables)?;
        self.messages
            .iter()
            .map(|(role, text)| Ok(Rendered { role: *role, text: text.render(&values)? }))
            .collect()
    }
}

impl Text {
    fn parse(syntax: Syntax, text: &str, used: &mut BTreeSet<String>) -> Result<Self, SyntaxError> {
        match syntax {
            Syntax::Format => format::Format::parse(text, used).map(Self::Format),
            Syntax::Jinja => jinja::Jinja::parse(text, used).map(Box::new).map(Self::Jinja),
        }
    }

    fn render(&self, values: &Map<String, Value>) -> Result<String, RenderError> {
        match self {
            Self::Format(text) => text.render(values),
            Self::Jinja(text) => text.render(values),
        }
    }
}

/// A place in one message's text.
#[derive(Debug)]
struct SyntaxError {
    line: usize,
    column: usize,
    what: String,
}

impl SyntaxError {
    fn in_message(self, message: usize) -> TemplateError {
        TemplateError::Syntax { message, line: self.line, column: self.column, what: self.what }
    }
}

#[cfg(test)]
mod tests;
