//! Compiling the seeds, refusing what is broken, keeping what is not in force.

mod families;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use super::definitions::Definitions;
use super::files::seeds;
use super::{Blueprint, Catalog, Source, TemplateName, Tier};
use crate::guardrail::{Direction, Inspects};
use crate::words::ids::Tenant;

fn compile(definitions: Definitions) -> Result<Catalog, super::CatalogError> {
    Catalog::compile(definitions, Source::File, 1, Timestamp::UNIX_EPOCH)
}

fn template(version: u32, active: bool, text: &str) -> serde_json::Value {
    json!({
        "id": uuid::Uuid::from_u128(u128::from(version)), "name": "t", "version": version,
        "is_active": active, "template_text": text, "variables": ["x"],
    })
}

fn with(templates: &[serde_json::Value], experiments: &serde_json::Value) -> Definitions {
    let all = json!({"templates": templates, "experiments": experiments});
    Definitions::from_json(&all.to_string()).unwrap()
}

#[test]
fn the_seeds_compile() {
    let seeds = seeds().unwrap();
    assert_eq!((seeds.templates.len(), seeds.guardrails.len()), (3, 8));
    let catalog = compile(seeds).unwrap();
    let tenant = catalog.tenant(&Tenant::default()).unwrap();
    for (name, temperature) in [
        ("nlu_topic_extraction", "0.2"),
        ("clarification_question_generation", "0.3"),
        ("educational_script_generation", "0.7"),
    ] {
        let version = &tenant.template(name).unwrap().active.as_ref().unwrap().version;
        assert_eq!(version.model_config.model.as_deref(), Some("gemini-2.5-flash"));
        let found = version.model_config.native.iter().find(|(key, _)| key == "temperature");
        assert_eq!(found.unwrap().1, temperature);
    }
    assert_eq!(tenant.guardrails.rules().len(), 8);
}

#[test]
fn the_seeds_report_what_is_somebodys_and_not_what_is_nobodys() {
    let catalog = compile(seeds().unwrap()).unwrap();
    let guardrails = &catalog.tenant(&Tenant::default()).unwrap().guardrails;
    let rules = guardrails.select(Direction::Request, Inspects::Untrusted, None);
    for (text, entity) in [
        ("ann@example.com", "email"),
        ("john.smith@gmail.com", "email"),
        ("user7@gmail.com", "email"),
        ("user.smith@gmail.com", "email"),
        ("john.doe@email.com", "email"),
        ("test@email.com.br", "email"),
        ("11.0.1.40 and 172.32.5.6", "ip_address"),
        ("192.169.1.77", "ip_address"),
        ("2001:4860:4860::8888", "ip_address"),
        ("account number 12345679", "us_bank_account"),
        ("call 888-222-3334", "phone"),
    ] {
        let found = guardrails.scan(text, &rules);
        assert!(!found.is_empty(), "{text}");
        assert!(found.iter().all(|one| guardrails.entity(one) == entity), "{text}");
    }
    for text in [
        "10.0.1.40/27 192.168.1.1:80 172.16.5.6 172.31.255.7 169.254.7.8",
        "192.0.2.7 198.51.100.44 203.0.113.99 123.45.67.89",
        "2001:db8::8a2e:370:7334 fe80::1ff:fe23:4567:890a fd12:3456:789a:1::5",
        "account_number: '12345678', account number 123456789",
        "call 111-222-3333, phone: 123-456-7890",
    ] {
        let found = guardrails.scan(text, &rules);
        let found: Vec<_> = found.iter().map(|one| text.get(one.span())).collect();
        assert!(found.is_empty(), "{text}: {found:?}");
    }
}

#[test]
fn definitions_survive_json() {
    let seeds = seeds().unwrap();
    let json = serde_json::to_string(&seeds).unwrap();
    assert_eq!(Definitions::from_json(&json).unwrap(), seeds);
}

#[test]
fn a_broken_active_version_refuses_the_whole_and_is_named() {
    let error = compile(with(&[template(1, true, "ok"), template(2, false, "{nope")], &json!([])));
    let catalog = error.unwrap();
    let name = catalog.tenant(&Tenant::default()).unwrap().template("t").unwrap();
    assert!(name.version(1).unwrap().is_ok() && name.version(2).unwrap().is_err());
    let error = compile(with(&[template(1, true, "{nope")], &json!([]))).unwrap_err();
    assert_eq!(error.object, "template t@1");
    let error =
        compile(with(&[template(1, true, "a"), template(2, true, "b")], &json!([]))).unwrap_err();
    assert!(error.why.contains("second active"), "{error}");
}

#[test]
fn experiments_must_name_working_versions() {
    let experiment = |variant: u128| {
        json!([{
            "id": uuid::Uuid::from_u128(9), "name": "e", "template_name": "t", "status": "active",
            "control_template_id": uuid::Uuid::from_u128(1),
            "variant_template_ids": [uuid::Uuid::from_u128(variant)],
            "traffic_split": {"variant_a": 50, "control": 50},
        }])
    };
    let templates = [template(1, true, "a"), template(2, false, "b")];
    let catalog = compile(with(&templates, &experiment(2))).unwrap();
    let name = catalog.tenant(&Tenant::default()).unwrap().template("t").unwrap();
    assert_eq!(name.experiment.as_ref().unwrap().experiment.arms[1].key, "variant_a");
    let error = compile(with(&templates, &experiment(3))).unwrap_err();
    assert_eq!(error.object, "experiment e");
}

#[test]
fn changes_take_their_places_however_many_they_are() {
    let versions = |numbers: &[u32], text: &str| {
        let all: Vec<_> = numbers.iter().map(|number| template(*number, false, text)).collect();
        with(&all, &json!([]))
    };
    let old = Definitions::default().updated(versions(&[2, 4, 6, 8], "a"), true);
    for more in [vec![5, 1, 9, 4], (1..100).rev().collect::<Vec<u32>>()] {
        let new = old.updated(versions(&more, "b"), false);
        let mut numbers: Vec<u32> = more.iter().copied().chain([2, 4, 6, 8]).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let found: Vec<u32> = new.templates.iter().map(|one| one.version).collect();
        assert_eq!(found, numbers);
        for one in &new.templates {
            assert_eq!(one.template_text == "b", more.contains(&one.version), "{}", one.version);
        }
        // What says the same stays the same object.
        let same = new.updated(versions(&more, "b"), false);
        assert!(same.templates.iter().zip(&new.templates).all(|(one, two)| Arc::ptr_eq(one, two)));
    }
}

/// Built upon another catalog, with lesser sources.
fn build(definitions: &Arc<Definitions>, tiers: &[Tier], previous: Option<&Catalog>) -> Catalog {
    let (source, now, generation) = (Source::Database, Timestamp::UNIX_EPOCH, 1);
    let definitions = definitions.clone();
    Catalog::build(Blueprint { definitions, source, generation, now, tiers, previous }).unwrap()
}

#[test]
fn a_name_is_taken_over_while_nothing_of_it_changes() {
    let name = |catalog: &Catalog, name: &str| -> Arc<TemplateName> {
        catalog.tenant(&Tenant::default()).unwrap().templates[name].clone()
    };
    let other = json!({"id": uuid::Uuid::from_u128(7), "name": "other", "version": 1, "template_text": "o", "is_active": true});
    let first =
        Arc::new(with(&[template(1, true, "a"), template(2, false, "b"), other], &json!([])));
    let catalog = build(&first, &[], None);
    let again = build(&first, &[], Some(&catalog));
    assert!(Arc::ptr_eq(&name(&catalog, "t"), &name(&again, "t")));

    let changes = with(&[template(1, false, "a"), template(2, true, "b")], &json!([]));
    let second = Arc::new(first.updated(changes, false));
    let moved = build(&second, &[], Some(&again));
    assert!(Arc::ptr_eq(&name(&moved, "other"), &name(&again, "other")));
    assert_eq!(name(&moved, "t").active.as_ref().unwrap().version.number, 2);

    // Without its active version the files serve the name; without the files nobody does.
    let changes = with(&[template(1, false, "a"), template(2, false, "b")], &json!([]));
    let off = Arc::new(second.updated(changes, false));
    let files = Arc::new(with(&[template(1, true, "from a file")], &json!([])));
    let tiers = [Tier { source: Source::File, definitions: files }];
    let fallen = build(&off, &tiers, Some(&moved));
    assert_eq!(name(&fallen, "t").active.as_ref().unwrap().source, Source::File);
    let gone = build(&off, &[], Some(&fallen));
    assert!(name(&gone, "t").active.is_none() && name(&gone, "other").active.is_some());

    // An experiment comes and goes without a version changing.
    let test = json!([{
        "id": uuid::Uuid::from_u128(9), "name": "e", "template_name": "t", "status": "active",
        "control_template_id": uuid::Uuid::from_u128(1),
        "variant_template_ids": [uuid::Uuid::from_u128(2)],
        "traffic_split": {"variant_a": 50, "control": 50},
    }]);
    let mut testing = second.as_ref().clone();
    testing.experiments = with(&[], &test).experiments;
    let running = build(&Arc::new(testing), &[], Some(&moved));
    assert!(name(&running, "t").experiment.is_some());
    assert!(name(&build(&second, &[], Some(&running)), "t").experiment.is_none());

    // Guardrails decide what looks at a version's calls.
    let mut guarded = second.as_ref().clone();
    guarded.guardrails = seeds().unwrap().guardrails;
    let guarded = build(&Arc::new(guarded), &[], Some(&moved));
    assert!(!Arc::ptr_eq(&name(&guarded, "t"), &name(&moved, "t")));
}

#[test]
fn a_version_of_a_group_is_never_the_active_one() {
    let grouped = |version: u32| {
        let mut one = template(version, true, "grouped {x}");
        one["ab_test_group"] = json!("a");
        one["traffic_percentage"] = json!(10);
        one
    };
    let name = |catalog: &Catalog| {
        let name = catalog.tenant(&Tenant::default()).unwrap().template("t").unwrap();
        let active = name.active.as_ref().map(|served| served.version.number);
        (active, name.groups.is_some())
    };
    let both = with(&[template(1, true, "{x}"), grouped(2)], &json!([]));
    assert_eq!(name(&compile(both).unwrap()), (Some(1), true));
    // Nor does a lesser source make it one.
    let tier =
        Tier { source: Source::File, definitions: Arc::new(with(&[grouped(2)], &json!([]))) };
    let bare = Arc::new(with(&[template(1, false, "{x}")], &json!([])));
    assert_eq!(name(&build(&bare, &[tier], None)), (None, false));
    let broken = compile(with(
        &[template(1, true, "{x}"), {
            let mut one = grouped(2);
            one["template_text"] = json!("{nope}");
            one
        }],
        &json!([]),
    ));
    assert_eq!(broken.unwrap_err().object, "template t@2");
}

#[test]
fn an_active_experiment_goes_over_a_paused_one_and_a_broken_pause_breaks_nothing() {
    let experiment = |number: u128, status: &str, control: u128| {
        json!({
            "id": uuid::Uuid::from_u128(number), "name": format!("e-{number}"),
            "template_name": "t", "status": status,
            "control_template_id": uuid::Uuid::from_u128(control),
            "traffic_split": {"control": 100},
        })
    };
    let running = |experiments: &[serde_json::Value]| {
        let catalog = compile(with(&[template(1, true, "{x}")], &json!(experiments))).unwrap();
        let name = catalog.tenant(&Tenant::default()).unwrap().template("t").unwrap();
        name.experiment
            .as_ref()
            .map(|one| (one.experiment.id.0.as_u128(), one.experiment.is_paused))
    };
    let (paused, active) = (experiment(7, "paused", 99), experiment(8, "active", 1));
    assert_eq!(running(&[active.clone(), paused.clone()]), Some((8, false)));
    assert_eq!(running(&[paused.clone(), active]), Some((8, false)));
    assert_eq!(running(&[paused]), Some((7, true)));
    assert_eq!(running(&[experiment(9, "completed", 1), experiment(10, "draft", 1)]), None);
    let error = compile(with(
        &[template(1, true, "{x}")],
        &json!([{
            "id": uuid::Uuid::from_u128(9), "name": "e", "template_name": "t", "status": "active",
            "control_template_id": uuid::Uuid::from_u128(1), "traffic_split": {"control": 100},
            "arms": [{"key": "control", "ranges": [{"enroll": [0, 100_000], "variant": [0, 99_999]}]}],
        }]),
    ));
    assert!(error.unwrap_err().why.contains("exactly once"));
}
