//! The one integration binary: the whole product over real sockets, a real PostgreSQL and the bundled
//! simulator. `scripts/with-postgres.sh` gives it its cluster.

#![expect(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test that meets the unexpected should stop, and it owns its tasks and its clock"
)]

mod admin;
mod analytics;
mod architecture;
mod backtest;
mod chaos;
mod control;
mod cuts;
mod damage;
mod dataset;
mod dialects;
mod disk;
mod earlier;
mod erasure;
mod experiments;
mod export;
mod faults;
mod fidelity;
mod fuzz;
mod groups;
mod guardrails;
mod harness;
mod hygiene;
mod keys;
mod lifecycle;
mod outcomes;
mod process;
mod proxy;
mod reallocation;
mod recording;
mod results;
mod retention;
mod retries;
mod store;
mod streams;
mod templates;
mod unread;
