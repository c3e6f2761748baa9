//! Configuration: one TOML file and the environment over it, checked into values that cannot be
//! wrong.
//!
//! The only module that reads environment variables. All mistakes are reported at once, each with
//! its key, what is wrong and what is allowed.

mod export;
mod key;
mod reader;
mod retention;
mod retries;
mod routes;
mod settings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use export::{Collector, Export, JsonLinesTo};
pub use key::{ApiKey, CallerKeys, KeySource};
pub use reader::Mistake;
pub use retention::{PartitionBy, Retention};
pub use retries::Retries;
pub use routes::{RouteRule, VariableSource};
pub use settings::{
    Audit, BlockReply, Catalog, Control, Data, Database, Durability, GuardrailSettings, Limits,
    Log, LogFormat, Settings, Storage, StorePrompts, TlsFiles, Unscannable, Upstream, WhenFull,
};

/// Where the file is looked for when nothing names it.
const DEFAULT_FILE: &str = "config/chaperone.toml";

/// The environment as a map, so that tests can bring their own.
pub type Environment = BTreeMap<String, String>;

/// This process's environment. Variables that are not UTF-8 are left out.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Reads the file (the one named, else `CHAPERONE_CONFIG`, else the default if it is there) and the
/// environment.
pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Settings, Vec<Mistake>> {
    let named = file
        .map(Path::to_path_buf)
        .or_else(|| environment.get("CHAPERONE_CONFIG").map(PathBuf::from));
    let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            String::new()
        }
        Err(error) => {
            let key = path.display().to_string();
            return Err(vec![Mistake { key, what: format!("cannot be read: {error}") }]);
        }
    };
    Settings::read(&text, environment)
}

#[cfg(test)]
mod tests;
