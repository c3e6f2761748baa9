//! The Gemini wire as far as Chaperone must understand it: which call a path is, where text
//! stands in a body, how a stream is framed, what an answer says about itself.
//!
//! Everything else passes through unread. Nothing here knows guardrails, templates or sockets.

pub mod answer;
pub mod batch;
pub mod json;
pub mod members;
pub mod place;
pub mod route;
pub mod stream;
pub mod text;
pub mod usage;

/// How a caller spells requests and expects answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Gemini's own shapes, on the Developer API and on Vertex paths.
    Native,
    /// The `OpenAI`-compatible surface under `/openai/`.
    OpenAi,
    /// The Interactions API.
    Interactions,
}
