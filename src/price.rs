//! Tokens to money, by a dated table.
//!
//! Thoughts cost what the answer costs. Above 200 000 prompt tokens the second rate holds for the
//! whole call. A model that the table does not know has no cost, which is not a cost of 0.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::words::money::PicoUsd;
use crate::words::tokens::Usage;

/// From here on (exclusive) the long-context rate holds for the whole call.
const LONG_CONTEXT_TOKENS: u64 = 200_000;
const TOKENS_PER_PRICE: i128 = 1_000_000;

/// All prices, with the version that is stored beside each cost.
#[derive(Debug, Default)]
pub struct Prices {
    version: String,
    /// By model, newest first.
    by_model: HashMap<String, Vec<Rate>>,
}

/// Why a price file is refused.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// Not the expected shape.
    #[error("{0}")]
    Shape(String),
    /// A value that is no price or no date.
    #[error("the price of {model}: {field} must be {allowed}")]
    Value {
        /// The model.
        model: String,
        /// The key.
        field: &'static str,
        /// What it may be.
        allowed: &'static str,
    },
}

/// The price of one model from one date on, in 10⁻¹² USD per token.
#[derive(Debug, Clone)]
struct Rate {
    from: Date,
    usual: Tier,
    long: Option<Tier>,
    input_audio: Option<PicoUsd>,
    cached_audio: Option<PicoUsd>,
}

#[derive(Debug, Clone, Copy)]
struct Tier {
    input: PicoUsd,
    cached: PicoUsd,
    output: PicoUsd,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    price: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    model: String,
    #[serde(default)]
    aliases: Vec<String>,
    valid_from: Option<String>,
    input: String,
    cached: Option<String>,
    output: Option<String>,
    input_audio: Option<String>,
    cached_audio: Option<String>,
    input_above_200k: Option<String>,
    cached_above_200k: Option<String>,
    output_above_200k: Option<String>,
}

impl Prices {
    /// Reads the TOML of `config/prices.toml`: decimal USD per million tokens.
    pub fn parse(toml: &str) -> Result<Self, PriceError> {
        let file: File =
            toml::from_str(toml).map_err(|error| PriceError::Shape(error.to_string()))?;
        let mut by_model: HashMap<String, Vec<Rate>> = HashMap::new();
        for entry in &file.price {
            let rate = entry.rate()?;
            for name in std::iter::once(&entry.model).chain(&entry.aliases) {
                by_model.entry(name.clone()).or_default().push(rate.clone());
            }
        }
        for rates in by_model.values_mut() {
            rates.sort_by_key(|rate| std::cmp::Reverse(rate.from));
        }
        Ok(Self { version: file.version, by_model })
    }

    /// The version of the table.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What `usage` costs on `model` at `now`; `None` when the table does not know.
    pub fn cost(&self, model: &str, usage: &Usage, now: Timestamp) -> Option<PicoUsd> {
        let today = now.to_zoned(TimeZone::UTC).date();
        let rates = self.by_model.get(bare(model))?;
        let rate = rates.iter().find(|rate| rate.from <= today)?;
        let tier = match rate.long {
            Some(long) if usage.prompt > LONG_CONTEXT_TOKENS => long,
            Some(_) | None => rate.usual,
        };
        let cached_audio = usage.cached_audio.min(usage.cached);
        let prompt_audio = usage.prompt_audio.min(usage.prompt);
        let cached_text = usage.cached.saturating_sub(cached_audio);
        let fresh_audio = prompt_audio.saturating_sub(cached_audio);
        let fresh_text = usage
            .prompt
            .saturating_sub(prompt_audio)
            .saturating_sub(cached_text)
            .saturating_add(usage.tool_use);
        let written = usage.candidates.saturating_add(usage.thoughts);
        Some(
            [
                times(tier.input, fresh_text),
                times(rate.input_audio.unwrap_or(tier.input), fresh_audio),
                times(tier.cached, cached_text),
                times(rate.cached_audio.unwrap_or(tier.cached), cached_audio),
                times(tier.output, written),
            ]
            .into_iter()
            .sum(),
        )
    }
}

/// `models/gemini-…` and `google/gemini-…` are the model itself.
pub fn bare(model: &str) -> &str {
    let known = ["models/", "google/"].iter().find_map(|prefix| model.strip_prefix(prefix));
    known.unwrap_or(model)
}

fn times(price: PicoUsd, tokens: u64) -> PicoUsd {
    PicoUsd(price.0.saturating_mul(i128::from(tokens)))
}

impl Entry {
    fn rate(&self) -> Result<Rate, PriceError> {
        let from = match &self.valid_from {
            Some(date) => {
                date.parse().map_err(|_no_date| self.refuse("valid_from", "a date, 2026-12-01"))?
            }
            None => Date::MIN,
        };
        let input = self.price("input", Some(&self.input))?.unwrap_or_default();
        let cached = self.price("cached", self.cached.as_ref())?.unwrap_or(input);
        let output = self.price("output", self.output.as_ref())?.unwrap_or_default();
        let usual = Tier { input, cached, output };
        let long = self.price("input_above_200k", self.input_above_200k.as_ref())?;
        let long = match long {
            Some(input) => Some(Tier {
                input,
                cached: self
                    .price("cached_above_200k", self.cached_above_200k.as_ref())?
                    .unwrap_or(input),
                output: self
                    .price("output_above_200k", self.output_above_200k.as_ref())?
                    .unwrap_or(output),
            }),
            None => None,
        };
        Ok(Rate {
            from,
            usual,
            long,
            input_audio: self.price("input_audio", self.input_audio.as_ref())?,
            cached_audio: self.price("cached_audio", self.cached_audio.as_ref())?,
        })
    }

    /// A price per million as the price of one token, which must be a whole number of 10⁻¹² USD.
    fn price(
        &self,
        field: &'static str,
        text: Option<&String>,
    ) -> Result<Option<PicoUsd>, PriceError> {
        let Some(text) = text else { return Ok(None) };
        text.parse::<PicoUsd>()
            .ok()
            .filter(|price| price.0 >= 0 && price.0.checked_rem(TOKENS_PER_PRICE) == Some(0))
            .and_then(|price| price.0.checked_div(TOKENS_PER_PRICE))
            .map(|pico| Some(PicoUsd(pico)))
            .ok_or_else(|| self.refuse(field, "a decimal string with at most 6 places, \"0.30\""))
    }

    fn refuse(&self, field: &'static str, allowed: &'static str) -> PriceError {
        PriceError::Value { model: self.model.clone(), field, allowed }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::Prices;
    use crate::words::tokens::Usage;

    const TABLE: &str = r#"
        version = "test"
        [[price]]
        model = "flash"
        aliases = ["flash-latest"]
        input = "0.30"
        cached = "0.03"
        output = "2.50"
        input_audio = "1.00"
        cached_audio = "0.10"
        [[price]]
        model = "pro"
        input = "1.25"
        cached = "0.125"
        output = "10"
        input_above_200k = "2.50"
        cached_above_200k = "0.25"
        output_above_200k = "15"
        [[price]]
        model = "dated"
        input = "2"
        output = "10"
        [[price]]
        model = "dated"
        valid_from = "2026-12-01"
        input = "4"
        output = "20"
    "#;

    fn usage(prompt: u64, cached: u64, candidates: u64, thoughts: u64) -> Usage {
        Usage { prompt, cached, candidates, thoughts, ..Usage::default() }
    }

    #[test]
    fn bills_worked_by_hand() {
        let prices = Prices::parse(TABLE).unwrap();
        let before: Timestamp = "2026-11-30T23:59:59Z".parse().unwrap();
        let after: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
        let audio = Usage { prompt_audio: 40, cached_audio: 10, ..usage(100, 30, 1, 0) };
        for (model, usage, now, cost) in [
            ("flash", usage(1_000_000, 0, 0, 0), before, "0.300000000000"),
            // 700 × 0.30 + 300 × 0.03 + 60 × 2.50 = 369 per million
            ("models/flash", usage(1000, 300, 50, 10), before, "0.000369000000"),
            ("flash-latest", usage(1, 0, 0, 0), before, "0.000000300000"),
            // text 60 − 20 cached = 40 × 0.30 + 20 × 0.03; audio 30 × 1 + 10 × 0.10; 1 × 2.50
            ("flash", audio, before, "0.000046100000"),
            ("pro", usage(200_000, 0, 1, 0), before, "0.250010000000"),
            ("pro", usage(200_001, 1, 1, 0), before, "0.500015250000"),
            ("dated", usage(10, 0, 10, 0), before, "0.000120000000"),
            ("dated", usage(10, 0, 10, 0), after, "0.000240000000"),
        ] {
            assert_eq!(prices.cost(model, &usage, now).unwrap().to_string(), cost, "{model}");
        }
        assert_eq!(prices.cost("unknown", &usage(1, 0, 0, 0), before), None);
        assert_eq!(prices.cost("any text/pro", &usage(1, 0, 0, 0), before), None);
    }

    #[test]
    fn refuses_prices_that_are_none() {
        for (input, allowed) in [("0.1234567", "at most 6"), ("-1", "decimal"), ("x", "decimal")] {
            let table = format!("version = \"t\"\n[[price]]\nmodel = \"m\"\ninput = \"{input}\"");
            let error = Prices::parse(&table).unwrap_err().to_string();
            assert!(error.contains("price of m: input") && error.contains(allowed), "{error}");
        }
        assert!(Prices::parse("version = 1").is_err());
    }
}
