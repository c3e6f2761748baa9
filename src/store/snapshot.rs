//! The last known good catalog, kept in the local file for the day the database is away.
//!
//! One row a definition, so that a change costs what changed and not the whole catalog.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use uuid::Uuid;

use super::sqlite::{from_driver, open};
use super::{StoreError, Table, read};
use crate::catalog::definitions::{Definition, Definitions};

const TABLE: &str = "
    create table if not exists catalog_snapshot (
        kind text not null,
        id text not null,
        definition text not null,
        primary key (kind, id)) without rowid;
    create table if not exists catalog_snapshot_whole (id integer primary key check (id = 1));
    create table if not exists last_known_good (id integer primary key, definitions text not null)";
/// Rows written in one transaction: the outbox and the embedded store write to the same file.
const STRIDE: usize = 500;
const CLEAR: &str = "delete from catalog_snapshot";
/// Stands only while the rows are a whole catalog.
const IS_WHOLE: &str = "select 1 from catalog_snapshot_whole";
const SET_WHOLE: &str = "insert or replace into catalog_snapshot_whole (id) values (1)";
const CLEAR_WHOLE: &str = "delete from catalog_snapshot_whole";
const PUT: &str = "
    insert into catalog_snapshot (kind, id, definition) values (?1, ?2, ?3)
        on conflict (kind, id) do update set definition = excluded.definition";
const REMOVE: &str = "delete from catalog_snapshot where kind = ?1 and id = ?2";
const LOAD: &str = "select kind, definition from catalog_snapshot";
/// Where 0.1 kept the whole catalog as one text.
const LOAD_OLD: &str = "select definitions from last_known_good where id = 1";
const CLEAR_OLD: &str = "delete from last_known_good";

/// Where it is kept, and what it holds.
#[derive(Debug)]
pub struct Snapshot {
    data_dir: PathBuf,
    /// What this process saved last; `None` before it saved anything.
    saved: Mutex<Option<Arc<Definitions>>>,
}

impl Snapshot {
    /// Under this data directory.
    pub fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_path_buf(), saved: Mutex::default() }
    }

    /// Keeps these definitions; blocks on the disk. Only what differs from the last save is written.
    pub fn save(&self, definitions: &Arc<Definitions>) -> Result<(), StoreError> {
        let mut saved = self.saved.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let driver = |error: rusqlite::Error| from_driver(&error);
        let mut connection = self.open()?;
        let nothing = Definitions::default();
        let old = saved.as_deref().unwrap_or(&nothing);
        let mut edits = Vec::new();
        let Definitions { templates, guardrails, experiments } = definitions.as_ref();
        differ(Table::Templates, &old.templates, templates, &mut edits)?;
        differ(Table::Guardrails, &old.guardrails, guardrails, &mut edits)?;
        differ(Table::Experiments, &old.experiments, experiments, &mut edits)?;
        let is_small = saved.is_some() && edits.len() <= STRIDE;
        if !is_small {
            connection.execute(CLEAR_WHOLE, []).map_err(driver)?;
        }
        if saved.is_none() {
            connection.execute(CLEAR, []).map_err(driver)?;
        }
        for some in edits.chunks(STRIDE) {
            let transaction = connection.transaction().map_err(driver)?;
            for edit in some {
                edit.carry_out(&transaction).map_err(driver)?;
            }
            transaction.commit().map_err(driver)?;
        }
        connection.execute(SET_WHOLE, []).map_err(driver)?;
        connection.execute(CLEAR_OLD, []).map_err(driver)?;
        *saved = Some(definitions.clone());
        Ok(())
    }

    /// What was kept, if anything; blocks on the disk.
    pub fn load(&self) -> Result<Option<Definitions>, StoreError> {
        let driver = |error: rusqlite::Error| from_driver(&error);
        let connection = self.open()?;
        let mut definitions = Definitions::default();
        let is_whole = connection.query_row(IS_WHOLE, [], |_| Ok(())).optional().map_err(driver)?;
        let mut statement = connection.prepare(LOAD).map_err(driver)?;
        let mut rows = statement.query([]).map_err(driver)?;
        while let Some(row) = rows.next().map_err(driver)? {
            let (kind, json): (String, String) =
                (row.get(0).map_err(driver)?, row.get(1).map_err(driver)?);
            match Table::ALL.into_iter().find(|table| table.name() == kind) {
                Some(table @ Table::Templates) => definitions.templates.push(read(table, &json)?),
                Some(table @ Table::Guardrails) => definitions.guardrails.push(read(table, &json)?),
                Some(table @ Table::Experiments) => {
                    definitions.experiments.push(read(table, &json)?);
                }
                None => {}
            }
        }
        if is_whole.is_some() {
            // In the order of every other source.
            return Ok(Some(Definitions::default().updated(definitions, true)));
        }
        let old: Option<String> =
            connection.query_row(LOAD_OLD, [], |row| row.get(0)).optional().map_err(driver)?;
        old.map(|json| {
            Definitions::from_json(&json).map_err(|why| StoreError::Row {
                table: "last_known_good",
                id: "1".to_owned(),
                why,
            })
        })
        .transpose()
    }

    fn open(&self) -> Result<Connection, StoreError> {
        let connection = open(&self.data_dir)?;
        connection.execute_batch(TABLE).map_err(|error| from_driver(&error))?;
        Ok(connection)
    }
}

/// A row to write, or without a definition to remove.
struct Edit {
    kind: &'static str,
    id: Uuid,
    definition: Option<String>,
}

impl Edit {
    fn carry_out(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let id = self.id.to_string();
        match &self.definition {
            Some(json) => transaction.prepare_cached(PUT)?.execute(params![self.kind, id, json]),
            None => transaction.prepare_cached(REMOVE)?.execute(params![self.kind, id]),
        }
        .map(drop)
    }
}

fn differ<T: Definition + serde::Serialize>(
    table: Table,
    old: &[Arc<T>],
    new: &[Arc<T>],
    edits: &mut Vec<Edit>,
) -> Result<(), StoreError> {
    let kept: HashSet<*const T> = old.iter().map(Arc::as_ptr).collect();
    let ids: HashSet<Uuid> = new.iter().map(|one| one.id()).collect();
    let kind = table.name();
    for one in new.iter().filter(|one| !kept.contains(&Arc::as_ptr(one))) {
        let json =
            serde_json::to_string(one).map_err(|error| StoreError::Refused(error.to_string()))?;
        edits.push(Edit { kind, id: one.id(), definition: Some(json) });
    }
    let gone = old.iter().map(|one| one.id()).filter(|id| !ids.contains(id));
    edits.extend(gone.map(|id| Edit { kind, id, definition: None }));
    Ok(())
}
