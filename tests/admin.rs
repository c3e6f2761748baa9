//! The control plane: who may see what, and that it says what is true.

use chaperone::admin::{API, ROUTES};
use serde_json::{Value, json};

use crate::harness::database::Database;
use crate::harness::{GENERATE, Options, Sidecar, TOKEN, Upstream, VIEWER, pair, whole};

async fn call(
    sidecar: &Sidecar,
    method: &str,
    path: &str,
    authorization: Option<&str>,
) -> crate::harness::Answer {
    let url = format!("http://{}{API}{path}", sidecar.control);
    let mut request = sidecar.client.request(method.parse().unwrap(), url);
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    whole(request.send().await.unwrap()).await
}

/// A route with something in the place of its parameters.
fn filled(path: &str) -> String {
    path.replace("{id}", "00000000-0000-0000-0000-000000000000")
        .replace("{other}", "00000000-0000-0000-0000-000000000001")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_wants_a_token_and_writes_want_the_right_one() {
    let (_upstream, sidecar) = pair().await;
    assert!(ROUTES.len() >= 30);
    for (method, path) in ROUTES {
        let (method, path) = (method.to_uppercase(), filled(path));
        let answer = call(&sidecar, &method, &path, None).await;
        assert_eq!(answer.status, 401, "{method} {path}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        assert!(!answer.header("x-chaperone-request-id").is_empty());
        let viewer = call(&sidecar, &method, &path, Some(&format!("Bearer {VIEWER}"))).await;
        let asks = ["/render", "/test", "/backtest"].iter().any(|end| path.ends_with(end));
        let may = method == "GET" || asks;
        assert_eq!(viewer.status != 403, may, "{method} {path}: {}", viewer.text);
        let admin = call(&sidecar, &method, &path, Some(&format!("bearer {TOKEN}"))).await;
        assert!(!matches!(admin.status, 401 | 403 | 405), "{method} {path}: {}", admin.text);
        assert!(admin.status < 500, "{method} {path}: {}", admin.text);
    }
    for (method, path) in [
        ("GET", "/none"),
        ("DELETE", "/status"),
        ("GET", "/status/"),
        ("OPTIONS", "/templates"),
        ("HEAD", "/templates"),
        ("TRACE", "/templates"),
        ("GET", "//templates"),
        ("GET", "/%74emplates"),
        ("GET", "/x/../templates"),
        ("GET", &format!("/templates?token={TOKEN}&access_token={TOKEN}")),
    ] {
        let answer = call(&sidecar, method, path, None).await;
        assert_eq!(answer.status, 401, "{method} {path}: nothing is told without a token");
    }
    let token = format!("Bearer {TOKEN}");
    assert_eq!(call(&sidecar, "GET", "/none", Some(&token)).await.status, 404);
    assert_eq!(call(&sidecar, "DELETE", "/status", Some(&token)).await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_refused_and_throttled() {
    let (_upstream, sidecar) = pair().await;
    let (padded, in_two) = (format!("Bearer  {TOKEN}"), format!("Bearer {TOKEN} {TOKEN}"));
    for wrong in ["", "Bearer", "Bearer ", "Bearer wrong", "Basic abc", TOKEN, &padded, &in_two] {
        let answer = call(&sidecar, "GET", "/status", Some(wrong)).await;
        assert_eq!(answer.status, 401, "{wrong:?}");
    }
    let guesses = (0..30).map(|_| call(&sidecar, "GET", "/status", Some("Bearer guess")));
    let answers = futures_util::future::join_all(guesses).await;
    let slowed: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(slowed.len() >= 15, "only {} of 30 were slowed down", slowed.len());
    assert!(slowed.iter().all(|answer| answer.header("retry-after") == "1"));
    let token = format!("Bearer {TOKEN}");
    let right = call(&sidecar, "GET", "/status", Some(&token)).await;
    assert_eq!(right.status, 200, "nobody is held up by somebody else's guesses");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_page_in_a_browser_could_send_is_refused() {
    let (_upstream, sidecar) = pair().await;
    let url = format!("http://{}{API}/reload", sidecar.control);
    for (name, value, status) in [
        ("host", "evil.example", 421),
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
    ] {
        let request = sidecar.client.post(&url).bearer_auth(TOKEN).header(name, value);
        let answer = whole(request.send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{name}: {value}");
        assert!(answer.headers.get("access-control-allow-origin").is_none());
    }
    let url = format!("http://{}{API}/templates", sidecar.control);
    for (kind, body, status) in [
        ("text/plain", r#"{"name":"x"}"#.to_owned(), 415),
        ("application/json", "{".to_owned(), 400),
        ("application/json", r#"{"name":"\ud800"}"#.to_owned(), 400),
        ("application/json", r#"{"name":"x","template_text":"a","name":"y"}"#.to_owned(), 400),
        ("application/json", "[]".to_owned(), 422),
        ("application/json", format!(r#"{{"name":"{}"}}"#, "x".repeat(5_000_000)), 413),
    ] {
        let request = sidecar.client.post(&url).bearer_auth(TOKEN).header("content-type", kind);
        let answer = whole(request.body(body).send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_and_the_routes_are_the_same() {
    let (_upstream, sidecar) = pair().await;
    let document = sidecar.page("/openapi.json").await.json();
    let mut described: Vec<(String, String)> = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            described.push((method.clone(), path.clone()));
        }
    }
    let mut routes: Vec<(String, String)> =
        ROUTES.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    described.sort();
    routes.sort();
    assert_eq!(described, routes);
    assert_eq!(document["servers"][0]["url"], API);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_is_not_on_the_data_plane() {
    let (upstream, sidecar) = pair().await;
    for path in ["/metrics", "/readyz", "/api/v1/admin/prompts/status"] {
        let answer = sidecar.client.get(sidecar.url(path)).bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(answer.status(), 404, "the upstream answers, not we");
    }
    assert_eq!(upstream.received().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_what_is_there() {
    let (_upstream, sidecar) = pair().await;
    for (path, name, expected) in
        [("/templates", "nlu_topic_extraction", 3), ("/guardrails", "toxic_content_filter", 8)]
    {
        let list = sidecar.admin(path).await.json();
        assert_eq!(list["items"].as_array().unwrap().len(), expected);
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = sidecar.admin(&format!("{path}?limit=1{cursor}")).await.json();
            seen.extend(page["items"].as_array().unwrap().clone());
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(Value::from(seen).as_array().unwrap().len(), expected);
        let one = sidecar.admin(&format!("{path}?name={name}")).await.json();
        assert_eq!(
            (one["items"][0]["name"].as_str(), one["items"].as_array().unwrap().len()),
            (Some(name), 1)
        );
    }
    assert_eq!(sidecar.admin("/ab-tests").await.json()["items"], json!([]));
    let bad = sidecar.admin("/templates?nmae=x").await;
    assert!(bad.status == 400 && bad.text.contains("nmae"), "{}", bad.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn executions_are_paged_and_filtered() {
    let (_upstream, sidecar) = pair().await;
    for number in 0..7 {
        let user = format!("u-{}", number % 2);
        sidecar.say(GENERATE, &[("x-chaperone-user", &user)], "hello").await;
    }
    sidecar.executions("", 7).await;
    let mut seen: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = sidecar.admin(&format!("/executions?limit=3{cursor}")).await.json();
        seen.extend(
            page["items"].as_array().unwrap().iter().map(|item| item["created_at"].clone()),
        );
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen.len(), 7);
    let times: Vec<&str> = seen.iter().map(|at| at.as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|one, two| one >= two), "newest first: {times:?}");
    assert_eq!(sidecar.executions("&user=u-1", 3).await.len(), 3);
    for (query, hint) in [
        ("limit=0", "from 1 to 500"),
        ("limit=x", "limit"),
        ("cursor=x", "next_cursor"),
        ("usr=x", "usr"),
    ] {
        let bad = sidecar.admin(&format!("/executions?{query}")).await;
        assert!(bad.status == 400 && bad.text.contains(hint), "{query}: {}", bad.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_puts_a_change_in_force_and_says_what_failed() {
    let (upstream, database) = (Upstream::start().await, Database::new().await);
    database.migrate().await;
    let toml = "[catalog]\npoll_interval_ms = 600000";
    let sidecar =
        Sidecar::start(Options::to(&upstream.url()).database(&database.url).toml(toml)).await;
    sidecar.listens().await;
    // Without its trigger a change announces nothing and moves no revision: only a reload finds it.
    database.execute("alter table prompt_guardrails disable trigger user").await;
    database
        .execute(
            "update prompt_guardrails set is_active = false where name = 'toxic_content_filter'",
        )
        .await;
    let abuse = "go kill yourself";
    assert!(sidecar.say(GENERATE, &[], abuse).await.text.contains("PROHIBITED_CONTENT"));
    let before = sidecar.status().await["catalog"]["generation"].as_u64().unwrap();
    let reloaded = sidecar.admin_post("/reload").await.json();
    assert!(!sidecar.say(GENERATE, &[], abuse).await.text.contains("PROHIBITED_CONTENT"));
    assert_eq!(
        (&reloaded["source"], reloaded["generation"].as_u64()),
        (&json!("database"), Some(before + 1))
    );
    database.execute("alter table prompt_templates rename to elsewhere").await;
    let failed = sidecar.admin_post("/reload").await.json();
    assert_eq!(failed["generation"].as_u64(), Some(before + 1), "the last good one stays");
    assert!(failed["failures"][0]["why"].as_str().unwrap().contains("migrat"), "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_counted_under_its_template() {
    let (_upstream, sidecar) = pair().await;
    let path = format!("/t/nlu_topic_extraction{GENERATE}");
    sidecar.post(&path, &[("x-chaperone-variables", r#"{"text":"x"}"#)], "{}").await;
    sidecar.executions("", 1).await;
    let page = sidecar.page("/metrics").await.text;
    let labels = "template=\"nlu_topic_extraction\",version=\"1\",arm=\"none\",outcome=\"success\"";
    let line = page.lines().find(|line| line.contains(labels));
    assert!(!line.expect(&page).ends_with(" 0"));
}
