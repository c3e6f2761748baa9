//! The price table as a file: `config/prices.toml`.
//!
//! Everything that a call may need is worked out here: which price a tier, a modality or a long prompt
//! falls back to. A bill then only multiplies.

use std::collections::{BTreeMap, HashMap};

use jiff::civil::Date;
use serde::Deserialize;

use super::{Fee, Prices, Rates, Row, Sheet};
use crate::words::money::PicoUsd;

const TOKENS_PER_PRICE: i128 = 1_000_000;
const QUERIES_PER_PRICE: i128 = 1_000;
const LONG: &str = "_above_200k";
/// In the order of `split`.
const MODALITIES: [&str; 4] = ["", "_audio", "_image", "_video"];
const KINDS: [&str; 3] = ["input", "cached", "output"];

/// Why a price file is refused.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// Not the expected shape.
    #[error("{0}")]
    Shape(String),
    /// A value that is no price or no date, or a key that there is none.
    #[error("the price of {model}: {field} must be {allowed}")]
    Value {
        /// The model, or one of its aliases.
        model: String,
        /// The key.
        field: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// Two entries of which nobody can say which one holds.
    #[error("the price of {model}: two entries begin on the same day; give one another valid_from")]
    Twice {
        /// The model, or one of its aliases.
        model: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    price: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    model: String,
    #[serde(default)]
    aliases: Vec<String>,
    valid_from: Option<String>,
    valid_until: Option<String>,
    search_per_1000_queries: Option<String>,
    search_per_1000_requests: Option<String>,
    maps_per_1000_queries: Option<String>,
    maps_per_1000_requests: Option<String>,
    batch: Option<Keys>,
    flex: Option<Keys>,
    priority: Option<Keys>,
    /// All others, which must be prices of tokens.
    #[serde(flatten)]
    standard: Keys,
}

type Keys = BTreeMap<String, toml::Value>;
type Priced = BTreeMap<String, PicoUsd>;

impl Prices {
    /// Reads the TOML of `config/prices.toml`: decimal USD per million tokens, and per 1000 searches.
    pub fn parse(toml: &str) -> Result<Self, PriceError> {
        let file: File =
            toml::from_str(toml).map_err(|error| PriceError::Shape(error.to_string()))?;
        let mut by_model: HashMap<String, Vec<Row>> = HashMap::new();
        for entry in &file.price {
            let row = entry.row()?;
            for name in std::iter::once(&entry.model).chain(&entry.aliases) {
                let rows = by_model.entry(name.clone()).or_default();
                if rows.iter().any(|one| one.from == row.from) {
                    return Err(PriceError::Twice { model: name.clone() });
                }
                rows.push(row.clone());
            }
        }
        for rows in by_model.values_mut() {
            rows.sort_by_key(|row| std::cmp::Reverse(row.from));
        }
        Ok(Self { version: file.version, by_model })
    }
}

impl Entry {
    fn row(&self) -> Result<Row, PriceError> {
        let from = self.date("valid_from", self.valid_from.as_ref())?.unwrap_or(Date::MIN);
        let until = self.date("valid_until", self.valid_until.as_ref())?.unwrap_or(Date::MAX);
        if until <= from {
            return Err(self.refuse("valid_until", "a day after valid_from"));
        }
        let standard = self.priced(&self.standard)?;
        if !standard.contains_key("input") {
            return Err(self.refuse("input", "given"));
        }
        let tier = |keys: &Option<Keys>| -> Result<Option<Sheet>, PriceError> {
            let keys = keys.as_ref().map(|keys| self.priced(keys)).transpose()?;
            Ok(keys.map(|keys| sheet(&keys, &standard)))
        };
        Ok(Row {
            from,
            until,
            batch: tier(&self.batch)?,
            flex: tier(&self.flex)?,
            priority: tier(&self.priority)?,
            search: self.fee(
                ("search_per_1000_queries", self.search_per_1000_queries.as_ref()),
                ("search_per_1000_requests", self.search_per_1000_requests.as_ref()),
            )?,
            maps: self.fee(
                ("maps_per_1000_queries", self.maps_per_1000_queries.as_ref()),
                ("maps_per_1000_requests", self.maps_per_1000_requests.as_ref()),
            )?,
            standard: sheet(&standard, &standard),
        })
    }

    fn date(&self, field: &str, text: Option<&String>) -> Result<Option<Date>, PriceError> {
        text.map(|text| text.parse().map_err(|_no_date| self.refuse(field, "a day, 2026-12-01")))
            .transpose()
    }

    fn priced(&self, keys: &Keys) -> Result<Priced, PriceError> {
        let allowed = "a decimal string with at most 6 places, \"0.30\"";
        let one = |(key, value): (&String, &toml::Value)| {
            if !is_price(key) {
                let keys = "left out: there are input, cached and output, each also with _audio, _image or \
                            _video behind it, and then with _above_200k";
                return Err(self.refuse(key, keys));
            }
            let price = value.as_str().and_then(|text| each(text, TOKENS_PER_PRICE));
            Ok((key.clone(), price.ok_or_else(|| self.refuse(key, allowed))?))
        };
        keys.iter().map(one).collect()
    }

    fn fee(
        &self,
        (queries, by_query): (&str, Option<&String>),
        (requests, by_request): (&str, Option<&String>),
    ) -> Result<Option<Fee>, PriceError> {
        let allowed = "a decimal string with at most 9 places, \"14\"";
        let read = |field: &str, text: &String| {
            each(text, QUERIES_PER_PRICE).ok_or_else(|| self.refuse(field, allowed))
        };
        match (by_query, by_request) {
            (Some(_), Some(_)) => {
                Err(self.refuse(requests, "left out where the price of a query is given"))
            }
            (Some(text), None) => Ok(Some(Fee::Query(read(queries, text)?))),
            (None, Some(text)) => Ok(Some(Fee::Request(read(requests, text)?))),
            (None, None) => Ok(None),
        }
    }

    fn refuse(&self, field: &str, allowed: &'static str) -> PriceError {
        PriceError::Value { model: self.model.clone(), field: field.to_owned(), allowed }
    }
}

/// Whether a key is the price of some tokens.
fn is_price(key: &str) -> bool {
    let key = key.strip_suffix(LONG).unwrap_or(key);
    let kind = MODALITIES.iter().skip(1).find_map(|one| key.strip_suffix(one)).unwrap_or(key);
    KINDS.contains(&kind)
}

/// The price of one of `many`, which must be a whole number of 10⁻¹² USD.
fn each(text: &str, many: i128) -> Option<PicoUsd> {
    let price = text.parse::<PicoUsd>().ok().filter(|price| price.0 >= 0)?;
    (price.0.checked_rem(many)? == 0).then_some(PicoUsd(price.0.checked_div(many)?))
}

/// All prices of a tier. What it does not name costs as in the standard tier.
fn sheet(tier: &Priced, standard: &Priced) -> Sheet {
    let is_long = |keys: &Priced| keys.keys().any(|key| key.ends_with(LONG));
    Sheet {
        usual: rates(tier, standard, &[""]),
        long: (is_long(tier) || is_long(standard)).then(|| rates(tier, standard, &[LONG, ""])),
    }
}

/// `lengths`: the endings of keys, the one that counts first.
fn rates(tier: &Priced, standard: &Priced, lengths: &[&str]) -> Rates {
    let find = |name: &str| {
        let keys = lengths.iter().map(|length| format!("{name}{length}"));
        keys.flat_map(|key| [tier.get(&key), standard.get(&key)]).flatten().next().copied()
    };
    let of = |kind: &str, modality: &str| find(&format!("{kind}{modality}")).or_else(|| find(kind));
    let input = MODALITIES.map(|modality| of("input", modality).unwrap_or_default());
    let output = MODALITIES.map(|modality| of("output", modality).unwrap_or_default());
    let mut cached = input;
    for (cached, modality) in cached.iter_mut().zip(MODALITIES) {
        // Without a discount it costs what it would cost fresh.
        *cached = of("cached", modality).unwrap_or(*cached);
    }
    Rates { input, cached, output }
}
