//! Which call a path is.
//!
//! Matching looks at the end of the path, not at a fixed prefix, so Vertex paths, tuned models and
//! gateways with a prefix of their own are recognised. A missing version reads as `v1beta` and a
//! doubled one as the last: SDK users get the version of a base URL wrong all the time.

use percent_encoding::percent_decode_str;

use super::Dialect;
use super::stream::Framing;

/// The version that every SDK uses when none is given.
const DEFAULT_VERSION: &str = "v1beta";
const VERSIONS: [&str; 4] = ["v1", "v1alpha", "v1beta", "v1beta1"];
/// First segments that are never right without a version before them.
const RESOURCES: [&str; 10] = [
    "batches",
    "cachedContents",
    "corpora",
    "dynamic",
    "fileSearchStores",
    "files",
    "interactions",
    "models",
    "openai",
    "tunedModels",
];
const COLLECTIONS: [&str; 4] = ["models", "tunedModels", "dynamic", "endpoints"];

/// What a request asks for, as far as Chaperone treats it differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `generateContent`.
    Generate,
    /// `streamGenerateContent`, answered in this framing.
    StreamGenerate(Framing),
    /// `countTokens`.
    CountTokens,
    /// `chat/completions`; whether it streams stands in the body.
    Chat,
    /// Starts an interaction; whether it streams stands in the body.
    Interact,
    /// A body with text whose answer has no place for a verdict: embeddings, batches, cached content,
    /// predictions. In which dialect, and its name.
    Submit(Dialect, &'static str),
    /// Asks for what a model wrote earlier: in which dialect, and its name. `true`: as a stream.
    Read(Dialect, &'static str, bool),
    /// Brings a file, or a part of one.
    Upload,
    /// Fetches a file, in which there may be the answers of a batch.
    Download,
    /// Anything else: passes through unread.
    Opaque,
}

/// Verbs of models and agents that take text and answer without candidates.
const SUBMITTED: [&str; 14] = [
    "asyncBatchEmbedContent",
    "batchEmbedContents",
    "batchEmbedText",
    "batchGenerateContent",
    "computeTokens",
    "countMessageTokens",
    "countTextTokens",
    "embedContent",
    "embedText",
    "generateAnswer",
    "generateMessage",
    "generateText",
    "predict",
    "predictLongRunning",
];

impl Call {
    /// The dialect of a call whose text Chaperone reads.
    pub fn dialect(self) -> Option<Dialect> {
        match self {
            Self::Generate | Self::StreamGenerate(_) | Self::CountTokens => Some(Dialect::Native),
            Self::Chat => Some(Dialect::OpenAi),
            Self::Interact => Some(Dialect::Interactions),
            Self::Submit(dialect, _) | Self::Read(dialect, ..) => Some(dialect),
            Self::Upload | Self::Download | Self::Opaque => None,
        }
    }

    /// The name in metrics and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generate => "generateContent",
            Self::StreamGenerate(_) => "streamGenerateContent",
            Self::CountTokens => "countTokens",
            Self::Chat => "chat/completions",
            Self::Interact => "interactions",
            Self::Submit(_, name) | Self::Read(_, name, _) => name,
            Self::Upload => "upload",
            Self::Download => "download",
            Self::Opaque => "other",
        }
    }

    /// Whether a template can be put into its body. The others take none: a base URL that names one
    /// serves them all the same.
    pub fn takes_template(self) -> bool {
        self.dialect().is_some() && !matches!(self, Self::Submit(..) | Self::Read(..))
    }

    /// Whether its answer says that it is over just by being there, without a finish reason.
    pub fn ends_by_itself(self) -> bool {
        matches!(self, Self::Submit(..) | Self::CountTokens)
    }
}

/// A path as it goes upstream and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The path to forward, version repaired.
    pub path: String,
    /// What it asks for.
    pub call: Call,
    /// The model named in the path.
    pub model: Option<String>,
}

impl Route {
    /// Reads a request target (path as it came, query without `?`).
    pub fn read(method: &http::Method, path: &str, query: Option<&str>) -> Self {
        let path = repair_version(path);
        let plain = plain(&path);
        let (call, model) = match *method {
            http::Method::POST => match classify(&plain, query) {
                (Call::Opaque, None) if is_upload(&plain) => (Call::Upload, None),
                call => call,
            },
            http::Method::PUT if is_upload(&plain) => (Call::Upload, None),
            http::Method::PATCH => (changed(&plain), None),
            http::Method::GET => (read(&plain, query), None),
            _ => (Call::Opaque, None),
        };
        Self { path, call, model }
    }

    /// The name of the file that it fetches, `files/…`.
    pub fn file(&self) -> Option<String> {
        let plain = plain(&self.path);
        file(&plain).filter(|_| self.call == Call::Download).map(|id| format!("files/{id}"))
    }

    /// The same route to another model. Only a `models/` path can name one; others stay.
    #[must_use]
    pub fn with_model(&self, model: &str) -> Self {
        let renamed = |path: &str| {
            let (before, after) = path.rsplit_once("/models/")?;
            let verb = after.find([':', '/']).and_then(|at| after.get(at..))?;
            Some(format!("{before}/models/{model}{verb}"))
        };
        let Some(path) = renamed(&self.path).or_else(|| renamed(&plain(&self.path))) else {
            return self.clone();
        };
        Self { path, call: self.call, model: Some(model.to_owned()) }
    }
}

/// A path as a lenient server may read it: percent-decoded, without parameters, empty segments or a
/// slash at the end. A call must not escape inspection by being spelled unusually.
fn plain(path: &str) -> String {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    decoded
        .split('/')
        .map(without_parameters)
        .filter(|segment| !segment.is_empty())
        .fold(String::new(), |path, segment| path + "/" + &segment)
}

/// A segment without `;…`; what a colon begins is its verb, not a parameter.
fn without_parameters(segment: &str) -> String {
    let mut pieces = segment.split(';');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |bare, piece| {
        bare + piece.find(':').and_then(|at| piece.get(at..)).unwrap_or_default()
    })
}

/// Whether a path names one of a collection.
fn is_under(path: &str, collection: &str) -> bool {
    path.rsplit('/').nth(1) == Some(collection)
}

/// Whether a path is for files: Gemini's own, or that of the OpenAI dialect.
fn is_upload(path: &str) -> bool {
    let mut segments = path.split('/');
    segments.any(|one| matches!(one, "upload" | "resumable")) || path.ends_with("/openai/files")
}

/// What a PATCH changes: cached contents and batches hold prompts.
fn changed(path: &str) -> Call {
    let verbs = ["updateEmbedContentBatch", "updateGenerateContentBatch"];
    let verb = path.rsplit_once(':').map(|(_, verb)| verb);
    match verbs.into_iter().find(|known| verb == Some(known)) {
        Some(verb) => Call::Submit(Dialect::Native, verb),
        None if is_under(path, "cachedContents") => Call::Submit(Dialect::Native, "cachedContents"),
        None => Call::Opaque,
    }
}

/// What a GET reads: answers that were made earlier hold text as others do.
fn read(path: &str, query: Option<&str>) -> Call {
    if is_under(path, "interactions") {
        let streams = query.into_iter().flat_map(|query| query.split('&'));
        let streams = streams.into_iter().any(|pair| pair.eq_ignore_ascii_case("stream=true"));
        return Call::Read(Dialect::Interactions, "interactions.get", streams);
    }
    if is_under(path, "batches") {
        return Call::Read(Dialect::Native, "batches.get", false);
    }
    if path.ends_with("/batches") && !path.ends_with("/openai/batches") {
        return Call::Read(Dialect::Native, "batches.list", false);
    }
    if file(path).is_some() {
        return Call::Download;
    }
    Call::Opaque
}

/// The id of the file whose content a path is: `files/ID:download`, or `openai/files/ID/content`.
fn file(path: &str) -> Option<&str> {
    let content = path.strip_suffix(":download").or_else(|| path.strip_suffix("/content"))?;
    content.rsplit('/').next().filter(|_| is_under(content, "files"))
}

/// Calls that are known by the end of their path alone.
fn collection_call(path: &str) -> Option<Call> {
    let (before, last) = path.rsplit_once('/')?;
    if before.ends_with("/openai") || before.ends_with("/openapi") {
        return (last == "embeddings").then_some(Call::Submit(Dialect::OpenAi, "embeddings"));
    }
    if path.ends_with("/openai/chat/completions") || path.ends_with("/openapi/chat/completions") {
        return Some(Call::Chat);
    }
    if path.ends_with("/openai/images/generations") {
        return Some(Call::Submit(Dialect::OpenAi, "images/generations"));
    }
    if last == "cancel" && is_under(before, "interactions") {
        return Some(Call::Read(Dialect::Interactions, "interactions.cancel", false));
    }
    match last {
        "interactions" => Some(Call::Interact),
        "cachedContents" => Some(Call::Submit(Dialect::Native, "cachedContents")),
        _ => None,
    }
}

/// What a POST asks for, by its plain path, and of which model.
fn classify(path: &str, query: Option<&str>) -> (Call, Option<String>) {
    if let Some(call) = collection_call(path) {
        return (call, None);
    }
    let mut segments = path.rsplit('/');
    let last = segments.next().unwrap_or_default();
    // `models/ID:verb`, or `models/ID/verb` as some clients write it.
    let (model, verb, collection) = match last.rsplit_once(':') {
        Some((model, verb)) => (model, verb, segments.next()),
        None => (segments.next().unwrap_or_default(), last, segments.next()),
    };
    if !collection.is_some_and(|name| COLLECTIONS.contains(&name)) {
        return (Call::Opaque, None);
    }
    let call = match verb {
        "generateContent" => Call::Generate,
        "streamGenerateContent" => Call::StreamGenerate(framing(query)),
        "countTokens" => Call::CountTokens,
        _ => match SUBMITTED.iter().find(|name| **name == verb) {
            Some(name) => Call::Submit(Dialect::Native, name),
            None => return (Call::Opaque, None),
        },
    };
    (call, Some(model.to_owned()))
}

fn framing(query: Option<&str>) -> Framing {
    let sse = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .any(|pair| matches!(pair, "alt=sse" | "$alt=sse" | "%24alt=sse"));
    if sse { Framing::Sse } else { Framing::JsonArray }
}

fn repair_version(path: &str) -> String {
    let mut rest = path;
    let mut version = None;
    while let Some((first, after)) = rest.strip_prefix('/').and_then(|rest| rest.split_once('/')) {
        if !VERSIONS.contains(&first) {
            break;
        }
        version = Some(first);
        rest = after_slash(rest, after);
    }
    let first = rest.trim_start_matches('/').split(['/', ':']).next().unwrap_or_default();
    match version {
        Some(version) => format!("/{version}{rest}"),
        None if rest.starts_with('/') && !rest.starts_with("//") && RESOURCES.contains(&first) => {
            format!("/{DEFAULT_VERSION}{rest}")
        }
        None => path.to_owned(),
    }
}

/// `after` with the slash that stood before it in `whole`.
fn after_slash<'a>(whole: &'a str, after: &str) -> &'a str {
    whole.get(whole.len() - after.len() - 1..).unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{Call, Route};
    use crate::gemini::Dialect;
    use crate::gemini::stream::Framing;

    fn submit(name: &'static str) -> Call {
        Call::Submit(Dialect::Native, name)
    }

    #[test]
    fn calls_are_recognised_wherever_they_stand() {
        let sse = Call::StreamGenerate(Framing::Sse);
        let array = Call::StreamGenerate(Framing::JsonArray);
        for (path, query, call, model) in [
            (
                "/v1beta/models/gemini-2.5-flash:generateContent",
                None,
                Call::Generate,
                Some("gemini-2.5-flash"),
            ),
            ("/v1beta/models/m:streamGenerateContent", Some("alt=sse"), sse, Some("m")),
            ("/v1beta/models/m:streamGenerateContent", Some("key=k&alt=sse"), sse, Some("m")),
            (
                "/v1beta/models/m:streamGenerateContent",
                Some("$alt=json;enum-encoding=int"),
                array,
                Some("m"),
            ),
            ("/v1beta/tunedModels/t:countTokens", None, Call::CountTokens, Some("t")),
            (
                "/v1/projects/p/locations/l/publishers/google/models/m:generateContent",
                None,
                Call::Generate,
                Some("m"),
            ),
            ("/v1beta/openai/chat/completions", None, Call::Chat, None),
            ("/v1beta/models/m:embedContent", None, submit("embedContent"), Some("m")),
            (
                "/v1beta/models/m:batchGenerateContent",
                None,
                submit("batchGenerateContent"),
                Some("m"),
            ),
            ("/v1/publishers/google/models/m:predict", None, submit("predict"), Some("m")),
            ("/v1beta/cachedContents", None, submit("cachedContents"), None),
            ("/v1beta/openai/embeddings", None, Call::Submit(Dialect::OpenAi, "embeddings"), None),
            ("/v1beta/interactions", None, Call::Interact, None),
            ("/v1beta1/projects/p/locations/l/interactions/", None, Call::Interact, None),
            ("/v1beta/models/m:tune", None, Call::Opaque, None),
            ("/v1beta/models", None, Call::Opaque, None),
            ("/v1beta/models/m%3AgenerateContent", None, Call::Generate, Some("m")),
            ("/v1beta/models/m:generate%43ontent", None, Call::Generate, Some("m")),
            ("/v1beta/models/m:generateContent/", None, Call::Generate, Some("m")),
            ("/v1beta/models/m:generateContent;x=1", None, Call::Generate, Some("m")),
            ("/v1beta;x/models/m:generateContent", None, Call::Generate, Some("m")),
            ("/v1beta/models/m;x:generateContent", None, Call::Generate, Some("m")),
            ("/v1beta/models/m%3Bx/generateContent", None, Call::Generate, Some("m")),
            ("/v1beta/models//m:generateContent", None, Call::Generate, Some("m")),
            ("/v1beta%2Fmodels%2Fm:generateContent", None, Call::Generate, Some("m")),
            ("/v1beta/openai/chat/completions/", None, Call::Chat, None),
            ("/", None, Call::Opaque, None),
        ] {
            let route = Route::read(&Method::POST, path, query);
            assert_eq!((route.path.as_str(), route.call), (path, call));
            assert_eq!(route.model.as_deref(), model);
        }
    }

    #[test]
    fn what_was_made_earlier_is_read_and_changed_by_other_methods() {
        let interaction =
            |name: &'static str, streams| Call::Read(Dialect::Interactions, name, streams);
        let batch = |name: &'static str| Call::Read(Dialect::Native, name, false);
        for (method, path, query, call) in [
            (Method::GET, "/v1beta/models/m:generateContent", None, Call::Opaque),
            (
                Method::GET,
                "/v1beta/interactions/i",
                Some("stream=true"),
                interaction("interactions.get", true),
            ),
            (Method::GET, "/v1beta/batches/b", None, batch("batches.get")),
            (Method::GET, "/v1beta/batches", None, batch("batches.list")),
            (Method::GET, "/v1beta/openai/batches", None, Call::Opaque),
            (
                Method::POST,
                "/v1beta/interactions/i/cancel",
                None,
                interaction("interactions.cancel", false),
            ),
            (
                Method::PATCH,
                "/v1beta/batches/b:updateGenerateContentBatch",
                None,
                submit("updateGenerateContentBatch"),
            ),
            (Method::PATCH, "/v1beta/batches/b", None, Call::Opaque),
            (Method::PATCH, "/v1beta/cachedContents/c", None, submit("cachedContents")),
            (Method::DELETE, "/v1beta/cachedContents/c", None, Call::Opaque),
        ] {
            assert_eq!(Route::read(&method, path, query).call, call, "{method} {path}");
        }
    }

    #[test]
    fn files_are_recognised() {
        for (method, path, call) in [
            (Method::POST, "/upload/v1beta/files", Call::Upload),
            (Method::PUT, "/upload/v1beta/files", Call::Upload),
            (Method::POST, "/resumable/upload/v1beta/files", Call::Upload),
            (Method::POST, "/gate//upl%6Fad/v1beta/s:uploadToFileSearchStore", Call::Upload),
            (Method::POST, "/v1beta/openai/files", Call::Upload),
            (Method::GET, "/upload/v1beta/files", Call::Opaque),
            (Method::POST, "/v1beta/files", Call::Opaque),
            (Method::GET, "/v1beta/files/f:download", Call::Download),
            (Method::GET, "/download/v1beta/files/f:download", Call::Download),
            (Method::GET, "/v1beta/openai/files/f/content", Call::Download),
            (Method::GET, "/v1beta/files/f", Call::Opaque),
            (Method::GET, "/v1beta/models/m:download", Call::Opaque),
            (Method::POST, "/v1beta/models/upload:generateContent", Call::Generate),
        ] {
            let route = Route::read(&method, path, None);
            assert_eq!(route.call, call, "{method} {path}");
            let file = (call == Call::Download).then(|| "files/f".to_owned());
            assert_eq!(route.file(), file, "{method} {path}");
        }
    }

    #[test]
    fn versions_are_forgiven() {
        for (from, to) in [
            ("/models/m:generateContent", "/v1beta/models/m:generateContent"),
            ("/v1beta/v1beta/models/m:generateContent", "/v1beta/models/m:generateContent"),
            ("/v1/v1beta/models/m:generateContent", "/v1beta/models/m:generateContent"),
            ("/v1/models/m:generateContent", "/v1/models/m:generateContent"),
            ("/openai/chat/completions", "/v1beta/openai/chat/completions"),
            ("/models", "/v1beta/models"),
            ("/upload/v1beta/files", "/upload/v1beta/files"),
            ("//models/m", "//models/m"),
            ("/anything/else", "/anything/else"),
        ] {
            assert_eq!(Route::read(&Method::POST, from, None).path, to);
        }
    }

    #[test]
    fn a_template_may_choose_the_model() {
        let route = Route::read(&Method::POST, "/v1beta/models/a:generateContent", None);
        let other = route.with_model("b");
        assert_eq!(other.path, "/v1beta/models/b:generateContent");
        assert_eq!(other.model.as_deref(), Some("b"));
    }
}
