//! The admin token: configured, or made at first start and kept where only the owner can read it.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::Context;
use uuid::Uuid;

use crate::config::Settings;
use crate::telemetry::events;
use crate::words::secret::Secret;

/// The file under the data directory.
const FILE: &str = "admin-token";
const OWNER_ONLY: u32 = 0o600;

/// The super admin's token.
pub(super) fn super_admin(settings: &Settings) -> anyhow::Result<Secret> {
    if let Some(token) = &settings.control.super_admin_token {
        return Ok(token.clone());
    }
    let path = settings.storage.data_dir.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(token) if !token.trim().is_empty() => return Ok(Secret::new(token.trim())),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    }
    let token = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(OWNER_ONLY)
        .open(&path)
        .with_context(|| path.display().to_string())?;
    writeln!(file, "{token}").with_context(|| path.display().to_string())?;
    events::token_made(&path.display().to_string());
    Ok(Secret::new(token))
}
