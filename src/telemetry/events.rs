//! What happened, for people. `error` means somebody must act.

use std::io;

use tracing::{error, info, warn};

use super::metrics;

/// The process serves.
pub fn listening(data: &str, control: &str, upstream: &str) {
    info!(
        data.listen = data,
        control.listen = control,
        upstream.url = upstream,
        "chaperone is listening"
    );
}

/// The super admin's token was made; its place, never itself.
pub fn token_made(path: &str) {
    info!(path, "an admin token was made; it is in this file");
}

/// The tokens in force stay as they were.
pub fn tokens_unreadable(why: &str) {
    warn!(why, "the tokens file cannot be read; the tokens read before stay in force");
}

/// Somebody tries tokens.
pub fn tokens_guessed(source: &str) {
    warn!(source, "many wrong admin tokens came from this address; it is slowed down");
}

/// The schema is as it was.
pub fn not_migrated(why: &str) {
    warn!(why, "the database was not migrated at start");
}

/// After a restart an interaction may count a second time.
pub fn not_kept(error: &io::Error) {
    warn!(error = %error, "an interaction that was accounted could not be noted on the disk");
}

/// An experiment was ended because a variant did harm.
pub fn experiment_harmed(id: &str, why: &str) {
    warn!(experiment.id = id, why, "an experiment was ended because a variant did harm");
}

/// The copy for the day the database is away is older than it could be.
pub fn snapshot_not_kept(why: &str) {
    warn!(why, "the last known good catalog could not be kept on disk");
}

/// A catalog is in force.
pub fn catalog_published(source: &str, generation: u64, templates: usize, guardrails: usize) {
    info!(
        catalog.source = source,
        catalog.generation = generation,
        templates,
        guardrails,
        "a new catalog is in force"
    );
}

/// A source gave no catalog; the one in force stays.
pub fn catalog_failed(source: &str, why: &str) {
    metrics::catalog_failed(source);
    warn!(catalog.source = source, why, "no catalog could be built from this source");
}

/// No guardrails could be had at all.
pub fn catalog_impossible(why: &str) {
    error!(why, "no source gave a catalog");
}

/// The first of executions that are gone; how many in all, the metric says.
pub fn executions_lost(why: &str) {
    error!(why, "executions are being lost: they cannot be kept");
}

/// Records stay in the journal, where the disk has them.
pub fn outbox_failed(why: &str) {
    error!(why, "the outbox takes no records; they wait in the journal");
}

/// The disk lost the end of the local file; what stood there is counted as it is met.
pub fn local_file_cut(bytes: u64) {
    error!(bytes, "the local file was cut; what is left of it goes on");
}

/// The local file could be opened again.
pub fn local_file_mended() {
    error!(
        "the first page of the local file was damaged on the disk; it was put back from its copy"
    );
}

/// Nothing in the local file can be read. How much waited in it nobody knows.
pub fn local_file_set_aside(place: &str) {
    error!(place, "the local file cannot be read; it was set aside and made anew");
}

/// The disk damaged the outbox; what could be read of it goes on.
pub fn outbox_salvaged(rows: u64, unreadable: u64) {
    error!(
        rows,
        unreadable, "the outbox was damaged on the disk; it was made anew from what can be read"
    );
}

/// The journal cannot be synced or shortened.
pub fn journal_failed(why: &str) {
    error!(why, "the journal of records cannot be synced to the disk or shortened");
}

/// Executions that were counted are not in the outbox any more.
pub fn executions_missing(count: u64) {
    error!(count, "executions are gone from the outbox: its file was damaged");
}

/// Executions were refused by the store and kept aside.
pub fn executions_buried(count: u64) {
    error!(count, "executions were refused by the store and kept in outbox_dead_letters");
}

/// Executions to come have a place.
pub fn partition_made(partition: &str) {
    info!(partition, "a partition for executions was made");
}

/// Executions older than `audit.retention_days` are gone.
pub fn partition_dropped(partition: &str) {
    info!(partition, "a partition of executions was dropped");
}

/// Old executions stay, and those to come may lack a partition; it is tried every minute.
pub fn retention_failed(why: &str) {
    warn!(why, "partitions and old executions could not be looked after; it is tried again");
}

/// What was recorded of a user stays for now.
pub fn erasure_failed(why: &str) {
    warn!(why, "executions could not be erased as ordered; it is tried again");
}

/// Copies of executions do not reach a sink; how many, the metric says.
pub fn export_failed(sink: &str, why: &str) {
    warn!(
        sink,
        why, "copies of executions cannot be given away and are dropped; the store has them"
    );
}

/// Calls go on with the key as it was.
pub fn key_unreadable(file: &str, why: &str) {
    warn!(file, why, "upstream.api_key_file cannot be read again; the last key stays in use");
}

/// Whoever reaches the data plane spends the operator's money.
pub fn key_for_everyone(listen: &str) {
    warn!(
        data.listen = listen,
        "calls go out with a key of the proxy, and more than this machine can make them"
    );
}

/// The store stopped taking executions.
pub fn store_lost(why: &str) {
    warn!(why, "the store takes no executions; they wait in the outbox");
}

/// The store takes executions again.
pub fn store_found() {
    info!("the store takes executions again");
}

/// Notifications of catalog changes stopped; polling goes on.
pub fn listener_lost(why: &str) {
    warn!(why, "changes of the catalog are not announced for now; polling finds them");
}

/// A guardrail found something.
pub fn violation(request_id: &str, [rule, entity, direction, action]: [&str; 4]) {
    info!(
        request.id = request_id,
        guardrail.rule = rule,
        guardrail.entity = entity,
        guardrail.direction = direction,
        guardrail.action = action,
        "a guardrail found a violation"
    );
}

/// Upstream did not do its part.
pub fn upstream_failed(request_id: &str, kind: &str) {
    warn!(request.id = request_id, upstream.error = kind, "the upstream failed");
}

/// One request panicked.
pub fn panicked() {
    metrics::panicked();
    error!("a request panicked; only it failed");
}

/// A connection could not be accepted or served.
pub fn connection_failed(plane: &str, kind: &str) {
    tracing::debug!(plane, kind, "a connection ended with an error");
}

/// Accepting pauses.
pub fn accept_failed(plane: &str, why: &str) {
    warn!(plane, why, "connections cannot be accepted for now");
}

/// A signal asks to stop.
pub fn draining(deadline_ms: u64) {
    info!(drain.deadline_ms = deadline_ms, "stopping: no new connections, open exchanges may end");
}

/// Everything is put away.
pub fn stopped(waiting: u64) {
    info!(outbox.waiting = waiting, "stopped");
}
