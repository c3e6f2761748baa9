//! `chaperone check-config`: the settings and the files of the catalog, without starting anything.

use std::path::Path;

use super::{say, settings};

/// Prints `ok`, or fails with every mistake.
pub fn check_config(file: Option<&Path>) -> anyhow::Result<()> {
    let settings = settings(file)?;
    let prices = settings.catalog.config_dir.join("prices.toml");
    if let Ok(text) = std::fs::read_to_string(&prices) {
        crate::price::Prices::parse(&text)
            .map_err(|error| anyhow::anyhow!("{}: {error}", prices.display()))?;
    }
    say("the configuration is ok");
    Ok(())
}
