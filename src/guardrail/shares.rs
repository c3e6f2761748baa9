//! How common English words are, so that a search begins with the rare ones.
//!
//! Counted over some 800 stretches of 2 KB of everyday prompts, as parts of words too. Only the order of
//! magnitude matters: a wrong number costs time, never a finding.

use std::collections::HashMap;
use std::sync::LazyLock;

/// In every second stretch, or nearly.
const MOST: &str = "\
    able act add age ai al all am an and any app are arr art as at ate be by can cat code com count \
    create da do dr each end fi file for from function give given go has have he her here his how id \
    if implement in input int ip is it its king list log me mm name new no not num number of on one \
    or os our out own per program put python rate re red return script she so st str take ten th \
    that the their this time to two up use using ve we what with work would write you";

/// In every fourth.
const MANY: &str = "\
    about accept access address after also api apple argument array author average base based been \
    between bin block but calculate calculates call car case change character check class come const \
    contain content current data date day def describe design develop did directory doe does during \
    earn element error even every example explain factorial files find first fix follow following \
    form format generate get hello help home hour hours http human imagine implements include \
    integer integers into java javascript john js just key know last led length let like line lines \
    long main make many method more much my need network now nth numbers off old once only order \
    other output over part path person place plan play please point port present print prints \
    process provide public range read reads rest result returns reverse role row sci second sent set \
    shell should side simple size snippet some sort space specific string sum sure system table \
    takes tax tell term test text than them then there they three times total traffic try txt used \
    user value want was way were when where which while who will without word words world year your";

/// In every twelfth.
const SOME: &str = "\
    accepts account achieve across action actions activity adapt additional addresses advice advisor \
    against alert alerting algorithm algorithms alice alien allow allows already amount analysis \
    analyze ancient another answer application approach area args arguments artificial ascending \
    asked asks associated assume astronaut attack attacks attempt attempts authorized back bag \
    balance banana bank bash basic before behavior behind being below best black blocked blocking \
    blue bob book both bought box break brief brown build building built business buy buys called \
    captain century certain challenges changes characters checks cherry child circle city \
    civilization clear client color column columns combined command comments common communication \
    company compare complete compose compute computer computes concept configuration consider \
    console construct containing contains contents control convert convince correct cost costs could \
    counts cout craft creating creature csv custom customer daily database days ddos deal debug \
    decide deep defense delete demonstrate description detail detect detection determine dictionary \
    difference different directories discovered discuss display displays distance document documents \
    dog dollars don double down download dragon earth elements else email employees endl endpoint \
    engineer ensure enter environment equal equivalent errors etc event exists expected experience \
    experienced expert explaining explanation explicitly express extension extract face fall false \
    family famous fantasy feature features feel feet fetch fibonacci field figure filename filter \
    final finally financial finds firewall five focus food found four fox framework frequency friend \
    friends full functions future futuristic game gets goal good got greater greatest group guide \
    had half handle height high him historian historical history house however html https humans \
    identify image impact import importance important improve including incoming index information \
    initial instead intelligence intent iostream ipv issue james jane job json jsonplaceholde jumps \
    keep kingdom knowledge known language large largest lazy learn learning leave left legitimate \
    less letter level libraries library life light linux lists living local location logging logic \
    longest loop love machine made magical maintain makes making malicious map mark market mars \
    match max maximum may mean mechanism medieval mention message methods miles minute minutes \
    mission mitre model modern modify modifying module modules money monitoring month most multiple \
    must named names namespace needs negative next night node non note object occurrences odd offer \
    open orange original outputs packet packets page pair palindrome parameter park password past \
    pay people perform period permissions personal php piece planet plant plants points popular \
    positive possible post potential pounds power predefined pretend prevent previous price prime \
    println problem product professional programming project prompt proper properties provided \
    purpose query question quick radius random reach real receive receives recommend recursion \
    recursive remaining remote remove renowned request requests respond response results retrieve \
    reversed reverses rewrite right roleplay room rows rule rules ruleset run running salary same \
    sample save say school science scientist score search secure security see select self sell send \
    sensitive sentence separate sequence server service setting shakespeare share short show \
    significance significant since situation small society sold solution solve someone sorted sorts \
    source specializing species specified specify speech spend spent sql square squares start state \
    statement static station std step steps stone store story strategy strings structure student \
    students studying style subprocess successful such suggest support suspicious syntax taking task \
    team techniques technology these third those thoughts threat threats through title today \
    together top translate travel traveler tree true trying twice type typicode unauthorized under \
    understand unique update updating upon url usage users uses valid values variable vector version \
    via view visit visiting void vowels wants water web week weeks well went whether white why width \
    wise within wizard working works years young";

/// The share of stretches in which a literal stands, in thousandths; in other words too, unless it
/// `is_word` of its own.
pub(super) fn share(literal: &str, is_word: bool) -> u32 {
    let is_alphabetic = literal.bytes().all(|byte| byte.is_ascii_alphabetic());
    let known = SHARES.get(literal).copied();
    match literal.len() {
        0 | 1 if literal != "@" => 1000,
        2 if is_word => known.unwrap_or(40),
        2 if is_alphabetic => 800,
        2 if literal.bytes().any(|byte| byte.is_ascii_alphanumeric()) => 20,
        2 => 300,
        3 if is_alphabetic && !is_word => known.unwrap_or(60),
        _ => known.unwrap_or(4),
    }
}

static SHARES: LazyLock<HashMap<&str, u32>> = LazyLock::new(|| {
    let lists = [(MOST, 600), (MANY, 250), (SOME, 80)];
    lists
        .into_iter()
        .flat_map(|(list, share)| list.split(' ').map(move |word| (word, share)))
        .collect()
});

/// The stretch of so many bytes of a literal that is met least, and where it begins; all of it if it is
/// shorter.
pub(super) fn rarest(literal: &[u8], len: usize, offset_max: usize) -> (&[u8], usize) {
    let grams = literal.windows(len).enumerate().take(offset_max + 1);
    let (offset, gram) = grams.min_by_key(|(_, gram)| commonness(gram)).unwrap_or((0, literal));
    (gram, offset)
}

/// How often a few letters are met: first by the common words that hold them, then by how common each is.
fn commonness(gram: &[u8]) -> (u32, usize) {
    let letter = |byte: &u8| {
        let place = LETTERS.iter().position(|letter| letter == byte);
        place.map_or(0, |place| LETTERS.len() - place)
    };
    (GRAMS.get(gram).copied().unwrap_or(0), gram.iter().map(letter).sum())
}

/// Letters of English, the most common first.
const LETTERS: &[u8] = b" etaoinshrdlucmfwypvbgkqjxz";

/// By stretch of four letters, the shares of the words that hold it.
static GRAMS: LazyLock<HashMap<&[u8], u32>> = LazyLock::new(|| {
    let mut grams = HashMap::new();
    for (word, share) in SHARES.iter() {
        for gram in word.as_bytes().windows(4) {
            *grams.entry(gram).or_insert(0) += share;
        }
    }
    grams
});

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn rare_words_are_told_from_common_ones() {
        for (common, rare) in
            [("the", "your"), ("your", "answer"), ("answer", "ignore"), ("e", "@"), ("in", "inst")]
        {
            assert!(share(common, false) > share(rare, false), "{common} {rare}");
        }
    }
}
