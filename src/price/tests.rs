//! Bills worked by hand (`cases.txt`), against the table as it ships.

use jiff::Timestamp;

use super::Prices;
use crate::words::tokens::{Modalities, ServiceTier, Usage};

const SHIPPED: &str = include_str!("../../config/prices.toml");
/// Columns with `|` between: model, tier, time, what was used, cost in USD, how it was worked out.
const CASES: &str = include_str!("cases.txt");
const CASES_MIN: usize = 60;

fn usage(text: &str) -> Usage {
    let mut usage = Usage::default();
    for pair in text.split_whitespace() {
        let (name, count) = pair.split_once('=').unwrap();
        let slot = match name {
            "prompt" => &mut usage.prompt,
            "prompt.audio" => &mut usage.prompt_details.audio,
            "prompt.image" => &mut usage.prompt_details.image,
            "prompt.video" => &mut usage.prompt_details.video,
            "cached" => &mut usage.cached,
            "cached.audio" => &mut usage.cached_details.audio,
            "cached.image" => &mut usage.cached_details.image,
            "candidates" => &mut usage.candidates,
            "candidates.image" => &mut usage.candidates_details.image,
            "thoughts" => &mut usage.thoughts,
            "tool" => &mut usage.tool_use,
            "tool.audio" => &mut usage.tool_use_details.audio,
            "searches" => &mut usage.search_queries,
            "maps" => &mut usage.maps_queries,
            unknown => panic!("{unknown}"),
        };
        *slot = count.parse().unwrap();
    }
    usage
}

#[test]
fn bills_worked_by_hand() {
    let prices = Prices::parse(SHIPPED).unwrap();
    let mut tried = 0;
    for line in CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [model, tier, at, used, cost, _how] = columns[..] else { panic!("{line}") };
        let at: Timestamp = at.parse().unwrap();
        let found = prices.cost(model, &usage(used), ServiceTier::read(tier), at);
        let told = found.map_or_else(|| "unknown".to_owned(), |cost| cost.usd.to_string());
        assert_eq!(told, cost, "{line}");
        // What came from a cache costs nothing of the kind: the same call without one.
        let fresh = Usage { cached: 0, cached_details: Modalities::default(), ..usage(used) };
        let fresh = prices.cost(model, &fresh, ServiceTier::read(tier), at);
        assert_eq!(found.map(|cost| cost.list_usd), fresh.map(|cost| cost.usd), "{line}");
        assert!(found.is_none_or(|cost| cost.usd.0 <= cost.list_usd.0), "{line}");
        tried += 1;
    }
    assert!(tried >= CASES_MIN, "{tried} cases");
}

#[test]
fn refuses_prices_that_are_none() {
    for (keys, says) in [
        ("input = \"0.1234567\"", "m: input must be a decimal string with at most 6 places"),
        ("input = \"-1\"", "m: input must be a decimal"),
        ("input = \"x\"", "m: input must be a decimal"),
        ("input = 0.3", "m: input must be a decimal"),
        ("output = \"1\"", "m: input must be given"),
        ("input = \"1\"\ninput_smell = \"1\"", "m: input_smell must be left out: there are"),
        ("input = \"1\"\nvalid_from = \"soon\"", "m: valid_from must be a day, 2026-12-01"),
        (
            "input = \"1\"\nvalid_from = \"2026-12-01\"\nvalid_until = \"2026-12-01\"",
            "m: valid_until must be a day after valid_from",
        ),
        (
            "input = \"1\"\nsearch_per_1000_queries = \"1\"\nsearch_per_1000_requests = \"1\"",
            "m: search_per_1000_requests must be left out",
        ),
        ("input = \"1\"\n[price.batch]\ninput = \"y\"", "m: input must be a decimal"),
        ("input = \"1\"\n[[price]]\nmodel = \"m\"\ninput = \"2\"", "m: two entries begin on"),
    ] {
        let table = format!("version = \"t\"\n[[price]]\nmodel = \"m\"\n{keys}");
        let error = Prices::parse(&table).unwrap_err().to_string();
        assert!(error.contains(says), "{keys}: {error}");
    }
    assert!(Prices::parse("version = 1").is_err());
}

/// The shipped table has no entry that ends, and nothing that writes audio or video.
#[test]
fn an_entry_ends_where_it_says() {
    let table = "version = \"t\"\n[[price]]\nmodel = \"m\"\nvalid_from = \"2026-01-01\"\nvalid_until = \"2026-02-01\"
        input = \"1\"\n[[price]]\nmodel = \"m\"\nvalid_from = \"2025-12-01\"\nvalid_until = \"2026-03-01\"\ninput = \"3\"";
    let prices = Prices::parse(table).unwrap();
    let million = Usage { prompt: 1_000_000, ..Usage::default() };
    for (at, cost) in [
        ("2025-11-30T23:59:59Z", None),
        ("2025-12-01T00:00:00Z", Some("3.000000000000")),
        ("2026-01-01T00:00:00Z", Some("1.000000000000")),
        ("2026-01-31T23:59:59Z", Some("1.000000000000")),
        ("2026-02-01T00:00:00Z", Some("3.000000000000")),
        ("2026-03-01T00:00:00Z", None),
    ] {
        let found = prices.cost("m", &million, ServiceTier::Standard, at.parse().unwrap());
        assert_eq!(found.map(|cost| cost.usd.to_string()).as_deref(), cost, "{at}");
    }
}
