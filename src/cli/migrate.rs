//! `chaperone migrate`: six checked steps, each said as it is done.

use std::path::Path;

use anyhow::bail;

use super::arguments::MigrateStep;
use super::{say, settings};
use crate::app;
use crate::store::{MigrationState, Store};

/// Migrates the configured store.
pub async fn migrate(file: Option<&Path>, step: MigrateStep) -> anyhow::Result<()> {
    let settings = settings(file)?;
    say("1 configuration: ok");
    app::make_data_dir(&settings.storage.data_dir)?;
    let store = app::open_store(&settings)?;
    let state = store.migration_state().await?;
    say(format_args!("2 {} reached", store.kind()));
    if !state.unknown.is_empty() {
        bail!(
            "a newer binary migrated this store: versions {:?} are not known here",
            state.unknown
        );
    }
    show(&state);
    match step {
        MigrateStep::Status => Ok(()),
        MigrateStep::Up => up(store.as_ref(), &state).await,
        MigrateStep::Down { to } => down(store.as_ref(), &state, to).await,
    }
}

fn show(state: &MigrationState) {
    for step in &state.steps {
        let when = step
            .applied_at
            .as_deref()
            .map_or("has not run".to_owned(), |at| format!("ran at {at}"));
        say(format_args!("3 migration {} {}: {when}", step.version, step.name));
    }
}

async fn up(store: &dyn Store, state: &MigrationState) -> anyhow::Result<()> {
    if state.is_current() {
        say("nothing to do");
        return Ok(());
    }
    say("4 checkpoint: nothing would be lost");
    let migrated = store.migrate_up().await?;
    say(format_args!("5 ran {:?}, each in one transaction", migrated.versions));
    verify(store, migrated.versions.contains(&1)).await
}

async fn down(store: &dyn Store, state: &MigrationState, to: i32) -> anyhow::Result<()> {
    if state.steps.iter().all(|step| step.version <= to || step.applied_at.is_none()) {
        say("nothing to do");
        return Ok(());
    }
    let [templates, guardrails, executions] = state.rows;
    if to < 1 {
        say(format_args!(
            "4 checkpoint: {templates} template versions and {guardrails} guardrails will be \
             dropped; {executions} executions and the audit are archived"
        ));
    } else {
        say(format_args!("4 checkpoint: templates, guardrails and executions stay"));
    }
    let migrated = store.migrate_down(to).await?;
    say(format_args!("5 undid {:?} in one transaction", migrated.versions));
    let state = store.migration_state().await?;
    if state
        .steps
        .iter()
        .any(|step| migrated.versions.contains(&step.version) && step.applied_at.is_some())
    {
        bail!("the migration is still marked as run");
    }
    let archived = migrated.archived;
    say(if to < 1 {
        format!("6 verified: {archived} executions are in chaperone_archive_executions")
    } else {
        format!("6 verified: the schema is at {to}")
    });
    Ok(())
}

/// The seeds must be there where the tables are new; what an admin has removed may stay away.
async fn verify(store: &dyn Store, is_new: bool) -> anyhow::Result<()> {
    let state = store.migration_state().await?;
    let definitions = store.changed(None).await?.definitions;
    let is_bare = definitions.templates.is_empty() || definitions.guardrails.is_empty();
    if !state.is_current() || (is_new && is_bare) {
        bail!("the tables or the seeds are not there after the migration");
    }
    say(format_args!(
        "6 verified: {} template versions, {} guardrails",
        definitions.templates.len(),
        definitions.guardrails.len()
    ));
    Ok(())
}
