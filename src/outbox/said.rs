//! What a row of the outbox says of itself, as far as it can be true: a disk may spoil these columns as well.

/// SQL for `executions`, `bytes`, or both (`totals`) of a row.
macro_rules! said {
    (executions) => {
        said!(@ "executions, 1")
    };
    (bytes) => {
        said!(@ "bytes, 0")
    };
    (totals) => {
        concat!(said!(executions), ", ", said!(bytes))
    };
    // The shortest record is a line of 12 bytes; a row of several has no more than 256 KiB.
    (@ $said_or_else:literal) => {
        concat!(
            "iif(typeof(executions) = 'integer' and typeof(bytes) = 'integer'
                 and executions between 1 and bytes / 12 and bytes <= 4294967296
                 and (executions = 1 or bytes <= 262144), ",
            $said_or_else,
            ")"
        )
    };
}
