//! Checksums and number rules: whether what was matched can be the real thing.

mod national;
mod token;

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Checks that a regular expression cannot express.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validate {
    /// A US social security number that can have been issued.
    Ssn,
    /// Digits with a Luhn check digit.
    Luhn,
    /// A payment card: issuer, length and check digit.
    Card,
    /// An international bank account number.
    Iban,
    /// A US bank routing number.
    Aba,
    /// A US national provider identifier.
    Npi,
    /// A US registration number for controlled substances.
    Dea,
    /// A UK health service number.
    Nhs,
    /// A Canadian social insurance number.
    Sin,
    /// An Australian tax file number.
    Tfn,
    /// An Australian business number.
    Abn,
    /// An Australian company number.
    Acn,
    /// An Australian Medicare card.
    MedicareAu,
    /// An Indian Aadhaar number.
    Verhoeff,
    /// An Indian goods and services tax number.
    Gstin,
    /// A German tax identification number.
    SteuerId,
    /// A French social security number.
    Nir,
    /// A Spanish identity number of a citizen or a foreigner.
    Dni,
    /// An Italian tax code.
    CodiceFiscale,
    /// A Polish population number.
    Pesel,
    /// A Dutch citizen service number.
    Bsn,
    /// A Belgian national register number.
    RnBe,
    /// A Swedish personal identity number.
    PnSe,
    /// A Finnish personal identity code.
    Hetu,
    /// A Brazilian taxpayer number of a person.
    Cpf,
    /// A Brazilian taxpayer number of a company.
    Cnpj,
    /// A Mexican population registry code.
    Curp,
    /// A Chinese resident identity number.
    ResidentIdCn,
    /// A Korean resident registration number.
    RrnKr,
    /// A Singaporean identity number.
    NricSg,
    /// A Thai identity number.
    ThaiId,
    /// A South African identity number.
    IdZa,
    /// A Turkish identity number.
    Tckn,
    /// A Japanese individual number.
    MyNumber,
    /// A vehicle identification number with a check digit.
    Vin,
    /// An IPv4 address that can belong to somebody.
    Ipv4,
    /// An IPv6 address that can belong to somebody.
    Ipv6,
    /// A hardware address.
    Mac,
    /// A telephone number of a plausible shape.
    Phone,
    /// A GitHub token with its checksum.
    GithubToken,
    /// A JSON web token.
    Jwt,
    /// A Bitcoin address of the older kind.
    Base58check,
    /// A Bitcoin address of the newer kind.
    Bech32,
    /// An Ethereum address.
    Eth,
    /// A value that reads like a credential, not like a placeholder, a name or code.
    Secret,
    /// A value that reads like a password, which may be a word with a digit.
    Password,
}

impl Validate {
    /// Whether a shorter match may be tried where the longest fails: a placeholder is cut until it no longer
    /// looks like one.
    pub(super) fn holds_for_parts(self) -> bool {
        !matches!(self, Self::Secret | Self::Password)
    }

    /// Whether what was matched can be the real thing.
    pub(super) fn accepts(self, matched: &str) -> bool {
        let holds: fn(&str) -> bool = match self {
            Self::Ssn => national::ssn,
            Self::Luhn => luhn,
            Self::Card => card,
            Self::Iban => iban,
            Self::Aba => aba,
            Self::Npi => npi,
            Self::Dea => dea,
            Self::Nhs => national::nhs,
            Self::Sin => national::sin,
            Self::Tfn => national::tfn,
            Self::Abn => national::abn,
            Self::Acn => national::acn,
            Self::MedicareAu => national::medicare_au,
            Self::Verhoeff => national::aadhaar,
            Self::Gstin => national::gstin,
            Self::SteuerId => national::steuer_id,
            Self::Nir => national::nir,
            Self::Dni => national::dni,
            Self::CodiceFiscale => national::codice_fiscale,
            Self::Pesel => national::pesel,
            Self::Bsn => national::bsn,
            Self::RnBe => national::rn_be,
            Self::PnSe => national::pn_se,
            Self::Hetu => national::hetu,
            Self::Cpf => national::cpf,
            Self::Cnpj => national::cnpj,
            Self::Curp => national::curp,
            Self::ResidentIdCn => national::resident_id_cn,
            Self::RrnKr => national::rrn_kr,
            Self::NricSg => national::nric_sg,
            Self::ThaiId => national::thai_id,
            Self::IdZa => national::id_za,
            Self::Tckn => national::tckn,
            Self::MyNumber => national::my_number,
            Self::Vin => vin,
            Self::Ipv4 => ipv4,
            Self::Ipv6 => ipv6,
            Self::Mac => mac,
            Self::Phone => phone,
            Self::GithubToken => token::github,
            Self::Jwt => token::jwt,
            Self::Base58check => token::base58check,
            Self::Bech32 => token::bech32,
            Self::Eth => token::eth,
            Self::Secret => token::secret,
            Self::Password => token::password,
        };
        // What goes on in the next line is another number.
        !matched.contains(['\n', '\r']) && holds(matched)
    }
}

/// The digits of a text, whatever stands between them.
fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|letter| letter.to_digit(10)).collect()
}

/// The letters and digits of a text in capitals, whatever stands between them.
fn capitals(text: &str) -> Vec<char> {
    text.chars().filter(char::is_ascii_alphanumeric).map(|one| one.to_ascii_uppercase()).collect()
}

/// Each digit times the weight of its place, added up.
fn weighted(digits: &[u32], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(digit, weight)| digit * weight).sum()
}

/// The remainder of a number of any length.
fn remainder(digits: &[u32], divisor: u32) -> u32 {
    digits.iter().fold(0, |rest, digit| (rest * 10 + digit) % divisor)
}

/// The value of a few digits.
fn number(digits: Option<&[u32]>) -> Option<u32> {
    digits
        .filter(|digits| digits.len() < 10)
        .map(|digits| digits.iter().fold(0, |value, digit| value * 10 + digit))
}

/// Whether one digit fills the whole number, which no office issues.
fn is_one_digit(digits: &[u32]) -> bool {
    digits.iter().all(|digit| Some(digit) == digits.first())
}

/// ISO/IEC 7812-1, annex B.
fn luhn(text: &str) -> bool {
    luhn_holds(&digits(text))
}

fn luhn_holds(digits: &[u32]) -> bool {
    let doubled = |digit: u32| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let places = digits.iter().rev().enumerate();
    let sum: u32 = places.map(|(at, one)| if at % 2 == 1 { doubled(*one) } else { *one }).sum();
    digits.len() > 1 && sum > 0 && sum.is_multiple_of(10)
}

/// ISO/IEC 7812-1 with the number ranges that the card schemes publish.
fn card(text: &str) -> bool {
    let digits = digits(text);
    let issuer = number(digits.get(..6));
    issuer.is_some_and(|issuer| card_length_fits(issuer, digits.len())) && luhn_holds(&digits)
}

/// Whether a scheme issues cards of this length under these first six digits.
fn card_length_fits(issuer: u32, length: usize) -> bool {
    match issuer {
        // Visa.
        400_000..=499_999 => matches!(length, 13 | 16 | 19),
        // American Express.
        340_000..=349_999 | 370_000..=379_999 => length == 15,
        // Mastercard.
        222_100..=272_099 | 510_000..=559_999 => length == 16,
        // Diners Club.
        300_000..=305_999 | 309_500..=309_599 | 360_000..=369_999 | 380_000..=399_999 => {
            (14..=19).contains(&length)
        }
        // JCB, its whole block and the older ones.
        350_000..=359_999 => (16..=19).contains(&length),
        180_000..=180_099 | 213_100..=213_199 => length == 15,
        // Maestro and national schemes beside it: Elo, Verve, Switch, Laser.
        500_000..=509_999 | 560_000..=589_999 | 630_000..=639_999 | 670_000..=679_999 => {
            (12..=19).contains(&length)
        }
        // Discover, UnionPay, RuPay.
        600_000..=629_999 | 640_000..=659_999 | 810_000..=829_999 => (16..=19).contains(&length),
        // Mir and Troy.
        220_000..=220_499 | 979_200..=979_299 => (16..=19).contains(&length),
        _ => false,
    }
}

/// ISO 13616 and the IBAN registry of SWIFT.
fn iban(text: &str) -> bool {
    let letters = capitals(text);
    let (Some(country), Some(head), Some(rest)) =
        (letters.get(..2), letters.get(..4), letters.get(4..))
    else {
        return false;
    };
    let is_numbered = head.iter().skip(2).all(char::is_ascii_digit);
    if !is_numbered || iban_length(&country.iter().collect::<String>()) != Some(letters.len()) {
        return false;
    }
    let values = rest.iter().chain(head).filter_map(|letter| letter.to_digit(36));
    let sum = values.fold(0, |sum, value| (sum * if value > 9 { 100 } else { 10 } + value) % 97);
    sum == 1
}

fn iban_length(country: &str) -> Option<usize> {
    Some(match country {
        "NO" => 15,
        "BE" => 16,
        "DK" | "FI" | "FK" | "FO" | "GL" | "NL" | "SD" => 18,
        "MK" | "SI" => 19,
        "AT" | "BA" | "EE" | "KZ" | "LT" | "LU" | "MN" | "XK" => 20,
        "CH" | "HR" | "LI" | "LV" => 21,
        "BG" | "BH" | "CR" | "DE" | "GB" | "GE" | "IE" | "ME" | "RS" | "VA" => 22,
        "AE" | "GI" | "IL" | "IQ" | "OM" | "SO" | "TL" => 23,
        "AD" | "CZ" | "ES" | "MD" | "PK" | "RO" | "SA" | "SE" | "SK" | "TN" | "VG" => 24,
        "LY" | "PT" | "ST" => 25,
        "IS" | "TR" => 26,
        "BI" | "DJ" | "FR" | "GR" | "IT" | "MC" | "MR" | "SM" => 27,
        "AL" | "AZ" | "BY" | "CY" | "DO" | "GT" | "HN" | "HU" | "LB" | "NI" | "PL" | "SV" => 28,
        "BR" | "EG" | "PS" | "QA" | "UA" => 29,
        "JO" | "KW" | "MU" | "YE" => 30,
        "MT" | "SC" => 31,
        "LC" => 32,
        "RU" => 33,
        _ => return None,
    })
}

/// The routing number policy of the American Bankers Association.
fn aba(text: &str) -> bool {
    let digits = digits(text);
    let district = number(digits.get(..2)).unwrap_or(99);
    digits.len() == 9
        && matches!(district, 1..=12 | 21..=32 | 61..=72 | 80)
        && weighted(&digits, &[3, 7, 1, 3, 7, 1, 3, 7, 1]).is_multiple_of(10)
}

/// The US Centers for Medicare and Medicaid Services: Luhn behind the card issuer prefix 80840.
fn npi(text: &str) -> bool {
    let digits = digits(text);
    digits.len() == 10
        && matches!(digits.first(), Some(1 | 2))
        && luhn_holds(&[&[8, 0, 8, 4, 0], digits.as_slice()].concat())
}

/// The US Drug Enforcement Administration.
fn dea(text: &str) -> bool {
    let letters = capitals(text);
    let digits = digits(text.get(2..).unwrap_or_default());
    let [check @ .., last] = digits.as_slice() else { return false };
    letters.len() == 9
        && check.len() == 6
        && letters.first().is_some_and(|one| "ABCDEFGHJKLMPRSTUX".contains(*one))
        && weighted(check, &[1, 2, 1, 2, 1, 2]) % 10 == *last
}

/// ISO 3779 with the check digit of the US code of federal regulations, 49 CFR 565.15.
fn vin(text: &str) -> bool {
    let letters = capitals(text);
    let values: Option<Vec<u32>> = letters.iter().copied().map(vin_value).collect();
    let Some(values) = values.filter(|values| values.len() == 17) else { return false };
    let sum = weighted(&values, &[8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2]);
    let check = char::from_digit(sum % 11, 10).unwrap_or('X');
    letters.get(8) == Some(&check) && letters.iter().any(char::is_ascii_alphabetic)
}

/// The rows A to H, J to R and S to Z count from 1, 1 and 2.
fn vin_value(letter: char) -> Option<u32> {
    let at = "ABCDEFGH.JKLMN.P.R.STUVWXYZ".find(letter).and_then(|at| u32::try_from(at).ok());
    letter.to_digit(10).or_else(|| at.map(|at| at % 9 + 1))
}

/// RFC 791 and RFC 6890: loopback, the unspecified address, masks and networks are nobody's. Four
/// small numbers are a version or a section, unless they are private or a well-known resolver.
fn ipv4(text: &str) -> bool {
    text.parse::<Ipv4Addr>().is_ok_and(|address| {
        let [first, second, third, last] = address.octets();
        let is_version = address.octets().iter().all(|octet| *octet < 40);
        !matches!(first, 0 | 127 | 255)
            && (second, third, last) != (0, 0, 0)
            && (!is_version || first == 10 || first == second)
    })
}

/// RFC 4291. Outside the ranges in use, a shortened address is more often a path in code, and eight
/// pairs of digits are a fingerprint.
fn ipv6(text: &str) -> bool {
    let Ok(address) = text.parse::<Ipv6Addr>() else { return false };
    let [first, second, ..] = address.segments();
    let in_use = matches!(first, 0x2000..=0x3fff | 0xfc00..=0xfdff | 0xfe80..=0xfebf)
        || matches!(first, 0xff00..=0xff0f)
        || (first, second) == (0x64, 0xff9b)
        || address.to_ipv4_mapped().is_some();
    let is_whole = !text.contains("::") && text.split(':').any(|group| group.len() != 2);
    (in_use || is_whole) && address.segments().iter().any(|part| *part > 1)
}

/// IEEE 802: neither the empty address nor the one of everybody.
fn mac(text: &str) -> bool {
    let letters: Vec<char> =
        text.to_ascii_lowercase().chars().filter(char::is_ascii_hexdigit).collect();
    letters.len() == 12 && letters.iter().any(|one| Some(one) != letters.first())
}

/// ITU-T E.164: with a country code 7 to 15 digits, without one 7 to 13.
fn phone(text: &str) -> bool {
    let number = text.split(['x', 'X', 'e', 'E', '#', ';']).next().unwrap_or_default().trim();
    let digits = digits(number);
    let groups = number.split(|letter: char| !letter.is_ascii_digit()).map(str::len);
    if groups.filter(|length| *length == 1).count() > 3 {
        return false;
    }
    match (number.starts_with('+'), digits.as_slice()) {
        (true, rest) | (false, [0, 0, rest @ ..]) => {
            has_country_code(rest) && !is_one_digit(rest) && (7..=15).contains(&rest.len())
        }
        (false, digits) => is_national_phone(number, digits),
    }
}

/// Not a date, not digits in a row, not numbers padded with zeros, not 111-222-3333; longer behind a trunk zero.
fn is_national_phone(number: &str, digits: &[u32]) -> bool {
    let groups = || number.split(|letter: char| !letter.is_ascii_digit());
    let is_date = groups().map(str::len).eq([2, 2, 4]) || groups().map(str::len).eq([4, 2, 2]);
    let is_made_up = |group: &str| group.len() > 2 && is_one_digit(&self::digits(group));
    let padded = number.split(' ').filter(|group| group.len() == 2 && group.starts_with('0'));
    let rises =
        digits.windows(2).filter(|two| matches!(two, [left, right] if *right == (left + 1) % 10));
    let shortest = if digits.first() == Some(&0) { 9 } else { 7 };
    (shortest..=13).contains(&digits.len())
        && !is_date
        && !groups().filter(|group| !group.is_empty()).all(is_made_up)
        && padded.count() < 4
        && rises.count() + 1 < digits.len()
        && digits.windows(7).all(|seven| !is_one_digit(seven))
}

/// Whether a number begins with a country code that is in use.
fn has_country_code(digits: &[u32]) -> bool {
    match digits {
        // An area code of North America begins with 2 to 9.
        [1, area, ..] => *area > 1,
        [7, ..] => true,
        [2, 0 | 7, ..] => true,
        [2, 1..=6 | 9, _, ..] => true,
        [3, ..] => true,
        [4, second, ..] => *second != 2 || matches!(digits, [4, 2, 0 | 1 | 3, ..]),
        [5, ..] => true,
        [6, ..] => true,
        [8, 1 | 2 | 4 | 6, ..] => true,
        [8, 0 | 5 | 7 | 8, _, ..] => true,
        [9, second, ..] => *second != 9 || matches!(digits, [9, 9, 2..=6 | 8, ..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
