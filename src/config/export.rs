//! Where executions go beside the store.

use std::path::PathBuf;

use http::HeaderName;

use super::reader::Reader;
use super::settings::is_http;
use crate::words::secret::Secret;

const MIB: u64 = 1024 * 1024;

/// The operator's choice; nothing unless told.
#[derive(Debug, Clone)]
pub struct Export {
    /// As JSON, one a line.
    pub json_lines: Option<JsonLinesTo>,
    /// As spans of OpenTelemetry.
    pub otlp: Option<Collector>,
    /// Bytes that may wait for each of them.
    pub queue_bytes_max: usize,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonLinesTo {
    /// To standard output; the log is on standard error.
    StandardOutput,
    /// To the end of a file.
    File(PathBuf),
}

/// Whoever takes spans.
#[derive(Debug, Clone)]
pub struct Collector {
    /// The whole address, such as `http://127.0.0.1:4318/v1/traces`.
    pub url: String,
    /// What is sent along, such as a key.
    pub headers: Vec<(HeaderName, Secret)>,
}

pub(super) fn read(reader: &mut Reader) -> Export {
    let section = "export";
    let json_lines = reader.text(section, "json_lines").map(|to| match to.as_str() {
        "stdout" => JsonLinesTo::StandardOutput,
        path => JsonLinesTo::File(path.into()),
    });
    let url = reader.text(section, "otlp_url");
    if url.as_ref().is_some_and(|url| !is_http(url)) {
        let what = "must be http:// or https:// with a host, without password";
        reader.mistake(section, "otlp_url", what);
    }
    let headers = headers(reader, section, "otlp_headers");
    let otlp = url.map(|url| Collector { url, headers });
    let queue_bytes_max = reader.count(section, "queue_bytes_max", 16 * MIB, MIB..=1024 * MIB);
    Export { json_lines, otlp, queue_bytes_max }
}

/// Pairs `name=value` with commas between them, as in `OTEL_EXPORTER_OTLP_HEADERS`. Mistakes name no value.
fn headers(reader: &mut Reader, section: &str, key: &str) -> Vec<(HeaderName, Secret)> {
    let text = reader.text(section, key).unwrap_or_default();
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((name.trim().parse().ok()?, Secret::new(value.trim())))
    };
    let pairs = text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(pair);
    pairs.collect::<Option<_>>().unwrap_or_else(|| {
        let what =
            "must be pairs name=value with commas between, as in \"authorization=Bearer ...\"";
        reader.mistake(section, key, what);
        Vec::new()
    })
}
