//! Another split while calls flow: exactly the share that was told moves, on every sidecar and in SQL.

use std::collections::HashMap;

use chaperone::experiment::{Allocation, Purpose, bucket};
use serde_json::{Value, json};

use crate::harness::cluster::Cluster;
use crate::harness::database::Database;
use crate::harness::{Options, Sidecar, Upstream, eventually, pair};
use crate::lifecycle::{draft, served, versions};

const USERS: usize = 1_500;
const MILLION: u32 = 1_000_000;
const NO_POLL: &str = "[catalog]\npoll_interval_ms = 600000";

/// Three arms at 50/30/20, running.
async fn running(sidecar: &Sidecar, name: &str, extra: &Value) -> String {
    let ids = versions(sidecar, name, &["one {who}", "two {who}", "three {who}"]).await;
    let mut body = json!({"traffic_split": {"control": 50, "variant_a": 30, "variant_b": 20}});
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    let path = draft(sidecar, name, &ids, &body).await;
    sidecar.must(200, "POST", &format!("{path}/start"), &Value::Null).await;
    path
}

/// The arm of every user, asked of this sidecar.
async fn arms(sidecar: &Sidecar, name: &str) -> HashMap<String, String> {
    let mut arms = HashMap::new();
    for number in 0..USERS {
        let user = format!("user-{number}");
        let (_, arm) = served(sidecar, name, &user).await;
        arms.insert(user, arm);
    }
    arms
}

fn moved(before: &HashMap<String, String>, after: &HashMap<String, String>) -> Vec<String> {
    let stays = |user: &String| {
        before[user].is_empty() || after[user].is_empty() || before[user] == after[user]
    };
    before.keys().filter(|user| !stays(user)).cloned().collect()
}

/// Whether a user's bucket is in the range that `min_move` takes from control for 40/30/30.
fn is_in_the_freed_range(salt: &str, user: &str) -> bool {
    (40_000..50_000).contains(&bucket(Purpose::Variant, salt, user))
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_share_that_was_told_moves_under_load() {
    let (upstream, database) = (Upstream::start().await, Database::new().await);
    database.migrate().await;
    let options = || Options::to(&upstream.url()).database(&database.url).toml(NO_POLL);
    let (one, other) = (Sidecar::start(options()).await, Sidecar::start(options()).await);
    other.listens().await;
    let path = running(&one, "moves", &json!({})).await;
    eventually("it is in force there too", async || {
        (!served(&other, "moves", "user-0").await.1.is_empty()).then_some(())
    })
    .await;
    let before = arms(&one, "moves").await;
    assert_eq!(before, arms(&other, "moves").await);

    let wanted = json!({"traffic_split": {"control": 40, "variant_a": 30, "variant_b": 30}});
    let preview = one.must(200, "POST", &format!("{path}/reallocate?preview=true"), &wanted).await;
    assert_eq!((&preview["moved_percentage"], &preview["preview"]), (&json!(10.0), &json!(true)));
    let unmoved = one.must(200, "GET", &path, &Value::Null).await;
    assert_eq!(unmoved["phases"].as_array().unwrap().len(), 1);

    // Calls of every user flow while the split changes: each sees the old arm, then the new one.
    let calls = async {
        let mut seen: HashMap<String, Vec<String>> = HashMap::new();
        for _ in 0..3 {
            for (user, arm) in arms(&other, "moves").await {
                seen.entry(user).or_default().push(arm);
            }
        }
        seen
    };
    let change = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        one.must(200, "POST", &format!("{path}/reallocate"), &wanted).await
    };
    let (seen, done) = tokio::join!(calls, change);
    for (field, value) in preview.as_object().unwrap() {
        assert!(
            field == "preview" || done[field] == *value,
            "{field}: told {value}, done {}",
            done[field]
        );
    }
    let after = arms(&one, "moves").await;
    assert_eq!(after, arms(&other, "moves").await);
    for (user, arms) in seen {
        let turn = arms.iter().position(|arm| *arm != before[&user]).unwrap_or(arms.len());
        assert!(arms[turn..].iter().all(|arm| *arm == after[&user]), "{user}: {arms:?}");
    }
    let experiment = one.must(200, "GET", &path, &Value::Null).await;
    let salt = experiment["id"].as_str().unwrap();
    let mut movers = moved(&before, &after);
    let mut expected: Vec<String> =
        before.keys().filter(|user| is_in_the_freed_range(salt, user)).cloned().collect();
    movers.sort();
    expected.sort();
    assert_eq!(movers, expected);
    assert!(!movers.is_empty() && movers.iter().all(|user| after[user] == "variant_b"));
    let phase = &experiment["phases"][1];
    assert_eq!((&phase["mode"], &phase["moved_percentage"]), (&json!("min_move"), &json!(10.0)));
    counts_in_sql(&database, salt, &before, &after).await;
}

/// From the rows of the phases alone, PostgreSQL finds the same arms.
async fn counts_in_sql(
    database: &Database,
    salt: &str,
    before: &HashMap<String, String>,
    after: &HashMap<String, String>,
) {
    for (phase, arms) in [(1, before), (2, after)] {
        for key in ["control", "variant_a", "variant_b"] {
            let count = arms.values().filter(|arm| *arm == key).count();
            let sql = format!(
                "select count(*) from generate_series(0, {USERS} - 1) number
                  cross join lateral (select
                      ('x' || '0' || substr(md5('v1:enroll:{salt}:user-' || number), 1, 15))::bit(64)::bigint % 100000 as enroll,
                      ('x' || '0' || substr(md5('v1:variant:{salt}:user-' || number), 1, 15))::bit(64)::bigint % 100000 as variant) unit
                   join ab_test_phases on phase = {phase} and salt = '{salt}'
                  cross join lateral jsonb_array_elements(arms) arm
                  cross join lateral jsonb_array_elements(arm -> 'ranges') range
                  where arm ->> 'key' = '{key}'
                    and enroll >= (range -> 'enroll' ->> 0)::int and enroll < (range -> 'enroll' ->> 1)::int
                    and variant >= (range -> 'variant' ->> 0)::int and variant < (range -> 'variant' ->> 1)::int"
            );
            assert_eq!(database.count(&sql).await, i64::try_from(count).unwrap(), "{phase} {key}");
        }
    }
}

/// Sections 6.1, 6.4 and 6.5: counts are exact, in Rust as in SQL.
#[tokio::test(flavor = "multi_thread")]
async fn a_million_units_are_counted_alike_in_rust_and_in_sql() {
    let before = Allocation::new(&[50_000, 30_000, 20_000]);
    let after = before.min_move(&[40_000, 30_000, 30_000]);
    let naive = Allocation::new(&[40_000, 30_000, 30_000]);
    let (mut first, mut all) = ([0; 3], [0; 3]);
    let (mut moves, mut naively, mut enrolled) = (0, 0, 0);
    for number in 0..MILLION {
        let unit = format!("user-{number}");
        let variant = bucket(Purpose::Variant, "demo-0001", &unit);
        let arm = before.arm(0, variant).unwrap();
        all[arm] += 1;
        first[arm] += i64::from(number < 100_000);
        moves += i64::from(after.arm(0, variant) != Some(arm));
        naively += i64::from(naive.arm(0, variant) != Some(arm));
        enrolled += i64::from(bucket(Purpose::Enroll, "demo-0001", &unit) < 10_000);
    }
    assert_eq!(first, [49_923, 30_053, 20_024]);
    let database = Database::new().await;
    let count = async |purpose: &str, condition: &str| {
        database
            .count(&format!(
                "select count(*) from (select ('x' || '0' || substr(md5('v1:{purpose}:demo-0001:user-' || number), 1, 15))
                        ::bit(64)::bigint % 100000 as bucket
                   from generate_series(0, {MILLION} - 1) number) units where {condition}"
            ))
            .await
    };
    assert_eq!(count("variant", "bucket < 50000").await, all[0]);
    assert_eq!(count("variant", "bucket >= 50000 and bucket < 80000").await, all[1]);
    assert_eq!(count("variant", "bucket >= 80000").await, all[2]);
    assert_eq!(count("variant", "bucket >= 40000 and bucket < 50000").await, moves);
    let naive_moves = "bucket >= 40000 and bucket < 50000 or bucket >= 70000 and bucket < 80000";
    assert_eq!(count("variant", naive_moves).await, naively);
    assert_eq!(count("enroll", "bucket < 10000").await, enrolled);
    // 10.0 % and 20.0 %, within the spread of a million draws.
    assert!(
        (moves - 100_000).abs() < 1_467 && (naively - 200_000).abs() < 1_957,
        "{moves} {naively}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn grow_and_sticky_move_nobody_who_was_served() {
    let (_upstream, sidecar) = pair().await;
    let path = running(&sidecar, "grows", &json!({"enrollment_percentage": 50})).await;
    let before = arms(&sidecar, "grows").await;
    let split = json!({"control": 10, "variant_a": 10, "variant_b": 80});
    let no_room = json!({"mode": "grow", "traffic_split": split, "enrollment_percentage": 50});
    sidecar.must(409, "POST", &format!("{path}/reallocate"), &no_room).await;
    let grow = json!({"mode": "grow", "traffic_split": split, "enrollment_percentage": 75});
    let told = sidecar.must(200, "POST", &format!("{path}/reallocate"), &grow).await;
    assert_eq!(
        (&told["moved_percentage"], &told["joining_percentage"]),
        (&json!(0.0), &json!(25.0))
    );
    // Two thirds at 50/30/20, one third at 10/10/80.
    let shares = |told: &Value| -> Vec<u64> {
        told["arms"]
            .as_array()
            .unwrap()
            .iter()
            .map(|arm| arm["weight_millipercent"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(shares(&told), [36_667, 23_333, 40_000]);
    let grown = arms(&sidecar, "grows").await;
    assert_eq!(moved(&before, &grown), Vec::<String>::new());
    assert!(
        grown.values().filter(|arm| !arm.is_empty()).count()
            > before.values().filter(|arm| !arm.is_empty()).count()
    );

    // Sticky goes by the executions that are recorded: all of them, for this test.
    let id = path.rsplit('/').next().unwrap().to_owned();
    eventually("all are stored", async || {
        let status = sidecar.status().await;
        (status["executions"]["waiting"] == 0).then_some(())
    })
    .await;
    let sticky = json!({"mode": "sticky", "traffic_split": {"control": 0, "variant_a": 50, "variant_b": 50}});
    let preview =
        sidecar.must(200, "POST", &format!("{path}/reallocate?preview=true"), &sticky).await;
    let told = sidecar.must(200, "POST", &format!("{path}/reallocate"), &sticky).await;
    assert_eq!(told["pinned_units"], preview["pinned_units"]);
    assert!(told["pinned_units"].as_u64().unwrap() > 100, "{}", told["pinned_units"]);
    assert_eq!(arms(&sidecar, "grows").await, grown, "{id}");
    let stranger =
        async |number: u32| served(&sidecar, "grows", &format!("stranger-{number}")).await.1;
    for number in 0..200 {
        assert_ne!(stranger(number).await, "control");
    }

    let salt = sidecar.must(200, "GET", &path, &Value::Null).await["salt"].clone();
    let anew = json!({"mode": "rerandomise"});
    let told = sidecar.must(200, "POST", &format!("{path}/reallocate"), &anew).await;
    assert_eq!(told["pinned_units"], 0);
    let experiment = sidecar.must(200, "GET", &path, &Value::Null).await;
    assert_ne!(experiment["salt"], salt);
    assert_eq!(experiment["phases"][3]["salt"], experiment["salt"]);
    assert_eq!(experiment["phases"][0]["salt"], experiment["id"]);
    let modes: Vec<&str> = experiment["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["mode"].as_str().unwrap())
        .collect();
    assert_eq!(modes, ["start", "grow", "sticky", "rerandomise"]);
    for wrong in [
        json!({}),
        json!({"mode": "shuffle"}),
        json!({"traffic_split": {"control": 100}}),
        json!({"enrollment_percentage": 101}),
    ] {
        sidecar.must(422, "POST", &format!("{path}/reallocate"), &wrong).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_changes_nobodys_arm() {
    let (upstream, database) = (Upstream::start().await, Database::new().await);
    database.migrate().await;
    let (cable, url) = database.through_cable().await;
    let data_dir = std::sync::Arc::new(crate::harness::TempDir::new());
    let options = || Options::to(&upstream.url()).database(&url).data_dir(&data_dir);
    let sidecar = Sidecar::start(options()).await;
    let path = running(
        &sidecar,
        "lost",
        &json!({"enrollment_percentage": 80, "forced_units": {"user-3": "variant_b"}}),
    )
    .await;
    let split = json!({"traffic_split": {"control": 20, "variant_a": 30, "variant_b": 50}});
    sidecar.must(200, "POST", &format!("{path}/reallocate"), &split).await;
    let before = arms(&sidecar, "lost").await;
    cable.pull();
    assert_eq!(arms(&sidecar, "lost").await, before);
    // Nor does a restart without it: what was last known is on the disk.
    sidecar.stop().await.unwrap();
    let sidecar = Sidecar::start(options()).await;
    assert_eq!(sidecar.source().await, "snapshot");
    assert_eq!(arms(&sidecar, "lost").await, before);
    cable.plug();
    eventually("it is back", async || (sidecar.source().await == "database").then_some(())).await;
    assert_eq!(arms(&sidecar, "lost").await, before);
    eventually("nothing is lost", async || {
        let rows = database.count("select count(*) from prompt_executions").await;
        (usize::try_from(rows).unwrap() == 4 * USERS).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_postgresql_in_mid_experiment_moves_nobody_and_loses_nothing() {
    let (upstream, mut cluster) = (Upstream::start().await, Cluster::start().await);
    let database = cluster.database();
    database.migrate().await;
    let sidecar = Sidecar::start(Options::to(&upstream.url()).database(&database.url)).await;
    let path = running(&sidecar, "killed", &json!({"enrollment_percentage": 80})).await;
    let before = arms(&sidecar, "killed").await;
    for _ in 0..2 {
        let calls = arms(&sidecar, "killed");
        let murder = async {
            cluster.kill();
            eventually("executions wait", async || {
                let degraded = sidecar.page("/readyz").await.json()["degraded"].to_string();
                degraded.contains("outbox").then_some(())
            })
            .await;
            cluster.start_again().await;
        };
        let (during, ()) = tokio::join!(calls, murder);
        assert_eq!(during, before);
    }
    assert_eq!(arms(&sidecar, "killed").await, before);
    eventually("nothing is lost", async || {
        let answer = sidecar.ask("GET", "/executions?limit=1", None).await;
        if answer.status != 200 {
            return None;
        }
        let rows = database.count("select count(*) from prompt_executions").await;
        (usize::try_from(rows).unwrap() == 4 * USERS).then_some(())
    })
    .await;
    let enrolled = before.values().filter(|arm| !arm.is_empty()).count();
    let results = sidecar.must(200, "GET", &path, &Value::Null).await["results"].clone();
    assert_eq!(results["watermark"]["executions"], 4 * enrolled);
    assert_eq!(results["watermark"]["units"], enrolled);
    let of_arm = |arm: &str| before.values().filter(|one| *one == arm).count();
    let units = json!(["control", "variant_a", "variant_b"].map(of_arm));
    assert_eq!(results["health"]["sample_ratio"][0]["units"], units);
}

/// Section 6.1: whatever a unit holds, PostgreSQL finds the same buckets.
#[tokio::test(flavor = "multi_thread")]
async fn units_of_every_kind_have_one_bucket_in_rust_and_in_sql() {
    let database = Database::new().await;
    let units = [
        "user-7",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "é 你好 🙂",
        "a:b:c",
        " ",
        "v1:enroll:x",
        "O''Brien",
    ];
    for unit in units {
        for (purpose, word) in [(Purpose::Enroll, "enroll"), (Purpose::Variant, "variant")] {
            let sql = format!(
                "select ('x' || '0' || substr(md5('v1:{word}:demo-0001:' || '{unit}'), 1, 15))::bit(64)::bigint % 100000"
            );
            let in_rust = bucket(purpose, "demo-0001", &unit.replace("''", "'"));
            assert_eq!(database.count(&sql).await, i64::from(in_rust), "{word} {unit}");
        }
    }
}
