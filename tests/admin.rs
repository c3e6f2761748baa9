//! The control plane: who may see what, and that it says what is true.

use serde_json::{Value, json};

use crate::harness::database::Database;
use crate::harness::{GENERATE, Options, Sidecar, TOKEN, Upstream, VIEWER, pair, whole};

const API: &str = "/api/v1/admin/prompts";
const ROUTES: [(&str, &str); 6] = [
    ("GET", "/status"),
    ("POST", "/reload"),
    ("GET", "/executions"),
    ("GET", "/templates"),
    ("GET", "/guardrails"),
    ("GET", "/ab-tests"),
];

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

#[tokio::test(flavor = "multi_thread")]
async fn every_route_wants_a_token_and_writes_want_the_right_one() {
    let (_upstream, sidecar) = pair().await;
    for (method, path) in ROUTES {
        for wrong in
            [None, Some(""), Some("Bearer "), Some("Bearer wrong"), Some("Basic abc"), Some(TOKEN)]
        {
            let answer = call(&sidecar, method, path, wrong).await;
            assert_eq!(answer.status, 401, "{method} {path} {wrong:?}");
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
        let viewer = call(&sidecar, method, path, Some(&format!("Bearer {VIEWER}"))).await;
        assert_eq!(viewer.status, if method == "GET" { 200 } else { 403 }, "{method} {path}");
        let admin = call(&sidecar, method, path, Some(&format!("bearer {TOKEN}"))).await;
        assert_eq!(admin.status, 200, "{method} {path}: {}", admin.text);
    }
    for (method, path, expected) in [("GET", "/none", 401), ("DELETE", "/status", 401)] {
        assert_eq!(
            call(&sidecar, method, path, None).await.status,
            expected,
            "nothing is told without a token"
        );
    }
    let token = format!("Bearer {TOKEN}");
    assert_eq!(call(&sidecar, "GET", "/none", Some(&token)).await.status, 404);
    assert_eq!(call(&sidecar, "DELETE", "/status", Some(&token)).await.status, 405);
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
async fn lists_show_what_is_in_force() {
    let (_upstream, sidecar) = pair().await;
    for (path, name) in
        [("/templates", "nlu_topic_extraction"), ("/guardrails", "toxic_content_filter")]
    {
        let list = sidecar.admin(path).await.json();
        assert_eq!(
            (&list["source"], list["items"].as_array().unwrap().len()),
            (&json!("database"), 3)
        );
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
