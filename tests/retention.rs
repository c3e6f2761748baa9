//! Old executions go, and nothing else with them: no counter, no row of today, no definition.

use chaperone::config::{PartitionBy, Retention};
use chaperone::execution::{Execution, Outcome};
use chaperone::store::{ExecutionQuery, RowQuery, Sqlite, Store, Table};
use chaperone::words::ids::{ExecutionId, Tenant};
use jiff::{SignedDuration, Timestamp};

use crate::harness::TempDir;
use crate::harness::database::Database;

const NOW: &str = "2026-11-22T20:00:00Z";
const TEMPLATE: &str = "nlu_topic_extraction";

fn retention(days: u32, partition_by: PartitionBy, embedded_bytes_max: u64) -> Retention {
    Retention { days: Some(days), partition_by, embedded_bytes_max }
}

/// Of some hours before now, with a prompt of so many letters.
fn execution(number: u32, hours: i64, letters: usize) -> Execution {
    let now: Timestamp = NOW.parse().unwrap();
    Execution {
        id: Some(ExecutionId(uuid::Uuid::from_u128(u128::from(number)))),
        request_id: format!("r-{number}"),
        call: "generateContent".to_owned(),
        tenant_id: if number.is_multiple_of(2) { Tenant::default() } else { Tenant("b".into()) },
        template_name: Some(TEMPLATE.to_owned()),
        rendered_prompt: Some(serde_json::Value::from("x".repeat(letters))),
        outcome: Outcome::Success,
        success: true,
        created_at: now.checked_sub(SignedDuration::from_hours(hours)).unwrap(),
        ..Execution::default()
    }
}

/// Stores them as executions of the template.
async fn put(store: &dyn Store, batch: &[Execution]) {
    let templates = store.changed(None).await.unwrap().definitions.templates;
    let id = templates.iter().find(|one| one.name == TEMPLATE).unwrap().id;
    let of_it = |one: &Execution| Execution { template_id: Some(id), ..one.clone() };
    let batch: Vec<Execution> = batch.iter().map(of_it).collect();
    store.insert_executions(&batch).await.unwrap();
}

async fn ids(store: &dyn Store) -> Vec<u128> {
    let mut ids = Vec::new();
    for tenant in [Tenant::default(), Tenant("b".into())] {
        let query = ExecutionQuery { tenant, limit: 5_000, ..ExecutionQuery::default() };
        let rows = store.executions(&query).await.unwrap();
        let id = |row: &serde_json::Value| row["id"].as_str().unwrap().parse::<uuid::Uuid>();
        ids.extend(rows.iter().map(|row| id(row).unwrap().as_u128()));
    }
    ids.sort_unstable();
    ids
}

/// Executions that the template's row counts.
async fn counted(store: &dyn Store) -> i64 {
    store.roll_up().await.unwrap();
    let all = RowQuery::of(Table::Templates, &Tenant::default());
    let query = RowQuery { limit: 100, ..all };
    let rows = store.rows(&query).await.unwrap();
    rows.iter().map(|row| row.columns["total_executions"].as_i64().unwrap()).sum()
}

async fn tidy(store: &dyn Store, retention: &Retention) -> Vec<String> {
    let mut dropped = Vec::new();
    loop {
        let tidied = store.tidy(retention, NOW.parse().unwrap()).await.unwrap();
        dropped.extend(tidied.dropped);
        if !tidied.more {
            return dropped;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_goes_and_stays_counted_whatever_is_replayed() {
    let contract = async |store: &dyn Store| {
        store.migrate_up().await.unwrap();
        // Some a year ago, which no partition takes, in more than one step; some of today.
        let mut batch: Vec<Execution> =
            (0..1_300).map(|number| execution(number, 24 * 365, 1)).collect();
        batch.extend((1_300..1_303).map(|number| execution(number, 1, 1)));
        put(store, &batch).await;
        put(store, &batch).await;
        assert_eq!(counted(store).await, 1_303, "a batch that comes twice counts once");
        tidy(store, &retention(30, PartitionBy::Month, u64::MAX)).await;
        assert_eq!(ids(store).await, [1_300, 1_301, 1_302]);
        assert_eq!(counted(store).await, 1_303, "what is gone stays counted");
        put(store, &batch[1_300..]).await;
        assert_eq!(counted(store).await, 1_303);
    };
    let directory = TempDir::new();
    contract(&Sqlite::new(directory.path()).unwrap()).await;
    contract(&Database::new().await.store()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_store_keeps_within_its_budget() {
    let directory = TempDir::new();
    let store = Sqlite::new(directory.path()).unwrap();
    store.migrate_up().await.unwrap();
    let budget = 16 * 1024 * 1024;
    let retention = retention(400, PartitionBy::Month, budget);
    let size = || std::fs::metadata(directory.path().join("chaperone.db")).unwrap().len();
    for round in 0..6 {
        let from = round * 1_000;
        let batch: Vec<Execution> =
            (from..from + 1_000).map(|number| execution(number, 1, 8_000)).collect();
        put(&store, &batch).await;
        tidy(&store, &retention).await;
        let kept = ids(&store).await;
        assert_eq!(kept.last(), Some(&u128::from(from + 999)), "the newest stay");
    }
    let kept = ids(&store).await;
    assert!(kept.len() > 500 && kept.len() < 2_000, "{}", kept.len());
    assert!(size() < 2 * budget, "{}", size());
    assert_eq!(counted(&store).await, 6_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_in_the_same_file_cost_no_execution() {
    let directory = TempDir::new();
    let store = Sqlite::new(directory.path()).unwrap();
    store.migrate_up().await.unwrap();
    put(&store, &[execution(1, 1, 10)]).await;
    let file = rusqlite::Connection::open(directory.path().join("chaperone.db")).unwrap();
    file.execute_batch(
        "create table outbox (id integer primary key, executions integer, bytes integer, batch text);
         create table outbox_dead_letters (id text primary key, reason text, execution text);
         create table outbox_damaged_1 (id integer primary key, executions integer, bytes integer, batch text);
         insert into outbox_dead_letters values ('a', '', printf('%.*c', 9000000, 'x'));
         insert into outbox values (1, 1, 9000000, printf('%.*c', 9000000, 'x'));
         insert into outbox_damaged_1 select * from outbox",
    )
    .unwrap();
    tidy(&store, &retention(400, PartitionBy::Month, 8 * 1024 * 1024)).await;
    assert_eq!(ids(&store).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_whose_clock_is_ahead_drops_nothing_of_the_others() {
    let database = Database::new().await;
    let store = database.store();
    store.migrate_up().await.unwrap();
    put(&store, &[Execution { created_at: Timestamp::now(), ..execution(1, 1, 10) }]).await;
    let ahead = Timestamp::now() + SignedDuration::from_hours(24 * 500);
    let tidied = store.tidy(&retention(30, PartitionBy::Month, u64::MAX), ahead).await.unwrap();
    assert_eq!((tidied.made, tidied.dropped, tidied.rows), (vec![], vec![], 0));
    assert_eq!(ids(&store).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_made_ahead_and_dropped_whole() {
    let database = Database::new().await;
    let store = database.store();
    store.migrate_up().await.unwrap();
    // As if the months of the migration had never been, or were over.
    database
        .execute(
            "do $$ declare one text; begin
                 for one in select inhrelid::regclass::text from pg_inherits
                             where inhparent = 'prompt_executions'::regclass
                               and inhrelid::regclass::text <> 'prompt_executions_default' loop
                     execute 'drop table ' || one;
                 end loop; end $$;
             create table prompt_executions_2025_01 partition of prompt_executions
                 for values from ('2025-01-01Z') to ('2025-02-01Z')",
        )
        .await;
    // January of the year before stands in a partition of its own, today in the default one.
    let january = execution(1, 24 * 681, 1);
    assert_eq!(january.created_at.to_string().get(..7), Some("2025-01"));
    put(&store, &[january, execution(2, 1, 1)]).await;
    let months = retention(400, PartitionBy::Month, 1);
    let first = store.tidy(&months, NOW.parse().unwrap()).await.unwrap();
    assert_eq!(first.made.len(), 4, "{first:?}");
    assert_eq!(first.dropped, ["prompt_executions_2025_01"]);
    assert_eq!(ids(&store).await, [2]);
    let in_place = "select count(*) from prompt_executions_2026_11";
    assert_eq!(database.count(in_place).await, 1, "it was moved out of the default partition");
    let again = store.tidy(&months, NOW.parse().unwrap()).await.unwrap();
    assert!(again.made.is_empty() && again.dropped.is_empty(), "{again:?}");
    // The same execution once more is still the same.
    put(&store, &[execution(2, 1, 1)]).await;
    assert_eq!((ids(&store).await, counted(&store).await), (vec![2], 2));
    // Days take over where months have not begun.
    let days = retention(400, PartitionBy::Day, 1);
    let split = store.tidy(&days, NOW.parse().unwrap()).await.unwrap();
    assert_eq!(split.dropped.len(), 3, "{split:?}");
    assert_eq!(split.made.first().map(String::as_str), Some("prompt_executions_2026_12_01"));
    // And months around the days that hold something.
    put(&store, &[execution(4, -24 * 12, 1)]).await;
    let back = store.tidy(&months, NOW.parse().unwrap()).await.unwrap();
    assert!(!back.dropped.contains(&"prompt_executions_2026_12_04".to_owned()), "{back:?}");
    assert_eq!(
        back.made,
        [
            "prompt_executions_2026_12_from_01",
            "prompt_executions_2026_12_from_05",
            "prompt_executions_2027_01",
            "prompt_executions_2027_02"
        ]
    );
    let placed = "select count(*) from prompt_executions_2026_12_04";
    assert_eq!(database.count(placed).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_somebody_holds_is_not_waited_for() {
    let database = Database::new().await;
    let store = database.store();
    store.migrate_up().await.unwrap();
    let old = "create table prompt_executions_2025_01 partition of prompt_executions
                   for values from ('2025-01-01Z') to ('2025-02-01Z')";
    database.execute(old).await;
    put(&store, &[execution(2, 24 * 500, 1)]).await;
    let months = retention(400, PartitionBy::Month, 1);
    let holding = database.execute("select count(*), pg_sleep(2) from prompt_executions");
    let trying = async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let began = std::time::Instant::now();
        let tidied = store.tidy(&months, NOW.parse().unwrap()).await.unwrap();
        let refused = tidied.failed.unwrap().to_string();
        assert!(refused.contains("55P03"), "{refused}");
        assert_eq!(tidied.rows, 1, "the rest is done");
        assert!(began.elapsed() < std::time::Duration::from_secs(1), "{:?}", began.elapsed());
    };
    tokio::join!(holding, trying);
    assert_eq!(tidy(&store, &months).await, ["prompt_executions_2025_01"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_is_deleted_leaves_its_executions() {
    let directory = TempDir::new();
    let sqlite = Sqlite::new(directory.path()).unwrap();
    sqlite.migrate_up().await.unwrap();
    put(&sqlite, &[execution(2, 1, 1)]).await;
    let connection = rusqlite::Connection::open(directory.path().join("chaperone.db")).unwrap();
    let gone = "delete from prompt_templates where name = ?1";
    assert!(connection.execute(gone, [TEMPLATE]).unwrap() > 0);
    assert_eq!(ids(&sqlite).await, [2]);
    let database = Database::new().await;
    let store = database.store();
    store.migrate_up().await.unwrap();
    put(&store, &[execution(2, 1, 1)]).await;
    database.execute(&format!("delete from prompt_templates where name = '{TEMPLATE}'")).await;
    assert_eq!(ids(&store).await, [2]);
    assert_eq!(store.changed(None).await.unwrap().counts[0], 2);
}
