//! Numbers that a state gives to people and companies.

use super::{capitals, digits, is_one_digit, luhn_holds, number, remainder, weighted};

/// Whether a month and a day of it exist. February has 29 days: the year is not always known.
fn is_day(month: Option<u32>, day: Option<u32>) -> bool {
    let last = match month {
        Some(2) => 29,
        Some(4 | 6 | 9 | 11) => 30,
        Some(1..=12) => 31,
        _ => return false,
    };
    day.is_some_and(|day| (1..=last).contains(&day))
}

/// The check digit that fills a sum up to a multiple of ten.
fn up_to_ten(sum: u32) -> u32 {
    (10 - sum % 10) % 10
}

/// US Social Security Administration: never issued are area 000, 666 and 900 to 999, group 00 and
/// serial 0000; two numbers were printed in advertisements.
pub(super) fn ssn(text: &str) -> bool {
    let digits = digits(text);
    let (Some(area), Some(group), Some(serial)) =
        (number(digits.get(..3)), number(digits.get(3..5)), number(digits.get(5..)))
    else {
        return false;
    };
    digits.len() == 9
        && matches!(area, 1..=665 | 667..=899)
        && group > 0
        && serial > 0
        && !matches!((area, group, serial), (78, 5, 1120) | (219, 9, 9999))
}

/// The NHS data dictionary: modulus 11.
pub(super) fn nhs(text: &str) -> bool {
    let digits = digits(text);
    let [rest @ .., last] = digits.as_slice() else { return false };
    let check = (11 - weighted(rest, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11) % 11;
    rest.len() == 9 && check == *last && !is_one_digit(&digits)
}

/// Employment and Social Development Canada: Luhn; 0 and 8 begin no person's number.
pub(super) fn sin(text: &str) -> bool {
    let digits = digits(text);
    digits.len() == 9 && !matches!(digits.first(), Some(0 | 8)) && luhn_holds(&digits)
}

/// Australian Taxation Office: a weighted sum, of eight digits in older numbers.
pub(super) fn tfn(text: &str) -> bool {
    let digits = digits(text);
    let weights: &[u32] = match digits.len() {
        9 => &[1, 4, 3, 7, 5, 8, 6, 9, 10],
        8 => &[10, 7, 8, 4, 6, 3, 5, 1],
        _ => return false,
    };
    weighted(&digits, weights).is_multiple_of(11) && !is_one_digit(&digits)
}

/// Australian Business Register: modulus 89 after one is taken from the first digit.
pub(super) fn abn(text: &str) -> bool {
    let digits = digits(text);
    let sum = weighted(&digits, &[10, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19]);
    digits.len() == 11
        && digits.first().is_some_and(|one| *one > 0)
        && sum.checked_sub(10).is_some_and(|sum| sum.is_multiple_of(89))
}

/// Australian Securities and Investments Commission.
pub(super) fn acn(text: &str) -> bool {
    let digits = digits(text);
    let [rest @ .., last] = digits.as_slice() else { return false };
    let sum = weighted(rest, &[8, 7, 6, 5, 4, 3, 2, 1]);
    rest.len() == 8 && sum > 0 && up_to_ten(sum) == *last
}

/// Services Australia: the ninth digit is the check, the tenth counts issues of the card.
pub(super) fn medicare_au(text: &str) -> bool {
    let digits = digits(text);
    let sum = weighted(&digits, &[1, 3, 7, 9, 1, 3, 7, 9]);
    matches!(digits.len(), 10 | 11)
        && matches!(digits.first(), Some(2..=6))
        && digits.get(8) == Some(&(sum % 10))
}

/// Unique Identification Authority of India: Verhoeff's scheme over the dihedral group of ten.
pub(super) fn aadhaar(text: &str) -> bool {
    let digits = digits(text);
    let reversed = digits.iter().rev();
    let permuted = reversed.clone().enumerate().map(|(place, digit)| permute(place % 8, *digit));
    digits.len() == 12
        && digits.first().is_some_and(|one| *one > 1)
        && !digits.iter().eq(reversed)
        && permuted.fold(0, dihedral) == 0
}

/// One digit under the permutation of its place.
fn permute(times: usize, digit: u32) -> u32 {
    (0..times).fold(digit, |digit, _| match digit {
        0 => 1,
        1 => 5,
        2 => 7,
        3 => 6,
        4 => 2,
        5 => 8,
        6 => 3,
        7 => 0,
        8 => 9,
        _ => 4,
    })
}

/// The product in the dihedral group: 0 to 4 turn, 5 to 9 turn and flip.
fn dihedral(left: u32, right: u32) -> u32 {
    let flips = (left < 5) != (right < 5);
    let turned = if left < 5 { left + right } else { left + 10 - right };
    turned % 5 + if flips { 5 } else { 0 }
}

/// India's Goods and Services Tax Network: a check character over base 36.
pub(super) fn gstin(text: &str) -> bool {
    let letters = capitals(text);
    let [rest @ .., last] = letters.as_slice() else { return false };
    let value = |(at, letter): (usize, &char)| {
        let product = letter.to_digit(36).unwrap_or_default() * if at % 2 == 1 { 2 } else { 1 };
        product / 36 + product % 36
    };
    let sum: u32 = rest.iter().enumerate().map(value).sum();
    rest.len() == 14 && last.to_digit(36) == Some((36 - sum % 36) % 36)
}

/// German Federal Central Tax Office: ISO/IEC 7064 modulus 11,10; one digit of ten occurs twice or
/// three times and no other does.
pub(super) fn steuer_id(text: &str) -> bool {
    let digits = digits(text);
    let [rest @ .., last] = digits.as_slice() else { return false };
    let product = rest.iter().fold(10, |product, digit| {
        let sum = (product + digit) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    let counts = (0..10).map(|digit| rest.iter().filter(|one| **one == digit).count());
    let repeated: Vec<usize> = counts.filter(|count| *count > 1).collect();
    rest.len() == 10
        && rest.first().is_some_and(|one| *one > 0)
        && matches!(repeated.as_slice(), [2 | 3])
        && (11 - product) % 10 == *last
}

/// France's INSEE: 97 minus the remainder of the number; Corsica's letters count as 19 and 18.
pub(super) fn nir(text: &str) -> bool {
    let letters: String = capitals(text).into_iter().collect();
    let digits = digits(&letters.replacen("2A", "19", 1).replacen("2B", "18", 1));
    let (Some(body), Some(key)) = (digits.get(..13), number(digits.get(13..))) else {
        return false;
    };
    let month = number(digits.get(3..5)).unwrap_or_default();
    digits.len() == 15
        && matches!(digits.first(), Some(1..=4 | 7 | 8))
        && matches!(month, 1..=12 | 20..=42 | 50..=99)
        && 97 - remainder(body, 97) == key
}

/// Spain's Ministry of the Interior: a letter by the remainder of 23; X, Y and Z count as 0, 1, 2.
pub(super) fn dni(text: &str) -> bool {
    let letters = capitals(text);
    let [rest @ .., last] = letters.as_slice() else { return false };
    let value = |letter: &char| match letter {
        'X' => Some(0),
        'Y' => Some(1),
        'Z' => Some(2),
        other => other.to_digit(10),
    };
    let values: Option<Vec<u32>> = rest.iter().map(value).collect();
    let Some(values) = values.filter(|values| values.len() == 8) else { return false };
    let place = remainder(&values, 23);
    let letter = "TRWAGMYFPDXBNJZSQVHLCKE".chars().zip(0..).find(|(_, at)| *at == place);
    letter.is_some_and(|(letter, _)| letter == *last) && values.iter().any(|one| *one > 0)
}

/// Italy's Ministry of Finance, decree of 12 March 1974.
pub(super) fn codice_fiscale(text: &str) -> bool {
    const ODD: [u32; 26] = [
        1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24,
        23,
    ];
    let letters = capitals(text);
    let [rest @ .., last] = letters.as_slice() else { return false };
    let place = |letter: char| {
        letter.to_digit(36).map_or(0, |value| if value > 9 { value - 10 } else { value })
    };
    let odd = |letter: char| {
        usize::try_from(place(letter)).ok().and_then(|at| ODD.get(at)).copied().unwrap_or_default()
    };
    let value = |(at, letter): (usize, &char)| match at % 2 {
        0 => odd(*letter),
        _ => place(*letter),
    };
    let sum: u32 = rest.iter().enumerate().map(value).sum();
    // Names, year, month, day, place; a letter may stand for a digit.
    let is_placed = |(at, letter): (usize, &char)| match at {
        0..=5 | 11 => letter.is_ascii_alphabetic(),
        8 => "ABCDEHLMPRST".contains(*letter),
        _ => letter.is_ascii_digit() || "LMNPQRSTUV".contains(*letter),
    };
    rest.len() == 15
        && rest.iter().enumerate().all(is_placed)
        && last.is_ascii_alphabetic()
        && place(*last) == sum % 26
}

/// Poland's PESEL act: the month carries the century.
pub(super) fn pesel(text: &str) -> bool {
    let digits = digits(text);
    let [rest @ .., last] = digits.as_slice() else { return false };
    let month = number(digits.get(2..4)).map(|month| month % 20);
    rest.len() == 10
        && is_day(month, number(digits.get(4..6)))
        && up_to_ten(weighted(rest, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3])) == *last
}

/// The Dutch eleven test.
pub(super) fn bsn(text: &str) -> bool {
    let digits = digits(text);
    let [rest @ .., last] = digits.as_slice() else { return false };
    let sum = weighted(rest, &[9, 8, 7, 6, 5, 4, 3, 2]);
    rest.len() == 8 && sum > 0 && sum % 11 == *last && !is_one_digit(&digits)
}

/// Belgium's national register: 97 minus the remainder, behind a 2 for births since 2000.
pub(super) fn rn_be(text: &str) -> bool {
    let digits = digits(text);
    let (Some(body), Some(key)) = (digits.get(..9), number(digits.get(9..))) else {
        return false;
    };
    let month = number(digits.get(2..4)).unwrap_or(99);
    let day = number(digits.get(4..6)).unwrap_or(99);
    let since_2000 = [&[2], body].concat();
    digits.len() == 11
        && month < 53
        && month % 20 < 13
        && day < 32
        && !is_one_digit(&digits)
        && [body, &since_2000].iter().any(|body| 97 - remainder(body, 97) == key)
}

/// Swedish Tax Agency: Luhn over ten digits; 60 is added to the day of a coordination number.
pub(super) fn pn_se(text: &str) -> bool {
    let digits = digits(text);
    let short = match digits.len() {
        10 => digits.as_slice(),
        12 => digits.get(2..).unwrap_or_default(),
        _ => return false,
    };
    let day = number(short.get(4..6)).map(|day| if day > 60 { day - 60 } else { day });
    is_day(number(short.get(2..4)), day) && luhn_holds(short)
}

/// Finland's Digital and Population Data Services Agency: the remainder of 31 picks a letter.
pub(super) fn hetu(text: &str) -> bool {
    let Some(last) = text.chars().next_back() else { return false };
    let without_check = text.get(..text.len() - last.len_utf8()).unwrap_or_default();
    let digits = digits(without_check);
    let place = remainder(&digits, 31);
    let check = "0123456789ABCDEFHJKLMNPRSTUVWXY".chars().zip(0..).find(|(_, at)| *at == place);
    digits.len() == 9
        && is_day(number(digits.get(2..4)), number(digits.get(..2)))
        && check.is_some_and(|(check, _)| check == last.to_ascii_uppercase())
}

/// A Brazilian check digit: modulus 11, where 10 becomes 0.
fn brazilian(values: &[u32], weights: &[u32]) -> u32 {
    match weighted(values, weights) % 11 {
        0 | 1 => 0,
        rest => 11 - rest,
    }
}

/// Brazil's Receita Federal: two check digits.
pub(super) fn cpf(text: &str) -> bool {
    let digits = digits(text);
    let [rest @ .., tenth, last] = digits.as_slice() else { return false };
    let with_tenth = [rest, &[*tenth]].concat();
    rest.len() == 9
        && !is_one_digit(&digits)
        && brazilian(rest, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) == *tenth
        && brazilian(&with_tenth, &[11, 10, 9, 8, 7, 6, 5, 4, 3, 2]) == *last
}

/// Brazil's Receita Federal. Since 2026 letters may stand before the two check digits; each counts
/// as its ASCII code less 48.
pub(super) fn cnpj(text: &str) -> bool {
    let letters = capitals(text);
    let values: Vec<u32> = letters.iter().map(|letter| u32::from(*letter) - 48).collect();
    let [rest @ .., tenth, last] = values.as_slice() else { return false };
    let with_tenth = [rest, &[*tenth]].concat();
    rest.len() == 12
        && !is_one_digit(&values)
        && brazilian(rest, &[5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2]) == *tenth
        && brazilian(&with_tenth, &[6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2]) == *last
}

/// Mexico's RENAPO: places in an alphabet with N tilde behind N.
pub(super) fn curp(text: &str) -> bool {
    let letters = capitals(text);
    let [rest @ .., last] = letters.as_slice() else { return false };
    let value =
        |letter: &char| letter.to_digit(36).map_or(0, |at| if at > 23 { at + 1 } else { at });
    let sum: u32 = rest.iter().zip((2..=18).rev()).map(|(one, weight)| value(one) * weight).sum();
    let date: Vec<u32> = letters.iter().skip(4).filter_map(|one| one.to_digit(10)).collect();
    rest.len() == 17
        && is_day(number(date.get(2..4)), number(date.get(4..6)))
        && last.to_digit(10) == Some(up_to_ten(sum))
}

/// China's GB 11643: ISO/IEC 7064 modulus 11-2 behind a date of birth.
pub(super) fn resident_id_cn(text: &str) -> bool {
    let letters = capitals(text);
    let [rest @ .., last] = letters.as_slice() else { return false };
    let digits: Vec<u32> = rest.iter().filter_map(|letter| letter.to_digit(10)).collect();
    let check = if *last == 'X' { Some(10) } else { last.to_digit(10) };
    let sum = digits.iter().fold(0, |sum, digit| (sum + digit) * 2 % 11);
    digits.len() == 17
        && rest.len() == 17
        && matches!(number(digits.get(6..10)), Some(1880..=2099))
        && is_day(number(digits.get(10..12)), number(digits.get(12..14)))
        && check.is_some_and(|check| (sum + check) % 11 == 1)
}

/// Korea's Ministry of the Interior. Since October 2020 new numbers carry no check digit.
pub(super) fn rrn_kr(text: &str) -> bool {
    let digits = digits(text);
    let [rest @ .., last] = digits.as_slice() else { return false };
    let Some(kind) = digits.get(6).copied() else { return false };
    let sum = weighted(rest, &[2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5]) % 11;
    let base = if matches!(kind, 5..=8) { 13 } else { 11 };
    let born = number(digits.get(..4)).unwrap_or_default();
    let is_new = matches!(kind, 3 | 4 | 7 | 8) && born >= 2010;
    rest.len() == 12
        && is_day(number(digits.get(2..4)), number(digits.get(4..6)))
        && (is_new || (base - sum) % 10 == *last)
}

/// Singapore's Immigration and Checkpoints Authority: a weighted sum picks a letter.
pub(super) fn nric_sg(text: &str) -> bool {
    let letters = capitals(text);
    let [kind, rest @ .., last] = letters.as_slice() else { return false };
    let digits: Vec<u32> = rest.iter().filter_map(|letter| letter.to_digit(10)).collect();
    let (offset, table) = match kind {
        'S' => (0, "JZIHGFEDCBA"),
        'T' => (4, "JZIHGFEDCBA"),
        'F' => (0, "XWUTRQPNMLK"),
        'G' => (4, "XWUTRQPNMLK"),
        'M' => (3, "XWUTRQPNJLK"),
        _ => return false,
    };
    let place = (weighted(&digits, &[2, 7, 6, 5, 4, 3, 2]) + offset) % 11;
    let check = table.chars().zip(0..).find(|(_, at)| *at == place);
    digits.len() == 7 && rest.len() == 7 && check.is_some_and(|(check, _)| check == *last)
}

/// Thailand's Department of Provincial Administration.
pub(super) fn thai_id(text: &str) -> bool {
    let digits = digits(text);
    let [rest @ .., last] = digits.as_slice() else { return false };
    let sum = weighted(rest, &[13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2]);
    rest.len() == 12
        && matches!(digits.first(), Some(1..=8))
        && (11 - sum % 11) % 10 == *last
        && !is_one_digit(&digits)
}

/// South Africa's Department of Home Affairs: a date of birth, a citizenship digit, Luhn.
pub(super) fn id_za(text: &str) -> bool {
    let digits = digits(text);
    digits.len() == 13
        && is_day(number(digits.get(2..4)), number(digits.get(4..6)))
        && matches!(digits.get(10), Some(0..=2))
        && luhn_holds(&digits)
}

/// Turkey's population directorate: two check digits.
pub(super) fn tckn(text: &str) -> bool {
    let digits = digits(text);
    let [rest @ .., tenth, last] = digits.as_slice() else { return false };
    let odd: u32 = rest.iter().step_by(2).sum();
    let even: u32 = rest.iter().skip(1).step_by(2).sum();
    rest.len() == 9
        && rest.first().is_some_and(|one| *one > 0)
        && (odd * 7 + 90 - even) % 10 == *tenth
        && (odd + even + tenth) % 10 == *last
}

/// Japan's Ministry of Internal Affairs, ordinance 85 of 2014.
pub(super) fn my_number(text: &str) -> bool {
    let digits = digits(text);
    let [rest @ .., last] = digits.as_slice() else { return false };
    let check = brazilian(rest, &[6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2]);
    rest.len() == 11 && check == *last && !is_one_digit(&digits)
}
