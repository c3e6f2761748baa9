//! The upstream's key, where Chaperone holds it.

use std::path::PathBuf;

use super::reader::Reader;
use crate::words::secret::Secret;

/// A key that calls go out with.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Where it is.
    pub source: KeySource,
    /// What becomes of a caller's own.
    pub caller_keys: CallerKeys,
}

/// Where a key is.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// In the configuration, or rather the environment.
    Configured(Secret),
    /// In a file, read again when it changes.
    File(PathBuf),
}

/// What becomes of a key that a caller sends beside ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerKeys {
    /// The call is refused.
    Refuse,
    /// It stays here, and ours goes out.
    Replace,
}

pub(super) fn read(reader: &mut Reader) -> Option<ApiKey> {
    let section = "upstream";
    let choices = [("refuse", CallerKeys::Refuse), ("replace", CallerKeys::Replace)];
    let caller_keys = reader.choice(section, "caller_keys", CallerKeys::Refuse, &choices);
    let key = reader.some_text(section, "api_key").map(Secret::new);
    let file = reader.some_text(section, "api_key_file").map(PathBuf::from);
    let source = match (key, file) {
        (Some(_), Some(_)) => {
            reader.mistake(section, "api_key_file", "cannot stand beside api_key: one of them");
            return None;
        }
        (Some(key), None) => KeySource::Configured(key),
        (None, Some(path)) => KeySource::File(path),
        (None, None) => {
            if caller_keys == CallerKeys::Replace {
                let what = "replaces them by nothing: set api_key or api_key_file as well";
                reader.mistake(section, "caller_keys", what);
            }
            return None;
        }
    };
    Some(ApiKey { source, caller_keys })
}
