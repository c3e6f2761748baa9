//! The load driver of `make bench`: fixed connections, either at a fixed rate (latency counts from the
//! moment a call was due, so a slow answer cannot hide the ones behind it) or as fast as answers come.
//!
//! Prints one JSON object. Never part of a test: timings are measured, not asserted.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measuring program owns its clock, its tasks and its output"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use clap::Parser;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Drives one target.
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// Where to post to
    #[arg(long)]
    url: http::Uri,
    /// Calls a second over all connections; 0: as fast as answers come
    #[arg(long)]
    rate: u32,
    /// Connections
    #[arg(long)]
    connections: u32,
    /// How long
    #[arg(long)]
    seconds: u32,
    /// What to post; `TITLE` in it becomes other words in each call, as no prompt is like another
    #[arg(long)]
    body: std::path::PathBuf,
    /// Measure until the first piece of the answer is here, not until its end
    #[arg(long)]
    first_piece: bool,
    /// A header, as `name: value`
    #[arg(long)]
    header: Vec<String>,
}

#[derive(Debug, Default)]
struct Measured {
    micros: Vec<u64>,
    errors: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let body: Arc<str> = std::fs::read_to_string(&arguments.body).context("--body")?.into();
    let began = Instant::now();
    let workers: Vec<_> = (0..arguments.connections)
        .map(|number| tokio::spawn(drive(arguments.clone(), body.clone(), number, began)))
        .collect();
    let mut all = Measured::default();
    for worker in workers {
        let measured = worker.await??;
        all.micros.extend(measured.micros);
        all.errors += measured.errors;
    }
    all.micros.sort_unstable();
    let seconds = began.elapsed().as_secs_f64();
    let at = |share: f64| quantile(&all.micros, share);
    println!(
        "{{\"requests\": {}, \"errors\": {}, \"rps\": {:.0}, \"p50_us\": {}, \"p90_us\": {}, \"p99_us\": {}, \"max_us\": {}}}",
        all.micros.len(),
        all.errors,
        f64::from(u32::try_from(all.micros.len())?) / seconds,
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0),
    );
    Ok(())
}

/// One connection's calls.
async fn drive(
    arguments: Arguments,
    body: Arc<str>,
    number: u32,
    began: Instant,
) -> anyhow::Result<Measured> {
    let authority = arguments.url.authority().context("--url needs a host")?.to_string();
    let stream = TcpStream::connect(&authority).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let end = began + Duration::from_secs(arguments.seconds.into());
    let pause = match arguments.rate {
        0 => None,
        rate => Some(Duration::from_secs_f64(f64::from(arguments.connections) / f64::from(rate))),
    };
    // Connections take turns, so that calls are spread evenly over time.
    let mut due = began
        + pause.unwrap_or_default().mul_f64(f64::from(number) / f64::from(arguments.connections));
    let mut measured = Measured::default();
    // Where the titles of this connection begin, among all there are.
    let run = std::time::SystemTime::UNIX_EPOCH.elapsed()?.subsec_micros() + number * 10_007;
    for call in 0_u32.. {
        match pause {
            Some(_) => tokio::time::sleep_until(due.into()).await,
            None => due = Instant::now(),
        }
        let from = due;
        due += pause.unwrap_or_default();
        if from >= end {
            break;
        }
        let prompt = body.replace("TITLE", &title(run.wrapping_add(call)));
        let answer = sender.send_request(request(&arguments, &authority, prompt)?).await?;
        let good = answer.status().is_success();
        let mut body = answer.into_body();
        if arguments.first_piece {
            body.frame().await.transpose()?;
            measured.micros.push(u64::try_from(from.elapsed().as_micros())?);
            body.collect().await?;
        } else {
            body.collect().await?;
            measured.micros.push(u64::try_from(from.elapsed().as_micros())?);
        }
        measured.errors += u64::from(!good);
    }
    drop(sender);
    driver.await??;
    Ok(measured)
}

/// Four words, another four for each of a million numbers.
fn title(number: u32) -> String {
    const WORDS: [&str; 32] = [
        "water", "bread", "stone", "river", "summer", "winter", "paper", "house", "garden",
        "window", "letter", "market", "forest", "island", "valley", "bridge", "silver", "copper",
        "yellow", "purple", "morning", "evening", "coffee", "butter", "flower", "orange", "spring",
        "autumn", "harbour", "village", "meadow", "cloud",
    ];
    let word = |place: u32| WORDS.get((number >> (5 * place)) as usize % WORDS.len());
    (0..4).filter_map(word).copied().collect::<Vec<_>>().join(" ")
}

fn request(
    arguments: &Arguments,
    authority: &str,
    body: String,
) -> anyhow::Result<Request<Full<Bytes>>> {
    let target = arguments.url.path_and_query().map_or("/", |target| target.as_str());
    let mut request =
        Request::post(target).header("host", authority).body(Full::new(body.into()))?;
    for header in &arguments.header {
        let (name, value) = header.split_once(':').context("--header takes `name: value`")?;
        let (name, value) =
            (HeaderName::try_from(name.trim())?, HeaderValue::from_str(value.trim())?);
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

fn quantile(sorted: &[u64], share: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "an index into a list of measurements"
    )]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
