//! The vocabulary every other module speaks: ids, time, secrets, money, tokens.
//!
//! Nothing here knows HTTP, SQL or JSON shapes.

pub mod clock;
pub mod dice;
pub mod digest;
pub mod ids;
pub mod money;
pub mod secret;
pub mod telling;
pub mod tokens;
