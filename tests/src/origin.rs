//! What stands behind a proxy under load: an origin that does next to nothing for a request, whatever it is asked.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// No request head that a proxy makes of ours is longer.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Paths and whole answers, made before anybody asks. What is not among them gets the first.
#[derive(Debug)]
pub struct Answers(Vec<(String, Vec<u8>)>);

impl Answers {
    /// Answers whose bodies have these lengths.
    pub fn new(lengths: &[(&str, usize)]) -> Answers {
        let each = lengths.iter();
        Answers(
            each.map(|(path, length)| (format!(" {path} "), answer(*length)))
                .collect(),
        )
    }

    fn to(&self, head: &[u8]) -> &[u8] {
        let target = head.iter().position(|byte| *byte == b' ').unwrap_or(0);
        let asked = |(path, _): &&(String, Vec<u8>)| head[target..].starts_with(path.as_bytes());
        let found = self.0.iter().find(asked).or(self.0.first());
        found.map_or(&[], |(_, answer)| answer)
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

/// Listens on a free port of 127.0.0.1.
pub async fn listen() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, answers: Answers) -> io::Result<()> {
    let answers = Arc::new(answers);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answers = answers.clone();
        // Whoever hangs up ends only this connection.
        connections.spawn(async move { answers.give(stream).await.unwrap_or_default() });
        while connections.try_join_next().is_some() {}
    }
}

/// [`serve`] on a thread of its own, until the program ends.
pub fn start(answers: Answers) -> SocketAddr {
    let (told, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        runtime.block_on(async {
            let (listener, address) = listen().await?;
            told.send(address).map_err(io::Error::other)?;
            serve(listener, answers).await
        })
    });
    address.recv().expect("an origin that listens")
}

impl Answers {
    /// Requests are not sent before the last one is answered, and a body is read before it is.
    async fn give(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES_MAX);
        loop {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
            let Some(end) = head_end(&bytes) else {
                match bytes.len() < HEAD_BYTES_MAX {
                    true => continue,
                    false => return Err(io::ErrorKind::InvalidData.into()),
                }
            };
            let mut missing = (end + body_length(&bytes[..end])).saturating_sub(bytes.len());
            let mut body = [0; 4096];
            while missing > 0 {
                let most = missing.min(body.len());
                match stream.read(&mut body[..most]).await? {
                    0 => return Ok(()),
                    read => missing -= read,
                }
            }
            stream.write_all(self.to(&bytes)).await?;
            bytes.clear();
        }
    }
}

/// Where the body begins.
fn head_end(bytes: &[u8]) -> Option<usize> {
    // Without a body, which is the rule, the end is the end.
    if bytes.ends_with(b"\r\n\r\n") {
        return Some(bytes.len());
    }
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(end + 4)
}

/// Zero without a Content-Length: most requests have no body.
fn body_length(head: &[u8]) -> usize {
    if head.starts_with(b"GET ") {
        return 0;
    }
    let text = String::from_utf8_lossy(head);
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    length
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}
