//! The command line: one file per subcommand, `serve` excepted, which is the application itself.

mod aa;
mod arguments;
mod backtest;
mod check_config;
mod dataset;
mod eval;
mod health;
mod migrate;
mod prices;
mod render;
mod scan;
mod simulate;
mod token;
mod transfer;

use std::io::Write;
use std::path::Path;

use crate::config::{self, Settings};

pub use aa::{Replay, aa};
pub use arguments::{Arguments, Command, Direction, MigrateStep, PricesStep, Rendering, TokenStep};
pub use backtest::{Past, backtest};
pub use check_config::check_config;
pub use dataset::{Wanted, dataset};
pub use eval::eval;
pub use health::health;
pub use migrate::migrate;
pub use prices::prices;
pub use render::render;
pub use scan::scan;
pub use simulate::simulate;
pub use token::token;
pub use transfer::{export, import};

/// The settings, or all mistakes in one error.
pub fn settings(file: Option<&Path>) -> anyhow::Result<Settings> {
    config::load(file, &config::environment()).map_err(|mistakes| {
        let lines: Vec<String> = mistakes.iter().map(|mistake| format!("  {mistake}")).collect();
        anyhow::anyhow!("the configuration has mistakes:\n{}", lines.join("\n"))
    })
}

/// One line on standard output. A closed output is not an error worth a panic.
fn say(line: impl std::fmt::Display) {
    drop(writeln!(std::io::stdout(), "{line}"));
}
