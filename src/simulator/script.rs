//! What the `x-simulate` header of one call asks for.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};

/// Letters of one frame unless the script says otherwise.
const CHUNK: usize = 24;

/// A scripted call.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "words of the header that are there or not")]
pub(super) struct Script {
    pub(super) say: Option<String>,
    pub(super) call: Option<String>,
    pub(super) status: Option<StatusCode>,
    pub(super) delay: Option<Duration>,
    pub(super) gap: Option<Duration>,
    pub(super) chunk: usize,
    pub(super) cut: bool,
    pub(super) finish: bool,
    pub(super) gzip: bool,
    /// Every frame carries a token to go on from.
    pub(super) continues: bool,
    /// Names of enums come as their numbers.
    pub(super) numbers: bool,
}

impl Script {
    pub(super) fn read(headers: &HeaderMap, query: Option<&str>) -> Self {
        let mut script = Self {
            say: None,
            call: None,
            status: None,
            delay: None,
            gap: None,
            chunk: CHUNK,
            cut: false,
            finish: true,
            gzip: false,
            continues: false,
            numbers: query.is_some_and(|query| query.contains("enum-encoding=int")),
        };
        let text =
            headers.get("x-simulate").and_then(|value| value.to_str().ok()).unwrap_or_default();
        for word in text.split(',').map(str::trim) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let millis = || value.parse().ok().map(Duration::from_millis);
            match name {
                "say" => script.say = decoded(value),
                "call" => script.call = Some(value.to_owned()),
                "status" => script.status = value.parse().ok(),
                "delay_ms" => script.delay = millis(),
                "gap_ms" => script.gap = millis(),
                "chunk" => {
                    script.chunk =
                        value.parse().ok().filter(|letters| *letters > 0).unwrap_or(CHUNK);
                }
                "cut" => script.cut = true,
                "no_finish" => script.finish = false,
                "gzip" => script.gzip = true,
                "continues" => script.continues = true,
                _ => {}
            }
        }
        script
    }
}

fn decoded(text: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()?;
    String::from_utf8(bytes).ok()
}
