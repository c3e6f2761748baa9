//! Typed access to a TOML table under environment overrides, collecting every mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::{Table, Value};

use super::Environment;

/// The prefix of every overriding variable.
const PREFIX: &str = "CHAPERONE_";
/// Variables of the test suite, which shares the environment with what it starts.
const TEST_PREFIX: &str = "CHAPERONE_TEST_";

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key, `section.key`, or the file.
    pub key: String,
    /// What is wrong and what is allowed. Never the value of a secret.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

/// Takes keys out of a file and the environment; what is left over at the end is unknown.
pub(super) struct Reader {
    file: Table,
    overrides: BTreeMap<(String, String), String>,
    /// Every key asked for, by section: what is allowed.
    known: BTreeMap<String, BTreeSet<String>>,
    pub(super) mistakes: Vec<Mistake>,
}

enum Given {
    File(Value),
    Environment(String),
}

impl Reader {
    pub(super) fn new(text: &str, environment: &Environment) -> Self {
        let mut mistakes = Vec::new();
        let file = toml::from_str(text).unwrap_or_else(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| {
                text.get(..span.start).unwrap_or_default().matches('\n').count() + 1
            });
            let what = error.message().to_owned();
            mistakes.push(Mistake { key: format!("line {line}"), what });
            Table::new()
        });
        let overrides = environment
            .iter()
            .filter(|(name, _)| !name.starts_with(TEST_PREFIX))
            .filter_map(|(name, value)| {
                let (section, key) = name.strip_prefix(PREFIX)?.split_once("__")?;
                Some(((section.to_ascii_lowercase(), key.to_ascii_lowercase()), value.clone()))
            })
            .collect();
        Self { file, overrides, known: BTreeMap::new(), mistakes }
    }

    fn take(&mut self, section: &str, key: &str) -> Option<Given> {
        self.known.entry(section.to_owned()).or_default().insert(key.to_owned());
        let from_file = self
            .file
            .get_mut(section)
            .and_then(Value::as_table_mut)
            .and_then(|table| table.remove(key));
        let name = (section.to_owned(), key.to_owned());
        match self.overrides.remove(&name) {
            Some(text) => Some(Given::Environment(text)),
            None => from_file.map(Given::File),
        }
    }

    pub(super) fn mistake(&mut self, section: &str, key: &str, what: impl Into<String>) {
        let key = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
        self.mistakes.push(Mistake { key, what: what.into() });
    }

    /// A text, `None` when absent or empty.
    pub(super) fn text(&mut self, section: &str, key: &str) -> Option<String> {
        self.given_text(section, key).filter(|text| !text.is_empty())
    }

    /// A text that must not be empty where it is given.
    pub(super) fn some_text(&mut self, section: &str, key: &str) -> Option<String> {
        let text = self.given_text(section, key)?;
        if text.is_empty() {
            self.mistake(section, key, "is empty: give it, or leave it out");
            return None;
        }
        Some(text)
    }

    fn given_text(&mut self, section: &str, key: &str) -> Option<String> {
        match self.take(section, key)? {
            Given::Environment(text) | Given::File(Value::String(text)) => Some(text),
            Given::File(_) => {
                self.mistake(section, key, "must be a string");
                None
            }
        }
    }

    /// Anything that is read from text.
    pub(super) fn parsed<T: FromStr>(
        &mut self,
        section: &str,
        key: &str,
        default: T,
        allowed: &str,
    ) -> T {
        let Some(text) = self.text(section, key) else { return default };
        text.parse().unwrap_or_else(|_not_one| {
            self.mistake(section, key, format!("must be {allowed}"));
            default
        })
    }

    pub(super) fn address(&mut self, section: &str, key: &str, default: SocketAddr) -> SocketAddr {
        self.parsed(section, key, default, "an address such as 127.0.0.1:8080")
    }

    pub(super) fn path(&mut self, section: &str, key: &str) -> Option<PathBuf> {
        self.text(section, key).map(PathBuf::from)
    }

    /// A whole number within its bounds.
    pub(super) fn number(
        &mut self,
        section: &str,
        key: &str,
        default: u64,
        allowed: RangeInclusive<u64>,
    ) -> u64 {
        let number = match self.take(section, key) {
            None => return default,
            Some(Given::Environment(text)) => text.trim().parse().ok(),
            Some(Given::File(Value::Integer(number))) => u64::try_from(number).ok(),
            Some(Given::File(_)) => None,
        };
        number.filter(|number| allowed.contains(number)).unwrap_or_else(|| {
            let (low, high) = (allowed.start(), allowed.end());
            self.mistake(section, key, format!("must be a whole number from {low} to {high}"));
            default
        })
    }

    pub(super) fn millis(&mut self, section: &str, key: &str, default: u64) -> Duration {
        /// A day is longer than any call.
        const MILLIS_MAX: u64 = 24 * 60 * 60 * 1000;
        Duration::from_millis(self.number(section, key, default, 1..=MILLIS_MAX))
    }

    pub(super) fn count(
        &mut self,
        section: &str,
        key: &str,
        default: u64,
        allowed: RangeInclusive<u64>,
    ) -> usize {
        usize::try_from(self.number(section, key, default, allowed)).unwrap_or(usize::MAX)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, section: &str, key: &str, default: bool) -> bool {
        let flag = match self.take(section, key) {
            None => return default,
            Some(Given::Environment(text)) => text.trim().parse().ok(),
            Some(Given::File(Value::Boolean(flag))) => Some(flag),
            Some(Given::File(_)) => None,
        };
        flag.unwrap_or_else(|| {
            self.mistake(section, key, "must be true or false");
            default
        })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        section: &str,
        key: &str,
        default: T,
        choices: &[(&str, T)],
    ) -> T {
        let Some(text) = self.text(section, key) else { return default };
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
            return *choice;
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        self.mistake(section, key, format!("must be one of {}", words.join(", ")));
        default
    }

    /// An array of tables at the root.
    pub(super) fn tables(&mut self, name: &str) -> Vec<Table> {
        match self.file.remove(name) {
            None => Vec::new(),
            Some(Value::Array(items)) if items.iter().all(Value::is_table) => items
                .into_iter()
                .filter_map(|item| match item {
                    Value::Table(table) => Some(table),
                    _ => None,
                })
                .collect(),
            Some(_) => {
                self.mistake("", name, format!("must be an array of tables, [[{name}]]"));
                Vec::new()
            }
        }
    }

    /// Every mistake, those for unknown keys included.
    pub(super) fn finish(mut self) -> Vec<Mistake> {
        let sections = std::mem::take(&mut self.file);
        for (section, value) in sections {
            let Some(keys) = self.known.get(&section).cloned() else {
                let allowed: Vec<String> = self.known.keys().cloned().collect();
                let what = format!("is not a section; sections are {}", allowed.join(", "));
                self.mistake("", &section, what);
                continue;
            };
            match value {
                Value::Table(rest) => {
                    for key in rest.keys() {
                        self.mistake(&section, key, unknown(&keys));
                    }
                }
                _ => self.mistake("", &section, "must be a table"),
            }
        }
        for (section, key) in std::mem::take(&mut self.overrides).into_keys() {
            let variable = format!("{PREFIX}{}__{}", section.to_uppercase(), key.to_uppercase());
            let what = match self.known.get(&section) {
                Some(keys) => unknown(keys),
                None => "names no section".to_owned(),
            };
            self.mistake("", &variable, what);
        }
        self.mistakes
    }
}

fn unknown(keys: &BTreeSet<String>) -> String {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    format!("is not a key; keys are {}", keys.join(", "))
}
