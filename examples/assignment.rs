//! What an assignment costs: `cargo run --release --example assignment`.
//!
//! Prints nanoseconds a decision, on one thread, for kinds of units and of splits. Ends with 1 when the mean
//! of any is 2 µs or more: a decision must be lost in the noise of a call.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measuring program owns its clock and its output"
)]

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use chaperone::experiment::{Allocation, Arm, Experiment, Unit, arm_key};
use chaperone::words::ids::{ExperimentId, TemplateId};
use jiff::Timestamp;
use uuid::Uuid;

const UNITS: usize = 1_000_000;
const BAR_NS: f64 = 2_000.0;

fn main() -> ExitCode {
    let plain: Vec<String> = (0..UNITS).map(|number| format!("user-{number}")).collect();
    let uuids: Vec<String> = (0..UNITS)
        .map(|number| Uuid::from_u128(number as u128 * 0x9e37_79b9_7f4a_7c15).to_string())
        .collect();
    let long: Vec<String> = (0..UNITS).map(|number| format!("{number:0>256}")).collect();
    let halves = experiment(&[50_000, 50_000]);
    let many = experiment(&[4_761; 21]);
    let mut moved = halves.clone();
    moved.allocation = (1..20).fold(moved.allocation, |allocation, step| {
        allocation.min_move(&[step * 5_000, 100_000 - step * 5_000])
    });
    let mut hands = halves.clone();
    hands.forced = plain.iter().take(1_000).map(|unit| (unit.clone(), 1)).collect();
    hands.pinned = plain.iter().rev().take(10_000).map(|unit| (unit.clone(), 0)).collect();
    let means = [
        measure("two arms, user-N", &halves, &plain),
        measure("two arms, UUID", &halves, &uuids),
        measure("two arms, 256 bytes", &halves, &long),
        measure("21 arms, user-N", &many, &plain),
        measure("after 19 reallocations", &moved, &plain),
        measure("1,000 forced, 10,000 pinned", &hands, &plain),
    ];
    if means.iter().all(|mean| *mean < BAR_NS) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn experiment(weights: &[u32]) -> Experiment {
    let rest = 100_000 - weights.iter().sum::<u32>();
    let mut weights = weights.to_vec();
    if let Some(first) = weights.first_mut() {
        *first += rest;
    }
    let arm = |(ordinal, weight): (usize, &u32)| Arm {
        key: arm_key(ordinal),
        template: TemplateId(Uuid::from_u128(ordinal as u128)),
        weight: *weight,
    };
    Experiment {
        id: ExperimentId(Uuid::nil()),
        salt: Uuid::max().to_string(),
        unit: Unit::User,
        enrolled: 100_000,
        enrolled_most: 100_000,
        allocation: Allocation::new(&weights),
        arms: weights.iter().enumerate().map(arm).collect(),
        forced: HashMap::new(),
        excluded: HashSet::new(),
        pinned: HashMap::new(),
        is_paused: false,
        start: None,
        end: None,
    }
}

/// The mean of all units, in nanoseconds.
fn measure(name: &str, experiment: &Experiment, units: &[String]) -> f64 {
    let began = Instant::now();
    for unit in units {
        black_box(experiment.assign(Timestamp::UNIX_EPOCH, Some(black_box(unit))));
    }
    let mean = began.elapsed().as_nanos() as f64 / units.len() as f64;
    println!("{name:<28} {mean:>6.0} ns a decision");
    mean
}
