//! The upstream's key where applications hold none: put into each call, and never beside another.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::refusal::{Kind, Refusal};
use crate::config::{ApiKey, CallerKeys, KeySource};
use crate::telemetry::events;

const GOOGLE: HeaderName = HeaderName::from_static("x-goog-api-key");
/// Members of a query that are keys.
const IN_QUERY: [&str; 3] = ["key", "access_token", "oauth_token"];
/// In paths of calls that take a bearer: compatible with `OpenAI`, and Vertex with a project.
const BY_BEARER: [&str; 4] =
    ["/openai/", "/openapi/", "/projects/", "/ws/google.cloud.aiplatform."];

/// The key, and what becomes of a caller's own.
#[derive(Debug)]
pub struct Key {
    held: Held,
    caller_keys: CallerKeys,
}

#[derive(Debug)]
enum Held {
    Fixed(HeaderValue),
    InFile(PathBuf, Mutex<Read>),
}

/// A file as it was read last.
#[derive(Debug)]
struct Read {
    key: HeaderValue,
    stamp: Stamp,
    /// Whether the file that is there now could not be read.
    failed: bool,
}

/// What tells a file from the one that was there before: device, inode, length, and when its content and
/// anything of it was changed. `None`: there is none.
type Stamp = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

/// A key that cannot be used. Says nothing of it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadKey(String);

impl Key {
    /// Reads the key of a configuration for the first time.
    pub fn open(settings: &ApiKey) -> Result<Self, BadKey> {
        let held = match &settings.source {
            KeySource::Configured(key) => Held::Fixed(
                value(key.expose()).map_err(|why| BadKey(format!("upstream.api_key {why}")))?,
            ),
            KeySource::File(path) => {
                // Before it is read: what comes in between is found at the first call.
                let stamp = stamp(path);
                let key = read(path).map_err(|why| {
                    BadKey(format!("upstream.api_key_file {}: {why}", path.display()))
                })?;
                let read = Read { key, stamp, failed: false };
                Held::InFile(path.clone(), Mutex::new(read))
            }
        };
        Ok(Self { held, caller_keys: settings.caller_keys })
    }

    /// Puts the key into a call, in the form of its path. A caller's own is refused or taken out.
    pub(super) fn put(
        &self,
        path: &str,
        query: &mut Option<String>,
        headers: &mut HeaderMap,
    ) -> Result<(), Refusal> {
        // The upstream decodes a name before it reads it.
        let is_keyed = |pair: &str| {
            let name = percent_decode_str(pair.split('=').next().unwrap_or_default());
            IN_QUERY.contains(&name.decode_utf8_lossy().as_ref())
        };
        let in_query = query.as_ref().is_some_and(|query| query.split('&').any(is_keyed));
        let in_headers = headers.contains_key(GOOGLE) || headers.contains_key(AUTHORIZATION);
        if self.caller_keys == CallerKeys::Refuse && (in_query || in_headers) {
            let message = "calls here go out with the proxy's own key: send none, or let the operator \
                           set upstream.caller_keys to replace";
            return Err(Refusal::new(Kind::CallerKey, message));
        }
        headers.remove(GOOGLE);
        headers.remove(AUTHORIZATION);
        if in_query {
            let rest =
                query.iter().flat_map(|query| query.split('&')).filter(|pair| !is_keyed(pair));
            let rest = rest.collect::<Vec<_>>().join("&");
            *query = (!rest.is_empty()).then_some(rest);
        }
        let key = self.key();
        if BY_BEARER.iter().any(|part| path.contains(part)) {
            headers.insert(AUTHORIZATION, bearer(&key));
        } else {
            headers.insert(GOOGLE, key);
        }
        Ok(())
    }

    /// The key as it stands in the file by now. One that cannot be read leaves the last one in use.
    fn key(&self) -> HeaderValue {
        let (path, last) = match &self.held {
            Held::Fixed(key) => return key.clone(),
            Held::InFile(path, last) => (path, last),
        };
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamp(path);
        if last.failed || now != last.stamp {
            match read(path) {
                Ok(key) => *last = Read { key, stamp: now, failed: false },
                Err(why) => {
                    if !std::mem::replace(&mut last.failed, true) {
                        events::key_unreadable(&path.display().to_string(), &why);
                    }
                }
            }
        }
        last.key.clone()
    }
}

fn stamp(path: &Path) -> Stamp {
    let file = std::fs::metadata(path).ok()?;
    let (content, anything) =
        ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
    Some((file.dev(), file.ino(), file.len(), content, anything))
}

fn read(path: &Path) -> Result<HeaderValue, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    value(text.trim()).map_err(str::to_owned)
}

fn value(key: &str) -> Result<HeaderValue, &'static str> {
    let is_visible = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
    let value = HeaderValue::from_str(key).ok().filter(|_| is_visible);
    let mut value = value.ok_or("must be a key: visible ASCII, without spaces, in one line")?;
    value.set_sensitive(true);
    Ok(value)
}

fn bearer(key: &HeaderValue) -> HeaderValue {
    let text = [b"Bearer ", key.as_bytes()].concat();
    let mut value = HeaderValue::from_bytes(&text).unwrap_or_else(|_| key.clone());
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::secret::Secret;

    fn key(caller_keys: CallerKeys) -> Key {
        let source = KeySource::Configured(Secret::new("the-key"));
        Key::open(&ApiKey { source, caller_keys }).unwrap()
    }

    /// A query and headers.
    type Sent = (Option<String>, Vec<(String, String)>);

    /// What goes out of a call with these.
    fn sent(key: &Key, path: &str, query: Option<&str>, name: &str) -> Option<Sent> {
        let mut headers = HeaderMap::new();
        if !name.is_empty() {
            headers
                .insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), "mine".parse().unwrap());
        }
        let mut query = query.map(str::to_owned);
        key.put(path, &mut query, &mut headers).ok()?;
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value)));
        Some((query, headers.collect()))
    }

    #[test]
    fn a_key_takes_the_form_of_its_call_and_stands_alone() {
        let google = vec![("x-goog-api-key".to_owned(), "the-key".to_owned())];
        let bearer = vec![("authorization".to_owned(), "Bearer the-key".to_owned())];
        let (native, openai) =
            ("/v1beta/models/m:generateContent", "/v1beta/openai/chat/completions");
        let vertex = "/v1/projects/p/locations/l/publishers/google/models/m:generateContent";
        for (path, query, name, left, headers) in [
            (native, None, "", None, &google),
            (native, Some("alt=sse"), "", Some("alt=sse"), &google),
            (openai, None, "", None, &bearer),
            (vertex, None, "", None, &bearer),
            (native, Some("alt=sse&%6Bey=mine"), "", Some("alt=sse"), &google),
            (native, Some("key=mine"), "", None, &google),
            (native, Some("alt=sse&key=mine&x=1"), "x-goog-api-key", Some("alt=sse&x=1"), &google),
            (native, Some("access_token=mine&keys=2"), "authorization", Some("keys=2"), &google),
            (openai, None, "x-goog-api-key", None, &bearer),
        ] {
            let replaced = sent(&key(CallerKeys::Replace), path, query, name).unwrap();
            assert_eq!(replaced, (left.map(str::to_owned), headers.clone()), "{path} {query:?}");
            let has_own = !name.is_empty() || query.is_some_and(|query| query.contains("mine"));
            let refused = sent(&key(CallerKeys::Refuse), path, query, name).is_none();
            assert_eq!(refused, has_own, "{path} {query:?} {name}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        for bad in ["", "two words", "line\nline", "schlüssel"] {
            let source = KeySource::Configured(Secret::new(bad));
            let settings = ApiKey { source, caller_keys: CallerKeys::Refuse };
            let why = Key::open(&settings).unwrap_err().to_string();
            assert!(
                why.contains("visible ASCII") && (bad.is_empty() || !why.contains(bad)),
                "{why}"
            );
        }
        assert!(!format!("{:?}", key(CallerKeys::Refuse)).contains("the-key"));
    }
}
