//! Ends of connections that a test handles itself, byte by byte.

use std::net::SocketAddr;

use meshgate_proxy::Policy;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use crate::kit::{Proxy, endpoint, service_of, soon};

/// An endpoint whose connections a test handles by itself.
pub(crate) struct Endpoint(TcpListener);

impl Endpoint {
    pub(crate) async fn start() -> (Self, Proxy) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let web = service_of(vec![endpoint(address, "pod")], Policy::default(), None);
        (Self(listener), Proxy::edge(web))
    }

    pub(crate) async fn accept(&self) -> TcpStream {
        soon(self.0.accept()).await.unwrap().0
    }
}

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads until these bytes came.
pub(crate) async fn read_until(stream: &mut TcpStream, buffer: &mut Vec<u8>, end: &str) {
    while !buffer.ends_with(end.as_bytes()) {
        let count = soon(stream.read_buf(buffer)).await.unwrap();
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(buffer));
    }
}

/// Whether the other end is closed, with or without an error.
pub(crate) async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = [0; 4096];
    loop {
        match soon(stream.read(&mut rest)).await {
            Ok(0) | Err(_) => return true,
            Ok(_) => {}
        }
    }
}

pub(crate) fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n{body}")
}

pub(crate) const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// What is in the chunks of a body, without their sizes.
pub(crate) fn data(chunks: &str) -> String {
    chunks.split("\r\n").skip(1).step_by(2).collect()
}
