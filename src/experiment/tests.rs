//! Known answers: the hash is fixed, so counts must match exactly.

use jiff::Timestamp;
use uuid::Uuid;

use super::{Experiment, Purpose, Reason, SplitError, Unit, arms, bucket, millipercent};
use crate::words::ids::{ExperimentId, TemplateId};

const SALT: &str = "demo-0001";

fn experiment() -> Experiment {
    let versions: Vec<TemplateId> = (1..=3).map(|n| TemplateId(Uuid::from_u128(n))).collect();
    // Keys in the order PostgreSQL's jsonb gives them back.
    let split = [
        ("variant_b".to_owned(), 20.0),
        ("control".to_owned(), 50.0),
        ("variant_a".to_owned(), 30.0),
    ];
    Experiment {
        id: ExperimentId(Uuid::nil()),
        salt: SALT.to_owned(),
        unit: Unit::User,
        enrolled: 100_000,
        arms: arms(&versions, &split).unwrap(),
        start: None,
        end: None,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn buckets_are_the_published_ones() {
    for (unit, enroll, variant) in [("user-7", 28403, 75747), ("student-0042", 12717, 36202)] {
        assert_eq!(bucket(Purpose::Enroll, SALT, unit), enroll);
        assert_eq!(bucket(Purpose::Variant, SALT, unit), variant);
    }
}

#[test]
fn a_hundred_thousand_users_split_exactly() {
    let experiment = experiment();
    let mut counts = [0; 3];
    for number in 0..100_000 {
        let unit = format!("user-{number}");
        let arm = experiment.assign(at(0), Some(&unit)).arm.unwrap();
        counts[experiment.arms.iter().position(|one| one == arm).unwrap()] += 1;
    }
    assert_eq!(counts, [49_923, 30_053, 20_024]);
}

#[test]
fn enrolment_says_nothing_about_the_arm() {
    let experiment = Experiment { enrolled: 10_000, ..experiment() };
    let mut counts = [0_u32; 3];
    for number in 0..100_000 {
        if let Some(arm) = experiment.assign(at(0), Some(&format!("user-{number}"))).arm {
            counts[experiment.arms.iter().position(|one| one == arm).unwrap()] += 1;
        }
    }
    let enrolled: u32 = counts.iter().sum();
    assert!((9_700..10_300).contains(&enrolled), "{enrolled}");
    for (count, share) in counts.into_iter().zip([0.5, 0.3, 0.2]) {
        assert!((f64::from(count) / f64::from(enrolled) - share).abs() < 0.02, "{counts:?}");
    }
}

#[test]
fn the_schedule_is_half_open() {
    let experiment = Experiment { start: Some(at(10)), end: Some(at(20)), ..experiment() };
    for (second, reason) in [
        (9, Reason::NotStarted),
        (10, Reason::Assigned),
        (19, Reason::Assigned),
        (20, Reason::Ended),
    ] {
        assert_eq!(experiment.assign(at(second), Some("u")).reason, reason);
    }
}

#[test]
fn no_unit_no_arm() {
    let experiment = experiment();
    for unit in [None, Some(""), Some("x".repeat(257).as_str())] {
        let assignment = experiment.assign(at(0), unit);
        assert_eq!((assignment.reason, assignment.arm), (Reason::NoUnit, None));
    }
    let none = Experiment { enrolled: 0, ..experiment };
    assert_eq!(none.assign(at(0), Some("u")).reason, Reason::NotEnrolled);
}

#[test]
fn uuids_have_one_spelling_and_nothing_else_is_touched() {
    let experiment = experiment();
    let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    let bucket_of = |unit: &str| experiment.assign(at(0), Some(unit)).variant_bucket;
    assert_eq!(bucket_of(uuid), bucket_of(&uuid.to_uppercase()));
    assert_eq!(bucket_of(uuid), bucket_of(&uuid.replace('-', "")));
    assert_ne!(bucket_of("User"), bucket_of("user"));
    assert_ne!(bucket_of("user "), bucket_of("user"));
}

#[test]
fn splits_that_do_not_add_up_are_refused() {
    let versions = [TemplateId(Uuid::nil()), TemplateId(Uuid::max())];
    let split = |control: f64, variant: f64| {
        arms(&versions, &[("control".to_owned(), control), ("variant_a".to_owned(), variant)])
    };
    assert_eq!(split(50.0, 49.9), Err(SplitError::Sum("99.900".to_owned())));
    assert!(split(33.333, 66.667).is_ok());
    assert_eq!(split(33.3333, 66.6667), Err(SplitError::Weight("control".to_owned())));
    assert!(matches!(
        arms(&versions, &[("control".to_owned(), 100.0)]),
        Err(SplitError::Arms { .. })
    ));
    assert_eq!(millipercent(0.1), Some(100));
    assert_eq!(millipercent(-1.0), None);
    assert_eq!(millipercent(f64::NAN), None);
}
