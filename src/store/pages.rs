//! Pages of lists, each beginning behind the last row of the one before: executions newest first,
//! definitions by name and version.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::{StoreError, Table};
use crate::words::ids::Tenant;
use crate::words::telling::without_values;

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct ExecutionQuery {
    /// Whose executions.
    pub tenant: Tenant,
    /// Rows of a page.
    pub limit: u32,
    /// Behind which row it begins.
    pub after: Option<Cursor>,
    /// Only this one.
    pub id: Option<Uuid>,
    /// Only this template.
    pub template: Option<String>,
    /// Only this user.
    pub user: Option<String>,
    /// Only this outcome.
    pub outcome: Option<String>,
}

/// A place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Of the last row seen.
    pub created_at: Timestamp,
    /// Of the last row seen.
    pub id: Uuid,
}

/// Which definitions to list.
#[derive(Debug, Clone)]
pub struct RowQuery {
    /// Of which kind.
    pub table: Table,
    /// Whose.
    pub tenant: Tenant,
    /// Rows of a page.
    pub limit: u32,
    /// Behind which row it begins.
    pub after: Option<NameCursor>,
    /// Only this one.
    pub id: Option<Uuid>,
    /// Only of this name.
    pub name: Option<String>,
    /// Only in this state: `true` or `false` for active or not; the status of an experiment.
    pub state: Option<String>,
    /// Only of this category, type, or template.
    pub group: Option<String>,
    /// Only templates with this tag.
    pub tag: Option<String>,
}

impl RowQuery {
    /// All of one kind, one row a page.
    pub fn of(table: Table, tenant: &Tenant) -> Self {
        Self {
            table,
            tenant: tenant.clone(),
            limit: 1,
            after: None,
            id: None,
            name: None,
            state: None,
            group: None,
            tag: None,
        }
    }
}

/// One definition as it stands in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// All its columns.
    pub columns: serde_json::Map<String, Value>,
    /// Of the catalog when it was last written.
    pub revision: i64,
}

impl Row {
    /// Reads what a store's statement gives: the columns with `revision` among them.
    pub(super) fn read(json: &str) -> Result<Self, StoreError> {
        let mut columns: serde_json::Map<String, Value> =
            serde_json::from_str(json).map_err(|error| StoreError::Refused(error.to_string()))?;
        let revision = columns.remove("revision").and_then(|revision| revision.as_i64());
        Ok(Self { columns, revision: revision.unwrap_or_default() })
    }
}

impl Row {
    /// The definition among the columns.
    pub fn definition<T: serde::de::DeserializeOwned>(
        &self,
        table: Table,
    ) -> Result<T, StoreError> {
        let columns = table.columns();
        let definition: serde_json::Map<String, Value> = self
            .columns
            .iter()
            .filter(|(name, _)| columns.iter().any(|column| column.name == name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let id = self.columns.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        serde_json::from_value(Value::Object(definition)).map_err(|error| StoreError::Row {
            table: table.name(),
            id,
            why: without_values(&error.to_string()),
        })
    }
}

/// A place in a list of definitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameCursor {
    /// Of the last row seen.
    pub name: String,
    /// Of the last row seen; 0 where there are no versions.
    pub version: i64,
}

impl NameCursor {
    /// The cursor as it stands in URLs.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{} {}", self.version, self.name))
    }

    /// Reads what [`Self::encode`] made.
    pub fn decode(text: &str) -> Result<Self, BadCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).or(Err(BadCursor))?;
        let text = String::from_utf8(bytes).or(Err(BadCursor))?;
        let (version, name) = text.split_once(' ').ok_or(BadCursor)?;
        Ok(Self { name: name.to_owned(), version: version.parse().or(Err(BadCursor))? })
    }
}

/// A cursor that this program did not make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this list; take it from next_cursor of the page before")]
pub struct BadCursor;

impl Cursor {
    /// The cursor as it stands in URLs.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{:.6} {}", self.created_at, self.id))
    }

    /// Reads what [`Self::encode`] made.
    pub fn decode(text: &str) -> Result<Self, BadCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).or(Err(BadCursor))?;
        let text = String::from_utf8(bytes).or(Err(BadCursor))?;
        let (created_at, id) = text.split_once(' ').ok_or(BadCursor)?;
        Ok(Self {
            created_at: created_at.parse().or(Err(BadCursor))?,
            id: id.parse().or(Err(BadCursor))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{BadCursor, Cursor, NameCursor};

    #[test]
    fn cursors_come_back() {
        let cursor = Cursor {
            created_at: "2026-11-22T20:00:00.123456Z".parse().unwrap(),
            id: uuid::Uuid::now_v7(),
        };
        assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        let by_name = NameCursor { name: "a b/é".to_owned(), version: 7 };
        assert_eq!(NameCursor::decode(&by_name.encode()), Ok(by_name));
        for bad in ["", "x", "!!", "AAAA"] {
            assert_eq!(Cursor::decode(bad), Err(BadCursor));
            assert_eq!(NameCursor::decode(bad), Err(BadCursor));
        }
    }
}
