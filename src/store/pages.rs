//! Pages of executions: newest first, each page beginning behind the last row of the one before.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use uuid::Uuid;

use crate::words::ids::Tenant;

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct ExecutionQuery {
    /// Whose executions.
    pub tenant: Tenant,
    /// Rows of a page.
    pub limit: u32,
    /// Behind which row it begins.
    pub after: Option<Cursor>,
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
    use super::{BadCursor, Cursor};

    #[test]
    fn cursors_come_back() {
        let cursor = Cursor {
            created_at: "2026-11-22T20:00:00.123456Z".parse().unwrap(),
            id: uuid::Uuid::now_v7(),
        };
        assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        for bad in ["", "x", "!!", "AAAA"] {
            assert_eq!(Cursor::decode(bad), Err(BadCursor));
        }
    }
}
