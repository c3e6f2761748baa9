//! What a disk does to records on their way: they are told apart, counted, and hold up no other.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::database::Database;
use crate::harness::{GENERATE, Options, Sidecar, TempDir, Upstream, eventually};

const AWAY: &str = "postgres://nobody@127.0.0.1:1/none";

/// A sidecar whose store is away, on a directory of its own or the one of another.
async fn cut_off(upstream: &Upstream, data_dir: &Arc<TempDir>) -> Sidecar {
    Sidecar::start(Options::to(&upstream.url()).database(AWAY).data_dir(data_dir)).await
}

async fn say(sidecar: &Sidecar, calls: usize) {
    for _ in 0..calls {
        assert_eq!(sidecar.say(GENERATE, &[], "hello").await.status, 200);
    }
}

fn local_file(data_dir: &TempDir) -> rusqlite::Connection {
    rusqlite::Connection::open(data_dir.path().join("chaperone.db")).unwrap()
}

/// Executions in the table.
fn filed(data_dir: &TempDir) -> i64 {
    let sql = "select coalesce(sum(executions), 0) from outbox";
    local_file(data_dir).query_row(sql, [], |row| row.get(0)).unwrap()
}

/// The segments of the journal, oldest first.
fn journal(data_dir: &TempDir) -> Vec<PathBuf> {
    let names = std::fs::read_dir(data_dir.path()).unwrap().map(|one| one.unwrap().path());
    let mut segments: Vec<PathBuf> =
        names.filter(|path| path.extension().is_some_and(|end| end == "journal")).collect();
    segments.sort();
    segments
}

/// Waits until so many wait, are dead and lost, and gives all counts.
async fn counts(sidecar: &Sidecar, expected: [u64; 3]) -> Value {
    eventually(&format!("waiting, dead and lost are {expected:?}"), async || {
        let all = sidecar.status().await["executions"].clone();
        let now = ["waiting", "dead_lettered", "lost"].map(|name| all[name].as_u64().unwrap());
        (now == expected).then_some(all)
    })
    .await
}

/// While the local file is held, so that records stay in the journal.
async fn in_the_journal(sidecar: &Sidecar, calls: usize, spoil: impl FnOnce(PathBuf)) {
    let file = local_file(&sidecar.data_dir());
    file.execute_batch("begin exclusive").unwrap();
    // The first one is read at once and waits for the file in memory, and so nothing more is read.
    say(sidecar, 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    say(sidecar, calls - 1).await;
    spoil(journal(&sidecar.data_dir()).pop().unwrap());
    say(sidecar, 1).await;
    file.execute_batch("commit").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_cut_while_it_is_written_costs_what_was_cut() {
    let (upstream, data_dir) = (Upstream::start().await, Arc::new(TempDir::new()));
    let sidecar = cut_off(&upstream, &data_dir).await;
    in_the_journal(&sidecar, 7, |segment| {
        let file = std::fs::OpenOptions::new().write(true).open(segment).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    })
    .await;
    let all = eventually("nothing is left in the journal", async || {
        let (all, rows) = (sidecar.status().await["executions"].clone(), filed(&data_dir));
        let dead = all["dead_lettered"].as_i64().unwrap();
        (rows + dead == 8 && all["waiting"] == rows).then_some(all)
    })
    .await;
    assert!((3..=5).contains(&all["dead_lettered"].as_u64().unwrap()), "{all}");
    assert_eq!((&all["accepted"], &all["lost"]), (&json!(8), &json!(0)), "{all}");
    say(&sidecar, 2).await;
    let waiting = all["waiting"].as_u64().unwrap() + 2;
    counts(&sidecar, [waiting, 8 + 2 - waiting, 0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn line_breaks_that_come_or_go_in_the_journal_change_no_count() {
    let (upstream, data_dir) = (Upstream::start().await, Arc::new(TempDir::new()));
    let sidecar = cut_off(&upstream, &data_dir).await;
    say(&sidecar, 1).await;
    counts(&sidecar, [1, 0, 0]).await;
    in_the_journal(&sidecar, 7, |segment| {
        let mut bytes = std::fs::read(&segment).unwrap();
        let breaks: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] == b'\n').collect();
        // The last whole records are still there: one is made two, two are made one.
        let last = breaks.len() - 1;
        bytes[breaks[last] - 20] = b'\n';
        bytes[breaks[last - 2]] = b' ';
        let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
    })
    .await;
    let all = counts(&sidecar, [6, 3, 0]).await;
    assert_eq!(all["accepted"], 9, "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_gone_are_lost_and_told() {
    let (upstream, database) = (Upstream::start().await, Database::new().await);
    database.migrate().await;
    let (cable, url) = database.through_cable().await;
    let sidecar = Sidecar::start(Options::to(&upstream.url()).database(&url)).await;
    cable.pull();
    for calls in 1..=5 {
        say(&sidecar, 1).await;
        eventually("it is in a row of its own", async || {
            (filed(&sidecar.data_dir()) == calls).then_some(())
        })
        .await;
    }
    local_file(&sidecar.data_dir())
        .execute("delete from outbox where id in (select id from outbox limit 2)", [])
        .unwrap();
    cable.plug();
    let all = eventually("nothing waits", async || {
        let all = sidecar.status().await["executions"].clone();
        (all["waiting"] == 0).then_some(all)
    })
    .await;
    // Those that were being sent when they went may have arrived.
    let stored = database.count("select count(*) from prompt_executions").await;
    assert_eq!((&all["stored"], &all["lost"]), (&json!(stored), &json!(5 - stored)), "{all}");
    assert!((3..5).contains(&stored), "{stored} {all}");
    let ready = sidecar.page("/readyz").await.json();
    assert!(ready["degraded"].to_string().contains("were lost"), "{ready}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_known_after_a_restart_until_they_are_removed() {
    let (upstream, data_dir) = (Upstream::start().await, Arc::new(TempDir::new()));
    let start = || Sidecar::start(Options::to(&upstream.url()).data_dir(&data_dir));
    start().await.stop().await.unwrap();
    let bury =
        "insert into outbox_dead_letters (id, reason, execution, at) values (?1, 'x', ?2, ?3)";
    for (id, at) in [("a", "2026-01-01T00:00:00.000Z"), ("b", "2026-03-01T00:00:00.000Z")] {
        local_file(&data_dir).execute(bury, [id, "what is left", at]).unwrap();
    }
    let sidecar = start().await;
    let all = counts(&sidecar, [0, 2, 0]).await;
    assert_eq!((&all["accepted"], &all["dead_letters"]), (&json!(2), &json!(2)), "{all}");
    assert_eq!(all["outbox_bytes"], 24, "they use the budget");
    let ready = sidecar.page("/readyz").await.json();
    assert!(ready["degraded"].to_string().contains("2 were refused or spoilt"), "{ready}");
    let metrics = sidecar.page("/metrics").await.text;
    assert!(metrics.contains("\nchaperone_dead_letters 2\n"), "{metrics}");
    assert!(metrics.contains("\nchaperone_executions_dead_lettered_total 2\n"));

    for query in ["", "?id=a&before=2026-02-01T00:00:00Z", "?before=yesterday"] {
        let answer = sidecar.ask("DELETE", &format!("/dead-letters{query}"), None).await;
        assert_eq!(answer.status, 400, "{query}");
    }
    let discard = async |query: &str| {
        let answer = sidecar.ask("DELETE", &format!("/dead-letters?{query}"), None).await;
        answer.json()["discarded"].clone()
    };
    assert_eq!(discard("before=2026-02-01T00:00:00Z&reason=looked+at").await, 1);
    assert_eq!(discard("id=a").await, 0);
    assert_eq!(discard("id=b").await, 1);
    let audit = sidecar.admin("/audit?object_type=dead_letter").await.json();
    assert_eq!(audit["items"][2]["reason"], "looked at", "{audit}");
    let all = counts(&sidecar, [0, 2, 0]).await;
    assert_eq!((&all["dead_letters"], &all["outbox_bytes"]), (&json!(0), &json!(0)));
    assert_eq!(sidecar.page("/readyz").await.json()["status"], "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_there_twice_holds_up_no_other() {
    let (upstream, database) = (Upstream::start().await, Database::new().await);
    database.migrate().await;
    database
        .execute(
            "create table once (id int primary key); insert into once values (1);
             create function twice() returns trigger language plpgsql as $$
                 begin insert into once values (1); return new; end $$;
             create trigger twice before insert on prompt_executions
                 for each row when (new.user_id = 'odd') execute function twice()",
        )
        .await;
    let (cable, url) = database.through_cable().await;
    let sidecar = Sidecar::start(Options::to(&upstream.url()).database(&url)).await;
    cable.pull();
    for user in ["ann", "odd", "ann", "ann"] {
        sidecar.say(GENERATE, &[("x-chaperone-user", user)], "hello").await;
    }
    cable.plug();
    let all = counts(&sidecar, [0, 1, 0]).await;
    assert_eq!(all["stored"], 3, "{all}");
    let letters = sidecar.admin("/dead-letters").await.json();
    assert_eq!(letters["items"][0]["execution"]["user_id"], "odd");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_holds_a_user_who_was_erased() {
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::start(Options::to(&upstream.url())).await;
    for _ in 0..30 {
        sidecar.say(GENERATE, &[("x-chaperone-user", "ann-of-acme")], "hello").await;
    }
    sidecar.executions("", 30).await;
    let gone = sidecar.ask("DELETE", "/executions?user=ann-of-acme", None).await.json();
    assert_eq!((&gone["executions"], &gone["complete"]), (&json!(30), &json!(true)));
    let data_dir = sidecar.data_dir();
    sidecar.stop().await.unwrap();
    let holding = std::fs::read_dir(data_dir.path()).unwrap().map(|one| one.unwrap().path());
    // The order itself stands, so that what comes late goes too.
    let holds = |bytes: &[u8]| bytes.windows(11).filter(|one| one == b"ann-of-acme").count();
    let found: Vec<_> =
        holding.filter(|path| path.is_file() && holds(&std::fs::read(path).unwrap()) > 1).collect();
    assert_eq!(found, Vec::<PathBuf>::new());
}
