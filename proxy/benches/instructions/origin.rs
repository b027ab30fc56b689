//! What stands behind the engine: answers of two lengths, a thread a connection.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::Context as _;

/// Serves as long as the program runs.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
}

impl Origin {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let (listener, address) = listen()?;
        std::thread::spawn(move || accept(&listener));
        Ok(Self { address })
    }
}

/// The same alone, for other tools; its address is what it prints.
pub(crate) fn serve_alone() -> anyhow::Result<()> {
    let (listener, address) = listen()?;
    writeln!(std::io::stdout(), "{address}")?;
    accept(&listener);
    Ok(())
}

fn listen() -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the origin's port")?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn accept(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        // Whoever hangs up ends only this connection.
        std::thread::spawn(move || answer_all(stream));
    }
}

fn answer_all(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (small, large) = (answer(1024), answer(64 * 1024));
    let mut request = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Ok(());
        }
        request.extend_from_slice(&piece[..count]);
        // A client waits for the answer before it asks again.
        if message_length(&request).is_some_and(|length| request.len() >= length) {
            let is_large = request.starts_with(b"GET /64k");
            stream.write_all(if is_large { &large } else { &small })?;
            request.clear();
        }
    }
}

fn answer(length: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n"
    );
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + length, b'x');
    answer
}

/// Of a message that says how long its body is, or has none; `None` while its head is not whole.
pub(crate) fn message_length(message: &[u8]) -> Option<usize> {
    let end = message.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&message[..end]).to_ascii_lowercase();
    let length = head
        .split("\r\ncontent-length: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next()?.parse().ok())
        .unwrap_or(0);
    Some(end + length)
}
