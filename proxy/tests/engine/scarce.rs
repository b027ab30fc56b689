//! What an engine does when descriptors or memory run out. Both belong to the process, so the engine has one of its own:
//! this program again, for one test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meshgate_proxy::{EngineOptions, ListenerKind, ListenerLimits, Policy};
use nix::sys::resource::{Resource, setrlimit};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::kit::{
    Origin, Proxy, endpoint, everything_to, field, ok, raw, read_message, service_of, soon,
    status_of, until,
};

/// Where the child finds its endpoint; only a child has it.
const ENDPOINT: &str = "MESHGATE_TEST_ENDPOINT";
const KEPT: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// An engine in a process of its own.
struct Apart {
    child: Child,
    orders: ChildStdin,
    address: SocketAddr,
}

impl Apart {
    fn start(test: &str, origin: &Origin) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(ENDPOINT, origin.address.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .find_map(|line| line.unwrap().strip_prefix("engine at ")?.parse().ok())
            .expect("it starts");
        // What else it says is nobody's, but must go somewhere.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            orders,
            address,
        }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(folder).unwrap().count()
    }

    /// User and system time so far, in hundredths of a second.
    fn cpu(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ');
        fields
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<u64>().unwrap())
            .sum()
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the child: an engine in front of the endpoint, until its parent closes. Each line is an order.
fn serve(endpoint_at: &str, options: EngineOptions, mut order: impl FnMut(&str)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let proxy = Proxy::start(
        options,
        [(ListenerKind::EdgeHttp, ListenerLimits::default())],
    );
    let endpoint = endpoint(endpoint_at.parse().unwrap(), "pod");
    let service = service_of(vec![endpoint], Policy::default(), None);
    proxy.engine.swap(everything_to(service, vec![]));
    let mut out = std::io::stdout();
    writeln!(out, "\nengine at {}", proxy.address()).unwrap();
    for line in std::io::stdin().lock().lines() {
        order(&line.unwrap());
    }
}

/// One connection: an answer, then kept until `release`.
async fn client(to: SocketAddr, answered: Arc<AtomicUsize>, release: CancellationToken) -> u16 {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(KEPT.as_bytes()).await.unwrap();
    let answer = read_message(&mut stream, &mut Vec::new()).await;
    answered.fetch_add(1, Ordering::Relaxed);
    release.cancelled().await;
    status_of(&answer.expect("an answer"))
}

async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(KEPT.as_bytes()).await.unwrap();
    soon(read_message(stream, &mut Vec::new())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepting_pauses_without_descriptors_and_goes_on_by_itself() {
    const LIMIT: u64 = 128;
    if let Ok(endpoint) = std::env::var(ENDPOINT) {
        setrlimit(Resource::RLIMIT_NOFILE, LIMIT, LIMIT).unwrap();
        let options = EngineOptions {
            workers: 2,
            ..EngineOptions::default()
        };
        return tokio::task::block_in_place(|| serve(&endpoint, options, |_| {}));
    }
    let origin = Origin::start(ok("x")).await;
    let name = "scarce::accepting_pauses_without_descriptors_and_goes_on_by_itself";
    let apart = Apart::start(name, &origin);
    let mut first = TcpStream::connect(apart.address).await.unwrap();
    assert_eq!(status_of(&ask(&mut first).await), 200);
    let (release, mut clients) = (CancellationToken::new(), JoinSet::new());
    let answered = Arc::new(AtomicUsize::new(0));
    for asked in 1..=100 {
        clients.spawn(client(apart.address, answered.clone(), release.clone()));
        // A quarter is not for clients.
        let is_full = || apart.descriptors() >= LIMIT as usize / 4 * 3;
        until(|| answered.load(Ordering::Relaxed) == asked || is_full()).await;
    }
    let before = apart.cpu();
    // Not a wait for something: what happens in this time is what is measured.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = apart.cpu() - before;
    assert!(used < 20, "{used} hundredths of a second of doing nothing");
    let (inside, open) = (answered.load(Ordering::Relaxed), apart.descriptors());
    assert!((10..90).contains(&inside), "{inside} clients are inside");
    assert!(
        open < LIMIT as usize - 8,
        "{open} are in use: some are kept"
    );
    // Who is inside is served, also with a new connection to the endpoint.
    assert_eq!(status_of(&ask(&mut first).await), 200);
    // One goes, one comes, until all were served.
    release.cancel();
    for _ in 0..100 {
        assert_eq!(soon(clients.join_next()).await.unwrap().unwrap(), 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_closes_makes_room_for_one() {
    const LIMIT: u64 = 256;
    const ROUNDS: usize = 20;
    const WORKERS: usize = 8;
    if let Ok(endpoint) = std::env::var(ENDPOINT) {
        setrlimit(Resource::RLIMIT_NOFILE, LIMIT, LIMIT).unwrap();
        let options = EngineOptions {
            workers: WORKERS,
            ..EngineOptions::default()
        };
        return tokio::task::block_in_place(|| serve(&endpoint, options, |_| {}));
    }
    let origin = Origin::start(ok("x")).await;
    let apart = Apart::start("scarce::one_that_closes_makes_room_for_one", &origin);
    let answered = Arc::new(AtomicUsize::new(0));
    let (mut releases, mut clients) = (Vec::new(), JoinSet::new());
    for asked in 1..=400 {
        let release = CancellationToken::new();
        clients.spawn(client(apart.address, answered.clone(), release.clone()));
        releases.push(release);
        let is_full = || apart.descriptors() >= LIMIT as usize / 4 * 3;
        until(|| answered.load(Ordering::Relaxed) == asked || is_full()).await;
    }
    let full = apart.descriptors();
    for release in &releases[..ROUNDS] {
        let before = answered.load(Ordering::Relaxed);
        release.cancel();
        until(|| answered.load(Ordering::Relaxed) > before).await;
    }
    let open = apart.descriptors();
    // Every socket takes one to see that it is full; and those inside may have a connection to the endpoint each.
    assert!(open <= full + WORKERS, "{open} are in use, {full} before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_memory_requests_are_refused_and_then_connections() {
    const MIB: usize = 1 << 20;
    if let Ok(endpoint) = std::env::var(ENDPOINT) {
        let mut held: Vec<Vec<u8>> = Vec::new();
        let options = EngineOptions {
            memory_bytes_max: Some(used() + 64 * MIB as u64),
            ..EngineOptions::default()
        };
        let hold = |order: &str| match order {
            "more" => held.push(vec![1; 68 * MIB]),
            "much" => held.push(vec![1; 64 * MIB]),
            _ => held.clear(),
        };
        return tokio::task::block_in_place(|| serve(&endpoint, options, hold));
    }
    let origin = Origin::start(ok("x")).await;
    let name = "scarce::without_memory_requests_are_refused_and_then_connections";
    let mut apart = Apart::start(name, &origin);
    let mut kept = TcpStream::connect(apart.address).await.unwrap();
    assert_eq!(status_of(&ask(&mut kept).await), 200);

    apart.order("more");
    let refused = changed(&mut kept, 503).await;
    assert_eq!(field(&refused, "meshgate-reason"), Some("overload; memory"));
    assert_eq!(status_of(&fresh(&apart).await), 503);

    apart.order("much");
    soon(async { while !fresh(&apart).await.is_empty() {} }).await;
    assert_eq!(status_of(&ask(&mut kept).await), 503);

    apart.order("nothing");
    changed(&mut kept, 200).await;
    assert_eq!(status_of(&fresh(&apart).await), 200);
}

async fn fresh(apart: &Apart) -> String {
    raw(apart.address, &crate::kit::get("/")).await
}

/// Asks until the answer is this.
async fn changed(stream: &mut TcpStream, status: u16) -> String {
    soon(async {
        loop {
            let answer = ask(stream).await;
            if status_of(&answer) == status {
                return answer;
            }
        }
    })
    .await
}

/// Anonymous memory of this process.
fn used() -> u64 {
    let mut status = String::new();
    let mut file = std::fs::File::open("/proc/self/status").unwrap();
    file.read_to_string(&mut status).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() * 1024
}
