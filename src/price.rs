//! Tokens to money, by a dated table.
//!
//! Thoughts cost what the answer costs. Above 200 000 prompt tokens the second rate holds for the
//! whole call. A model, a tier or a search that the table does not know has no cost, which is not a
//! cost of 0.

pub mod import;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

pub use table::PriceError;

use crate::words::money::PicoUsd;
use crate::words::tokens::{Modalities, ServiceTier, Usage};

/// Above this many prompt tokens, cached ones included, the long-context rate holds for the whole call.
const LONG_CONTEXT_TOKENS: u64 = 200_000;

/// All prices, with the version that is stored beside each cost.
#[derive(Debug, Default)]
pub struct Prices {
    version: String,
    /// By model, newest first.
    by_model: HashMap<String, Vec<Row>>,
}

/// What a call costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// At the prices of the table.
    pub usd: PicoUsd,
    /// The same if nothing had come from a cache: what to compare prompts by, since which of two finds more in
    /// the cache depends on their traffic.
    pub list_usd: PicoUsd,
}

/// The prices of one model while they hold.
#[derive(Debug, Clone)]
struct Row {
    from: Date,
    /// The first day on which they hold no more.
    until: Date,
    standard: Sheet,
    batch: Option<Sheet>,
    flex: Option<Sheet>,
    priority: Option<Sheet>,
    search: Option<Fee>,
    maps: Option<Fee>,
}

/// The prices of one tier.
#[derive(Debug, Clone, Copy)]
struct Sheet {
    usual: Rates,
    long: Option<Rates>,
}

/// 10⁻¹² USD per token, by modality as [`split`] orders them.
#[derive(Debug, Clone, Copy)]
struct Rates {
    input: [PicoUsd; 4],
    cached: [PicoUsd; 4],
    output: [PicoUsd; 4],
}

/// What grounding costs.
#[derive(Debug, Clone, Copy)]
enum Fee {
    /// Each query.
    Query(PicoUsd),
    /// Each call that made any.
    Request(PicoUsd),
}

impl Prices {
    /// The version of the table.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What `usage` costs on `model` in `tier` at the time `at`; `None` when the table does not know.
    ///
    /// Formula: `docs/prices.md`. Free quotas are not subtracted.
    pub fn cost(
        &self,
        model: &str,
        usage: &Usage,
        tier: ServiceTier,
        at: Timestamp,
    ) -> Option<Cost> {
        let day = at.to_zoned(TimeZone::UTC).date();
        let rows = self.by_model.get(bare(model))?;
        let row = rows.iter().find(|row| row.from <= day && day < row.until)?;
        let sheet = row.sheet(tier)?;
        let rates = match &sheet.long {
            Some(long) if usage.prompt > LONG_CONTEXT_TOKENS => long,
            Some(_) | None => &sheet.usual,
        };
        let prompt = split(usage.prompt, usage.prompt_details);
        let cached = split(usage.cached.min(usage.prompt), usage.cached_details);
        let [text, audio, image, video] = split(usage.candidates, usage.candidates_details);
        let written = [text.saturating_add(usage.thoughts), audio, image, video];
        let mut rest: PicoUsd = [
            bill(&rates.output, written),
            fee(row.search, usage.search_queries)?,
            fee(row.maps, usage.maps_queries)?,
        ]
        .into_iter()
        .sum();
        // What a search brings in is paid with the search.
        if usage.search_queries == 0 {
            rest = rest + bill(&rates.input, split(usage.tool_use, usage.tool_use_details));
        }
        let read = bill(&rates.input, without(prompt, cached)) + bill(&rates.cached, cached);
        Some(Cost { usd: read + rest, list_usd: bill(&rates.input, prompt) + rest })
    }
}

impl Row {
    fn sheet(&self, tier: ServiceTier) -> Option<&Sheet> {
        match tier {
            ServiceTier::Standard => Some(&self.standard),
            ServiceTier::Batch => self.batch.as_ref(),
            ServiceTier::Flex => self.flex.as_ref(),
            ServiceTier::Priority => self.priority.as_ref(),
            ServiceTier::Unknown => None,
        }
    }
}

/// `models/gemini-…` and `google/gemini-…` are the model itself.
pub fn bare(model: &str) -> &str {
    let known = ["models/", "google/"].iter().find_map(|prefix| model.strip_prefix(prefix));
    known.unwrap_or(model)
}

/// A count as text, audio, image, video. Details beyond the count are cut off; what they leave is text.
fn split(count: u64, details: Modalities) -> [u64; 4] {
    let audio = details.audio.min(count);
    let image = details.image.min(count.saturating_sub(audio));
    let video = details.video.min(count.saturating_sub(audio).saturating_sub(image));
    let text = count.saturating_sub(audio).saturating_sub(image).saturating_sub(video);
    [text, audio, image, video]
}

/// The prompt without what came from a cache. Cached tokens of a modality that the prompt has too few of
/// are taken from the others, text first, so that no token is paid twice.
fn without(prompt: [u64; 4], cached: [u64; 4]) -> [u64; 4] {
    let mut owed: u64 = 0;
    let mut fresh = prompt;
    for (fresh, cached) in fresh.iter_mut().zip(cached) {
        owed = owed.saturating_add(cached.saturating_sub(*fresh));
        *fresh = fresh.saturating_sub(cached);
    }
    for fresh in &mut fresh {
        let taken = owed.min(*fresh);
        *fresh = fresh.saturating_sub(taken);
        owed = owed.saturating_sub(taken);
    }
    fresh
}

fn bill(rates: &[PicoUsd; 4], tokens: [u64; 4]) -> PicoUsd {
    rates.iter().zip(tokens).map(|(rate, tokens)| times(*rate, tokens)).sum()
}

/// `None` when something was used that has no price.
fn fee(fee: Option<Fee>, queries: u64) -> Option<PicoUsd> {
    match fee {
        _ if queries == 0 => Some(PicoUsd::default()),
        Some(Fee::Query(price)) => Some(times(price, queries)),
        Some(Fee::Request(price)) => Some(price),
        None => None,
    }
}

fn times(price: PicoUsd, count: u64) -> PicoUsd {
    PicoUsd(price.0.saturating_mul(i128::from(count)))
}
