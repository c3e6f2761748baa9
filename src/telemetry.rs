//! Every metric name and every log event of the product, one function each.
//!
//! Labels are closed sets or names from the catalog; prompts, replies, keys and headers have no way in.

pub mod events;
pub mod log;
pub mod metrics;
