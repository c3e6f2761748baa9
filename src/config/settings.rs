//! Every setting with its default and its bounds. A bound with a unit carries it in its name.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::Environment;
use super::export::{self, Export};
use super::key::{self, ApiKey};
use super::reader::{Mistake, Reader};
use super::retention::{self, Retention};
use super::retries::{self, Retries};
use super::routes::RouteRule;
use crate::words::secret::Secret;

const GEMINI: &str = "https://generativelanguage.googleapis.com";
const MIB: u64 = 1024 * 1024;
const STORE_PROMPTS: [(&str, StorePrompts); 3] = [
    ("full", StorePrompts::Full),
    ("redacted", StorePrompts::Redacted),
    ("hash", StorePrompts::Hash),
];

/// The checked configuration.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "one field per section")]
pub struct Settings {
    pub data: Data,
    pub control: Control,
    pub upstream: Upstream,
    pub limits: Limits,
    pub database: Option<Database>,
    pub storage: Storage,
    pub catalog: Catalog,
    pub audit: Audit,
    /// Where executions go beside the store.
    pub export: Export,
    pub guardrails: GuardrailSettings,
    pub log: Log,
    pub routes: Vec<RouteRule>,
}

/// The data plane.
#[derive(Debug, Clone)]
pub struct Data {
    /// Where applications point their base URL.
    pub listen: SocketAddr,
    /// TLS, when a certificate is configured.
    pub tls: Option<TlsFiles>,
}

/// A certificate chain and its key, PEM.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// The control plane.
#[derive(Debug, Clone)]
pub struct Control {
    /// Where admins, Prometheus and probes connect.
    pub listen: SocketAddr,
    /// May change things. `None`: one is made at first start.
    pub super_admin_token: Option<Secret>,
    /// May only look.
    pub viewer_token: Option<Secret>,
    /// More tokens, as digests; read again whenever it changes. `None`: `admin-tokens.toml` in the data
    /// directory.
    pub tokens_file: Option<PathBuf>,
    /// Host names, beside IP addresses and `localhost`, under which the admin API answers.
    pub allowed_hosts: Vec<String>,
}

/// The one upstream.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Base URL; whatever a request says, this is where it goes.
    pub url: String,
    /// To reach it, TLS included.
    pub connect_timeout: Duration,
    /// From the request's last byte to the head of the answer.
    pub response_head_timeout: Duration,
    /// Between two pieces of an answer.
    pub idle_timeout: Duration,
    /// Trusted instead of the system's roots.
    pub ca_file: Option<PathBuf>,
    /// What calls go out with; `None`: with their callers' keys.
    pub api_key: Option<ApiKey>,
    /// What is tried again.
    pub retries: Retries,
}

/// Bounds of the data plane.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For a request's head to arrive.
    pub request_head_timeout: Duration,
    /// Between two pieces of a request's body.
    pub request_body_idle_timeout: Duration,
    /// Decoded bytes of a request's body.
    pub request_body_bytes_max: u64,
    /// Bytes of a request's head.
    pub request_head_bytes_max: usize,
    /// Bytes of an answer that is inspected as a whole.
    pub response_body_bytes_max: usize,
    /// Bytes of one frame of a stream.
    pub stream_frame_bytes_max: usize,
    /// Open connections.
    pub connections_max: usize,
    /// Open streams.
    pub streams_max: usize,
    /// For open exchanges to end after a SIGTERM.
    pub drain: Duration,
}

/// PostgreSQL.
#[derive(Debug, Clone)]
pub struct Database {
    /// The connection string; holds a password.
    pub url: Secret,
    /// Connections of the pool.
    pub pool_connections_max: usize,
    /// Trusted instead of the system's roots.
    pub ca_file: Option<PathBuf>,
    /// Whether `serve` migrates an empty or older schema by itself.
    pub migrate_at_start: bool,
}

/// The local disk.
#[derive(Debug, Clone)]
pub struct Storage {
    /// Holds the local database file and the admin token.
    pub data_dir: PathBuf,
}

/// Where templates, guardrails and experiments come from.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// Files for the fallback.
    pub config_dir: PathBuf,
    /// How often a change is looked for; heals a lost notification.
    pub poll_interval: Duration,
    /// `AI_PROMPT_TEMPLATES_JSON`.
    pub environment_json: Option<String>,
}

/// How executions are kept until they are stored.
#[derive(Debug, Clone)]
pub struct Audit {
    /// What a record survives.
    pub durability: Durability,
    /// What happens to calls when records can no longer be kept.
    pub when_full: WhenFull,
    /// Bytes of the outbox.
    pub outbox_bytes_max: u64,
    /// What of a prompt is kept.
    pub store_prompts: StorePrompts,
    /// What of a prompt is kept where a template has a choice of its own.
    pub store_prompts_of: BTreeMap<String, StorePrompts>,
    /// How long executions are kept.
    pub retention: Retention,
    /// Templates whose users agreed that their prompts serve to improve them.
    pub consented_templates: Vec<String>,
}

/// What an accepted record survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A kill of the process.
    Process,
    /// A power cut.
    Power,
}

/// What happens when the outbox is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Calls are served and the loss is counted.
    Serve,
    /// Calls are refused with 503.
    Refuse,
}

/// What of a prompt is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorePrompts {
    /// Variables and rendered text.
    Full,
    /// The same with every finding of a guardrail replaced.
    Redacted,
    /// Only SHA-256.
    Hash,
}

/// How guardrails answer.
#[derive(Debug, Clone)]
pub struct GuardrailSettings {
    /// The reply to a blocked prompt on the native dialect.
    pub block_reply: BlockReply,
    /// What happens to calls whose text cannot be seen.
    pub unscannable: Unscannable,
    /// Whether uploads that are text are inspected.
    pub inspect_uploads: bool,
    /// What placeholders of redacted values depend on; sidecars that share it give the same ones.
    pub placeholder_key: Option<Secret>,
}

/// The reply to a blocked prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockReply {
    /// 200 with `promptFeedback`, as Gemini itself does.
    PromptFeedback,
    /// 400.
    Error,
}

/// What happens to calls whose text cannot be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unscannable {
    /// They go on and are counted.
    Pass,
    /// They are refused.
    Refuse,
}

/// The log on standard error.
#[derive(Debug, Clone)]
pub struct Log {
    /// A `tracing` filter: `info`, or `info,chaperone=debug`.
    pub level: String,
    /// One line per event.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// For people.
    Text,
}

impl Settings {
    /// Checks a file's text under an environment.
    pub fn read(text: &str, environment: &Environment) -> Result<Self, Vec<Mistake>> {
        let mut reader = Reader::new(text, environment);
        let settings = Self {
            data: data(&mut reader),
            control: control(&mut reader),
            upstream: upstream(&mut reader),
            limits: limits(&mut reader),
            database: database(&mut reader, environment),
            storage: Storage {
                data_dir: reader.path("storage", "data_dir").unwrap_or_else(|| "data".into()),
            },
            catalog: catalog(&mut reader, environment),
            audit: audit(&mut reader),
            export: export::read(&mut reader),
            guardrails: guardrails(&mut reader),
            log: log(&mut reader),
            routes: routes(&mut reader),
        };
        if settings.data.listen == settings.control.listen && settings.data.listen.port() != 0 {
            reader.mistake("control", "listen", "must be another address than data.listen");
        }
        let mistakes = reader.finish();
        if mistakes.is_empty() { Ok(settings) } else { Err(mistakes) }
    }
}

fn data(reader: &mut Reader) -> Data {
    let listen = reader.address("data", "listen", loopback(8080));
    let cert = reader.path("data", "tls_cert_file");
    let key = reader.path("data", "tls_key_file");
    let tls = match (cert, key) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
        (None, None) => None,
        (Some(_), None) => {
            reader.mistake("data", "tls_key_file", "is needed beside tls_cert_file");
            None
        }
        (None, Some(_)) => {
            reader.mistake("data", "tls_cert_file", "is needed beside tls_key_file");
            None
        }
    };
    Data { listen, tls }
}

fn control(reader: &mut Reader) -> Control {
    let super_admin_token = secret(reader, "control", "super_admin_token");
    let viewer_token = secret(reader, "control", "viewer_token");
    Control {
        listen: reader.address("control", "listen", loopback(9090)),
        super_admin_token,
        viewer_token,
        tokens_file: reader.path("control", "tokens_file"),
        allowed_hosts: names(reader, "control", "allowed_hosts")
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect(),
    }
}

/// Pairs of a template and what is kept of its prompts, with commas between them.
fn store_prompts_of(reader: &mut Reader) -> BTreeMap<String, StorePrompts> {
    let (section, key) = ("audit", "store_prompts_of");
    let choice = |pair: &String| {
        let (name, word) = pair.split_once('=')?;
        let (_, choice) = STORE_PROMPTS.iter().find(|(one, _)| *one == word.trim())?;
        Some((name.trim().to_owned(), *choice)).filter(|(name, _)| !name.is_empty())
    };
    let chosen: Option<_> = names(reader, section, key).iter().map(choice).collect();
    chosen.unwrap_or_else(|| {
        let what = "must be template=full, template=redacted or template=hash, with commas between";
        reader.mistake(section, key, what);
        BTreeMap::new()
    })
}

/// Names with commas between them.
pub(super) fn names(reader: &mut Reader, section: &str, key: &str) -> Vec<String> {
    let all = reader.text(section, key).unwrap_or_default();
    all.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// Whether a text is an address of HTTP that may be shown.
pub(super) fn is_http(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && !url.contains('#')
            && !uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
    })
}

fn upstream(reader: &mut Reader) -> Upstream {
    let url = reader.text("upstream", "url").unwrap_or_else(|| GEMINI.to_owned());
    if !is_http(&url) || url.contains('?') {
        reader.mistake(
            "upstream",
            "url",
            "must be http:// or https:// with a host, without query or password",
        );
    }
    Upstream {
        url: url.trim_end_matches('/').to_owned(),
        connect_timeout: reader.millis("upstream", "connect_timeout_ms", 5_000),
        response_head_timeout: reader.millis("upstream", "response_head_timeout_ms", 600_000),
        idle_timeout: reader.millis("upstream", "idle_timeout_ms", 1_200_000),
        ca_file: reader.path("upstream", "ca_file"),
        api_key: key::read(reader),
        retries: retries::read(reader),
    }
}

fn limits(reader: &mut Reader) -> Limits {
    let section = "limits";
    Limits {
        request_head_timeout: reader.millis(section, "request_head_timeout_ms", 10_000),
        request_body_idle_timeout: reader.millis(section, "request_body_idle_timeout_ms", 30_000),
        request_body_bytes_max: reader.number(
            section,
            "request_body_bytes_max",
            110 * MIB,
            1..=4096 * MIB,
        ),
        // hyper needs room for at least one line.
        request_head_bytes_max: reader.count(
            section,
            "request_head_bytes_max",
            65_536,
            8_192..=MIB,
        ),
        response_body_bytes_max: reader.count(
            section,
            "response_body_bytes_max",
            64 * MIB,
            1024..=1024 * MIB,
        ),
        stream_frame_bytes_max: reader.count(
            section,
            "stream_frame_bytes_max",
            64 * MIB,
            1024..=1024 * MIB,
        ),
        connections_max: reader.count(section, "connections_max", 10_000, 1..=1_000_000),
        streams_max: reader.count(section, "streams_max", 5_000, 1..=1_000_000),
        drain: reader.millis(section, "drain_ms", 30_000),
    }
}

fn database(reader: &mut Reader, environment: &Environment) -> Option<Database> {
    let own = environment.contains_key("CHAPERONE_DATABASE__URL");
    let usual = environment.get("DATABASE_URL").filter(|url| !url.is_empty() && !own).cloned();
    let configured = reader.text("database", "url");
    let url = usual.or(configured);
    let pool_connections_max = reader.count("database", "pool_connections_max", 4, 1..=100);
    let ca_file = reader.path("database", "ca_file");
    let migrate_at_start = reader.flag("database", "migrate_at_start", false);
    let url = url?;
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        reader.mistake("database", "url", "must begin with postgres:// (the value is not shown)");
    }
    Some(Database { url: Secret::new(url), pool_connections_max, ca_file, migrate_at_start })
}

fn catalog(reader: &mut Reader, environment: &Environment) -> Catalog {
    Catalog {
        config_dir: reader.path("catalog", "config_dir").unwrap_or_else(|| "config".into()),
        poll_interval: reader.millis("catalog", "poll_interval_ms", 5_000),
        environment_json: environment
            .get("AI_PROMPT_TEMPLATES_JSON")
            .filter(|json| !json.trim().is_empty())
            .cloned(),
    }
}

fn audit(reader: &mut Reader) -> Audit {
    let section = "audit";
    Audit {
        durability: reader.choice(
            section,
            "durability",
            Durability::Process,
            &[("process", Durability::Process), ("power", Durability::Power)],
        ),
        when_full: reader.choice(
            section,
            "when_full",
            WhenFull::Serve,
            &[("serve", WhenFull::Serve), ("refuse", WhenFull::Refuse)],
        ),
        outbox_bytes_max: reader.number(
            section,
            "outbox_bytes_max",
            1024 * MIB,
            MIB..=1024 * 1024 * MIB,
        ),
        store_prompts: reader.choice(section, "store_prompts", StorePrompts::Full, &STORE_PROMPTS),
        store_prompts_of: store_prompts_of(reader),
        retention: retention::read(reader),
        consented_templates: names(reader, section, "consented_templates"),
    }
}

fn guardrails(reader: &mut Reader) -> GuardrailSettings {
    let section = "guardrails";
    GuardrailSettings {
        block_reply: reader.choice(
            section,
            "block_reply",
            BlockReply::PromptFeedback,
            &[("prompt_feedback", BlockReply::PromptFeedback), ("error", BlockReply::Error)],
        ),
        unscannable: reader.choice(
            section,
            "unscannable",
            Unscannable::Pass,
            &[("pass", Unscannable::Pass), ("refuse", Unscannable::Refuse)],
        ),
        inspect_uploads: reader.flag(section, "inspect_uploads", false),
        placeholder_key: secret(reader, section, "placeholder_key"),
    }
}

fn secret(reader: &mut Reader, section: &'static str, key: &'static str) -> Option<Secret> {
    let secret = reader.text(section, key)?;
    if secret.len() < 16 {
        reader.mistake(section, key, "must have at least 16 characters");
    }
    Some(Secret::new(secret))
}

fn log(reader: &mut Reader) -> Log {
    let level = reader.text("log", "level").unwrap_or_else(|| "info".to_owned());
    let is_level = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word);
    let is_filter = |part: &str| is_level(part.rsplit('=').next().unwrap_or_default());
    if !level.split(',').all(|part| is_filter(part.trim())) {
        let allowed =
            "must be off, error, warn, info, debug or trace, or target=level, with commas between";
        reader.mistake("log", "level", allowed);
    }
    let formats = [("json", LogFormat::Json), ("text", LogFormat::Text)];
    Log { level, format: reader.choice("log", "format", LogFormat::Json, &formats) }
}

fn routes(reader: &mut Reader) -> Vec<RouteRule> {
    let tables = reader.tables("routes");
    tables
        .into_iter()
        .enumerate()
        .filter_map(|(index, table)| match RouteRule::read(table) {
            Ok(rule) => Some(rule),
            Err(what) => {
                reader.mistake("", &format!("routes[{index}]"), what);
                None
            }
        })
        .collect()
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
