//! The smallest HTTP/1.1 that tests need, on blocking sockets: a client, and a server that shows what it was asked.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// A response: status, head as text in lower case, body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// One request on a connection of its own.
pub(crate) fn get(to: SocketAddr, host: &str, path: &str) -> io::Result<Answer> {
    let stream = TcpStream::connect_timeout(&to, STEP_TIMEOUT)?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    (&stream).write_all(request.as_bytes())?;
    read_answer(&mut BufReader::new(stream))
}

fn read_answer(reader: &mut BufReader<TcpStream>) -> io::Result<Answer> {
    let head = read_head(reader)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status in {head:?}")))?;
    let head = head.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1);
    let length = length.and_then(|rest| rest.lines().next()?.parse().ok());
    let mut body = String::new();
    match length {
        Some(length) => reader.take(length).read_to_string(&mut body)?,
        None => reader.read_to_string(&mut body)?,
    };
    Ok(Answer { status, head, body })
}

fn read_head(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(io::Error::other(format!("the head ends early: {head:?}")));
        }
    }
    Ok(head)
}

/// Answers every request with its head as the body, from a thread that ends with the process.
pub(crate) fn serve_heads(address: Ipv4Addr, port: u16) {
    let listener = TcpListener::bind((address, port)).expect("a socket for the application");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer_heads(stream));
        }
    });
}

fn answer_heads(stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let head = read_head(&mut reader)?;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}",
            head.len()
        );
        (&stream).write_all(answer.as_bytes())?;
    }
}

/// Greets every connection first, then sends back what comes.
pub(crate) fn serve_greetings(address: Ipv4Addr, port: u16) {
    let listener = TcpListener::bind((address, port)).expect("a socket for the application");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || -> io::Result<()> {
                (&stream).write_all(b"hello\n")?;
                io::copy(&mut &stream, &mut &stream).map(drop)
            });
        }
    });
}

/// What a server that speaks first says, and what it answers.
pub(crate) fn greet(to: SocketAddr) -> io::Result<String> {
    let stream = TcpStream::connect_timeout(&to, STEP_TIMEOUT)?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut heard = String::new();
    reader.read_line(&mut heard)?;
    (&stream).write_all(b"echo\n")?;
    reader.read_line(&mut heard)?;
    Ok(heard)
}
