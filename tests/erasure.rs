//! What was recorded of a user goes when an admin says so: whatever arrives late, and nobody else's.

use chaperone::execution::Execution;
use chaperone::store::erasure::Erasure;
use chaperone::store::outcomes::Feedback;
use chaperone::store::{Change, ExecutionQuery, Store};
use chaperone::words::ids::Tenant;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::database::Database;
use crate::harness::{GENERATE, Options, Sidecar, Upstream, eventually};
use crate::outcomes::{EXPERIMENT, Setting, at, call, everywhere};

/// A call of an experiment by a user, who is its unit.
fn by(user: &str, number: u32, arm: &str) -> Execution {
    Execution { user_id: Some(user.to_owned()), ..call(number, user, arm) }
}

async fn stored(store: &dyn Store, tenant: &str, user: &str) -> usize {
    let (tenant, user) = (Tenant(tenant.into()), Some(user.to_owned()));
    let query = ExecutionQuery { tenant, user, limit: 5_000, ..ExecutionQuery::default() };
    store.executions(&query).await.unwrap().len()
}

async fn erase(store: &dyn Store, erasure: &Erasure) -> u64 {
    let mut executions = 0;
    loop {
        let erased = store.erase(erasure).await.unwrap();
        executions += erased.executions;
        if !erased.more {
            return executions;
        }
    }
}

async fn say(setting: &Setting<'_>, execution: &Execution) {
    let feedback = Feedback {
        tenant: Tenant::default(),
        execution_id: execution.id.unwrap().0,
        key: "helpful".to_owned(),
        value: json!(true),
        idempotency_key: None,
        by: "app".to_owned(),
        not_before: Timestamp::UNIX_EPOCH,
    };
    setting.store.feedback(&feedback).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_goes_and_what_was_counted_stays() {
    everywhere("user", async |setting| {
        let store = setting.store;
        let anns: Vec<Execution> = (0..700).map(|number| by("ann", number, "control")).collect();
        let bobs: Vec<Execution> =
            (1_000..1_010).map(|number| by("bob", number, "variant_a")).collect();
        let mut elsewhere = by("ann", 2_000, "control");
        elsewhere.tenant_id = Tenant("b".into());
        elsewhere.ab_test_experiment_id = None;
        for batch in [&anns, &bobs, &vec![elsewhere]] {
            store.insert_executions(batch).await.unwrap();
        }
        say(&setting, &anns[0]).await;
        say(&setting, &bobs[0]).await;
        let before = store.collected(EXPERIMENT).await.unwrap();

        let requested_at = at(1_000_000);
        let (tenant, user) = (Tenant::default(), "ann".to_owned());
        let erasure = Erasure { id: Uuid::now_v7(), tenant, user, requested_at };
        let order = Change { erasures: vec![erasure.clone()], ..Change::default() };
        store.commit(&order).await.unwrap();
        let is_due = async || store.erasures(at(0)).await.unwrap()[0].is_due;
        assert!(is_due().await);
        assert_eq!(erase(store, &erasure).await, 700);
        let left = [
            stored(store, "default", "ann").await,
            stored(store, "default", "bob").await,
            stored(store, "b", "ann").await,
        ];
        assert_eq!(left, [0, 10, 1]);
        assert!(!is_due().await);
        for table in ["ab_test_units", "ab_test_unit_feedback", "prompt_feedback"] {
            let of = async |unit: &str| {
                let sql = format!("select count(*) from {table} where unit_key = '{unit}'");
                setting.count(&sql).await
            };
            assert_eq!((of("ann").await, of("bob").await), (0, 1), "{table}");
        }
        let after = store.collected(EXPERIMENT).await.unwrap();
        assert_eq!(json!(after.sums), json!(before.sums));
        assert_eq!(json!(after.feedback), json!(before.feedback));

        // From the outbox of a sidecar that was cut off; and what the user does from now on.
        let late = by("ann", 3_000, "control");
        let fresh = Execution { created_at: requested_at, ..by("ann", 3_001, "control") };
        store.insert_executions(&[late, fresh]).await.unwrap();
        assert!(is_due().await);
        assert_eq!((erase(store, &erasure).await, is_due().await), (1, false));
        assert_eq!(stored(store, "default", "ann").await, 1);

        let now = "select count(*) from prompt_erasures where user_id is null and executions = 701
                      and completed_at is not null and length(user_sha256) = 64";
        assert_eq!(setting.count(now).await, 0);
        assert_eq!(store.erasures(at(1_000_001)).await.unwrap(), []);
        assert_eq!(setting.count(now).await, 1, "an old order forgets its user");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_erases_a_user_and_the_audit_names_nobody() {
    let (upstream, database) = (Upstream::start().await, Database::new().await);
    database.migrate().await;
    database
        .execute(
            "alter table prompt_executions add constraint short check (conversation_id <> 'x')",
        )
        .await;
    let sidecar = Sidecar::start(Options::to(&upstream.url()).database(&database.url)).await;
    let user = "ann@acme.test/ü";
    let named = "ann@acme.test/%C3%BC";
    for conversation in ["a", "b", "x"] {
        let headers = [("x-chaperone-conversation", conversation)];
        let body = json!({"contents": [{"role": "user", "parts": [{"text": "hello"}]}],
                          "chaperone": {"user": user}});
        sidecar.post(GENERATE, &headers, body.to_string()).await;
    }
    sidecar.say(GENERATE, &[("x-chaperone-user", "bob")], "hello").await;
    sidecar.executions("", 3).await;
    eventually("one is kept aside", async || {
        (sidecar.status().await["executions"]["dead_lettered"] == 1).then_some(())
    })
    .await;

    for (query, status) in
        [("", 400), ("?user=", 400), ("?user=a&tenent=b", 400), ("?user=%FC", 400)]
    {
        let answer = sidecar.ask("DELETE", &format!("/executions{query}"), None).await;
        assert_eq!(answer.status, status, "{query}");
    }
    let path = format!("/executions?user={named}&reason=asked+for");
    let gone = sidecar.ask("DELETE", &path, None).await;
    assert_eq!(gone.status, 200, "{}", gone.text);
    let gone = gone.json();
    assert_eq!(
        (&gone["executions"], &gone["dead_letters"], &gone["complete"]),
        (&json!(2), &json!(1), &json!(true))
    );
    let left = sidecar.executions("", 1).await;
    assert_eq!((left.len(), &left[0]["user_id"]), (1, &json!("bob")));
    assert_eq!(sidecar.admin("/dead-letters").await.json()["items"], json!([]));
    let audit = sidecar.admin("/audit?object_type=user").await.json();
    let entry = &audit["items"][0];
    assert_eq!((&entry["action"], &entry["actor"]), (&json!("user.erase"), &json!("super_admin")));
    assert_eq!(
        (&entry["object_id"], &entry["reason"]),
        (&gone["user_sha256"], &json!("asked for"))
    );
    assert_eq!(audit["chain"]["verified"], json!(true));
    assert!(!audit.to_string().contains("acme"), "{audit}");
    let again: Value = sidecar.ask("DELETE", &path, None).await.json();
    assert_eq!(again["executions"], json!(0));
}
