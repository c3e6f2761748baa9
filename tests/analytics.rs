//! Every number of the performance endpoints against an independent question to the rows, in both stores.

use chaperone::execution::{Evaluation, Execution, Outcome};
use chaperone::store::report::{EXACT_ROWS_MAX, ReportQuery};
use chaperone::store::{Sqlite, Store};
use chaperone::words::ids::{TemplateId, Tenant};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use crate::harness::database::Database;
use crate::harness::{Options, Sidecar, Upstream, pair};
use crate::outcomes::{self, Chance};

const FROM: &str = "2026-11-20T00:00:00Z";
const TO: &str = "2026-11-20T06:00:00Z";
const PERIOD: &str = "created_at >= '2026-11-20T00:00:00Z' and created_at < '2026-11-20T06:00:00Z'";

const REACHED: &str = "outcome <> 'blocked' and outcome <> 'rejected'";

/// A sidecar with rows in its store, and a way to ask them.
struct Setting<'s> {
    sidecar: &'s Sidecar,
    store: &'s dyn Store,
    database: Option<&'s Database>,
    file: rusqlite::Connection,
}

impl Setting<'_> {
    async fn number(&self, sql: &str) -> Option<f64> {
        match self.database {
            Some(database) => database.number(sql).await,
            None => {
                let sql = format!("select cast(({sql}) as double precision)");
                self.file.query_row(&sql, [], |row| row.get(0)).unwrap()
            }
        }
    }

    /// That a number of an answer is what the rows give.
    async fn agree(&self, shown: &Value, sql: &str) {
        let shown = shown.as_f64().or_else(|| shown.as_str().map(|text| text.parse().unwrap()));
        let expected = self.number(sql).await;
        let close = match (shown, expected) {
            (Some(one), Some(other)) => (one - other).abs() <= 1e-9 * other.abs().max(1.0),
            (one, other) => one.is_none() && other.is_none(),
        };
        assert!(
            close,
            "{}: {shown:?} is shown, {expected:?} is what {sql} gives",
            self.store.kind()
        );
    }

    async fn get(&self, path: &str) -> Value {
        let period = format!("from={FROM}&to={TO}");
        let glue = if path.contains('?') { '&' } else { '?' };
        self.sidecar
            .must(200, "GET", &format!("/performance/{path}{glue}{period}"), &Value::Null)
            .await
    }
}

fn rows() -> Vec<Execution> {
    let mut chance = Chance(11);
    outcomes::calls(900, 50)
        .into_iter()
        .enumerate()
        .map(|(index, one)| {
            // Four hours with calls, two without; some calls before the period.
            let hour = [-1, 0, 1, 3, 4][usize::try_from(chance.below(5)).unwrap()];
            let second = i64::try_from(chance.below(3600)).unwrap();
            Execution {
                created_at: outcomes::at(hour * 3600 + second),
                candidates_tokens: one.token_count.map(|_| chance.below(9_000)),
                thoughts_tokens: one.token_count.map(|_| chance.below(50)),
                time_to_first_token_ms: one.success.then(|| one.execution_time_ms / 3.0),
                overhead_ms: Some(0.25 + one.execution_time_ms / 1000.0),
                catalog_source: if index % 3 == 0 { "file" } else { "database" }.to_owned(),
                guardrails_evaluated: vec![Evaluation {
                    rule_name: "g".to_owned(),
                    passed: index % 7 != 0,
                    reason: None,
                }],
                ..one
            }
        })
        .collect()
}

async fn everywhere(script: impl AsyncFn(Setting<'_>)) {
    let (_upstream, sidecar) = pair().await;
    let directory = sidecar.data_dir();
    let sqlite = Sqlite::new(directory.path()).unwrap();
    let open =
        |path: &std::path::Path| rusqlite::Connection::open(path.join("chaperone.db")).unwrap();
    outcomes::define(&sqlite, "user").await;
    sqlite.insert_executions(&rows()).await.unwrap();
    assert_eq!(
        sidecar.admin_post("/reload").await.status,
        200,
        "the versions are in force here too"
    );
    script(Setting {
        sidecar: &sidecar,
        store: &sqlite,
        database: None,
        file: open(directory.path()),
    })
    .await;

    let (upstream, database) = (Upstream::start().await, Database::new().await);
    database.migrate().await;
    let postgres = database.store();
    outcomes::define(&postgres, "user").await;
    postgres.insert_executions(&rows()).await.unwrap();
    let sidecar = Sidecar::start(Options::to(&upstream.url()).database(&database.url)).await;
    let file = open(sidecar.data_dir().path());
    script(Setting { sidecar: &sidecar, store: &postgres, database: Some(&database), file }).await;
}

/// The figures that overview and template share.
async fn figures_agree(setting: &Setting<'_>, shown: &Value, which: &str) {
    let of = |what: &str, also: &str| {
        format!("select {what} from prompt_executions where {which} and {also}")
    };
    let rate = "round(1000.0 * sum(case when success then 1 else 0 end) / count(*)) / 10";
    let blocked =
        "round(1000.0 * sum(case when outcome like '%blocked' then 1 else 0 end) / count(*)) / 10";
    let cost = "cast(estimated_cost_usd as double precision)";
    for (place, what, also) in [
        ("/total_executions", "count(*)", "1 = 1"),
        ("/success_rate", rate, "outcome in ('success', 'failed', 'incomplete')"),
        ("/blocked_rate", blocked, "1 = 1"),
        ("/avg_response_time_ms", "avg(execution_time_ms)", REACHED),
        ("/tokens/input", "sum(prompt_tokens)", "1 = 1"),
        ("/tokens/cached", "sum(cached_tokens)", "1 = 1"),
        ("/tokens/thinking", "sum(thoughts_tokens)", "1 = 1"),
        ("/tokens/output", "sum(candidates_tokens)", "1 = 1"),
        ("/total_cost_usd", &format!("sum({cost})"), "1 = 1"),
        (
            "/cost_list_usd",
            "sum(cast(coalesce(cost_list_usd, estimated_cost_usd) as double precision))",
            "1 = 1",
        ),
        ("/avg_cost_per_execution_usd", &format!("avg({cost})"), "1 = 1"),
        ("/unpriced", "count(*)", "token_count > 0 and estimated_cost_usd is null"),
    ] {
        setting.agree(shown.pointer(place).unwrap(), &of(what, also)).await;
    }
    let mut by_outcome = 0;
    for (outcome, count) in shown["by_outcome"].as_object().unwrap() {
        setting.agree(count, &of("count(*)", &format!("outcome = '{outcome}'"))).await;
        by_outcome += count.as_u64().unwrap();
    }
    assert_eq!((&shown["total_executions"], by_outcome > 0), (&Value::from(by_outcome), true));
    quantiles_agree(setting, shown, which).await;
}

async fn quantiles_agree(setting: &Setting<'_>, shown: &Value, which: &str) {
    for (member, column) in [
        ("response_time_ms", "execution_time_ms"),
        ("ttft_ms", "time_to_first_token_ms"),
        ("proxy_overhead_ms", "overhead_ms"),
    ] {
        let rows =
            format!("from prompt_executions where {which} and {REACHED} and {column} is not null");
        let count = setting.number(&format!("select count(*) {rows}")).await.unwrap();
        assert!(count > 10.0, "{column}: {count}");
        for (name, q) in [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)] {
            let rank = (count * q).ceil() - 1.0;
            let at = format!("select {column} {rows} order by {column} limit 1 offset {rank}");
            setting.agree(&shown[member][name], &at).await;
        }
    }
    assert_eq!(shown["quantile_relative_error"], 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_is_what_the_rows_say() {
    everywhere(async |setting| {
        let overview = setting.get("overview").await;
        figures_agree(&setting, &overview, PERIOD).await;
        let versions = overview["templates"].as_array().unwrap();
        assert_eq!(versions.len(), 2);
        for one in versions {
            let id = one["template_id"].as_str().unwrap();
            let of = |what: &str, period: &str| {
                format!("select {what} from prompt_executions where template_id = '{id}' and {period}")
            };
            setting.agree(&one["executions"], &of("count(*)", PERIOD)).await;
            let before = "created_at < '2026-11-20T00:00:00Z'";
            setting.agree(&one["previous"]["executions"], &of("count(*)", before)).await;
            let mean = "avg(case when outcome in ('blocked', 'rejected') then null else execution_time_ms end)";
            setting.agree(&one["avg_response_time_ms"], &of(mean, PERIOD)).await;
            setting.agree(&one["previous"]["avg_response_time_ms"], &of(mean, before)).await;
            assert_eq!(one["is_active"], id == Uuid::from_u128(1).to_string(), "{one}");
        }
        let found = "replace(cast(guardrails_evaluated as text), ' ', '') like '%\"passed\":false%'";
        let violations = format!("select count(*) from prompt_executions where {PERIOD} and {found}");
        setting.agree(&overview["guardrails"][0]["violations"], &violations).await;
        setting.agree(&overview["guardrails"][0]["evaluations"], &format!("select count(*) from prompt_executions where {PERIOD}")).await;
        for source in ["file", "database"] {
            let sql = format!("select count(*) from prompt_executions where {PERIOD} and catalog_source = '{source}'");
            setting.agree(&overview["sources"][source], &sql).await;
        }
        assert_eq!(overview["freshness"]["lost"], 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_what_its_rows_say() {
    everywhere(async |setting| {
        let id = Uuid::from_u128(2);
        let shown = setting.get(&format!("templates/{id}?interval=hour")).await;
        let which = format!("{PERIOD} and template_id = '{id}'");
        figures_agree(&setting, &shown, &which).await;
        let of = |what: &str, also: &str| format!("select {what} from prompt_executions where {which} and {also}");
        let outcomes = shown["outcomes"].as_array().unwrap();
        assert!(outcomes.len() > 4);
        for one in outcomes {
            let kind = one["error_type"].as_str().map_or_else(|| "error_type is null".to_owned(), |kind| format!("error_type = '{kind}'"));
            let also = format!("outcome = '{}' and {kind}", one["outcome"].as_str().unwrap());
            setting.agree(&one["executions"], &of("count(*)", &also)).await;
        }
        for band in shown["latency_by_output_tokens"].as_array().unwrap() {
            let most = band["tokens_max"].as_u64().unwrap_or(1_000_000);
            let also = format!("success and candidates_tokens >= {} and candidates_tokens < {most}", band["tokens_min"]);
            setting.agree(&band["executions"], &of("count(*)", &also)).await;
            setting.agree(&band["avg_response_time_ms"], &of("avg(execution_time_ms)", &also)).await;
            let count = band["executions"].as_f64().unwrap();
            let middle = (count * 0.5).ceil().max(1.0) - 1.0;
            let at = format!("{} order by 1 limit 1 offset {middle}", of("execution_time_ms", &also));
            setting.agree(&band["p50"], &at).await;
        }
        let series = shown["series"].as_array().unwrap();
        assert_eq!(series.len(), 6, "hours without calls too");
        for (hour, one) in series.iter().enumerate() {
            assert_eq!(one["from"], format!("2026-11-20T{hour:02}:00:00Z"));
            let also = format!(
                "created_at >= '2026-11-20T{hour:02}:00:00Z' and created_at < '2026-11-20T{:02}:00:00Z'",
                hour + 1
            );
            setting.agree(&one["executions"], &of("count(*)", &also)).await;
            let mean = "avg(case when outcome in ('blocked', 'rejected') then null else execution_time_ms end)";
            setting.agree(&one["avg_response_time_ms"], &of(mean, &also)).await;
            let cost = "sum(cast(estimated_cost_usd as double precision))";
            setting.agree(&one["cost_usd"], &of(cost, &also)).await;
        }
        assert_eq!((&series[2]["executions"], &series[2]["success_rate"]), (&Value::from(0), &Value::Null));
        // All of these calls were part of one experiment; one that was not makes the difference.
        assert_eq!((&shown["causal"], &shown["experiments"][0]["status"]), (&Value::from(true), &Value::from("active")));
        let stray = Execution {
            ab_test_experiment_id: None,
            template_id: Some(TemplateId(Uuid::from_u128(1))),
            created_at: outcomes::at(60),
            ..outcomes::call(70_000, "u", "control")
        };
        setting.store.insert_executions(&[stray]).await.unwrap();
        let mixed = setting.get(&format!("templates/{id}?scope=name")).await;
        assert_eq!((&mixed["causal"], &mixed["series"]), (&Value::from(false), &Value::Null));
        setting.agree(&mixed["total_executions"], &format!("select count(*) from prompt_executions where {PERIOD}")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quantiles_of_many_rows_are_off_by_a_hundredth_at_most() {
    everywhere(async |setting| {
        let ask = async |exact_rows_max| {
            let query = ReportQuery {
                tenant: Tenant::default(),
                from: FROM.parse::<Timestamp>().unwrap() - SignedDuration::from_hours(9),
                to: TO.parse().unwrap(),
                model: None,
                template_id: None,
                template_name: None,
                exact_rows_max,
            };
            setting.store.report(&query).await.unwrap()
        };
        let (exact, sketched) = (ask(EXACT_ROWS_MAX).await, ask(10).await);
        assert!(exact.exact && !sketched.exact);
        let pairs = [
            (exact.times.response, sketched.times.response),
            (exact.times.first_token, sketched.times.first_token),
            (exact.times.overhead, sketched.times.overhead),
        ];
        for (exact, sketched) in pairs {
            for (one, other) in [
                (exact.p50, sketched.p50),
                (exact.p90, sketched.p90),
                (exact.p95, sketched.p95),
                (exact.p99, sketched.p99),
            ] {
                let (one, other) = (one.unwrap(), other.unwrap());
                assert!(
                    (one - other).abs() <= 0.010_001 * one,
                    "{}: {one}, {other}",
                    setting.store.kind()
                );
            }
            assert_eq!(exact.max, sketched.max);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suggestions_come_with_what_shows_them() {
    everywhere(async |setting| {
        let failed = (80_000..80_300).map(|number| Execution {
            outcome: Outcome::Failed,
            success: false,
            created_at: outcomes::at(i64::from(number - 80_000)),
            ..outcomes::call(number, "u", "variant_a")
        });
        setting.store.insert_executions(&failed.collect::<Vec<_>>()).await.unwrap();
        let found = setting.get("suggestions").await;
        let items = found["items"].as_array().unwrap();
        let failing = items.iter().find(|one| one["reason"] == "failure_rate");
        let failing = failing.unwrap_or_else(|| panic!("nothing is suggested: {found}"));
        let second = Value::from(Uuid::from_u128(2).to_string());
        assert_eq!((&failing["name"], &failing["template_id"]), (&Value::from("t"), &second));
        let evidence = failing["evidence"].as_str().unwrap();
        let shown =
            setting.number(&format!("select count(*) from ({evidence}) shown")).await.unwrap();
        assert!(shown > 1.0, "{evidence}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_calls_split_by_salts_show_no_difference() {
    everywhere(async |setting| {
        if let Some(database) = setting.database {
            let data_dir = setting.sidecar.data_dir();
            let environment = [
                ("CHAPERONE_STORAGE__DATA_DIR", data_dir.path().to_str().unwrap()),
                ("DATABASE_URL", database.url.as_str()),
            ];
            let arguments = ["aa", "--salts", "200", "--looks", "5", "--from", FROM, "--to", TO];
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_chaperone"));
            let done = command.args(arguments).envs(environment).output().unwrap();
            let told = String::from_utf8(done.stderr).unwrap();
            let report: Value =
                serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{told}"));
            let rows = setting
                .number(&format!("select count(*) from prompt_executions where {PERIOD}"))
                .await;
            assert_eq!(report["executions"].as_f64(), rows, "{told}");
            assert_eq!((&report["salts"], &report["units"]), (&Value::from(200), &Value::from(50)));
            assert_eq!(report["metrics"].as_array().unwrap().len(), 3);
            assert_eq!(done.status.success(), report["passed"] == true);
            let nobody = ["aa", "--template", "nothing-of-the-kind"];
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_chaperone"));
            let refused = command.args(nobody).envs(environment).output().unwrap();
            let told = String::from_utf8(refused.stderr).unwrap();
            assert!(!refused.status.success() && told.contains("nothing to split"), "{told}");
        }
    })
    .await;
}
