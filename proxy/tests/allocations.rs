//! What a request allocates on connections that are kept, counted and fixed: whoever adds to it finds out here.

#[cfg(test)]
#[expect(dead_code, reason = "the tests of the engine use the rest of it")]
#[path = "engine/kit.rs"]
mod kit;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use meshgate_proxy::{Engine, EngineOptions, Listener, ListenerKind, ListenerLimits, Policy};
use tokio_util::sync::CancellationToken;

use kit::{endpoint, everything_to, service_of};

/// Counts what every thread asks for: only the engine's worker does anything while it matters.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

#[expect(
    unsafe_code,
    reason = "an allocator that counts can be written in no other way"
)]
// SAFETY: every call is passed on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const REQUEST: &[u8] = b"GET /a/path?query=1 HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\n\r\n";
const BODY: &[u8] = &[b'x'; 1024];

/// Answers every request on one connection with [`BODY`]. Allocates nothing after the first.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let mut answer =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n".to_vec();
    answer.extend_from_slice(BODY);
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the proxy");
        let mut request = [0; 4096];
        let mut length = 0;
        loop {
            let count = stream.read(&mut request[length..]).expect("a request");
            assert!(count > 0, "the proxy closed its connection");
            length += count;
            if request[..length].ends_with(b"\r\n\r\n") {
                stream.write_all(&answer).expect("a reader");
                length = 0;
            }
        }
    });
    address
}

/// One service for all hosts, without records.
fn edge(origin: SocketAddr) -> SocketAddr {
    let service = service_of(vec![endpoint(origin, "pod")], Policy::default(), None);
    let engine = Engine::new(EngineOptions::default()).expect("an engine");
    engine.swap(everything_to(service, Vec::new()));
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("its address");
    let listener = Listener {
        name: "measured".into(),
        sockets: vec![socket],
        kind: ListenerKind::EdgeHttp,
        limits: ListenerLimits::default(),
        proxies: Vec::new(),
    };
    engine.open(listener).expect("a listener");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        runtime.block_on(engine.run(CancellationToken::new()))
    });
    address
}

/// Asks and reads the whole answer. Allocates nothing.
fn ask(client: &mut TcpStream) {
    client.write_all(REQUEST).expect("the proxy reads");
    let mut answer = [0; 4096];
    let mut length = 0;
    while !answer[..length].ends_with(BODY) {
        let count = client.read(&mut answer[length..]).expect("an answer");
        assert!(count > 0, "the proxy closed the connection");
        length += count;
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

/// Allocations and reallocations of one request, without records.
const OF_A_REQUEST: usize = 7;
const REQUESTS: usize = 100;

#[test]
fn a_request_on_kept_connections_allocates_no_more_than_it_did() {
    let mut client = TcpStream::connect(edge(origin())).unwrap();
    (0..REQUESTS).for_each(|_| ask(&mut client));
    // Whatever happens once in a while is not a request's: the cheapest round counts.
    let round = || {
        let before = COUNT.load(Ordering::Relaxed);
        (0..REQUESTS).for_each(|_| ask(&mut client));
        COUNT.load(Ordering::Relaxed) - before
    };
    let least = std::iter::repeat_with(round).take(5).min().unwrap();
    assert_eq!(
        least.div_ceil(REQUESTS),
        OF_A_REQUEST,
        "allocations of a request, rounded up; change the number only downwards"
    );
}
