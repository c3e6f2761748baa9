//! Arguments, logging, one call into the library.

use std::process::ExitCode;

use anyhow::Context;
use chaperone::app::{App, signals};
use chaperone::cli::{self, Arguments, Command};
use chaperone::config::LogFormat;
use chaperone::telemetry::log;
use clap::Parser;

/// A mistake in the configuration or the arguments.
const MISTAKE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let ended = runtime.block_on(run(arguments));
    // A thread may still wait for somebody to read what it writes.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let file = arguments.config.as_deref();
    match arguments.command {
        Command::Serve => {
            let settings = cli::settings(file)?;
            let is_json = settings.log.format == LogFormat::Json;
            let _log = log::start(&settings.log.level, is_json).context("the log")?;
            Box::pin(App::build(settings)).await?.run(signals::stop).await
        }
        Command::Migrate { step } => cli::migrate(file, step).await,
        Command::CheckConfig => cli::check_config(file),
        Command::Scan { jsonl, direction } => cli::scan(file, jsonl, direction),
        Command::Eval { dir, direction } => cli::eval(file, &dir, direction),
        Command::Backtest(past) => cli::backtest(file, &past).await,
        Command::Aa(replay) => cli::aa(file, &replay).await,
        Command::Dataset(wanted) => cli::dataset(file, &wanted).await,
        Command::Token { step } => cli::token(file, step),
        Command::Render(asked) => cli::render(file, &asked),
        Command::Prices { step } => cli::prices(&step),
        Command::Export { dir } => cli::export(file, &dir).await,
        Command::Import { dir, activate } => cli::import(file, &dir, activate).await,
        Command::SimulateGemini { listen } => cli::simulate(listen).await,
        Command::Health => cli::health(file),
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a failed command")]
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("chaperone: {error:#}");
    ExitCode::from(MISTAKE)
}
