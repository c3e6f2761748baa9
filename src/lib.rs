//! Chaperone.

pub mod catalog;
pub mod config;
pub mod execution;
pub mod experiment;
pub mod gemini;
pub mod guardrail;
pub mod listen;
pub mod outbox;
pub mod price;
pub mod proxy;
pub mod store;
pub mod telemetry;
pub mod template;
pub mod upstream;
pub mod words;
