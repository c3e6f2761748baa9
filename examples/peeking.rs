//! How often an analysis that looks after each observation sees an effect where there is none:
//! `cargo run --release --example peeking -- [RUNS] [OBSERVATIONS]`.
//!
//! Prints, for each kind of data, the share of runs with a false alarm: by the confidence sequence,
//! by the usual test at any look, by the usual test at the last one. Asserts nothing about them: 5
//! % is promised, and in 2 000 runs up to 6.46 % is chance. Users who come back are looked at 240
//! times.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measuring program owns its output and its arguments"
)]

use chaperone::statistics::{
    Alpha, Analysis, Comparison, Counts, Estimate, MeanSums, NoAnswer, RatioSums, Scale, Sequence,
};

use nulls::{Data, Seen};

#[path = "../src/statistics/nulls.rs"]
mod nulls;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u32| {
        arguments
            .next()
            .map_or(default, |text| text.parse().expect("a number of runs or observations"))
    };
    let (runs, observations) = (number(2000), number(20_000));
    let sequence = Analysis::Sequential(Sequence::new(None, Alpha::FIVE_PERCENT));
    // The 99th percentile of a log-normal with deviation 2.
    let cap = (2.0 * 2.326_347_874_040_841_f64).exp();
    println!("{runs} runs x {observations} observations         ours   peeked     once");
    for (name, data) in [
        ("success 95 %", Data::Success(0.95)),
        ("success 99 %", Data::Success(0.99)),
        ("success 50 %", Data::Success(0.5)),
        ("latency, sigma 1", Data::Latency { sigma: 1.0, cap: f64::INFINITY }),
        ("latency, sigma 2, capped at p99", Data::Latency { sigma: 2.0, cap }),
        ("log latency", Data::LogLatency),
        ("returning users, success", Data::ReturningSuccess),
        ("returning users, latency", Data::ReturningLatency),
    ] {
        let observations = usize::try_from(observations).expect("a small number");
        let all: Vec<Seen> = (0..runs)
            .map(|seed| nulls::run(data, sequence, observations, u64::from(seed)))
            .collect();
        let percent = |saw: fn(&Seen) -> bool| {
            let count = u32::try_from(all.iter().filter(|seen| saw(seen)).count());
            100.0 * f64::from(count.expect("at most the runs")) / f64::from(runs)
        };
        println!(
            "{name:32} {:6.2} % {:6.2} % {:6.2} %",
            percent(|seen| seen.ours),
            percent(|seen| seen.peeked),
            percent(|seen| seen.once)
        );
    }
}
