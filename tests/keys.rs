//! Whose key a call goes out with.

use std::collections::BTreeMap;

use serde_json::json;

use crate::harness::{CHAT, GENERATE, Options, Sidecar, TempDir, Upstream, chat, contents};

/// Keys that the upstream was sent with its last call, by header.
fn keys(upstream: &Upstream) -> BTreeMap<String, String> {
    let received = upstream.received().pop().unwrap();
    let is_key = |name: &str| name == "authorization" || name == "x-goog-api-key";
    received.headers.into_iter().filter(|(name, _)| is_key(name)).collect()
}

async fn call(sidecar: &Sidecar, path: &str, body: String, key: Option<(&str, &str)>) -> u16 {
    let mut request = sidecar.client.post(sidecar.url(path)).body(body);
    if let Some((name, value)) = key {
        request = request.header(name, value);
    }
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_a_file_goes_out_with_every_call_and_changes_with_the_file() {
    let (upstream, dir) = (Upstream::start().await, TempDir::new());
    let file = dir.path().join("key");
    std::fs::write(&file, "first-key\n").unwrap();
    let options = Options::to(&upstream.url())
        .set("CHAPERONE_UPSTREAM__API_KEY_FILE", file.to_str().unwrap());
    let sidecar = Sidecar::start(options).await;
    let one = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    assert_eq!(call(&sidecar, GENERATE, contents("hi"), None).await, 200);
    assert_eq!(keys(&upstream), one("x-goog-api-key", "first-key"));
    assert_eq!(call(&sidecar, CHAT, chat("hi", false), None).await, 200);
    assert_eq!(keys(&upstream), one("authorization", "Bearer first-key"));

    let before = upstream.received().len();
    let mine = Some(("x-goog-api-key", "my-own-key"));
    assert_eq!(call(&sidecar, GENERATE, contents("hi"), mine).await, 400);
    assert_eq!(
        call(&sidecar, &format!("{GENERATE}?key=my-own-key"), contents("hi"), None).await,
        400
    );
    let by_oauth = format!("{GENERATE}?oauth_token=my-own-key");
    assert_eq!(call(&sidecar, &by_oauth, contents("hi"), None).await, 400);
    let unread =
        call(&sidecar, "/v1beta/files", String::new(), Some(("authorization", "Bearer x")));
    assert_eq!(unread.await, 400);
    assert_eq!(upstream.received().len(), before, "nothing went out");
    let rows = sidecar.executions("&outcome=rejected", 3).await;
    assert_eq!(rows[0]["error_type"], json!("caller_key"));
    assert!(!format!("{rows:?}").contains("my-own-key"));

    // A key is rotated; a file that is gone in between leaves the last one.
    std::fs::remove_file(&file).unwrap();
    assert_eq!(call(&sidecar, GENERATE, contents("hi"), None).await, 200);
    std::fs::write(&file, "two words").unwrap();
    assert_eq!(call(&sidecar, GENERATE, contents("hi"), None).await, 200);
    assert_eq!(keys(&upstream), one("x-goog-api-key", "first-key"));
    std::fs::write(&file, "second-key").unwrap();
    assert_eq!(call(&sidecar, GENERATE, contents("hi"), None).await, 200);
    assert_eq!(keys(&upstream), one("x-goog-api-key", "second-key"));
    // As long and as old as the one before.
    let other = dir.path().join("other");
    std::fs::write(&other, "thirdd-key").unwrap();
    let modified = std::fs::metadata(&file).unwrap().modified().unwrap();
    std::fs::File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
    std::fs::rename(&other, &file).unwrap();
    assert_eq!(call(&sidecar, GENERATE, contents("hi"), None).await, 200);
    assert_eq!(keys(&upstream), one("x-goog-api-key", "thirdd-key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_key_passes_or_is_replaced_as_the_operator_says() {
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::start(Options::to(&upstream.url())).await;
    let mine = Some(("x-goog-api-key", "my-own-key"));
    assert_eq!(call(&sidecar, GENERATE, contents("hi"), mine).await, 200);
    assert_eq!(keys(&upstream)["x-goog-api-key"], "my-own-key");
    let options = Options::to(&upstream.url())
        .set("CHAPERONE_UPSTREAM__API_KEY", "the-proxys-key")
        .set("CHAPERONE_UPSTREAM__CALLER_KEYS", "replace");
    let sidecar = Sidecar::start(options).await;
    let path = format!("{GENERATE}?key=my-own-key");
    assert_eq!(
        call(&sidecar, &path, contents("hi"), Some(("authorization", "Bearer mine"))).await,
        200
    );
    let received = upstream.received().pop().unwrap();
    assert_eq!((keys(&upstream).len(), received.query), (1, None));
    assert_eq!(keys(&upstream)["x-goog-api-key"], "the-proxys-key");
}
