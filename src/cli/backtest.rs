//! `chaperone backtest`: a guardrail of a file on the executions of the configured store.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;

use super::{say, settings};
use crate::app;
use crate::backtest::{Asked, Backtest, EXAMPLES_DEFAULT, LIMIT_DEFAULT, Period};
use crate::catalog::definitions::Definitions;
use crate::guardrail::Rule;
use crate::words::clock;

/// How often it says how far it is.
const PROGRESS: Duration = Duration::from_secs(1);

/// Which guardrail on which executions.
#[derive(Debug, clap::Args)]
pub struct Past {
    /// The guardrail: a .toml as in config/guardrails, which need not be in the store
    file: PathBuf,
    /// Executions from this moment on (RFC 3339) [default: 7 days before --to]
    #[arg(long)]
    from: Option<Timestamp>,
    /// Up to this one, exclusive [default: now]
    #[arg(long)]
    to: Option<Timestamp>,
    /// Executions that are read, newest first
    #[arg(long, default_value_t = LIMIT_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Executions that are shown
    #[arg(long, default_value_t = EXAMPLES_DEFAULT)]
    examples: usize,
    /// Also show what was matched
    #[arg(long)]
    show_text: bool,
}

/// Looks at executions, says on standard error how far it is, and prints the report as JSON.
pub async fn backtest(file: Option<&Path>, past: &Past) -> anyhow::Result<()> {
    let settings = settings(file)?;
    let name = past.file.file_name().unwrap_or_default().to_string_lossy();
    let content =
        std::fs::read_to_string(&past.file).with_context(|| format!("{}", past.file.display()))?;
    let mut definitions = Definitions::default();
    definitions.add_file(&format!("guardrails/{name}"), &content)?;
    let definition = definitions.guardrails.first();
    let definition = definition.with_context(|| {
        format!("{} is no guardrail; its name must end in .toml", past.file.display())
    })?;
    let period = Period::new(past.from, past.to, clock::now()).map_err(anyhow::Error::msg)?;
    let asked = Asked {
        tenant: definition.tenant_id.clone(),
        period,
        after: None,
        limit: past.limit,
        examples: past.examples,
        show_text: past.show_text,
    };
    let store = app::open_store(&settings)?;
    let mut backtest = Backtest::new(Rule::from(definition.as_ref()), asked)?;
    while !backtest.report().complete {
        backtest.advance(store.as_ref(), clock::monotonic() + PROGRESS).await?;
        let report = backtest.report();
        let line = format!(
            "{} executions, at most {} are read; {} would be blocked",
            report.executions, past.limit, report.would_block
        );
        // A closed output is no reason to stop.
        drop(writeln!(std::io::stderr(), "{line}"));
    }
    say(serde_json::to_string_pretty(backtest.report()).context("the report")?);
    Ok(())
}
