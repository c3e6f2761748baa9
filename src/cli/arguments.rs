//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::aa::Replay;
use super::backtest::Past;
use super::dataset::Wanted;

/// A sidecar proxy for the Gemini API: prompt templates, A/B tests, guardrails, and a record of every
/// call.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    /// The configuration file [default: the one `CHAPERONE_CONFIG` names, else config/chaperone.toml if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy
    Serve,
    /// Prepare, inspect or undo the tables of the store
    Migrate {
        /// Which way
        #[command(subcommand)]
        step: MigrateStep,
    },
    /// Check the configuration, print every mistake, and exit
    CheckConfig,
    /// Inspect text on standard input with the guardrails of the configuration directory
    Scan {
        /// One JSON object {"text"} a line in, one verdict a line out
        #[arg(long)]
        jsonl: bool,
        /// Which way the text travels
        #[arg(long, value_enum, default_value_t = Direction::Request)]
        direction: Direction,
    },
    /// Fill in a template of the configuration directory and inspect it, without a call
    Render(Rendering),
    /// Measure the guardrails of the configuration directory on labelled texts, source by source
    Eval {
        /// Where the texts are: .jsonl or .jsonl.gz, lines of {"text", "label", "source"}; label 1 should be found
        dir: PathBuf,
        /// Which way the texts travel
        #[arg(long, value_enum, default_value_t = Direction::Request)]
        direction: Direction,
    },
    /// Try a guardrail on the prompts of recorded executions: what would it have blocked?
    Backtest(Past),
    /// Split recorded executions by many salts: does the analysis see differences where there are none?
    Aa(Replay),
    /// Print the prompts of a template and how they turned out, for whoever looks for a better one
    Dataset(Wanted),
    /// Make, list or take away tokens of the admin API; a running proxy follows at once
    Token {
        /// What to do
        #[command(subcommand)]
        step: TokenStep,
    },
    /// Make a price table of one that others keep
    Prices {
        /// What to do
        #[command(subcommand)]
        step: PricesStep,
    },
    /// Write the whole catalog of the store as files
    Export {
        /// Where to; made if it is not there
        dir: PathBuf,
    },
    /// Bring a catalog of files into the store; nothing becomes active that was not
    Import {
        /// Where from: templates/, guardrails/ and experiments/ below it
        dir: PathBuf,
        /// Also put in force what the files say is active
        #[arg(long)]
        activate: bool,
    },
    /// Run a stand-in for Gemini
    SimulateGemini {
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:8089")]
        listen: SocketAddr,
    },
    /// Exit with 0 if a running proxy answers /healthz, for container health checks
    Health,
}

/// Which way to migrate.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum MigrateStep {
    /// Run every migration that has not run, and put in the seeds
    Up,
    /// Undo migrations, newest first, in one transaction; executions and the audit are archived first
    Down {
        /// Keep this migration and those before it; 0 undoes all
        #[arg(long, default_value_t = 0, value_name = "VERSION")]
        to: i32,
    },
    /// Show what has run
    Status,
}

/// A template and its variables.
#[derive(Debug, Clone, Args)]
pub struct Rendering {
    /// Its name: the active version; or NAME@VERSION
    pub template: String,
    /// A JSON object, or - for one on standard input
    #[arg(long, value_name = "JSON")]
    pub variables: Option<String>,
}

/// What to do with prices.
#[derive(Debug, Clone, Subcommand)]
pub enum PricesStep {
    /// Print `LiteLLM`'s or genai-prices' prices of Gemini models as a table for config/prices.toml
    Import {
        /// `model_prices_and_context_window.json` of the one, or `data.json` of the other
        file: PathBuf,
    },
}

/// What to do with tokens.
#[derive(Debug, Clone, Subcommand)]
pub enum TokenStep {
    /// Make a token and print it, once
    Add {
        /// Who holds it: stands in the audit
        name: String,
        /// What it allows
        #[arg(long, value_enum, default_value_t = TokenRole::Viewer)]
        role: TokenRole,
    },
    /// Show who holds a token
    List,
    /// Take a token away
    Remove {
        /// Whose
        name: String,
    },
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenRole {
    /// Reads and writes
    SuperAdmin,
    /// Only reads
    Viewer,
    /// Only sends feedback
    Feedback,
}

/// Which way a text travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// To Gemini
    Request,
    /// Back to the application
    Response,
}
