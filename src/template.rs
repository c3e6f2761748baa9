//! Prompt templates: parse once, fill many times.
//!
//! A version is a list of messages with roles. Values are data: they are never parsed, and no value
//! can make a message or a role. Knows nothing of bodies, stores or experiments.

mod format;
mod jinja;
pub mod variables;

use std::collections::{BTreeMap, BTreeSet};

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
    unused: Vec<String>,
}

/// Names that a text uses, each with the byte where it first stands.
type Used = BTreeMap<String, usize>;

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
    #[error(
        "message {message}, line {line}, column {column}: the text uses {name}, which the variables do \
         not declare"
    )]
    Undeclared {
        /// The name.
        name: String,
        /// Counted from 1.
        message: usize,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
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

impl RenderError {
    fn in_message(self, message: usize) -> Self {
        match self {
            Self::Engine { what } => Self::Engine { what: format!("message {message}, {what}") },
            Self::Variables(problems) => Self::Variables(problems),
        }
    }
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
        let declared: BTreeSet<&str> = variables.iter().map(|one| one.name.as_str()).collect();
        let mut compiled = Vec::with_capacity(messages.len());
        let mut used = BTreeSet::new();
        for (index, message) in messages.iter().enumerate() {
            if message.text.len() > TEXT_BYTES_MAX {
                return Err(TemplateError::TooLong(index + 1));
            }
            let (text, uses) =
                Text::parse(syntax, &message.text).map_err(|error| error.in_message(index + 1))?;
            let unknown = uses.iter().filter(|(name, _)| !declared.contains(name.as_str()));
            if let Some((name, at)) = unknown.min_by_key(|(_, at)| **at) {
                let (line, column) = place(&message.text, *at);
                let (name, message) = (name.clone(), index + 1);
                return Err(TemplateError::Undeclared { name, message, line, column });
            }
            compiled.push((message.role, text));
            used.extend(uses.into_keys());
        }
        let unused = variables.iter().map(|one| &one.name).filter(|name| !used.contains(*name));
        let unused = unused.cloned().collect();
        Ok(Self { messages: compiled, variables, unused })
    }

    /// Declared variables that no text uses.
    pub fn unused(&self) -> &[String] {
        &self.unused
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
            .zip(1..)
            .map(|((role, text), message)| {
                let text = text.render(&values).map_err(|error| error.in_message(message))?;
                Ok(Rendered { role: *role, text })
            })
            .collect()
    }
}

impl Text {
    fn parse(syntax: Syntax, text: &str) -> Result<(Self, Used), SyntaxError> {
        let mut used = Used::new();
        let parsed = match syntax {
            Syntax::Format => Self::Format(format::Format::parse(text, &mut used)?),
            Syntax::Jinja => Self::Jinja(Box::new(jinja::Jinja::parse(text, &mut used)?)),
        };
        Ok((parsed, used))
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

/// Line and column of a byte, counted from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

impl SyntaxError {
    fn in_message(self, message: usize) -> TemplateError {
        TemplateError::Syntax { message, line: self.line, column: self.column, what: self.what }
    }
}

#[cfg(test)]
mod tests;
