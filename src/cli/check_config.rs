//! `chaperone check-config`: the settings and the files of the catalog, without starting anything.

use std::path::Path;

use super::{say, settings};
use crate::app;

/// Prints `ok`, or fails with every mistake.
pub fn check_config(file: Option<&Path>) -> anyhow::Result<()> {
    let problems = app::check(&settings(file)?);
    if !problems.is_empty() {
        let lines: Vec<String> = problems.iter().map(|problem| format!("  {problem:#}")).collect();
        anyhow::bail!("what the configuration names has mistakes:\n{}", lines.join("\n"));
    }
    say("the configuration is ok");
    Ok(())
}
