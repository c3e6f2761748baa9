//! What a template may be filled with: names, types, bounds, trust.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The longest value of a variable that declares no `max_length`.
pub const LENGTH_MAX_DEFAULT: usize = 32 * 1024;

/// The type of a variable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    /// Text.
    #[default]
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// One of `values`.
    Enum,
    /// A list of strings.
    List,
    /// A JSON object.
    Object,
}

/// Whether guardrails look at a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// The application's own text.
    Trusted,
    /// Text that may come from a user: inspected.
    #[default]
    Untrusted,
}

/// One declared variable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// The name used in the text.
    pub name: String,
    /// Its type.
    #[serde(rename = "type", default)]
    pub kind: Type,
    /// Whether a call must give it. A variable with a default need not be given.
    #[serde(default = "yes")]
    pub required: bool,
    /// Used when a call does not give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// The longest value in bytes; for other types than text, of its JSON.
    #[serde(default = "length_max_default")]
    pub max_length: usize,
    /// What an `enum` may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// Whether guardrails look at it.
    #[serde(default)]
    pub trust: Trust,
}

fn yes() -> bool {
    true
}

fn length_max_default() -> usize {
    LENGTH_MAX_DEFAULT
}

/// What is wrong with one variable of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The variable.
    pub name: String,
    /// What is wrong and what is allowed; never the value.
    pub what: String,
    /// Whether the template declares it; another name is the caller's own text.
    pub declared: bool,
}

/// Reads a declaration: a plain list of names (required untrusted strings) or typed objects, also
/// mixed, or an object from name to type.
pub fn declared(raw: &Value) -> Result<Vec<Variable>, String> {
    let items: Vec<Value> = match raw {
        Value::Null => Vec::new(),
        Value::Array(items) => items.clone(),
        Value::Object(members) => members.iter().map(named).collect::<Result<_, _>>()?,
        Value::String(_) | Value::Number(_) | Value::Bool(_) => {
            return Err("a list of names or of objects is expected".to_owned());
        }
    };
    let variables: Vec<Variable> = items.into_iter().map(one).collect::<Result<_, _>>()?;
    for (index, variable) in variables.iter().enumerate() {
        if variables.iter().skip(index + 1).any(|other| other.name == variable.name) {
            return Err(format!("{} is declared twice", variable.name));
        }
        if let Some(problem) = variable.default.as_ref().and_then(|value| variable.problem(value)) {
            return Err(format!("the default of {}: {problem}", variable.name));
        }
    }
    Ok(variables)
}

/// Checks the values of a call and fills in defaults.
pub fn check(
    variables: &[Variable],
    values: &Map<String, Value>,
) -> Result<Map<String, Value>, Vec<Problem>> {
    let mut filled = Map::new();
    let mut problems = Vec::new();
    let mut refuse = |name: &str, what: String| {
        let declared = variables.iter().any(|one| one.name == name);
        problems.push(Problem { name: name.to_owned(), what, declared });
    };
    for variable in variables {
        let given = values.get(&variable.name).filter(|value| !value.is_null());
        match given.or(variable.default.as_ref()) {
            Some(value) => match variable.problem(value) {
                Some(what) => refuse(&variable.name, what),
                None => drop(filled.insert(variable.name.clone(), value.clone())),
            },
            None if variable.required => {
                refuse(
                    &variable.name,
                    format!("is missing; {} is expected", variable.kind.article()),
                );
            }
            None => drop(filled.insert(variable.name.clone(), variable.kind.empty())),
        }
    }
    for name in values.keys().filter(|name| !variables.iter().any(|one| one.name == **name)) {
        let name: String = name.chars().take(64).collect();
        refuse(&name, "is not declared by the template".to_owned());
    }
    if problems.is_empty() { Ok(filled) } else { Err(problems) }
}

fn named((name, kind): (&String, &Value)) -> Result<Value, String> {
    let mut variable = match kind {
        Value::String(kind) => Map::from_iter([("type".to_owned(), Value::from(kind.as_str()))]),
        Value::Object(members) => members.clone(),
        _ => return Err(format!("{name}: a type or an object is expected")),
    };
    variable.insert("name".to_owned(), Value::from(name.as_str()));
    Ok(Value::Object(variable))
}

fn one(raw: Value) -> Result<Variable, String> {
    let raw = match raw {
        Value::String(name) => serde_json::json!({ "name": name }),
        other => other,
    };
    let variable: Variable = serde_json::from_value(raw).map_err(|error| error.to_string())?;
    let is_name =
        variable.name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && variable.name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    if !is_name {
        return Err(format!(
            "{:?} is not a name; letters, digits and _ are allowed",
            variable.name
        ));
    }
    if variable.kind == Type::Enum && variable.values.is_empty() {
        return Err(format!("{} is an enum without values", variable.name));
    }
    Ok(variable)
}

impl Variable {
    fn problem(&self, value: &Value) -> Option<String> {
        let fits = match (self.kind, value) {
            (Type::String, Value::String(_))
            | (Type::Number, Value::Number(_))
            | (Type::Boolean, Value::Bool(_))
            | (Type::Object, Value::Object(_)) => true,
            (Type::Integer, Value::Number(number)) => number.is_i64() || number.is_u64(),
            (Type::Enum, Value::String(text)) => self.values.contains(text),
            (Type::List, Value::Array(items)) => items.iter().all(Value::is_string),
            _ => false,
        };
        if !fits && self.kind == Type::Enum {
            return Some(format!("must be one of {}", self.values.join(", ")));
        }
        if !fits {
            return Some(format!("must be {}", self.kind.article()));
        }
        let length = value.as_str().map_or_else(|| value.to_string().len(), str::len);
        (length > self.max_length).then(|| format!("is longer than {} bytes", self.max_length))
    }
}

impl Type {
    fn article(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Integer => "an integer",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::Enum => "one of its values",
            Self::List => "a list of strings",
            Self::Object => "an object",
        }
    }

    /// What an optional variable without default is when a call leaves it out.
    fn empty(self) -> Value {
        match self {
            Self::String | Self::Enum => Value::from(""),
            Self::List => Value::Array(Vec::new()),
            Self::Object => Value::Object(Map::new()),
            Self::Boolean => Value::Bool(false),
            Self::Integer | Self::Number => Value::Null,
        }
    }
}
