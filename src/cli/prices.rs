//! `chaperone prices`: other people's price tables.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context;

use super::arguments::PricesStep;
use super::say;
use crate::price::import;
use crate::words::clock;

/// Prints a table made of another's on standard output, and what it did not take on standard error.
pub fn prices(step: &PricesStep) -> anyhow::Result<()> {
    let PricesStep::Import { file } = step;
    let json = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let version = format!("{}, {}", name(file), clock::now().strftime("%Y-%m-%d"));
    let imported = import::import(&json, &version).with_context(|| file.display().to_string())?;
    say(imported.toml.trim_end());
    let mut errors = std::io::stderr();
    for (model, why) in &imported.left_out {
        drop(writeln!(errors, "left out: {model}: {why}"));
    }
    drop(writeln!(errors, "{} models taken", imported.taken));
    Ok(())
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
