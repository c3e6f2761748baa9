//! Everything at once, under load: the process killed, the database restarted, away, hung and read-only.
//! What a client saw complete is a row, once. `make chaos` is the same with larger numbers.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::harness::binary::Binary;
use crate::harness::cluster::Cluster;
use crate::harness::{GENERATE, STREAM, TOKEN, TempDir, Upstream, contents};

/// How much of everything.
struct Plan {
    executions: usize,
    /// Calls a second, at most.
    rate: u32,
    kills: usize,
    restarts: usize,
    outage: Duration,
    /// Calls a second while the database is away.
    outage_rate: u32,
    hang: Duration,
    read_only: Duration,
    /// For the outbox to empty at the end.
    patience: Duration,
}

impl Plan {
    fn read() -> Self {
        let seconds = Duration::from_secs;
        if std::env::var("CHAPERONE_CHAOS").is_ok_and(|size| size == "full") {
            return Self {
                executions: 1_000_000,
                rate: 1_500,
                kills: 50,
                restarts: 20,
                outage: seconds(600),
                outage_rate: 500,
                hang: seconds(60),
                read_only: seconds(60),
                patience: seconds(600),
            };
        }
        Self {
            executions: 6_000,
            rate: 1_000_000,
            kills: 5,
            restarts: 2,
            outage: seconds(2),
            outage_rate: 500,
            hang: seconds(1),
            read_only: seconds(1),
            patience: seconds(60),
        }
    }

    /// What happens, evenly spread over the executions.
    fn events(&self) -> Vec<Event> {
        let rare = [Event::Outage, Event::Hang, Event::ReadOnly];
        let mut events: Vec<(f64, Event)> = Vec::new();
        for (event, count) in rare
            .map(|event| (event, 1))
            .into_iter()
            .chain([(Event::Kill, self.kills), (Event::Restart, self.restarts)])
        {
            #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
            events.extend((0..count).map(|at| ((at as f64 + 0.5) / count as f64, event)));
        }
        events.sort_by(|one, other| one.0.total_cmp(&other.0));
        events.into_iter().map(|(_, event)| event).collect()
    }
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Kill,
    Restart,
    Outage,
    Hang,
    ReadOnly,
}

/// What clients saw.
#[derive(Default)]
struct Seen {
    complete: Mutex<HashSet<Uuid>>,
    count: AtomicUsize,
    cut: AtomicUsize,
    stop: AtomicBool,
    /// Microseconds that a client waits between calls.
    pace: AtomicU64,
    /// Times the identity was looked at.
    checks: AtomicUsize,
}

const CLIENTS: u32 = 12;

/// One client: calls, now and then streamed, against whichever process is alive.
async fn call(seen: Arc<Seen>, address: Arc<RwLock<String>>, number: usize) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for turn in number.. {
        if seen.stop.load(Relaxed) {
            return;
        }
        let path = if turn % 8 == 0 { STREAM } else { GENERATE };
        let url = format!("http://{}{path}", address.read().unwrap());
        let request = client.post(url).header("x-goog-api-key", "k").body(contents("hello there"));
        let ended = async {
            let answer = request.send().await.ok().filter(|answer| answer.status() == 200)?;
            let id = answer.headers().get("x-chaperone-request-id")?.to_str().ok()?.parse().ok()?;
            answer.text().await.ok().filter(|text| text.contains("STOP")).map(|_| id)
        };
        match ended.await {
            Some(id) => {
                seen.complete.lock().unwrap().insert(id);
                seen.count.fetch_add(1, Relaxed);
            }
            None => {
                seen.cut.fetch_add(1, Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let pace = seen.pace.load(Relaxed);
        if pace > 0 {
            tokio::time::sleep(Duration::from_micros(pace)).await;
        }
    }
}

/// The identity of the audit trail, whenever somebody looks.
async fn check(seen: Arc<Seen>, control: Arc<RwLock<String>>) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    while !seen.stop.load(Relaxed) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let url = format!("http://{}/metrics", control.read().unwrap());
        let Ok(answer) = client.get(url).send().await else { continue };
        let Ok(page) = answer.text().await else { continue };
        let count = |name: &str| -> u64 {
            let line = page.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        let places = ["stored_total", "dead_lettered_total", "lost_total"]
            .map(|place| count(&format!("chaperone_executions_{place}")));
        let sum = places.iter().sum::<u64>() + count("chaperone_outbox_executions");
        assert_eq!(count("chaperone_executions_accepted_total"), sum, "{page}");
        assert_eq!(places[1..], [0, 0], "dead-lettered and lost");
        seen.checks.fetch_add(1, Relaxed);
    }
}

struct Chaos {
    plan: Plan,
    upstream: Upstream,
    cluster: Cluster,
    url: String,
    data_dir: Arc<TempDir>,
    binary: Option<Binary>,
    data: Arc<RwLock<String>>,
    control: Arc<RwLock<String>>,
    seen: Arc<Seen>,
}

impl Chaos {
    async fn new(plan: Plan) -> Self {
        let (upstream, cluster) = (Upstream::start().await, Cluster::start().await);
        let database = cluster.database();
        database.migrate().await;
        let mut chaos = Self {
            plan,
            upstream,
            url: database.url,
            cluster,
            data_dir: Arc::new(TempDir::new()),
            binary: None,
            data: Arc::default(),
            control: Arc::default(),
            seen: Arc::default(),
        };
        chaos.start();
        chaos.pace(chaos.plan.rate);
        chaos
    }

    fn start(&mut self) {
        let more = [("DATABASE_URL", self.url.as_str())];
        let binary = Binary::start(&self.upstream.url(), &self.data_dir, &more);
        self.data.write().unwrap().clone_from(&binary.data);
        self.control.write().unwrap().clone_from(&binary.control);
        self.binary = Some(binary);
    }

    fn pace(&self, rate: u32) {
        self.seen.pace.store((1_000_000 * CLIENTS / rate).into(), Relaxed);
    }

    async fn cause(&mut self, event: Event) {
        match event {
            Event::Kill => {
                self.binary.take().unwrap().kill();
                self.start();
            }
            Event::Restart => {
                self.cluster.kill();
                self.cluster.start_again().await;
            }
            Event::Outage => {
                self.pace(self.plan.outage_rate);
                self.cluster.kill();
                tokio::time::sleep(self.plan.outage).await;
                self.cluster.start_again().await;
                self.pace(self.plan.rate);
            }
            Event::Hang => {
                self.cluster.freeze(true);
                tokio::time::sleep(self.plan.hang).await;
                self.cluster.freeze(false);
            }
            Event::ReadOnly => {
                self.cluster.read_only(true).await;
                tokio::time::sleep(self.plan.read_only).await;
                self.cluster.read_only(false).await;
            }
        }
    }

    async fn until(&self, count: usize) {
        let mut last = (0, Instant::now());
        while self.seen.count.load(Relaxed) < count {
            let now = self.seen.count.load(Relaxed);
            if now > last.0 {
                last = (now, Instant::now());
            }
            assert!(last.1.elapsed() < Duration::from_secs(30), "calls do not go on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until nothing waits.
    async fn empty(&self) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}/api/v1/admin/prompts/status", self.control.read().unwrap());
        let began = Instant::now();
        loop {
            let answer = client.get(&url).bearer_auth(TOKEN).send().await.unwrap();
            let status: serde_json::Value =
                serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            if status["executions"]["waiting"] == 0 {
                return;
            }
            assert!(began.elapsed() < self.plan.patience, "{status}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_is_twice_whatever_happens() {
    let mut chaos = Chaos::new(Plan::read()).await;
    let began = Instant::now();
    let clients: Vec<_> = (0..CLIENTS as usize)
        .map(|number| tokio::spawn(call(chaos.seen.clone(), chaos.data.clone(), number)))
        .collect();
    let checker = tokio::spawn(check(chaos.seen.clone(), chaos.control.clone()));
    let events = chaos.plan.events();
    let step = chaos.plan.executions / (events.len() + 1);
    for (number, event) in events.iter().enumerate() {
        chaos.until(step * (number + 1)).await;
        chaos.cause(*event).await;
    }
    chaos.until(chaos.plan.executions).await;
    chaos.seen.stop.store(true, Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    checker.await.unwrap();
    let calls = began.elapsed();
    let drain = Instant::now();
    chaos.empty().await;
    let drain = drain.elapsed();

    let stored = chaos.cluster.database().texts("select request_id from prompt_executions").await;
    let rows: HashSet<Uuid> = stored.iter().map(|id| id.parse().unwrap()).collect();
    let complete = chaos.seen.complete.lock().unwrap();
    let lost = complete.difference(&rows).count();
    let twice = stored.len() - rows.len();
    println!(
        "complete at clients {} | cut at clients {} | rows {} | lost {lost} | twice {twice}\n\
         kills {} | database restarts {} | outage {:?} | hang {:?} | read-only {:?}\n\
         calls took {calls:.1?}, the rest of the outbox {drain:.1?}; the identity held {} times",
        complete.len(),
        chaos.seen.cut.load(Relaxed),
        rows.len(),
        chaos.plan.kills,
        chaos.plan.restarts,
        chaos.plan.outage,
        chaos.plan.hang,
        chaos.plan.read_only,
        chaos.seen.checks.load(Relaxed),
    );
    assert_eq!((lost, twice), (0, 0));
    assert!(complete.len() >= chaos.plan.executions);
    assert!(chaos.seen.checks.load(Relaxed) > 0);
}
