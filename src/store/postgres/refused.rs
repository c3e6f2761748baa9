//! What an error of the driver means: what to do about it, and what may be said of it.
//!
//! A message of the server can quote values of a row, so only its SQLSTATE and constraint leave, with
//! what an operator can do.

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::store::StoreError;

/// Sorts driver errors by what to do about them.
pub(super) fn from_driver(error: &Error) -> StoreError {
    let Some(server) = error.as_db_error() else {
        return StoreError::Unavailable(error.to_string());
    };
    let code = server.code();
    if [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN, SqlState::UNDEFINED_OBJECT]
        .contains(code)
    {
        return StoreError::NotMigrated;
    }
    if *code == SqlState::UNIQUE_VIOLATION {
        return StoreError::Exists(server.constraint().unwrap_or("a key").to_owned());
    }
    // Only what is wrong with the row itself is final: bad data, violated constraints, a key too long for an
    // index, a trigger that objects. Deadlocks, permissions, restarts and full disks pass.
    let is_final = ["22", "23"].iter().any(|class| code.code().starts_with(class))
        || [SqlState::PROGRAM_LIMIT_EXCEEDED, SqlState::RAISE_EXCEPTION].contains(code);
    if is_final {
        let constraint = server.constraint().map(|name| format!(" on {name}")).unwrap_or_default();
        return StoreError::Refused(format!("SQLSTATE {}{constraint}", code.code()));
    }
    StoreError::Unavailable(match told(code) {
        Some(what) => format!("{what} (SQLSTATE {})", code.code()),
        None => format!("SQLSTATE {}", code.code()),
    })
}

/// Whether the connection itself is at fault: whether a session may write was decided when it began, so
/// after a failover only a new one finds the server that takes writes.
pub(super) fn is_stale(error: &Error) -> bool {
    error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
}

/// What is the matter and what to do, where that is known.
fn told(code: &SqlState) -> Option<&'static str> {
    const TOLD: [(&SqlState, &str); 16] = [
        (
            &SqlState::READ_ONLY_SQL_TRANSACTION,
            "it only takes reads; let database.url name the primary, or wait for the failover to end",
        ),
        (
            &SqlState::TOO_MANY_CONNECTIONS,
            "it has no connection left for this user; raise its limit, or lower \
             database.pool_connections_max",
        ),
        (&SqlState::INVALID_PASSWORD, "it refused the password of database.url"),
        (
            &SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            "it refused the user of database.url or the way it connects",
        ),
        (&SqlState::INVALID_CATALOG_NAME, "it has no database of the name in database.url"),
        (
            &SqlState::INSUFFICIENT_PRIVILEGE,
            "the user of database.url may not do this; it must own the tables",
        ),
        (&SqlState::QUERY_CANCELED, "it took too long and was cancelled"),
        (&SqlState::LOCK_NOT_AVAILABLE, "somebody else holds a lock on what was asked for"),
        (
            &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            "the transaction stood still for too long and was ended",
        ),
        (&SqlState::T_R_DEADLOCK_DETECTED, "two transactions waited for each other; try again"),
        (&SqlState::ADMIN_SHUTDOWN, "it is being stopped"),
        (&SqlState::CRASH_SHUTDOWN, "it has crashed and is starting again"),
        (&SqlState::CANNOT_CONNECT_NOW, "it is starting or stopping"),
        (&SqlState::DISK_FULL, "its disk is full"),
        (&SqlState::OUT_OF_MEMORY, "it has no memory left"),
        (&SqlState::INVALID_SCHEMA_NAME, "a schema is missing; look at search_path"),
    ];
    TOLD.iter().find(|(known, _)| *known == code).map(|(_, what)| *what)
}
