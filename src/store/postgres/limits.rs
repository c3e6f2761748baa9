//! What the server itself holds a transaction to: what nobody here waits for any more must end there too.
//!
//! Set within each transaction, because a pooler in transaction mode refuses parameters at the start of a
//! connection, and would hand one session's settings to another.

use std::borrow::Cow;
use std::pin::pin;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::SinkExt as _;
use futures_util::future::{join, join3};
use tokio_postgres::{Client, Error, Row};

use super::{Param, sql};

/// Records in one message to the server.
const RECORDS_AT_ONCE: usize = 64;

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

/// Records through a staging table of the session, in one transaction. Three turns: what can go out together
/// does. The name of the statement that copies ends with its sink, before the transaction: a pooler in
/// transaction mode hands no other client a session that knows it.
pub(super) async fn copy(
    client: &Client,
    deadline: Duration,
    records: &[Cow<'_, str>],
    insert: &str,
) -> Result<(), Error> {
    let begin = format!("begin; {}; {}", set(deadline), sql::STAGE);
    let copying = async {
        let (begun, sink) =
            join(client.batch_execute(&begin), client.copy_in::<_, Bytes>(sql::COPY_RECORDS)).await;
        begun?;
        let mut sink = pin!(sink?);
        for part in records.chunks(RECORDS_AT_ONCE) {
            sink.send(lines(part)).await?;
        }
        let (copied, inserted) = join(sink.as_mut().finish(), client.batch_execute(insert)).await;
        copied.and(inserted)
    };
    let copied = copying.await;
    // In a transaction that failed it undoes it.
    copied.and(client.batch_execute("commit").await)
}

fn lines(records: &[Cow<'_, str>]) -> Bytes {
    let mut lines = BytesMut::new();
    for record in records {
        lines.put_slice(record.as_bytes());
        lines.put_u8(b'\n');
    }
    lines.freeze()
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
