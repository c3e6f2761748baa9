//! What the server itself holds a transaction to: what nobody here waits for any more must end there too.
//!
//! Set within each transaction, because a pooler in transaction mode refuses parameters at the start of a
//! connection, and would hand one session's settings to another.

use std::time::Duration;

use futures_util::future::join3;
use tokio_postgres::{Client, Error, Row};

use super::Param;

/// One statement in a transaction of its own. Its three messages go out together: limits cost no turn.
pub(super) async fn query(
    client: &Client,
    deadline: Duration,
    sql: &str,
    params: &[Param<'_>],
) -> Result<Vec<Row>, Error> {
    let begin = format!("begin; {}", set(deadline));
    let (begun, rows, committed) = join3(
        client.batch_execute(&begin),
        client.query_typed(sql, params),
        client.batch_execute("commit"),
    )
    .await;
    begun?;
    let rows = rows?;
    committed?;
    Ok(rows)
}

/// Limits of the transaction it is said in. A lock that somebody holds is given up earlier than a
/// statement that is slow, so that the error tells them apart.
pub(super) fn set(deadline: Duration) -> String {
    let (whole, lock) = (deadline.as_millis(), (deadline * 2 / 3).as_millis());
    format!(
        "set local statement_timeout = {whole}; set local lock_timeout = {lock}; \
         set local idle_in_transaction_session_timeout = {whole}"
    )
}
