//! Price tables that others keep, in the form of ours.
//!
//! `LiteLLM`'s `model_prices_and_context_window.json` gives floats in USD per token under flat names;
//! genai-prices' `data.json` gives decimals per million tokens with thresholds and first days. What our table
//! cannot say, or what is not plausible, is left out and told.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::Prices;

/// Our keys of `LiteLLM`'s prices of tokens.
const LITELLM: [(&str, &str); 12] = [
    ("input", "input_cost_per_token"),
    ("input_audio", "input_cost_per_audio_token"),
    ("input_image", "input_cost_per_image_token"),
    ("input_video", "input_cost_per_video_token"),
    ("cached", "cache_read_input_token_cost"),
    ("cached_audio", "cache_read_input_audio_token_cost"),
    ("cached_image", "cache_read_input_image_token_cost"),
    ("cached_video", "cache_read_input_video_token_cost"),
    ("output", "output_cost_per_token"),
    ("output_audio", "output_cost_per_audio_token"),
    ("output_image", "output_cost_per_image_token"),
    ("output_video", "output_cost_per_video_token"),
];
/// Our tiers and what `LiteLLM` puts behind a name for them.
const TIERS: [(&str, &str); 4] =
    [("", ""), ("batch", "_batches"), ("flex", "_flex"), ("priority", "_priority")];
const LITELLM_LONG: &str = "_above_200k_tokens";
const LONG: &str = "_above_200k";
/// Our keys of genai-prices' names.
const GENAI: [(&str, &str); 11] = [
    ("input", "input_mtok"),
    ("input_audio", "input_audio_mtok"),
    ("input_image", "input_image_mtok"),
    ("input_video", "input_video_mtok"),
    ("cached", "cache_read_mtok"),
    ("cached_audio", "cache_audio_read_mtok"),
    ("cached_image", "cache_image_read_mtok"),
    ("output", "output_mtok"),
    ("output_audio", "output_audio_mtok"),
    ("output_image", "output_image_mtok"),
    ("output_video", "output_video_mtok"),
];
/// From which prompt on our table knows another price.
const THRESHOLD: u64 = 200_000;

const AS_STANDARD: &str = "no price of the tier's own there: costs as in the standard tier";
const UNKNOWN_KIND: &str = "a price of something that has none in our table";
const OTHER_THRESHOLD: &str = "a price above another number of tokens than 200,000";

/// A table made of another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// In the form of `config/prices.toml`.
    pub toml: String,
    /// Models in it.
    pub taken: usize,
    /// Models, or parts of their prices, that are not in it, and why.
    pub left_out: Vec<(String, &'static str)>,
}

/// Why there is nothing to import.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ImportError {
    /// Neither form.
    #[error(
        "this is neither LiteLLM's model_prices_and_context_window.json nor genai-prices' data.json"
    )]
    Unknown,
    /// No model of Gemini with a price.
    #[error("no price of a Gemini model is in it")]
    Empty,
    /// What was made does not read as a price table: a mistake of this program.
    #[error("the table does not read: {0}")]
    Unreadable(String),
}

/// One model from some day on.
#[derive(Debug, Default)]
struct Entry {
    model: String,
    aliases: BTreeSet<String>,
    valid_from: Option<String>,
    /// By tier, then by key, in 10⁻⁶ USD per million tokens.
    tiers: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// Further keys, written as they are.
    fees: Vec<(&'static str, u64)>,
}

/// Reads either form. `version` names the table that is made.
pub fn import(json: &str, version: &str) -> Result<Imported, ImportError> {
    let mut left_out = Vec::new();
    let entries = match serde_json::from_str(json) {
        Ok(Value::Object(models)) if models.values().any(is_litellm) => {
            litellm(&models, &mut left_out)
        }
        Ok(Value::Array(providers)) if providers.iter().any(|one| one.get("models").is_some()) => {
            genai(&providers, &mut left_out)
        }
        _ => return Err(ImportError::Unknown),
    };
    let entries = without_doubles(entries, &mut left_out);
    left_out.dedup();
    if entries.is_empty() {
        return Err(ImportError::Empty);
    }
    let models: BTreeSet<&str> = entries.iter().map(|entry| entry.model.as_str()).collect();
    let (taken, toml) = (models.len(), written(&entries, version));
    Prices::parse(&toml).map_err(|error| ImportError::Unreadable(error.to_string()))?;
    Ok(Imported { toml, taken, left_out })
}

fn is_litellm(model: &Value) -> bool {
    model.get("litellm_provider").is_some()
}

fn litellm(models: &Map<String, Value>, left_out: &mut Vec<(String, &'static str)>) -> Vec<Entry> {
    let of_gemini = models.iter().filter_map(|(name, model)| {
        let is_gemini = model.get("litellm_provider").and_then(Value::as_str) == Some("gemini");
        is_gemini.then(|| (name.strip_prefix("gemini/").unwrap_or(name), model))
    });
    of_gemini.filter_map(|(name, model)| litellm_entry(name, model, left_out)).collect()
}

fn litellm_entry(
    name: &str,
    model: &Value,
    left_out: &mut Vec<(String, &'static str)>,
) -> Option<Entry> {
    let mut entry = Entry { model: name.to_owned(), ..Entry::default() };
    for (tier, ending) in TIERS {
        for (ours, theirs) in LITELLM {
            for (long, their_long) in [("", ""), (LONG, LITELLM_LONG)] {
                let price = model.get(format!("{theirs}{their_long}{ending}"));
                if let Some(price) = price.and_then(Value::as_f64).and_then(|usd| whole(usd * 1e12))
                {
                    entry.tiers.entry(tier).or_default().insert(format!("{ours}{long}"), price);
                }
            }
        }
    }
    // Whether a call with several searches pays for each; maps go with them.
    let by_query = model.get("web_search_billing_unit").is_some_and(|unit| unit == "per_query");
    let [search_key, maps_key] = if by_query {
        ["search_per_1000_queries", "maps_per_1000_queries"]
    } else {
        ["search_per_1000_requests", "maps_per_1000_requests"]
    };
    let per_query = model.get("search_context_cost_per_query");
    let search = per_query.and_then(|by_size| by_size.get("search_context_size_medium"));
    let maps = model.get("google_maps_grounding_cost_per_query");
    for (key, fee) in [(search_key, search), (maps_key, maps)] {
        let fee = fee.and_then(Value::as_f64).and_then(|usd| whole(usd * 1e9));
        entry.fees.extend(fee.map(|fee| (key, fee)));
    }
    let entry = entry.plausible(left_out)?;
    left_out.extend(entry.lacking());
    left_out.extend(unsaid(model).map(|why| (entry.model.clone(), why)));
    Some(entry)
}

/// What a model costs there beside what our table can say.
fn unsaid(model: &Value) -> impl Iterator<Item = &'static str> {
    let has = |part: &str| {
        let mut names = model.as_object().into_iter().flat_map(Map::keys);
        names.any(|name| name.contains(part))
    };
    let price = |name: &str| model.get(name).and_then(Value::as_f64);
    let (thoughts, output) =
        (price("output_cost_per_reasoning_token"), price("output_cost_per_token"));
    [
        (has("_above_") && !has(LITELLM_LONG)).then_some(OTHER_THRESHOLD),
        (thoughts.is_some() && thoughts != output).then_some("a price of thoughts of their own"),
        (has("_per_second") || has("_per_character"))
            .then_some("prices by the second or the character"),
        (price("output_cost_per_image").is_some() || price("input_cost_per_image").is_some())
            .then_some("prices by the image"),
    ]
    .into_iter()
    .flatten()
}

fn genai(providers: &[Value], left_out: &mut Vec<(String, &'static str)>) -> Vec<Entry> {
    let of_google = providers.iter().filter(|one| one.get("id").is_some_and(|id| id == "google"));
    let models = of_google.filter_map(|one| one.get("models")?.as_array()).flatten();
    // Google sells models of others, too.
    let of_gemini = models.filter(|model| {
        let id = model.get("id").and_then(Value::as_str);
        id.is_some_and(|id| id.starts_with("gemini"))
    });
    of_gemini.flat_map(|model| genai_entries(model, left_out)).collect()
}

fn genai_entries(model: &Value, left_out: &mut Vec<(String, &'static str)>) -> Vec<Entry> {
    let name = model.get("id").and_then(Value::as_str).unwrap_or_default();
    let mut aliases = BTreeSet::new();
    let is_exact = model.get("match").is_none_or(|rule| names(rule, &mut aliases));
    if !is_exact {
        left_out.push((name.to_owned(), "names that only resemble it are not known by it here"));
    }
    aliases.remove(name);
    let prices = model.get("prices").cloned().unwrap_or_default();
    let dated = match prices {
        Value::Array(dated) => dated,
        prices => vec![serde_json::json!({ "prices": prices })],
    };
    let entry = |one: &Value| {
        let constraint = one.get("constraint");
        let start = constraint.and_then(|constraint| constraint.get("start_date"));
        if constraint.is_some_and(|constraint| !constraint.is_null()) && start.is_none() {
            left_out.push((name.to_owned(), "a price that holds at some hours only"));
            return None;
        }
        let mut entry = Entry {
            model: name.to_owned(),
            aliases: aliases.clone(),
            valid_from: start.and_then(Value::as_str).map(str::to_owned),
            ..Entry::default()
        };
        let standard = entry.tiers.entry("").or_default();
        for (theirs, price) in one.get("prices").and_then(Value::as_object).into_iter().flatten() {
            let ours = GENAI.iter().find(|(_, known)| known == theirs).map(|(ours, _)| ours);
            let unsaid = match ours {
                None => Some(UNKNOWN_KIND),
                Some(ours) => (!genai_price(ours, price, standard)).then_some(OTHER_THRESHOLD),
            };
            left_out.extend(unsaid.map(|why| (name.to_owned(), why)));
        }
        entry.plausible(left_out)
    };
    dated.iter().filter_map(entry).collect()
}

/// A price, or one with thresholds; some are written as text. Whether our table can say all of it.
fn genai_price(key: &str, price: &Value, prices: &mut BTreeMap<String, u64>) -> bool {
    let number = |value: &Value| {
        let usd = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
        whole(usd * 1e6)
    };
    if let Some(usual) = number(price.get("base").unwrap_or(price)) {
        prices.insert(key.to_owned(), usual);
    }
    let tiers = price.get("tiers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let at = |tier: &&Value| tier.get("start").and_then(Value::as_u64) == Some(THRESHOLD);
    if let Some(long) = tiers.iter().find(at).and_then(|tier| number(tier.get("price")?)) {
        prices.insert(format!("{key}{LONG}"), long);
    }
    tiers.iter().all(|tier| at(&tier))
}

/// The names that a rule says outright; whether it says nothing else.
fn names(rule: &Value, known: &mut BTreeSet<String>) -> bool {
    if let Some(rules) = rule.get("or").and_then(Value::as_array) {
        return rules.iter().filter(|rule| !names(rule, known)).count() == 0;
    }
    let name = rule.get("equals").and_then(Value::as_str);
    known.extend(name.map(str::to_owned));
    name.is_some()
}

/// Takes out names that another entry has from the same day on: nobody could say which one holds.
fn without_doubles(
    mut entries: Vec<Entry>,
    left_out: &mut Vec<(String, &'static str)>,
) -> Vec<Entry> {
    let mut seen: BTreeSet<(String, Option<String>)> = BTreeSet::new();
    entries.retain(|entry| {
        let is_new = seen.insert((entry.model.clone(), entry.valid_from.clone()));
        if !is_new {
            left_out.push((entry.model.clone(), "it stands there twice"));
        }
        is_new
    });
    for entry in &mut entries {
        let day = entry.valid_from.clone();
        entry.aliases.retain(|alias| seen.insert((alias.clone(), day.clone())));
    }
    entries
}

impl Entry {
    /// The entry, unless nobody should believe it.
    fn plausible(self, left_out: &mut Vec<(String, &'static str)>) -> Option<Self> {
        let standard = self.tiers.get("");
        let input = standard.and_then(|prices| prices.get("input")).copied();
        let why = match input {
            None => "it has no price of prompt tokens",
            Some(0) => "it costs nothing there, which is more often a gap than a gift",
            Some(_) => return Some(self),
        };
        left_out.push((self.model, why));
        None
    }
}

/// A float that stands for a whole number; `None` where it does not.
fn whole(value: f64) -> Option<u64> {
    let rounded = value.round();
    let is_whole = (value - rounded).abs() <= 1e-6 * value.abs().max(1.0);
    (is_whole && (0.0..1e15).contains(&rounded)).then(|| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "just checked")]
        let whole = rounded as u64;
        whole
    })
}

fn written(entries: &[Entry], version: &str) -> String {
    let head = "# Made by `chaperone prices import`; the head of the table that comes with Chaperone explains the keys.";
    let mut lines = vec![head.to_owned(), format!("version = {version:?}")];
    lines.extend(entries.iter().flat_map(Entry::lines));
    lines.join("\n") + "\n"
}

impl Entry {
    /// The tiers without a price of their own for all that the standard tier has one for.
    fn lacking(&self) -> Vec<(String, &'static str)> {
        let standard = self.tiers.get("").into_iter().flat_map(BTreeMap::keys);
        let standard: Vec<_> = standard.collect();
        let lacking = |(tier, prices): (&&str, &BTreeMap<String, u64>)| {
            let keys = standard.iter().filter(|key| !prices.contains_key(**key));
            let keys: Vec<&str> = keys.map(|key| key.as_str()).collect();
            (!keys.is_empty())
                .then(|| (format!("{}, {tier}: {}", self.model, keys.join(", ")), AS_STANDARD))
        };
        self.tiers.iter().filter(|(tier, _)| !tier.is_empty()).filter_map(lacking).collect()
    }

    fn lines(&self) -> Vec<String> {
        let mut lines =
            vec![String::new(), "[[price]]".to_owned(), format!("model = {:?}", self.model)];
        if !self.aliases.is_empty() {
            lines.push(format!("aliases = {:?}", self.aliases.iter().collect::<Vec<_>>()));
        }
        lines.extend(self.valid_from.as_ref().map(|day| format!("valid_from = {day:?}")));
        let price = |(key, price): (&str, u64)| format!("{key} = \"{}\"", decimal(price));
        let of = |prices: &BTreeMap<String, u64>| -> Vec<String> {
            prices.iter().map(|(key, one)| price((key, *one))).collect()
        };
        lines.extend(self.tiers.get("").into_iter().flat_map(of));
        lines.extend(self.fees.iter().map(|(key, fee)| price((key, *fee))));
        for (tier, prices) in self.tiers.iter().filter(|(tier, _)| !tier.is_empty()) {
            lines.push(format!("[price.{tier}]"));
            lines.extend(of(prices));
        }
        lines
    }
}

/// Millionths as a decimal.
fn decimal(millionths: u64) -> String {
    let (whole, rest) = (millionths / 1_000_000, millionths % 1_000_000);
    let text = format!("{whole}.{rest:06}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn litellms_floats_become_exact_prices_in_our_tiers() {
        let file = json!({
            "sample_spec": {"litellm_provider": "one of them", "input_cost_per_token": 0},
            "gemini/gemini-9-pro": {
                "litellm_provider": "gemini", "mode": "chat", "max_tokens": 65535,
                "input_cost_per_token": 1.25e-06, "input_cost_per_token_above_200k_tokens": 2.5e-06,
                "output_cost_per_token": 1e-05, "output_cost_per_token_above_200k_tokens": 1.5e-05,
                "cache_read_input_token_cost": 1.25e-07, "input_cost_per_audio_token": 7e-07,
                "output_cost_per_image_token": 3e-05, "output_cost_per_video_token": 1.75e-05, "input_cost_per_token_batches": 6.25e-07,
                "output_cost_per_token_priority": 1.8e-05,
                "input_cost_per_token_above_200k_tokens_priority": 4.5e-06,
                "search_context_cost_per_query": {"search_context_size_medium": 0.014},
                "web_search_billing_unit": "per_query", "google_maps_grounding_cost_per_query": 0.014,
                "supports_vision": true,
            },
            "gemini/gemini-8": {
                "litellm_provider": "gemini", "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06,
                "input_cost_per_token_above_128k_tokens": 2e-06, "output_cost_per_reasoning_token": 3e-06,
                "output_cost_per_second": 0.1, "output_cost_per_image": 0.04, "google_maps_grounding_cost_per_query": 0.025,
            },
            "gemini/gemini-exp-1": {"litellm_provider": "gemini", "input_cost_per_token": 0},
            "gemini/veo-9": {"litellm_provider": "gemini", "output_cost_per_second": 0.35},
            "gemini-9-pro": {"litellm_provider": "vertex_ai-language-models", "input_cost_per_token": 1.0},
            "gpt-9": {"litellm_provider": "openai", "input_cost_per_token": 1e-06},
        });
        let imported = import(&file.to_string(), "litellm 2026-11-27").unwrap();
        let (_, entries) = imported.toml.split_once("version = \"litellm 2026-11-27\"\n").unwrap();
        assert_eq!(
            entries,
            "\n[[price]]\nmodel = \"gemini-9-pro\"\ncached = \"0.125\"\ninput = \"1.25\"\n\
             input_above_200k = \"2.5\"\ninput_audio = \"0.7\"\noutput = \"10\"\noutput_above_200k = \"15\"\n\
             output_image = \"30\"\noutput_video = \"17.5\"\nsearch_per_1000_queries = \"14\"\n\
             maps_per_1000_queries = \"14\"\n\
             [price.batch]\ninput = \"0.625\"\n\
             [price.priority]\ninput_above_200k = \"4.5\"\noutput = \"18\"\n\
             \n[[price]]\nmodel = \"gemini-8\"\ninput = \"1\"\noutput = \"2\"\n\
             maps_per_1000_requests = \"25\"\n"
        );
        let left_out: Vec<&str> = imported.left_out.iter().map(|(name, _)| name.as_str()).collect();
        let partly = "gemini-8";
        assert_eq!(
            (imported.taken, left_out),
            (
                2,
                vec![
                    "gemini-9-pro, batch: cached, input_above_200k, input_audio, output, output_above_200k, \
                 output_image, output_video",
                    "gemini-9-pro, priority: cached, input, input_audio, output_above_200k, output_image, \
                 output_video",
                    partly,
                    partly,
                    partly,
                    partly,
                    "gemini-exp-1",
                    "veo-9",
                ]
            )
        );
    }

    #[test]
    fn genai_prices_keep_their_first_days_thresholds_and_names() {
        let file = json!([
            {"id": "openai", "models": [{"id": "gpt-9", "prices": {"input_mtok": 1}}]},
            {"id": "google", "models": [
                {"id": "gemini-9-flash",
                 "match": {"or": [{"equals": "gemini-9-flash"}, {"equals": "gemini-9-flash-001"}]},
                 "prices": [
                     {"prices": {"input_mtok": 0.3, "output_mtok": 2.5, "cache_read_mtok": "0.03"}},
                     {"constraint": {"start_date": "2026-12-01"},
                      "prices": {"input_mtok": {"base": 0.4, "tiers": [{"start": 200_000, "price": 0.8}]}}},
                     {"constraint": {"start_time": "00:30:00Z"}, "prices": {"input_mtok": 0.1}},
                 ]},
                {"id": "claude-9", "prices": {"input_mtok": 1}},
                {"id": "gemini-9-image",
                 "prices": {"input_mtok": 2, "input_image_mtok": 3, "output_image_mtok": 60, "smell_mtok": 1}},
                {"id": "gemini-8", "match": {"or": [{"equals": "gemini-9-flash-001"}, {"contains": "gemini-8"}]},
                 "prices": {"input_mtok": {"base": 1, "tiers": [{"start": 128_000, "price": 2}]}}},
            ]},
        ]);
        let imported = import(&file.to_string(), "v").unwrap();
        let (_, entries) = imported.toml.split_once("version = \"v\"\n").unwrap();
        assert_eq!(
            entries,
            "\n[[price]]\nmodel = \"gemini-9-flash\"\naliases = [\"gemini-9-flash-001\"]\ncached = \"0.03\"\n\
             input = \"0.3\"\noutput = \"2.5\"\n\
             \n[[price]]\nmodel = \"gemini-9-flash\"\naliases = [\"gemini-9-flash-001\"]\n\
             valid_from = \"2026-12-01\"\ninput = \"0.4\"\ninput_above_200k = \"0.8\"\n\
             \n[[price]]\nmodel = \"gemini-9-image\"\ninput = \"2\"\ninput_image = \"3\"\n\
             output_image = \"60\"\n\
             \n[[price]]\nmodel = \"gemini-8\"\ninput = \"1\"\n"
        );
        assert_eq!(imported.taken, 3);
        assert_eq!(imported.left_out.len(), 4, "{:?}", imported.left_out);
        assert!(imported.left_out.contains(&("gemini-9-image".to_owned(), UNKNOWN_KIND)));
        assert!(imported.left_out.contains(&("gemini-8".to_owned(), OTHER_THRESHOLD)));
    }

    #[test]
    fn what_is_no_price_file_is_said_to_be_none() {
        for (text, error) in [
            ("", ImportError::Unknown),
            ("{}", ImportError::Unknown),
            ("[1]", ImportError::Unknown),
            (r#"{"gpt": {"litellm_provider": "openai"}}"#, ImportError::Empty),
            (r#"[{"id": "x", "models": []}]"#, ImportError::Empty),
        ] {
            assert_eq!(import(text, "v"), Err(error), "{text}");
        }
    }
}
