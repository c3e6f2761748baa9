//! `chaperone dataset`: what calls on a template were asked and how they turned out, for whoever looks for a
//! better template: a person, or an optimiser that lives elsewhere.
//!
//! Only of templates whose users agreed (`audit.consented_templates`), and never who they were. What comes back
//! comes as files (`chaperone import`), as versions that are not active.

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{settings, transfer};
use crate::app;
use crate::backtest::Period;
use crate::store::audit::Entry;
use crate::store::{Change, Cursor, ExecutionQuery, Store};
use crate::words::clock;
use crate::words::ids::Tenant;

/// Executions of a page: prompts are long, and a page is in memory as a whole.
const PAGE: u32 = 100;
/// What of an execution is told: its prompt and how it turned out; nothing of who asked.
const TOLD: [&str; 17] = [
    "id",
    "created_at",
    "template_name",
    "template_version",
    "ab_test_group",
    "variables_used",
    "rendered_prompt",
    "model_name",
    "model_config",
    "outcome",
    "error_type",
    "finish_reason",
    "execution_time_ms",
    "prompt_tokens",
    "candidates_tokens",
    "estimated_cost_usd",
    "feedback",
];

/// Which executions.
#[derive(Debug, clap::Args)]
pub struct Wanted {
    /// The template's name; `audit.consented_templates` must name it
    template: String,
    /// Whose
    #[arg(long, default_value = Tenant::DEFAULT)]
    tenant: String,
    /// Executions from this moment on (RFC 3339) [default: 7 days before --to]
    #[arg(long)]
    from: Option<Timestamp>,
    /// Up to this one, exclusive [default: now]
    #[arg(long)]
    to: Option<Timestamp>,
    /// Executions at most, newest first
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Prints executions as JSON lines; on standard error, how many, and how many keep no prompt. The audit says
/// that it was done before anything is printed.
pub async fn dataset(file: Option<&Path>, wanted: &Wanted) -> anyhow::Result<()> {
    let settings = settings(file)?;
    if !settings.audit.consented_templates.contains(&wanted.template) {
        bail!(
            "audit.consented_templates does not name {:?}: say there that its users agreed to this use of \
             their prompts",
            wanted.template
        );
    }
    let period = Period::new(wanted.from, wanted.to, clock::now()).map_err(anyhow::Error::msg)?;
    let tenant = Tenant(wanted.tenant.as_str().into());
    let store = app::open_store(&settings)?;
    let audit = vec![entry(wanted, &tenant, period)];
    store.commit(&Change { audit, ..Change::default() }).await?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let query = ExecutionQuery {
        tenant,
        limit: PAGE,
        template: Some(wanted.template.clone()),
        after: Some(Cursor { created_at: period.to, id: Uuid::nil() }),
        ..ExecutionQuery::default()
    };
    let told = tell(store.as_ref(), query, (period.from, wanted.limit), &mut out).await?;
    out.flush().context("standard output")?;
    let [told, without] = told;
    drop(writeln!(
        std::io::stderr(),
        "{told} executions; {without} more keep only the hash of their prompt"
    ));
    Ok(())
}

/// Writes executions page by page: how many, and how many were left out because they keep no prompt.
async fn tell(
    store: &dyn Store,
    mut query: ExecutionQuery,
    (from, limit): (Timestamp, u32),
    out: &mut impl Write,
) -> anyhow::Result<[u32; 2]> {
    let (mut told, mut without) = (0, 0);
    loop {
        let rows = store.executions(&query).await?;
        let is_last = rows.len() < PAGE as usize;
        for row in rows {
            let text = |name| row.get(name).and_then(Value::as_str).unwrap_or_default();
            let created_at: Timestamp = text("created_at").parse().context("created_at")?;
            query.after = Some(Cursor { created_at, id: text("id").parse().context("id")? });
            if created_at < from || told == limit {
                return Ok([told, without]);
            }
            // Kept whole it is a list of messages; else it is a hash, or what a refused call never had.
            if !row.get("rendered_prompt").is_some_and(Value::is_array) {
                without += 1;
                continue;
            }
            writeln!(out, "{}", line(row)).context("standard output")?;
            told += 1;
        }
        if is_last {
            return Ok([told, without]);
        }
    }
}

fn line(mut row: Value) -> Value {
    let mut take = |name: &str| row.get_mut(name).map(Value::take).unwrap_or_default();
    Value::Object(TOLD.iter().map(|name| ((*name).to_owned(), take(name))).collect::<Map<_, _>>())
}

fn entry(wanted: &Wanted, tenant: &Tenant, period: Period) -> Entry {
    let after = json!({"from": period.from, "to": period.to, "limit": wanted.limit});
    Entry {
        id: Uuid::now_v7(),
        tenant_id: tenant.clone(),
        at: clock::now_micros(),
        actor: transfer::ACTOR.to_owned(),
        action: "template.dataset".to_owned(),
        object_type: "template",
        object_id: wanted.template.clone(),
        before: None,
        after: Some(after.to_string()),
        reason: None,
        request_id: None,
    }
}
