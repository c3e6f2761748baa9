//! Known answers: the hash is fixed, so counts must match exactly.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    Allocation, Experiment, Mode, Purpose, Reason, SplitError, Target, Unit, arms, bucket,
    millipercent,
};
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
    let arms = arms(&versions, &split).unwrap();
    Experiment {
        id: ExperimentId(Uuid::nil()),
        salt: SALT.to_owned(),
        unit: Unit::User,
        enrolled: 100_000,
        enrolled_most: 100_000,
        allocation: Allocation::new(&[50_000, 30_000, 20_000]),
        arms,
        forced: HashMap::new(),
        excluded: HashSet::new(),
        pinned: HashMap::new(),
        is_paused: false,
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
    let experiment = Experiment { enrolled: 10_000, enrolled_most: 10_000, ..experiment() };
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
    let none = Experiment { enrolled: 0, enrolled_most: 0, ..experiment };
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

/// What `experiment` becomes by a reallocation.
fn reallocated(
    experiment: &Experiment,
    mode: Mode,
    weights: [u32; 3],
    enrolled: u32,
) -> Experiment {
    let target = Target { mode, weights: weights.to_vec(), enrolled };
    let done = experiment.reallocated(&target).unwrap();
    let (allocation, enrolled_most) = (done.allocation, done.enrolled_most);
    Experiment { enrolled, enrolled_most, allocation, ..experiment.clone() }
}

/// How many of so many users have another arm in the other, being enrolled in both.
fn movers(one: &Experiment, other: &Experiment, users: u32) -> u32 {
    let arm =
        |of: &Experiment, unit: &str| of.assign(at(0), Some(unit)).arm.map(|arm| arm.key.clone());
    let moves = |number: u32| {
        let unit = format!("user-{number}");
        matches!((arm(one, &unit), arm(other, &unit)), (Some(old), Some(new)) if old != new)
    };
    (0..users).filter(|number| moves(*number)).count().try_into().unwrap()
}

#[test]
fn min_move_moves_half_the_sum_of_the_changes() {
    let before = experiment();
    for (weights, percent) in [
        ([40_000, 30_000, 30_000], 10.0),
        ([50_000, 50_000, 0], 20.0),
        ([0, 0, 100_000], 80.0),
        ([33_333, 33_333, 33_334], 16.667),
        ([50_000, 30_000, 20_000], 0.0),
    ] {
        let target = Target { mode: Mode::MinMove, weights: weights.to_vec(), enrolled: 100_000 };
        let done = before.reallocated(&target).unwrap();
        assert!((done.moves.moved_percentage() - percent).abs() < 1e-9, "{weights:?}");
        assert_eq!(done.allocation.shares(100_000, 3), weights);
    }
    let after = reallocated(&before, Mode::MinMove, [40_000, 30_000, 30_000], 100_000);
    // The highest buckets of control, and nobody else.
    assert_eq!(after.allocation.arm(0, 39_999), Some(0));
    assert_eq!(after.allocation.arm(0, 40_000), Some(2));
    assert_eq!(after.allocation.arm(0, 50_000), Some(1));
    let inside = |number: &u32| {
        (40_000..50_000).contains(&bucket(Purpose::Variant, SALT, &format!("user-{number}")))
    };
    let expected = (0..100_000).filter(inside).count();
    assert_eq!(movers(&before, &after, 100_000), u32::try_from(expected).unwrap());
}

#[test]
fn a_split_changed_there_and_back_moves_as_many_and_holds_all_buckets() {
    let mut experiment = experiment();
    for weights in [[40_000, 30_000, 30_000], [10_000, 80_000, 10_000], [50_000, 30_000, 20_000]] {
        let after = reallocated(&experiment, Mode::MinMove, weights, 100_000);
        let ranges = after.allocation.ranges(3);
        assert_eq!(Allocation::from_ranges(&ranges).as_ref(), Ok(&after.allocation));
        assert_eq!(after.shares(), weights);
        experiment = after;
    }
}

#[test]
fn grow_moves_nobody_and_gives_newcomers_the_new_split() {
    let tenth = Experiment { enrolled: 10_000, enrolled_most: 10_000, ..experiment() };
    let target =
        Target { mode: Mode::Grow, weights: vec![20_000, 30_000, 50_000], enrolled: 20_000 };
    assert_eq!(tenth.reallocated(&target).unwrap().moves.moved_percentage().to_bits(), 0);
    let grown = reallocated(&tenth, Mode::Grow, [20_000, 30_000, 50_000], 20_000);
    assert_eq!(movers(&tenth, &grown, 100_000), 0);
    assert_eq!(grown.shares(), [35_000, 30_000, 35_000]);
    assert_eq!(grown.allocation.arm(9_999, 30_000), Some(0));
    assert_eq!(grown.allocation.arm(10_000, 30_000), Some(1));
    // Back to 15 %, and grown again: who left comes back to the arm it had.
    let less = reallocated(&grown, Mode::MinMove, [35_000, 30_000, 35_000], 15_000);
    assert!(less.reallocated(&target).is_err(), "there is no room below what was enrolled");
    // Everybody enrolled leaves nobody to grow into.
    assert!(experiment().reallocated(&target).is_err());
}

#[test]
fn who_was_enrolled_and_is_no_longer_has_left() {
    let half = Experiment { enrolled: 50_000, enrolled_most: 50_000, ..experiment() };
    let less = reallocated(&half, Mode::MinMove, [50_000, 30_000, 20_000], 28_403);
    let reason = |of: &Experiment| of.assign(at(0), Some("user-7")).reason;
    assert_eq!((reason(&half), reason(&less)), (Reason::Assigned, Reason::Left));
    let again = reallocated(&less, Mode::MinMove, [50_000, 30_000, 20_000], 100_000);
    assert_eq!(movers(&half, &again, 20_000), 0, "ramping up moves nobody");
}

#[test]
fn a_new_salt_moves_what_it_says() {
    let before = experiment();
    let target = Target {
        mode: Mode::Rerandomise,
        weights: vec![50_000, 30_000, 20_000],
        enrolled: 100_000,
    };
    let share = before.reallocated(&target).unwrap().moves.moved_percentage();
    assert!((share - 62.0).abs() < 1e-9, "1 - 0.5² - 0.3² - 0.2²: {share}");
    let after = Experiment { salt: "demo-0002".to_owned(), ..before.clone() };
    let moved = f64::from(movers(&before, &after, 100_000)) / 1000.0;
    assert!((moved - share).abs() < 0.5, "{moved} of {share} %");
}

#[test]
fn hands_go_before_the_hash_and_nothing_goes_before_the_schedule() {
    let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    let experiment = Experiment {
        forced: HashMap::from([("qa".to_owned(), 2), (uuid.to_owned(), 1)]),
        excluded: HashSet::from(["qa".to_owned(), "out".to_owned()]),
        pinned: HashMap::from([("user-7".to_owned(), 2)]),
        start: Some(at(10)),
        ..experiment()
    };
    let decide = |second: i64, unit: &str| {
        let assignment = experiment.assign(at(second), Some(unit));
        (assignment.reason, assignment.arm.map(|arm| arm.key.as_str()))
    };
    assert_eq!(decide(9, "qa"), (Reason::NotStarted, None));
    assert_eq!(decide(10, "qa"), (Reason::Forced, Some("variant_b")));
    assert_eq!(decide(10, &uuid.to_uppercase()), (Reason::Forced, Some("variant_a")));
    assert_eq!(decide(10, "out"), (Reason::Excluded, None));
    // Its bucket, 75747, is variant_a's.
    assert_eq!(decide(10, "user-7"), (Reason::Assigned, Some("variant_b")));
    let paused = Experiment { is_paused: true, ..experiment.clone() };
    assert_eq!(paused.assign(at(10), Some("qa")).reason, Reason::Paused);
    let closed = Experiment { enrolled: 0, enrolled_most: 0, ..experiment };
    assert_eq!(closed.assign(at(10), Some("user-7")).arm, None, "pinned, but not enrolled");
}

/// Section 13.4: clocks two seconds apart agree but for two seconds around each date.
#[test]
fn clocks_two_seconds_apart_agree_outside_of_the_boundary() {
    let experiment = Experiment { start: Some(at(100)), end: Some(at(200)), ..experiment() };
    let mut differing = Vec::new();
    for second in 0..300 {
        for unit in ["user-7", "user-8", "student-0042"] {
            let [one, other] =
                [second, second + 2].map(|now| experiment.assign(at(now), Some(unit)).arm);
            if one != other && differing.last() != Some(&second) {
                differing.push(second);
            }
        }
    }
    assert_eq!(differing, [98, 99, 198, 199]);
}

#[test]
fn ranges_that_do_not_cover_the_buckets_once_are_refused() {
    let whole = Allocation::new(&[50_000, 30_000, 20_000]).ranges(3);
    assert!(Allocation::from_ranges(&whole).is_ok());
    for spoil in [
        |ranges: &mut Vec<Vec<super::Range>>| ranges[1].clear(),
        |ranges: &mut Vec<Vec<super::Range>>| ranges[0][0].variant[1] = 60_000,
        |ranges: &mut Vec<Vec<super::Range>>| ranges[2][0].variant[1] = 99_999,
        |ranges: &mut Vec<Vec<super::Range>>| ranges[2][0].enroll[0] = 1,
        |ranges: &mut Vec<Vec<super::Range>>| ranges.clear(),
    ] {
        let mut ranges = whole.clone();
        spoil(&mut ranges);
        assert!(Allocation::from_ranges(&ranges).is_err(), "{ranges:?}");
    }
}

#[test]
fn groups_take_their_percentage_and_leave_the_rest() {
    let group = |name: &str, weight: u32| super::Group {
        name: name.to_owned(),
        template: TemplateId(Uuid::from_u128(weight.into())),
        weight,
        start: None,
        end: Some(at(10)),
    };
    // In whatever order the rows come.
    let groups = super::Groups::new(SALT.to_owned(), vec![group("b", 20_000), group("a", 30_000)]);
    let groups = groups.unwrap();
    let mut counts = [0, 0, 0];
    for number in 0..100_000 {
        let unit = format!("user-{number}");
        let place = match groups.assign(at(0), Some(&unit)).group.map(|group| group.name.as_str()) {
            Some("a") => 0,
            Some(_) => 1,
            None => 2,
        };
        counts[place] += 1;
    }
    let below = |upper: u32| {
        (0..100_000)
            .filter(|number| bucket(Purpose::Variant, SALT, &format!("user-{number}")) < upper)
            .count()
    };
    assert_eq!(counts, [below(30_000), below(50_000) - below(30_000), 100_000 - below(50_000)]);
    let late = groups.assign(at(10), Some("user-0"));
    assert_eq!((late.group, late.reason), (None, Reason::NoGroup));
    assert_eq!(groups.assign(at(0), None).reason, Reason::NoUnit);
    assert_eq!(super::Groups::new(SALT.to_owned(), Vec::new()), None);
}
