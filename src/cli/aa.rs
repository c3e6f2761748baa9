//! `chaperone aa`: recorded executions split by many salts, through the analysis of experiments. There is no
//! difference to be found, so whatever it finds is a false alarm.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use jiff::Timestamp;
use serde_json::Value;

use super::{say, settings};
use crate::app;
use crate::backtest::Period;
use crate::results::placebo::{Call, Trial, by_hash, placebo};
use crate::statistics::Alpha;
use crate::store::{Cursor, ExecutionQuery, Store};
use crate::words::clock;
use crate::words::ids::Tenant;

/// Executions that are read at a time.
const PAGE: u32 = 500;

/// Which executions, and how often.
#[derive(Debug, clap::Args)]
pub struct Replay {
    /// Only of this template
    #[arg(long)]
    template: Option<String>,
    /// Whose executions
    #[arg(long, default_value = Tenant::DEFAULT)]
    tenant: String,
    /// Executions from this moment on (RFC 3339) [default: 7 days before --to]
    #[arg(long)]
    from: Option<Timestamp>,
    /// Up to this one, exclusive [default: now]
    #[arg(long)]
    to: Option<Timestamp>,
    /// Executions that are read, newest first
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Splits
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(50..=100_000))]
    salts: u32,
    /// Looks at each split, evenly over the executions
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    looks: u32,
}

/// Reads executions, splits them, and prints the report as JSON. Fails when it is not as promised.
pub async fn aa(file: Option<&Path>, replay: &Replay) -> anyhow::Result<()> {
    let settings = settings(file)?;
    let store = app::open_store(&settings)?;
    let (calls, nameless) = calls(store.as_ref(), replay).await?;
    anyhow::ensure!(
        !calls.is_empty(),
        "no execution of this period names a user ({nameless} name none): there is nothing to split"
    );
    let trial = Trial { salts: replay.salts, looks: replay.looks, alpha: Alpha::FIVE_PERCENT };
    let line = format!("{} executions, {nameless} more without a user", calls.len());
    // A closed output is no reason to stop.
    drop(writeln!(std::io::stderr(), "{line}"));
    let found = placebo(&calls, trial, by_hash);
    say(serde_json::to_string_pretty(&found).context("the report")?);
    anyhow::ensure!(
        found.passed,
        "the analysis does not keep what it promises on these executions"
    );
    Ok(())
}

/// Calls in the order they came, and how many named no unit.
async fn calls(store: &dyn Store, replay: &Replay) -> anyhow::Result<(Vec<Call>, usize)> {
    let period = Period::new(replay.from, replay.to, clock::now()).map_err(anyhow::Error::msg)?;
    let mut after = Some(Cursor { created_at: period.to, id: uuid::Uuid::nil() });
    let (mut calls, mut nameless, mut read) = (Vec::new(), 0, 0);
    while read < replay.limit {
        let query = ExecutionQuery {
            tenant: Tenant(replay.tenant.as_str().into()),
            limit: PAGE.min(replay.limit - read),
            after,
            template: replay.template.clone(),
            ..ExecutionQuery::default()
        };
        let rows = store.executions(&query).await?;
        for row in &rows {
            read += 1;
            let place = place(row).context("an execution without id or time")?;
            if place.created_at < period.from {
                read = replay.limit;
                break;
            }
            after = Some(place);
            match call(row) {
                Some(call) => calls.push(call),
                None => nameless += 1,
            }
        }
        if rows.len() < query.limit as usize {
            break;
        }
    }
    calls.reverse();
    Ok((calls, nameless))
}

fn place(row: &Value) -> Option<Cursor> {
    let text = |name| row.get(name).and_then(Value::as_str);
    Some(Cursor { created_at: text("created_at")?.parse().ok()?, id: text("id")?.parse().ok()? })
}

fn call(row: &Value) -> Option<Call> {
    let text = |name| row.get(name).and_then(Value::as_str);
    let unit = text("user_id").or_else(|| text("unit_key"))?.to_owned();
    let reached = !matches!(text("outcome"), Some("blocked" | "rejected"));
    let ms = row.get("execution_time_ms").and_then(Value::as_f64);
    Some(Call {
        unit,
        success: row.get("success").and_then(Value::as_bool).unwrap_or_default(),
        response_ms: ms.filter(|_| reached),
        cost_usd: text("cost_list_usd")
            .or_else(|| text("estimated_cost_usd"))
            .and_then(|cost| cost.parse().ok()),
    })
}
