//! Starts the product and its surroundings inside the test process, each test with its own.

pub mod binary;
pub mod cluster;
pub mod database;
pub mod raw;
pub mod traffic;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chaperone::app::App;
use chaperone::config::Settings;
use chaperone::simulator::{Received, Simulator};
use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a condition may take to come true.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// The admin token of every sidecar.
pub const TOKEN: &str = "test-admin-token-0123456789";
/// The viewer token of every sidecar.
pub const VIEWER: &str = "test-viewer-token-0123456789";
/// A native call.
pub const GENERATE: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
/// A native streamed call.
pub const STREAM: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";
/// An OpenAI-compatible call.
pub const CHAT: &str = "/v1beta/openai/chat/completions";

/// A directory that goes with the test.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("chaperone-test-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// The bundled simulator on a port of its own.
pub struct Upstream {
    pub address: SocketAddr,
    simulator: Simulator,
    task: JoinHandle<()>,
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let simulator = Simulator::default();
        let router = simulator.clone().router();
        let service = hyper_util::service::TowerToHyperService::new(router);
        let serving = chaperone::listen::serve(
            listener,
            None,
            chaperone::listen::Bounds::relaxed("simulator"),
            chaperone::listen::Lifetime::default(),
            move |_| service.clone(),
        );
        Self { address, simulator, task: tokio::spawn(serving) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn received(&self) -> Vec<Received> {
        self.simulator.received()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How to start a sidecar.
pub struct Options {
    pub upstream: String,
    pub database: Option<String>,
    pub toml: String,
    pub environment: BTreeMap<String, String>,
    pub data_dir: Option<Arc<TempDir>>,
}

impl Options {
    pub fn to(upstream: &str) -> Self {
        Self {
            upstream: upstream.to_owned(),
            database: None,
            toml: String::new(),
            environment: BTreeMap::new(),
            data_dir: None,
        }
    }

    pub fn database(mut self, url: &str) -> Self {
        self.database = Some(url.to_owned());
        self
    }

    pub fn toml(mut self, toml: &str) -> Self {
        self.toml.push_str(toml);
        self
    }

    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A catalog of the test's own: no database, definitions from the environment.
    pub fn definitions(self, definitions: &Value) -> Self {
        self.database("postgres://nobody@127.0.0.1:1/none")
            .set("AI_PROMPT_TEMPLATES_JSON", &definitions.to_string())
    }

    pub fn data_dir(mut self, dir: &Arc<TempDir>) -> Self {
        self.data_dir = Some(dir.clone());
        self
    }
}

/// A running Chaperone.
pub struct Sidecar {
    pub data: SocketAddr,
    pub control: SocketAddr,
    pub client: reqwest::Client,
    stop: CancellationToken,
    task: Option<JoinHandle<anyhow::Result<()>>>,
    data_dir: Arc<TempDir>,
}

/// A whole answer.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Sidecar {
    pub async fn start(options: Options) -> Self {
        let data_dir = options.data_dir.unwrap_or_else(|| Arc::new(TempDir::new()));
        let mut environment = options.environment;
        for (name, value) in [
            ("CHAPERONE_DATA__LISTEN", "127.0.0.1:0"),
            ("CHAPERONE_CONTROL__LISTEN", "127.0.0.1:0"),
            ("CHAPERONE_CONTROL__SUPER_ADMIN_TOKEN", TOKEN),
            ("CHAPERONE_CONTROL__VIEWER_TOKEN", VIEWER),
            ("CHAPERONE_UPSTREAM__URL", &options.upstream),
            ("CHAPERONE_STORAGE__DATA_DIR", data_dir.path().to_str().unwrap()),
        ] {
            environment.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
        if let Some(database) = options.database {
            environment.insert("DATABASE_URL".to_owned(), database);
        }
        let settings = Settings::read(&options.toml, &environment).unwrap();
        let app = Box::pin(App::build(settings)).await.unwrap();
        let (data, control) = (app.data_address().unwrap(), app.control_address().unwrap());
        let stop = CancellationToken::new();
        let until = stop.clone();
        let task = tokio::spawn(async move {
            // A second call is a second signal, which these tests never send.
            let asked = std::sync::atomic::AtomicBool::new(false);
            Box::pin(app.run(|| {
                let first = !asked.swap(true, std::sync::atomic::Ordering::Relaxed);
                let until = until.clone();
                async move {
                    if first {
                        until.cancelled().await;
                    } else {
                        std::future::pending::<()>().await;
                    }
                }
            }))
            .await
        });
        let client =
            reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let client = client.build().unwrap();
        Self { data, control, client, stop, task: Some(task), data_dir }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.data)
    }

    /// Posts a body with headers to the data plane.
    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let mut request =
            self.client.post(self.url(path)).header("x-goog-api-key", "test-key").body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        whole(request.send().await.unwrap()).await
    }

    /// A native call with one user text.
    pub async fn say(&self, path: &str, headers: &[(&str, &str)], text: &str) -> Answer {
        self.post(path, headers, contents(text)).await
    }

    /// Reads from the control plane with the admin's token.
    pub async fn admin(&self, path: &str) -> Answer {
        let url = format!("http://{}/api/v1/admin/prompts{path}", self.control);
        whole(self.client.get(url).bearer_auth(TOKEN).send().await.unwrap()).await
    }

    /// Posts to the control plane with the admin's token.
    pub async fn admin_post(&self, path: &str) -> Answer {
        let url = format!("http://{}/api/v1/admin/prompts{path}", self.control);
        whole(self.client.post(url).bearer_auth(TOKEN).send().await.unwrap()).await
    }

    /// Asks the admin API with the admin's token and a body.
    pub async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.ask_with(method, path, body, &[]).await
    }

    /// The same with headers.
    pub async fn ask_with(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let url = format!("http://{}/api/v1/admin/prompts{path}", self.control);
        let mut request = self.client.request(method.parse().unwrap(), url).bearer_auth(TOKEN);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        whole(request.send().await.unwrap()).await
    }

    /// Asks for something that must be answered with this status.
    pub async fn must(&self, status: u16, method: &str, path: &str, body: &Value) -> Value {
        let body = (!body.is_null()).then_some(body);
        let answer = self.ask(method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        answer.json()
    }

    /// Reads an open page of the control plane.
    pub async fn page(&self, path: &str) -> Answer {
        let url = format!("http://{}{path}", self.control);
        whole(self.client.get(url).send().await.unwrap()).await
    }

    /// All recorded executions matching a query, newest first, once there are `count` of them.
    pub async fn executions(&self, query: &str, count: usize) -> Vec<Value> {
        let path = format!("/executions?limit=500{query}");
        eventually("executions are recorded", async || {
            let answer = self.admin(&path).await;
            let items = answer.json()["items"].as_array().cloned().unwrap_or_default();
            (items.len() >= count).then_some(items)
        })
        .await
    }

    /// The one execution of an answer.
    pub async fn execution(&self, answer: &Answer) -> Value {
        let id = answer.header("x-chaperone-request-id").to_owned();
        assert!(!id.is_empty(), "no request id in {:?}", answer.headers);
        eventually("the execution is recorded", async || {
            let items = self.admin("/executions?limit=500").await.json()["items"].clone();
            items.as_array()?.iter().find(|item| item["request_id"] == id.as_str()).cloned()
        })
        .await
    }

    pub async fn status(&self) -> Value {
        self.admin("/status").await.json()
    }

    pub async fn source(&self) -> String {
        self.status().await["catalog"]["source"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until changes in the database are listened for.
    pub async fn listens(&self) {
        eventually("listening has begun", async || {
            (self.status().await["catalog"]["listening"] == true).then_some(())
        })
        .await;
    }

    /// Stops as a SIGTERM would and waits for the end.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap()
    }

    /// Asks to stop without waiting.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    pub fn data_dir(&self) -> Arc<TempDir> {
        self.data_dir.clone()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// A sidecar in front of a simulator, on the embedded store.
pub async fn pair() -> (Upstream, Sidecar) {
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::start(Options::to(&upstream.url())).await;
    (upstream, sidecar)
}

/// A sidecar in front of a simulator with definitions of the test's own.
pub async fn pair_with(definitions: &Value) -> (Upstream, Sidecar) {
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::start(Options::to(&upstream.url()).definitions(definitions)).await;
    assert_eq!(sidecar.source().await, "environment");
    (upstream, sidecar)
}

/// A native body with one user text.
pub fn contents(text: &str) -> String {
    serde_json::json!({"contents": [{"role": "user", "parts": [{"text": text}]}]}).to_string()
}

/// A chat completion body with one user text.
pub fn chat(text: &str, stream: bool) -> String {
    let messages = serde_json::json!([{"role": "user", "content": text}]);
    serde_json::json!({"model": "gemini-2.5-flash", "messages": messages, "stream": stream})
        .to_string()
}

/// A guardrail definition.
pub fn guardrail(name: &str, blocking: bool, config: &Value) -> Value {
    serde_json::json!({
        "id": uuid::Uuid::new_v4(), "name": name, "rule_type": "custom", "severity": "error",
        "blocking": blocking, "rule_config": config,
    })
}

/// The `x-simulate` word that makes the simulator say this.
pub fn say(text: &str) -> String {
    use base64::Engine;
    format!("say={}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text))
}

pub async fn whole(response: reqwest::Response) -> Answer {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.bytes().await.unwrap();
    Answer { status, headers, text: String::from_utf8_lossy(&bytes).into_owned() }
}

/// Polls until a condition gives something.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(began.elapsed() < DEADLINE, "in vain waited until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
