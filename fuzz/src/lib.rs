//! What must hold for every input: one function for each fuzz target. `tests/fuzz.rs` runs the same
//! functions over the corpus, on the stable compiler.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use chaperone::catalog::files::seeds;
use chaperone::guardrail::{
    Action, Direction, Finding, Guardrails, Hole, Holes, Inspects, Progress, Rule, RuleConfig,
    RuleSet, Salt, Stands, Window,
};
use serde_json::json;

/// Longer texts only make it slow: nothing that is looked for is as long.
const TEXT_BYTES_MAX: usize = 4096;

/// Rules at the edges of what the engine can do, beside the seeds.
const EDGES: &str = r#"[
    {"literals": ["bad phrase", "worse", "worse still", "<|x|>", "é a"]},
    {"action": "redact", "patterns": [{"entity": "token", "regex": "tok_[a-z0-9]{4,12}"}]},
    {"action": "redact", "redact": {"with": "mask"}, "patterns": [
        {"entity": "inner", "regex": "bc", "whole_word": false},
        {"entity": "overlapping", "regex": "[cd]{1,3} {0,2}[ab]{1,4}", "whole_word": false}]},
    {"action": "redact", "patterns": [{"entity": "growing", "regex": "ab(?:c| d| a){1,9}", "whole_word": false}]},
    {"patterns": [{"entity": "no anchor", "regex": "[ab]{2,4}[cd]{1,2}", "whole_word": false}]},
    {"patterns": [{"entity": "optional tail", "regex": "b(?:c d?){1,3}", "whole_word": false}]},
    {"max_bytes": 2000}
]"#;

/// Everything that is replaced, in each form.
const REDACTING: &str = r#"[
    {"literals": ["project falcon"], "redact": {"with": "mask"}},
    {"patterns": [{"entity": "ticket", "regex": "FALC-[0-9]{1,6}"}], "redact": {"with": "keep_last_4"}},
    {"patterns": [{"entity": "email", "regex": "[a-z0-9.]{1,64}@[a-z0-9.-]{1,63}\\.[a-z]{2,8}"}],
     "redact": {"with": "placeholder", "reversible": true}},
    {"patterns": [{"entity": "phone", "regex": "[0-9]{3}-[0-9]{4}"}], "redact": {"with": "hash"}},
    {"patterns": [{"entity": "key", "regex": "key_[a-z0-9]{4,8}"}]}
]"#;

/// Any bytes are a text, and what is found in it is a part of it.
pub fn read_scan(input: &[u8]) {
    let text = text(input);
    let guardrails = everything();
    for direction in [Direction::Request, Direction::Response] {
        let findings = guardrails.scan(&text, &all(guardrails, direction));
        for finding in &findings {
            assert!(text.get(finding.span()).is_some(), "{finding:?} is no part of {text:?}");
            assert!(!guardrails.entity(finding).is_empty(), "{finding:?} has no name");
        }
        assert!(findings.is_sorted(), "out of order: {findings:?}");
    }
}

/// However a text is cut, a stream of it has the findings of the whole, and nothing of what is acted on
/// leaves early. The first byte says how many cuts there are, the next ones where.
pub fn window(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let (places, rest) = rest.split_at(usize::from(first % 8).min(rest.len()));
    let text = text(rest);
    let (guardrails, whole) = (everything(), text.as_str());
    let rules = Arc::new(all(guardrails, Direction::Response));
    let expected = guardrails.scan(whole, &rules);
    let mut window = Window::new(guardrails.clone(), rules);
    let (mut found, mut redacted) = (Vec::new(), Redacted::default());
    let pieces = pieces(whole, places);
    for index in 0..=pieces.len() {
        let progress = match pieces.get(index) {
            Some(piece) => window.push(piece),
            None => window.finish(),
        };
        redacted.take(guardrails, whole, &progress);
        found.extend(progress.findings);
        for finding in expected.iter().filter(|one| is_acted_on(guardrails, one)) {
            let is_safe = found.contains(finding) || progress.safe_to <= finding.start;
            assert!(is_safe, "released into {finding:?} of {pieces:?}");
        }
    }
    found.sort();
    // A text that asks for more work than is allowed is not looked at to its end, and where it stops
    // depends on the pieces.
    if !expected.iter().chain(&found).any(|one| guardrails.entity(one) == "work_limit") {
        assert_eq!(found, expected, "{pieces:?}");
        let of_whole = guardrails.redacted(whole, &expected, &Salt::default());
        assert_eq!(redacted.text, of_whole, "{pieces:?}");
    }
}

/// A stream with what has to be redacted replaced, as far as it may leave.
#[derive(Default)]
struct Redacted {
    text: String,
    len: usize,
    holes: Holes,
}

impl Redacted {
    fn take(&mut self, guardrails: &Guardrails, whole: &str, progress: &Progress) {
        let redacting = progress.findings.iter().filter(|one| guardrails.redacts(one));
        redacting.for_each(|one| self.holes.found(one.clone()));
        let (holes, safe_to) = self.holes.take(progress.safe_to);
        for Hole { span, stands } in holes {
            self.text.push_str(whole.get(self.len..span.start).unwrap_or_default());
            if let Stands::For(finding, value) = stands {
                let value = whole.get(value).unwrap_or_default();
                self.text.push_str(&guardrails.placeholder(&finding, value, &Salt::default()));
            }
            self.len = span.end;
        }
        self.text.push_str(whole.get(self.len..safe_to).unwrap_or_default());
        self.len = self.len.max(safe_to);
    }
}

/// Outside of what was replaced, a redacted text is the original, and with the values back in their
/// places it is the original as a whole.
pub fn redact_restore(input: &[u8]) {
    let text = text(input);
    let guardrails = redacting();
    let salt = Salt::new("key", "tenant", "conversation");
    let findings = guardrails.scan(&text, &all(guardrails, Direction::Request));
    let redacted = guardrails.redacted(&text, &findings, &salt);
    let (mut restored, mut rest) = (String::new(), redacted.as_str());
    for (hole, first) in holes(guardrails, &findings) {
        let value = text.get(hole.clone()).unwrap_or_default();
        let placeholder = guardrails.placeholder(first, value, &salt);
        let kept = text.get(restored.len()..hole.start).unwrap_or_default();
        let behind = rest.strip_prefix(kept).and_then(|rest| rest.strip_prefix(&placeholder));
        assert!(behind.is_some(), "{placeholder:?} is not behind {kept:?} in {redacted:?}");
        rest = behind.unwrap_or_default();
        restored.push_str(kept);
        restored.push_str(text.get(hole).unwrap_or_default());
    }
    restored.push_str(rest);
    assert_eq!(restored, text, "by way of {redacted:?}");
}

/// A `rule_config` of anybody compiles or is refused, and one that compiles can be looked with.
pub fn rule(input: &[u8]) {
    let Ok(config) = serde_json::from_slice::<RuleConfig>(input) else { return };
    let Ok(guardrails) = Guardrails::compile(vec![rule_of(config)]) else { return };
    let (is_built, rules) = (guardrails.check().is_ok(), all(&guardrails, Direction::Request));
    for text in ["", "a b c 1-2-3 é <|x|>"].into_iter().filter(|_| is_built) {
        for finding in guardrails.scan(text, &rules) {
            assert!(text.get(finding.span()).is_some(), "{finding:?} is no part of {text:?}");
        }
    }
}

fn text(input: &[u8]) -> String {
    let short = input.get(..TEXT_BYTES_MAX).unwrap_or(input);
    String::from_utf8_lossy(short).into_owned()
}

/// The text in pieces: cut at shares of its length, or after each character where no place is given.
fn pieces<'t>(text: &'t str, places: &[u8]) -> Vec<&'t str> {
    let share = |place: &u8| text.floor_char_boundary(text.len() * usize::from(*place) / 255);
    let mut cuts: Vec<usize> = if places.is_empty() {
        text.char_indices().map(|(at, _)| at).collect()
    } else {
        places.iter().map(share).collect()
    };
    cuts.extend([0, text.len()]);
    cuts.sort_unstable();
    let ends = cuts.iter().skip(1);
    cuts.iter().zip(ends).filter_map(|(from, to)| text.get(*from..*to)).collect()
}

/// What is replaced, in order: of findings that overlap, the first stands for all.
fn holes<'f>(guardrails: &Guardrails, findings: &'f [Finding]) -> Vec<(Range<usize>, &'f Finding)> {
    let mut holes: Vec<(Range<usize>, &Finding)> = Vec::new();
    for finding in findings.iter().filter(|one| guardrails.redacts(one)) {
        match holes.last_mut() {
            Some((hole, _)) if finding.start < hole.end => hole.end = hole.end.max(finding.end),
            _ => holes.push((finding.span(), finding)),
        }
    }
    holes
}

/// Whether a finding must be whole before any of it leaves. That a text is too long shows at its end only,
/// and where too much work was asked for there is no match.
fn is_acted_on(guardrails: &Guardrails, finding: &Finding) -> bool {
    !["length", "work_limit"].contains(&guardrails.entity(finding))
        && matches!(guardrails.action(finding), Some(Action::Redact | Action::Block))
}

/// Those that look at texts going this way: only for these are streams of answers followed.
fn all(guardrails: &Guardrails, direction: Direction) -> RuleSet {
    let select = |inspects| guardrails.select(direction, inspects, None);
    select(Inspects::Untrusted).union(&select(Inspects::Rendered))
}

/// The seeds, made to look at answers too, and the edges; compiled once.
fn everything() -> &'static Arc<Guardrails> {
    static COMPILED: OnceLock<Arc<Guardrails>> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let seeds = seeds().expect("the seeds are files of this project");
        let seeds = seeds.guardrails.iter().map(|one| Rule::from(one.as_ref()));
        let mut rules: Vec<Rule> = seeds.chain(rules(EDGES)).collect();
        for rule in &mut rules {
            rule.config.applies_to.clear();
        }
        compiled(rules)
    })
}

fn redacting() -> &'static Arc<Guardrails> {
    static COMPILED: OnceLock<Arc<Guardrails>> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let mut rules = rules(REDACTING);
        for rule in &mut rules {
            rule.config.action = Some(Action::Redact);
        }
        compiled(rules)
    })
}

fn compiled(rules: Vec<Rule>) -> Arc<Guardrails> {
    Arc::new(Guardrails::compile(rules).expect("these rules are well-formed"))
}

fn rules(configs: &str) -> Vec<Rule> {
    let configs: Vec<RuleConfig> = serde_json::from_str(configs).expect("these are rules");
    configs.into_iter().map(rule_of).collect()
}

fn rule_of(config: RuleConfig) -> Rule {
    let blank = json!({"id": "00000000-0000-0000-0000-000000000000", "name": "fuzzed",
        "rule_type": "custom", "severity": "error", "blocking": true});
    let blank: chaperone::catalog::definitions::GuardrailDefinition =
        serde_json::from_value(blank).expect("this is a guardrail");
    Rule { config, ..Rule::from(&blank) }
}
