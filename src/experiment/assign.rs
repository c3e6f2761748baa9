//! The hash: MD5, two purposes, stable for ever.
//!
//! The first fields of the hashed text hold no colon and the unit comes last, so no two inputs are
//! ambiguous. Enrolment and arm use different purposes: with one hash, 10 % enrolment and a 50/50
//! split would put every enrolled unit into control. In PostgreSQL:
//! `('x' || '0' || substr(md5(s), 1, 15))::bit(64)::bigint % 100000`.

use std::borrow::Cow;

use md5::{Digest, Md5};
use uuid::Uuid;

/// Buckets are thousandths of a percent.
pub const BUCKETS: u32 = 100_000;

/// What a bucket decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Whether a unit takes part.
    Enroll,
    /// Which arm it sees.
    Variant,
}

/// The bucket of a unit, from 0 to 99 999.
pub fn bucket(purpose: Purpose, salt: &str, unit: &str) -> u32 {
    let purpose = match purpose {
        Purpose::Enroll => "enroll",
        Purpose::Variant => "variant",
    };
    let mut hash = Md5::new();
    for part in ["v1:", purpose, ":", salt, ":", unit] {
        hash.update(part.as_bytes());
    }
    let digest: [u8; 16] = hash.finalize().into();
    // The first 15 hex digits are the top 60 of 128 bits: they fit PostgreSQL's signed bigint.
    let top = u128::from_be_bytes(digest) >> (128 - 60);
    u32::try_from(top % u128::from(BUCKETS)).unwrap_or(0)
}

/// A unit in the one form that is hashed: UUIDs in lower case with hyphens, everything else as is.
pub(super) fn canonical(unit: &str) -> Cow<'_, str> {
    let looks_like_uuid = matches!(unit.len(), 32 | 36) && unit.is_ascii();
    match Uuid::try_parse(unit) {
        Ok(uuid) if looks_like_uuid => Cow::Owned(uuid.hyphenated().to_string()),
        _ => Cow::Borrowed(unit),
    }
}
