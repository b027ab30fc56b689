//! A gibibyte each way: every byte in its place, and no more of them in a proxy than before.

use bytes::Bytes;
use http::{Method, Response};
use meshgate_tests::Cluster;

use crate::ends::{Hearer, Sayer, nothing, spoken};
use crate::scene::{Scene, Way};

const BYTES: usize = 1 << 30;
/// What a proxy needs for bodies at all, it has after so many of them.
const WARM_BYTES: usize = 64 << 20;
const PIECE: usize = 64 << 10;
/// How much more of its memory may be in use at the worst moment than before: the allocator takes room for large buffers
/// 4 MiB at a time, for each thread.
const GROWTH_KIB_MAX: u64 = 8 << 10;

/// Bytes by their places: they come again after a number that no buffer is a multiple of.
fn pattern() -> Bytes {
    (0..PIECE + PERIOD).map(|at| (at % PERIOD) as u8).collect()
}
const PERIOD: usize = 251;

async fn say(sayer: Sayer, bytes: usize) {
    let pattern = pattern();
    let mut at = 0;
    while at < bytes {
        let from = at % PERIOD;
        let count = PIECE.min(bytes - at);
        sayer.say(pattern.slice(from..from + count)).await;
        at += count;
    }
}

async fn hear(hearer: &mut Hearer, bytes: usize) {
    let pattern = pattern();
    let mut at = 0;
    while let Some(piece) = hearer.piece().await.expect("a body that is not cut") {
        for part in piece.chunks(PIECE) {
            let from = at % PERIOD;
            assert!(
                part == &pattern[from..from + part.len()],
                "other bytes at {at}"
            );
            at += part.len();
        }
    }
    assert_eq!(at, bytes);
}

async fn send_up(scene: &mut Scene, way: &Way, bytes: usize) {
    let (mut client, application) = scene.meet(way).await;
    let (sayer, body) = spoken();
    let request = client.request(Method::PUT, "/large").body(body);
    let asking = client.ask(request.expect("a request")).await;
    let (_, mut asked, answerer) = application.arrival().await.open();
    let saying = tokio::spawn(say(sayer, bytes));
    hear(&mut asked, bytes).await;
    saying.await.expect("all was said");
    answerer.answer(Response::new(nothing()));
    let (head, mut body) = asking.answer().await;
    assert_eq!(head.status, 200);
    body.end().await;
}

async fn send_down(scene: &mut Scene, way: &Way, bytes: usize) {
    let (mut client, application) = scene.meet(way).await;
    let request = client.request(Method::GET, "/large").body(nothing());
    let asking = client.ask(request.expect("a request")).await;
    let (_, _, answerer) = application.arrival().await.open();
    let (sayer, body) = spoken();
    let answer = Response::builder().header("content-length", bytes);
    answerer.answer(answer.body(body).expect("an answer"));
    let saying = tokio::spawn(say(sayer, bytes));
    let (head, mut heard) = asking.answer().await;
    assert_eq!(head.status, 200);
    hear(&mut heard, bytes).await;
    saying.await.expect("all was said");
}

pub(crate) async fn up(scene: &mut Scene, way: &Way) {
    send_up(scene, way, WARM_BYTES).await;
    let watched = watch(&scene.cluster, way);
    send_up(scene, way, BYTES).await;
    watched.into_iter().for_each(Watched::judge);
}

pub(crate) async fn down(scene: &mut Scene, way: &Way) {
    send_down(scene, way, WARM_BYTES).await;
    let watched = watch(&scene.cluster, way);
    send_down(scene, way, BYTES).await;
    watched.into_iter().for_each(Watched::judge);
}

/// A proxy's memory, watched by the kernel.
struct Watched {
    name: &'static str,
    pid: i32,
    before_kib: u64,
}

fn watch(c: &Cluster, way: &Way) -> Vec<Watched> {
    let watch = |name: &&'static str| {
        let pid = c.pid(name);
        // From now on the peak is that of what follows (proc(5)).
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the peak, set back");
        Watched {
            name,
            pid,
            before_kib: resident_kib(pid, "VmRSS"),
        }
    };
    way.proxies().iter().map(watch).collect()
}

impl Watched {
    fn judge(self) {
        let (name, before) = (self.name, self.before_kib);
        let peak = resident_kib(self.pid, "VmHWM");
        assert!(
            peak <= before + GROWTH_KIB_MAX,
            "{name} had {before} KiB before and {peak} KiB at its peak"
        );
    }
}

fn resident_kib(pid: i32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.unwrap_or_else(|| panic!("no {name}: {status}"))
}
