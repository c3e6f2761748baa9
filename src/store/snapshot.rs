//! The last known good catalog, kept in the local file for the day the database is away.

use std::path::{Path, PathBuf};

use rusqlite::OptionalExtension;

use super::StoreError;
use super::sqlite::{from_driver, open};
use crate::catalog::definitions::Definitions;

const TABLE: &str = "
    create table if not exists last_known_good (
        id integer primary key check (id = 1),
        definitions text not null,
        saved_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))";
const SAVE: &str = "
    insert into last_known_good (id, definitions) values (1, ?1)
        on conflict (id) do update set definitions = excluded.definitions, saved_at = excluded.saved_at
     where definitions <> excluded.definitions";
const LOAD: &str = "select definitions from last_known_good where id = 1";

/// Where it is kept.
#[derive(Debug, Clone)]
pub struct Snapshot {
    data_dir: PathBuf,
}

impl Snapshot {
    /// Under this data directory.
    pub fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_path_buf() }
    }

    /// Keeps these definitions; blocks on the disk.
    pub fn save(&self, definitions: &Definitions) -> Result<(), StoreError> {
        let json = serde_json::to_string(definitions)
            .map_err(|error| StoreError::Refused(error.to_string()))?;
        let connection = open(&self.data_dir)?;
        connection
            .execute_batch(TABLE)
            .and_then(|()| connection.execute(SAVE, [json]))
            .map(drop)
            .map_err(|error| from_driver(&error))
    }

    /// What was kept, if anything; blocks on the disk.
    pub fn load(&self) -> Result<Option<Definitions>, StoreError> {
        let connection = open(&self.data_dir)?;
        let json: Option<String> = connection
            .execute_batch(TABLE)
            .and_then(|()| connection.query_row(LOAD, [], |row| row.get(0)).optional())
            .map_err(|error| from_driver(&error))?;
        json.map(|json| {
            Definitions::from_json(&json).map_err(|why| StoreError::Row {
                table: "last_known_good",
                id: "1".to_owned(),
                why,
            })
        })
        .transpose()
    }
}
