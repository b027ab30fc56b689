//! How much room a body on its way takes at a time: the allocator has pages of 512 KiB for rooms up to a size, and of
//! 4 MiB for larger ones, one for each thread at least.
#![expect(clippy::unwrap_used, reason = "a test ends at every surprise")]

#[cfg(test)]
#[expect(dead_code, reason = "the tests of the engine use the rest of it")]
#[path = "engine/kit.rs"]
mod kit;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use meshgate_proxy::Policy;
use tokio::net::TcpStream;

use kit::{Act, Origin, Proxy, ok, say, service, soon, status_of};

/// Remembers the largest room that a thread of the engine asked for.
struct Watching;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Of the test: clients and origins.
    static OURS: Cell<bool> = const { Cell::new(false) };
}

fn note(bytes: usize) {
    if !OURS.get() {
        LARGEST.fetch_max(bytes, Ordering::Relaxed);
    }
}

#[expect(
    unsafe_code,
    reason = "an allocator is: every call goes to the system's as it is"
)]
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// What mimalloc takes from its pages of 512 KiB: a sixth of one.
const ROOM_BYTES_MAX: usize = (512 - 4) * 1024 / 6;
const BYTES: usize = 1 << 20;
/// No buffer is a multiple of it.
const CHUNK: usize = 10_007;

/// What a client does.
#[derive(Clone, Copy, Debug)]
enum Exchange {
    Download,
    ChunkedDownload,
    Upload,
    ChunkedUpload,
    DownloadByHttp2,
    UploadByHttp2,
}

/// In the engine nothing larger is allocated than this.
#[tokio::test]
async fn a_body_takes_room_in_small_pages() {
    use Exchange as E;
    OURS.set(true);
    for exchange in [
        E::Download,
        E::ChunkedDownload,
        E::Upload,
        E::ChunkedUpload,
        E::DownloadByHttp2,
        E::UploadByHttp2,
    ] {
        let origin = Origin::start(answer(exchange)).await;
        let proxy = Proxy::edge(service(&[&origin], Policy::default()));
        // What is made once is no body's.
        say(&mut connect(&proxy).await, &kit::get("/")).await;
        LARGEST.store(0, Ordering::Relaxed);
        run(exchange, connect(&proxy).await).await;
        let largest = LARGEST.load(Ordering::Relaxed);
        let expected = 32 * 1024..=ROOM_BYTES_MAX;
        assert!(expected.contains(&largest), "{exchange:?}: {largest} bytes");
    }
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

fn answer(exchange: Exchange) -> Act {
    match exchange {
        Exchange::Download | Exchange::DownloadByHttp2 => ok(&"x".repeat(BYTES)),
        Exchange::ChunkedDownload => Act::Say(format!("HTTP/1.1 200 OK\r\n{}", chunked())),
        Exchange::Upload | Exchange::ChunkedUpload | Exchange::UploadByHttp2 => ok(""),
    }
}

/// The end of a head, and a body.
fn chunked() -> String {
    let chunk = format!("{CHUNK:x}\r\n{}\r\n", "x".repeat(CHUNK));
    let chunks = chunk.repeat(BYTES / CHUNK);
    format!("Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
}

async fn run(exchange: Exchange, mut stream: TcpStream) {
    let post = "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n";
    let request = match exchange {
        Exchange::Download | Exchange::ChunkedDownload => kit::get("/"),
        Exchange::Upload => {
            let body = "x".repeat(BYTES);
            format!("{post}Content-Length: {BYTES}\r\n\r\n{body}")
        }
        Exchange::ChunkedUpload => format!("{post}{}", chunked()),
        Exchange::DownloadByHttp2 => return by_http2(stream, Bytes::new(), BYTES).await,
        Exchange::UploadByHttp2 => return by_http2(stream, vec![b'x'; BYTES].into(), 0).await,
    };
    let answer = say(&mut stream, &request).await;
    assert_eq!(status_of(&answer), 200, "{exchange:?}");
}

async fn by_http2(stream: TcpStream, body: Bytes, expected: usize) {
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = http::Request::post("http://a.test/").body(()).unwrap();
    let (answer, mut sending) = sender.send_request(request, false).unwrap();
    sending.send_data(body, true).unwrap();
    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let mut length = 0;
    while let Some(data) = soon(body.data()).await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        length += data.len();
    }
    assert_eq!(length, expected);
    driver.abort();
}
