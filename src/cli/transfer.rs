//! `chaperone export` and `chaperone import`: the whole catalog as files.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use uuid::Uuid;

use super::{say, settings};
use crate::app;
use crate::catalog::definitions::{
    Definition, Definitions, Design, Exceptions, ExperimentDefinition, GuardrailDefinition, Status,
    TemplateDefinition,
};
use crate::catalog::{Catalog, Source, check};
use crate::store::audit::Entry;
use crate::store::sources::from_directory;
use crate::store::{Activation, Change, Expect, Move, Phase, RowQuery, Store, Table, Turn};
use crate::words::clock;

/// Who the audit says it was.
pub(super) const ACTOR: &str = "command line";

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
    alone(&given.templates)?;
    alone(&given.guardrails)?;
    alone(&given.experiments)?;
    let given = Definitions::default().updated(given, true);
    Catalog::compile(given.clone(), Source::File, 1, clock::now())?;
    let store = app::open_store(&settings)?;
    let known = store.changed(None).await?.definitions;
    let mut import = Import {
        known: &known,
        puts: Definitions::default(),
        activate,
        left: Vec::new(),
        change: Change::default(),
    };
    import.templates(&given)?;
    import.guardrails(&given);
    import.experiments(&given)?;
    // Nothing may come into the store that no sidecar could build a catalog from.
    let after = known.updated(import.puts.clone(), false);
    Catalog::compile(after, Source::Database, 1, clock::now())?;
    import.expectations(store.as_ref()).await?;
    let Import { mut change, puts, left, .. } = import;
    change.puts = puts;
    if !change.audit.is_empty() {
        store.commit(&change).await?;
    }
    let [templates, guardrails, experiments] = given.counts();
    say(format_args!(
        "read {templates} template versions, {guardrails} guardrails and {experiments} experiments; \
         made {} changes",
        change.audit.len()
    ));
    for name in &left {
        say(format_args!("left alone: {name}"));
    }
    if !left.is_empty() {
        say(
            "what is off goes on with --activate; what is different is changed through the admin API",
        );
    }
    Ok(())
}

/// Two files of one id or of one name and version would lose one.
fn alone(given: &[Arc<impl Definition>]) -> anyhow::Result<()> {
    let (mut ids, mut places) = (HashSet::new(), HashSet::new());
    for one in given {
        let (tenant, name, version) = one.place();
        if !ids.insert(one.id()) || !places.insert((tenant, name, version)) {
            bail!(
                "two files define {name:?} (version {version}) of tenant {tenant}, or its id {}",
                one.id()
            );
        }
    }
    Ok(())
}

struct Import<'k> {
    known: &'k Definitions,
    puts: Definitions,
    activate: bool,
    /// What the files would have otherwise, and this import leaves as it is.
    left: Vec<String>,
    change: Change,
}

impl Import<'_> {
    /// Versions are immutable: one that is there must be the same.
    fn templates(&mut self, given: &Definitions) -> anyhow::Result<()> {
        let known = self.known;
        let by_place: HashMap<_, _> =
            known.templates.iter().map(|one| (one.place(), one)).collect();
        let by_id: HashMap<_, _> = known.templates.iter().map(|one| (one.id(), one)).collect();
        for one in &given.templates {
            let shown =
                format!("template {}@{} of tenant {}", one.name, one.version, one.tenant_id);
            let there = by_place.get(&one.place()).or_else(|| by_id.get(&one.id())).copied();
            if there.is_some_and(|there| there.id != one.id || content(there) != content(one)) {
                bail!(
                    "{shown} is in the store with another id or content; \
                     give the file's the next version"
                );
            }
            let switches = one.is_active && !there.is_some_and(|there| there.is_active);
            if switches && !self.activate {
                self.left.push(format!("{shown} is not active"));
            }
            if there.is_none() {
                self.note("template.import", None::<&TemplateDefinition>, one.as_ref());
            }
            if switches && self.activate {
                check::template(one)
                    .map_err(|why| anyhow::anyhow!("{shown} cannot be activated: {why}"))?;
                self.switch(one, there);
            } else if there.is_none() {
                let version = TemplateDefinition { is_active: false, ..stamped(one) };
                self.puts.templates.push(Arc::new(version));
            }
        }
        Ok(())
    }

    /// Moves the pointer of a name to a version, new or there already. A version of a group takes the place of
    /// the one before in its group, and the pointer stays.
    fn switch(&mut self, one: &Arc<TemplateDefinition>, there: Option<&Arc<TemplateDefinition>>) {
        let now = clock::now_micros();
        let next = there.unwrap_or(one);
        let stamp = |version: &TemplateDefinition, is_active: bool| TemplateDefinition {
            is_active,
            deactivated_at: (!is_active).then_some(now),
            deactivated_by: (!is_active).then(|| ACTOR.to_owned()),
            updated_at: Some(now),
            updated_by: Some(ACTOR.to_owned()),
            ..stamped(version)
        };
        let active = self.known.templates.iter().find(|there| {
            there.is_active
                && there.ab_test_group == next.ab_test_group
                && (&there.tenant_id, &there.name) == (&one.tenant_id, &one.name)
        });
        if let Some(active) = active {
            self.puts.templates.push(Arc::new(stamp(active, false)));
        }
        let on = stamp(next, true);
        self.note("template.activate", active.map(Arc::as_ref), &on);
        self.puts.templates.push(Arc::new(on));
        if next.ab_test_group.is_some() {
            return;
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
            at: now,
        });
    }

    /// One that is there changes only when asked to: it may be in force.
    fn guardrails(&mut self, given: &Definitions) {
        let known = self.known;
        let by_place: HashMap<_, _> =
            known.guardrails.iter().map(|one| (one.place(), one)).collect();
        for one in &given.guardrails {
            let shown = format!("guardrail {} of tenant {}", one.name, one.tenant_id);
            let there = by_place.get(&one.place()).copied();
            let mut new = one.as_ref().clone();
            (new.updated_by, new.updated_at) = (Some(ACTOR.to_owned()), Some(clock::now_micros()));
            match there {
                None => {
                    if one.is_active && !self.activate {
                        self.left.push(format!("{shown} is not active"));
                        new.is_active = false;
                    }
                    new.created_at = new.created_at.or(new.updated_at);
                }
                Some(there) => {
                    new.id = there.id;
                    (new.created_by, new.created_at) = (there.created_by.clone(), there.created_at);
                    let as_there = GuardrailDefinition {
                        updated_by: there.updated_by.clone(),
                        updated_at: there.updated_at,
                        ..new.clone()
                    };
                    if as_there == **there {
                        continue;
                    }
                    if !self.activate {
                        self.left.push(format!("{shown} is different"));
                        continue;
                    }
                }
            }
            self.note("guardrail.import", there.map(Arc::as_ref), &new);
            self.puts.guardrails.push(Arc::new(new));
        }
    }

    /// An experiment that ran elsewhere is a draft here until somebody starts it.
    fn experiments(&mut self, given: &Definitions) -> anyhow::Result<()> {
        let known = self.known;
        let by_place: HashMap<_, _> =
            known.experiments.iter().map(|one| (one.place(), one)).collect();
        for one in &given.experiments {
            let shown = format!("experiment {} of tenant {}", one.name, one.tenant_id);
            let there = by_place.get(&one.place()).copied();
            if there.is_some_and(|there| there.id != one.id) {
                bail!("{shown} is in the store with another id");
            }
            let runs = matches!(one.status, Status::Active | Status::Paused);
            let mut new = one.as_ref().clone();
            if let Some(there) = there {
                let is_held_back = runs && there.status == Status::Draft;
                if set_up(there) != set_up(one) {
                    self.left.push(format!("{shown} is different"));
                    continue;
                }
                if !is_held_back {
                    continue;
                }
                (new.created_by, new.created_at) = (there.created_by.clone(), there.created_at);
            }
            if runs && !self.activate {
                self.left.push(format!("{shown} is a draft"));
                if there.is_some() {
                    continue;
                }
                new.status = Status::Draft;
            }
            self.begin(&mut new)?;
            (new.updated_by, new.updated_at) = (Some(ACTOR.to_owned()), Some(clock::now_micros()));
            new.created_at = new.created_at.or(new.updated_at);
            self.note("experiment.import", there.map(Arc::as_ref), &new);
            self.puts.experiments.push(Arc::new(new));
        }
        Ok(())
    }

    /// What happened to it elsewhere did not happen here: a draft is as its author made it, and one that is
    /// started has its first phase.
    fn begin(&mut self, new: &mut ExperimentDefinition) -> anyhow::Result<()> {
        let at = clock::now_micros();
        if new.status == Status::Draft {
            new.arms = None;
            new.assignment = new.assignment.as_ref().map(Exceptions::by_hand);
            new.design = new.design.as_ref().map(Design::chosen);
            return Ok(());
        }
        if new.status == Status::Completed {
            return Ok(());
        }
        let experiment = check::experiment(new)
            .map_err(|why| anyhow::anyhow!("experiment {}: {why}", new.name))?;
        let arms = check::arms(&experiment);
        let beside = new.assignment.get_or_insert_default();
        beside.phase = beside.phase.max(1);
        let phase = Phase {
            experiment_id: new.id,
            phase: beside.phase,
            mode: if new.status == Status::Paused { "pause" } else { "start" }.to_owned(),
            arms: arms.clone(),
            enrollment_percentage: new.enrollment_percentage,
            moved_percentage: None,
            salt: experiment.salt,
            hash_version: new.hash_version,
            actor: ACTOR.to_owned(),
            reason: Some("imported".to_owned()),
            started_at: at,
            ended_at: None,
        };
        new.arms = Some(arms);
        self.change.turns.push(Turn { experiment: new.id, at, begins: Some(phase) });
        Ok(())
    }

    /// What was read must still be so when it is overwritten, and what is new must not be there.
    async fn expectations(&mut self, store: &dyn Store) -> anyhow::Result<()> {
        let Definitions { templates, guardrails, experiments } = self.known;
        for one in &self.puts.templates {
            let expect = expectation(store, Table::Templates, templates, one.id()).await?;
            self.change.expects.push(expect);
        }
        for one in &self.puts.guardrails {
            let expect = expectation(store, Table::Guardrails, guardrails, one.id()).await?;
            self.change.expects.push(expect);
        }
        for one in &self.puts.experiments {
            let expect = expectation(store, Table::Experiments, experiments, one.id()).await?;
            self.change.expects.push(expect);
        }
        Ok(())
    }

    fn note<T: Definition + serde::Serialize>(
        &mut self,
        action: &str,
        before: Option<&T>,
        after: &T,
    ) {
        let shown = |one: &T| serde_json::to_string(one).ok();
        let kind = action.split('.').next().unwrap_or_default();
        let kinds = ["template", "guardrail", "experiment"];
        self.change.audit.push(Entry {
            id: Uuid::now_v7(),
            tenant_id: after.place().0.clone(),
            at: clock::now_micros(),
            actor: ACTOR.to_owned(),
            action: action.to_owned(),
            object_type: kinds.into_iter().find(|one| *one == kind).unwrap_or("template"),
            object_id: after.id().to_string(),
            before: before.and_then(shown),
            after: shown(after),
            reason: None,
            request_id: None,
        });
    }
}

async fn expectation<T: Definition + serde::de::DeserializeOwned>(
    store: &dyn Store,
    table: Table,
    known: &[Arc<T>],
    id: Uuid,
) -> anyhow::Result<Expect> {
    let Some(there) = known.iter().find(|one| one.id() == id) else {
        return Ok(Expect { table, id, revision: None });
    };
    let query = RowQuery { id: Some(id), ..RowQuery::of(table, there.place().0) };
    let row = store.rows(&query).await?.into_iter().next().context("it is gone meanwhile")?;
    if row.definition::<T>(table)? != **there {
        bail!("{} was changed while this import read it; run it again", there.place().1);
    }
    Ok(Expect { table, id, revision: Some(row.revision) })
}

/// With the time it was made, which files may leave out.
fn stamped(one: &TemplateDefinition) -> TemplateDefinition {
    let made = one.created_at.or(Some(clock::now_micros()));
    TemplateDefinition { created_at: made, updated_at: one.updated_at.or(made), ..one.clone() }
}

/// What of an experiment is decided before it runs.
fn set_up(one: &ExperimentDefinition) -> ExperimentDefinition {
    ExperimentDefinition {
        status: Status::Draft,
        arms: None,
        start_date: None,
        end_date: None,
        winner_template_id: None,
        assignment: one.assignment.as_ref().map(Exceptions::by_hand),
        design: one.design.as_ref().map(Design::chosen),
        created_by: None,
        created_at: None,
        updated_by: None,
        updated_at: None,
        ..one.clone()
    }
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
