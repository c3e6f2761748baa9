//! What Chaperone tries again by itself; nothing, unless told.

use std::collections::BTreeMap;
use std::time::Duration;

use super::reader::Reader;
use super::settings::names;

/// Tries of calls that the upstream did not answer as it should.
#[derive(Debug, Clone)]
pub struct Retries {
    /// Tries of one call on the model it asks for, the first one included.
    pub tries_max: usize,
    /// A longer wait is left to the caller.
    pub wait_max: Duration,
    /// By the model that was asked for: the one that gets the last try.
    pub fallback_models: BTreeMap<String, String>,
}

pub(super) fn read(reader: &mut Reader) -> Retries {
    let section = "upstream";
    Retries {
        tries_max: reader.count(section, "tries_max", 1, 1..=5),
        wait_max: reader.millis(section, "retry_wait_max_ms", 2_000),
        fallback_models: fallback_models(reader, section),
    }
}

/// Pairs of models, with commas between them.
fn fallback_models(reader: &mut Reader, section: &'static str) -> BTreeMap<String, String> {
    let key = "fallback_models";
    let is_model = |name: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        !name.is_empty() && name.bytes().all(fits)
    };
    let pair = |pair: &String| {
        let (asked, other) = pair.split_once('=')?;
        let (asked, other) = (asked.trim(), other.trim());
        let fits = is_model(asked) && is_model(other) && asked != other;
        fits.then(|| (asked.to_owned(), other.to_owned()))
    };
    let chosen: Option<_> = names(reader, section, key).iter().map(pair).collect();
    chosen.unwrap_or_else(|| {
        let what = "must be model=other-model, two names as they stand behind models/, with commas between";
        reader.mistake(section, key, what);
        BTreeMap::new()
    })
}
