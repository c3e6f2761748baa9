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
/// Of this hash. Another one is another version, never an edit: it would move every unit.
pub const HASH_VERSION: u32 = 1;
/// Bytes of a unit.
pub const UNIT_BYTES_MAX: usize = 256;

/// What a bucket decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Whether a unit takes part.
    Enroll,
    /// Which arm it sees.
    Variant,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Enroll => "enroll",
            Self::Variant => "variant",
        }
    }
}

/// The bucket of a unit, from 0 to 99 999.
pub fn bucket(purpose: Purpose, salt: &str, unit: &str) -> u32 {
    let mut hash = Md5::new();
    for part in ["v1:", purpose.name(), ":", salt, ":", unit] {
        hash.update(part.as_bytes());
    }
    let digest: [u8; 16] = hash.finalize().into();
    // The first 15 hex digits are the top 60 of 128 bits: they fit PostgreSQL's signed bigint.
    let top = u128::from_be_bytes(digest) >> (128 - 60);
    u32::try_from(top % u128::from(BUCKETS)).unwrap_or(0)
}

/// The text of which a bucket is the hash: what an analyst repeats.
pub fn hashed(purpose: Purpose, salt: &str, unit: &str) -> String {
    format!("v{HASH_VERSION}:{}:{salt}:{unit}", purpose.name())
}

/// A unit as it is hashed; `None` when there is none, or it is longer than is allowed.
pub(super) fn usable(unit: Option<&str>) -> Option<Cow<'_, str>> {
    unit.filter(|unit| (1..=UNIT_BYTES_MAX).contains(&unit.len())).map(canonical)
}

/// A unit in the one form that is hashed: UUIDs in lower case with hyphens, everything else as is.
pub fn canonical(unit: &str) -> Cow<'_, str> {
    let looks_like_uuid = matches!(unit.len(), 32 | 36) && unit.is_ascii();
    match Uuid::try_parse(unit) {
        Ok(uuid) if looks_like_uuid => Cow::Owned(uuid.hyphenated().to_string()),
        _ => Cow::Borrowed(unit),
    }
}
