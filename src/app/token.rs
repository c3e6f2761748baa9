//! Secrets of this installation: configured, or made at first start and kept where only the owner can read
//! them.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::Context;
use uuid::Uuid;

use crate::config::Settings;
use crate::telemetry::events;
use crate::words::secret::Secret;

/// Files under the data directory.
const ADMIN_TOKEN: &str = "admin-token";
const PLACEHOLDER_KEY: &str = "placeholder-key";
const OWNER_ONLY: u32 = 0o600;

/// The super admin's token.
pub(super) fn super_admin(settings: &Settings) -> anyhow::Result<Secret> {
    kept(settings, settings.control.super_admin_token.as_ref(), ADMIN_TOKEN)
}

/// What the placeholders of redacted values depend on.
pub(super) fn placeholder_key(settings: &Settings) -> anyhow::Result<Secret> {
    kept(settings, settings.guardrails.placeholder_key.as_ref(), PLACEHOLDER_KEY)
}

fn kept(settings: &Settings, configured: Option<&Secret>, name: &str) -> anyhow::Result<Secret> {
    if let Some(secret) = configured {
        return Ok(secret.clone());
    }
    let path = settings.storage.data_dir.join(name);
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
    if name == ADMIN_TOKEN {
        events::token_made(&path.display().to_string());
    }
    Ok(Secret::new(token))
}
