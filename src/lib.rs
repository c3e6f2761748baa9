//! Chaperone stands between an application and the Gemini API.
//!
//! The life of a call: [`listen`] accepts it, [`proxy`] takes it through its steps (arrive, identify,
//! select, inspect, render, forward, inspect back, meter, record) against one [`catalog`] snapshot,
//! [`upstream`] carries it to Gemini, and [`outbox`] brings its record to the [`store`], and [`export`]
//! a copy of it elsewhere. [`refresh`]
//! keeps the catalog the best there is; [`analyst`] reads what experiments
//! have shown; [`erasure`] carries out orders to erase; [`backtest`] looks at records once more; [`admin`] is the control plane beside it all; [`app`] builds
//! every part and stops them in order.
//!
//! [`results`] puts together what an experiment has shown.
//!
//! The engines in the middle ([`gemini`], [`template`], [`guardrail`], [`experiment`], [`statistics`],
//! [`price`]) are pure: they see no socket, no clock and no SQL.

pub mod words;

pub mod execution;
pub mod experiment;
pub mod gemini;
pub mod guardrail;
pub mod price;
pub mod statistics;
pub mod template;

pub mod catalog;
pub mod results;
pub mod retention;

pub mod config;
pub mod export;
pub mod rounds;
pub mod store;
pub mod telemetry;
pub mod upstream;

pub mod backtest;
pub mod listen;
pub mod outbox;
pub mod refresh;

pub mod analyst;
pub mod erasure;

pub mod admin;
pub mod proxy;
pub mod simulator;

pub mod app;
pub mod cli;
