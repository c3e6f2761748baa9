//! `chaperone export` and `chaperone import`: the whole catalog as files.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use uuid::Uuid;

use super::{say, settings};
use crate::app;
use crate::catalog::definitions::{Definition, Definitions, Status, TemplateDefinition};
use crate::catalog::{Catalog, Source};
use crate::store::audit::Entry;
use crate::store::sources::from_directory;
use crate::store::{Activation, Change, Expect, Move, RowQuery, Store, Table};
use crate::words::clock;

const ACTOR: &str = "command line";

/// Writes the catalog of the store below `dir`.
pub async fn export(file: Option<&Path>, dir: &Path) -> anyhow::Result<()> {
    let settings = settings(file)?;
    let definitions = app::open_store(&settings)?.changed(None).await?.definitions;
    let files = definitions.to_files()?;
    for (name, content) in &files {
        let path = dir.join(name);
        let folder = path.parent().unwrap_or(dir);
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        std::fs::write(&path, content).with_context(|| path.display().to_string())?;
    }
    let [templates, guardrails, experiments] = definitions.counts();
    say(format_args!(
        "{templates} template versions, {guardrails} guardrails and {experiments} experiments are in {}",
        dir.display()
    ));
    Ok(())
}

/// Brings the catalog below `dir` into the store, whole or not at all.
pub async fn import(file: Option<&Path>, dir: &Path, activate: bool) -> anyhow::Result<()> {
    let settings = settings(file)?;
    let given = from_directory(dir).map_err(|why| anyhow::anyhow!(why))?;
    // Ordered as in every source; two files of one id or place would lose one.
    let [templates, guardrails, experiments] = given.counts();
    let given = Definitions::default().updated(given, true);
    Catalog::compile(given.clone(), Source::File, 1, clock::now())?;
    let store = app::open_store(&settings)?;
    let known = store.changed(None).await?.definitions;
    let mut import = Import { change: Change::default(), activate, waiting: Vec::new() };
    import.templates(&given, &known)?;
    import.guardrails(store.as_ref(), &given, &known).await?;
    import.experiments(&given, &known)?;
    if activate {
        import.activations(store.as_ref(), &given, &known).await?;
    }
    let (made, waiting) = (import.change.audit.len(), import.waiting);
    if made > 0 {
        store.commit(&import.change).await?;
    }
    say(format_args!(
        "read {templates} template versions, {guardrails} guardrails and {experiments} experiments; \
         made {made} changes"
    ));
    for name in &waiting {
        say(format_args!("not in force: {name}"));
    }
    if !waiting.is_empty() {
        say("put them in force through the admin API, or import with --activate");
    }
    Ok(())
}

struct Import {
    change: Change,
    activate: bool,
    /// What the files say is active and this import left alone.
    waiting: Vec<String>,
}

impl Import {
    /// Versions are immutable: one that is there must be the same.
    fn templates(&mut self, given: &Definitions, known: &Definitions) -> anyhow::Result<()> {
        let by_place: HashMap<_, _> =
            known.templates.iter().map(|one| (one.place(), one)).collect();
        let by_id: HashMap<_, _> = known.templates.iter().map(|one| (one.id(), one)).collect();
        for one in &given.templates {
            let shown =
                format!("template {}@{} of tenant {}", one.name, one.version, one.tenant_id);
            if let Some(there) = by_place.get(&one.place()).or_else(|| by_id.get(&one.id())) {
                if there.id() != one.id() || content(there) != content(one) {
                    bail!(
                        "{shown} is in the store with another id or content; give the file's the next version"
                    );
                }
                continue;
            }
            let version = TemplateDefinition { is_active: false, ..stamped(one) };
            if one.is_active && !self.activate {
                self.waiting.push(shown);
            }
            self.expect(Table::Templates, one.id());
            self.note("template.import", "template", one.as_ref(), one.id());
            self.change.puts.templates.push(Arc::new(version));
        }
        Ok(())
    }

    async fn guardrails(
        &mut self,
        store: &dyn Store,
        given: &Definitions,
        known: &Definitions,
    ) -> anyhow::Result<()> {
        let by_place: HashMap<_, _> =
            known.guardrails.iter().map(|one| (one.place(), one)).collect();
        for one in &given.guardrails {
            let there = by_place.get(&one.place());
            let mut new = one.as_ref().clone();
            new.id = there.map_or(one.id, |there| there.id);
            new.is_active = match there {
                _ if self.activate => one.is_active,
                Some(there) => there.is_active,
                None => false,
            };
            (new.created_by, new.created_at) = match there {
                Some(there) => (there.created_by.clone(), there.created_at),
                None => (one.created_by.clone(), one.created_at.or(Some(clock::now_micros()))),
            };
            (new.updated_by, new.updated_at) = there
                .map_or((one.updated_by.clone(), one.updated_at), |one| {
                    (one.updated_by.clone(), one.updated_at)
                });
            if one.is_active && !new.is_active {
                self.waiting.push(format!("guardrail {} of tenant {}", one.name, one.tenant_id));
            }
            if there.is_some_and(|there| there.as_ref() == &new) {
                continue;
            }
            match there {
                Some(there) => self.hold(store, Table::Guardrails, there.as_ref()).await?,
                None => self.expect(Table::Guardrails, new.id()),
            }
            (new.updated_by, new.updated_at) = (Some(ACTOR.to_owned()), Some(clock::now_micros()));
            self.note("guardrail.import", "guardrail", &new, new.id());
            self.change.puts.guardrails.push(Arc::new(new));
        }
        Ok(())
    }

    /// An experiment that ran elsewhere is a draft here until somebody starts it.
    fn experiments(&mut self, given: &Definitions, known: &Definitions) -> anyhow::Result<()> {
        let by_place: HashMap<_, _> =
            known.experiments.iter().map(|one| (one.place(), one)).collect();
        for one in &given.experiments {
            let shown = format!("experiment {} of tenant {}", one.name, one.tenant_id);
            if let Some(there) = by_place.get(&one.place()) {
                if there.id() != one.id() {
                    bail!("{shown} is in the store with another id");
                }
                continue;
            }
            let mut new = one.as_ref().clone();
            let runs = matches!(one.status, Status::Active | Status::Paused);
            if runs && !self.activate {
                new.status = Status::Draft;
                self.waiting.push(shown);
            }
            new.created_at = new.created_at.or(Some(clock::now_micros()));
            self.expect(Table::Experiments, one.id());
            self.note("experiment.import", "experiment", &new, one.id());
            self.change.puts.experiments.push(Arc::new(new));
        }
        Ok(())
    }

    /// Puts the versions in force that the files say are.
    async fn activations(
        &mut self,
        store: &dyn Store,
        given: &Definitions,
        known: &Definitions,
    ) -> anyhow::Result<()> {
        for one in given.templates.iter().filter(|one| one.is_active) {
            let active = known.templates.iter().find(|there| {
                there.is_active && (&there.tenant_id, &there.name) == (&one.tenant_id, &one.name)
            });
            if active.is_some_and(|active| active.id == one.id) {
                continue;
            }
            if let Some(active) = active {
                self.hold(store, Table::Templates, active.as_ref()).await?;
                let off = TemplateDefinition { is_active: false, ..active.as_ref().clone() };
                self.change.puts.templates.push(Arc::new(off));
            }
            if known.templates.iter().any(|there| there.id == one.id) {
                self.hold(store, Table::Templates, one.as_ref()).await?;
            }
            self.change.activations.push(Activation {
                id: Uuid::now_v7(),
                tenant_id: one.tenant_id.clone(),
                template_name: one.name.clone(),
                template_id: Some(one.id),
                restores_id: active.map(|active| active.id),
                action: Move::Activate,
                actor: ACTOR.to_owned(),
                reason: Some("import".to_owned()),
                request_id: None,
                at: clock::now_micros(),
            });
            self.note("template.activate", "template", one.as_ref(), one.id());
            self.change.puts.templates.push(Arc::new(stamped(one)));
        }
        Ok(())
    }

    /// It must not be there yet.
    fn expect(&mut self, table: Table, id: Uuid) {
        self.change.expects.push(Expect { table, id, revision: None });
    }

    /// It must not move until this is carried out.
    async fn hold(
        &mut self,
        store: &dyn Store,
        table: Table,
        definition: &impl Definition,
    ) -> anyhow::Result<()> {
        let query =
            RowQuery { id: Some(definition.id()), ..RowQuery::of(table, definition.place().0) };
        let row = store.rows(&query).await?.into_iter().next();
        let revision = row.map(|row| row.revision);
        self.change.expects.push(Expect { table, id: definition.id(), revision });
        Ok(())
    }

    fn note(
        &mut self,
        action: &str,
        kind: &'static str,
        after: &(impl Definition + serde::Serialize),
        id: Uuid,
    ) {
        self.change.audit.push(Entry {
            id: Uuid::now_v7(),
            tenant_id: after.place().0.clone(),
            at: clock::now_micros(),
            actor: ACTOR.to_owned(),
            action: action.to_owned(),
            object_type: kind,
            object_id: id.to_string(),
            before: None,
            after: serde_json::to_string(after).ok(),
            reason: None,
            request_id: None,
        });
    }
}

/// With the time it was made, which files may leave out.
fn stamped(one: &TemplateDefinition) -> TemplateDefinition {
    let made = one.created_at.or(Some(clock::now_micros()));
    TemplateDefinition { created_at: made, updated_at: one.updated_at.or(made), ..one.clone() }
}

/// What of a version can never change.
fn content(one: &TemplateDefinition) -> impl PartialEq {
    (
        (
            one.category.clone(),
            one.template_text.clone(),
            one.template_syntax,
            one.messages.clone(),
        ),
        (one.target, one.variables.clone(), one.model_config.clone(), one.parent_version_id),
    )
}
