//! The one client, to the one upstream.
//!
//! Whatever a request says, it goes to the configured base URL: no redirects, no proxies, no
//! decompression. Errors say what kind of thing went wrong and never carry a URL, which may hold a key.

use std::time::Duration;

use http::header::UPGRADE;
use http::{HeaderMap, Method};
use reqwest::redirect::Policy;
use reqwest::{Body, Certificate, Client, ClientBuilder, Url};

/// Idle connections kept for reuse.
const IDLE_CONNECTIONS_MAX: usize = 512;
/// Shorter than what Google's front ends keep them.
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_mins(1);
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How to reach the upstream.
#[derive(Debug, Clone)]
pub struct Options {
    /// The base URL.
    pub url: String,
    /// To connect, TLS included.
    pub connect_timeout: Duration,
    /// Between two pieces of an answer.
    pub idle_timeout: Duration,
    /// A PEM bundle trusted instead of the system's roots.
    pub ca_pem: Option<Vec<u8>>,
}

/// The upstream.
#[derive(Debug, Clone)]
pub struct Upstream {
    client: Client,
    /// For calls that switch to another protocol, which HTTP/2 does not.
    switching: Client,
    base: Url,
}

/// What went wrong on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// No connection: refused, unreachable, name not found, TLS.
    #[error("the upstream cannot be reached")]
    Unreachable,
    /// Too slow to connect or to answer.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// It hung up or spoke something other than HTTP.
    #[error("the upstream broke off")]
    Broken,
    /// The client's own body failed while it was forwarded.
    #[error("the request body broke off")]
    ClientBody,
}

impl UpstreamError {
    /// The word in records and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "upstream_unreachable",
            Self::Timeout => "upstream_timeout",
            Self::Broken => "upstream_broken",
            Self::ClientBody => "client_body",
        }
    }
}

/// A target that could not go on byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the path or query holds characters that must be percent-encoded, or dot segments")]
pub struct NotVerbatim;

/// A client that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("upstream: {0}")]
pub struct BadOptions(String);

impl Upstream {
    /// Prepares the client; connects to nothing yet.
    pub fn new(options: &Options) -> Result<Self, BadOptions> {
        let base = Url::parse(&options.url).map_err(|error| BadOptions(error.to_string()))?;
        let built = |builder: ClientBuilder| {
            builder.build().map_err(|error| BadOptions(error.without_url().to_string()))
        };
        let client = built(Self::builder(options)?)?;
        let switching = built(Self::builder(options)?.http1_only())?;
        Ok(Self { client, switching, base })
    }

    fn builder(options: &Options) -> Result<ClientBuilder, BadOptions> {
        let mut builder = Client::builder()
            .redirect(Policy::none())
            .referer(false)
            // A call that was sent is not sent again, whatever the protocol would allow.
            .retry(reqwest::retry::never())
            .no_proxy()
            .tcp_nodelay(true)
            .tcp_keepalive(KEEPALIVE)
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.idle_timeout)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_CONNECTION_TIMEOUT);
        if let Some(pem) = &options.ca_pem {
            let certificates =
                Certificate::from_pem_bundle(pem).map_err(|error| BadOptions(error.to_string()))?;
            if certificates.is_empty() {
                return Err(BadOptions("the CA file holds no certificate".to_owned()));
            }
            builder = builder.tls_certs_only(certificates);
        }
        Ok(builder)
    }

    /// What stands behind the base URL in an address at the upstream, query included; `None`: it is elsewhere.
    pub fn path_at(&self, url: &str) -> Option<String> {
        let url = Url::parse(url).ok().filter(|url| url.origin() == self.base.origin())?;
        let prefix = self.base.path().trim_end_matches('/');
        let path = url.path().strip_prefix(prefix).filter(|path| path.starts_with('/'))?;
        Some(url.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}")))
    }

    /// Where a path and query go. Refused when the client would send other bytes than these, as it
    /// would for dot segments: what was judged must be what is sent.
    pub fn target(&self, path: &str, query: Option<&str>) -> Result<Url, NotVerbatim> {
        let prefix = self.base.path().trim_end_matches('/');
        let path = format!("{prefix}{path}");
        let mut url = self.base.clone();
        url.set_path(&path);
        url.set_query(query);
        let same = url.path() == path && url.query() == query;
        (same && path.starts_with('/')).then_some(url).ok_or(NotVerbatim)
    }

    /// Sends a request and waits for the head of its answer, however long it takes.
    pub async fn send(
        &self,
        method: Method,
        target: Url,
        headers: HeaderMap,
        body: Body,
    ) -> Result<http::Response<Body>, UpstreamError> {
        let switches = headers.contains_key(UPGRADE);
        let client = if switches { &self.switching } else { &self.client };
        let sent = client.request(method, target).headers(headers).body(body).send().await;
        sent.map(Into::into).map_err(|error| kind(&error))
    }
}

/// Sorts an error of the client, in sending or in the middle of an answer.
pub fn kind(error: &reqwest::Error) -> UpstreamError {
    if error.is_timeout() {
        UpstreamError::Timeout
    } else if error.is_connect() {
        UpstreamError::Unreachable
    } else if error.is_body() && caused_by_client(error) {
        UpstreamError::ClientBody
    } else {
        UpstreamError::Broken
    }
}

/// Marks an error of the client's body on its way through the upstream client.
#[derive(Debug, thiserror::Error)]
#[error("the request body broke off")]
pub struct ClientBodyFailed;

fn caused_by_client(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.is::<ClientBodyFailed>() {
            return true;
        }
        source = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{NotVerbatim, Options, Upstream};

    fn upstream(url: &str) -> Upstream {
        drop(rustls::crypto::ring::default_provider().install_default());
        let second = Duration::from_secs(1);
        let options = Options {
            url: url.to_owned(),
            connect_timeout: second,
            idle_timeout: second,
            ca_pem: None,
        };
        Upstream::new(&options).unwrap()
    }

    #[test]
    fn the_host_is_fixed_and_the_bytes_stay() {
        let upstream = upstream("http://gemini.test:81");
        for (path, query) in [
            ("/v1beta/models/m:generateContent", Some("key=a%2Fb&alt=sse")),
            ("/v1beta/models/a%2Fb%20c", None),
            ("//evil.test/x", None),
            ("/@evil.test/x", None),
            ("/a;b=c,d!$&()*+~", Some("$alt=json;enum-encoding=int&x=[1]|2")),
            ("/", Some("")),
        ] {
            let target = upstream.target(path, query).unwrap();
            assert_eq!((target.host_str(), target.port()), (Some("gemini.test"), Some(81)));
            assert_eq!((target.path(), target.query()), (path, query));
        }
    }

    #[test]
    fn what_would_change_is_refused() {
        let upstream = upstream("http://gemini.test");
        for path in ["/a/../b", "/a/%2e%2e/b", "/a/./b", "/a\\b", "/a b", "/é", "/a?b"] {
            assert_eq!(upstream.target(path, None).unwrap_err(), NotVerbatim, "{path}");
        }
        assert_eq!(upstream.target("/a", Some("b c")).unwrap_err(), NotVerbatim);
    }

    #[test]
    fn an_address_at_the_upstream_is_known_behind_its_base() {
        let upstream = upstream("https://gemini.test/gate/");
        let at = |url: &str| upstream.path_at(url);
        assert_eq!(at("https://gemini.test/gate/u?id=a%2F&b").as_deref(), Some("/u?id=a%2F&b"));
        for elsewhere in
            ["http://gemini.test/gate/u", "https://gemini.test/u", "https://b.test/gate/u", "/u"]
        {
            assert_eq!(at(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn a_base_path_stays_in_front() {
        let target = upstream("http://gemini.test/gate/").target("/v1/x", None).unwrap();
        assert_eq!(target.path(), "/gate/v1/x");
    }
}
