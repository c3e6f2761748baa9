//! Money as an integer of 10⁻¹² US dollars.
//!
//! Every list price divides into it without remainder (`0.0125` per million tokens is 12 500 of
//! them per token), so a bill is a sum of integers. It becomes a decimal only when shown.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const PICO_PER_USD: u128 = 1_000_000_000_000;
const DECIMALS: usize = 12;

/// An amount in 10⁻¹² USD. Serialised as a decimal string in USD, `"0.000123000000"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct PicoUsd(pub i128);

/// Why a text is not an amount.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an amount is a decimal with at most 12 places, such as 0.30")]
pub struct NotMoney;

impl Add for PicoUsd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for PicoUsd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Add::add)
    }
}

impl fmt::Display for PicoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let amount = self.0.unsigned_abs();
        let (whole, fraction) = (amount / PICO_PER_USD, amount % PICO_PER_USD);
        write!(f, "{sign}{whole}.{fraction:0DECIMALS$}")
    }
}

impl FromStr for PicoUsd {
    type Err = NotMoney;

    fn from_str(text: &str) -> Result<Self, NotMoney> {
        let (digits, negative) = match text.strip_prefix('-') {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty()
            || fraction.len() > DECIMALS
            || !all_digits(whole)
            || !all_digits(fraction)
        {
            return Err(NotMoney);
        }
        let joined = format!("{whole}{fraction:0<DECIMALS$}");
        let amount = joined.parse::<i128>().or(Err(NotMoney))?;
        Ok(Self(if negative { -amount } else { amount }))
    }
}

impl Serialize for PicoUsd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PicoUsd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{NotMoney, PicoUsd};

    #[test]
    fn shows_and_reads_the_same_amount() {
        for (text, pico) in [
            ("0.000000000001", 1),
            ("1.000000000000", 1_000_000_000_000),
            ("-0.300000000000", -300_000_000_000),
            ("12345.678900000000", 12_345_678_900_000_000),
        ] {
            assert_eq!(PicoUsd(pico).to_string(), text);
            assert_eq!(text.parse(), Ok(PicoUsd(pico)));
        }
        assert_eq!("0.3".parse(), Ok(PicoUsd(300_000_000_000)));
        assert_eq!("2".parse(), Ok(PicoUsd(2_000_000_000_000)));
    }

    #[test]
    fn refuses_what_is_not_an_amount() {
        for text in ["", ".", ".5", "1e3", "1.0000000000001", "--1", "1,0", " 1"] {
            assert_eq!(text.parse::<PicoUsd>(), Err(NotMoney), "{text:?}");
        }
    }
}
