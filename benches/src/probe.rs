//! One request at a time on one connection, as fast as it goes: to see when something changes.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::bail;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two questions to something that refuses the connection.
const PAUSE: Duration = Duration::from_millis(2);

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// A connection to the edge that is made again when it ends.
pub(crate) struct Probe {
    address: SocketAddr,
    host: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Probe {
    pub(crate) fn new(address: SocketAddr, host: &str) -> Self {
        Self {
            address,
            host: host.to_owned(),
            stream: None,
        }
    }

    pub(crate) fn ask(&mut self, path: &str) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        let host = &self.host;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        stream.get_mut().write_all(request.as_bytes())?;
        let (answer, is_kept) = read(&mut stream)?;
        self.stream = is_kept.then_some(stream);
        Ok(answer)
    }

    /// Asks until the answer is as wanted.
    pub(crate) fn until(
        &mut self,
        path: &str,
        wanted: impl Fn(&Answer) -> bool,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let last = match self.ask(path) {
                Ok(answer) if wanted(&answer) => return Ok(()),
                Ok(answer) => format!("{} {}", answer.status, answer.body),
                Err(error) => {
                    std::thread::sleep(PAUSE);
                    error.to_string()
                }
            };
            if start.elapsed() > PATIENCE {
                bail!("{}{path} does not answer as it should: {last}", self.host);
            }
        }
    }
}

/// [`Probe::until`] for once.
pub(crate) fn until(
    address: SocketAddr,
    host: &str,
    path: &str,
    wanted: impl Fn(&Answer) -> bool,
) -> anyhow::Result<()> {
    Probe::new(address, host).until(path, wanted)
}

/// An answer with a Content-Length, and whether the connection goes on.
fn read(stream: &mut BufReader<TcpStream>) -> io::Result<(Answer, bool)> {
    let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.get(9..12).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| broken("no status line"))?;
    let (mut length, mut is_kept) = (None, true);
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let field = line.trim_end().to_ascii_lowercase();
        match field.split_once(": ") {
            None if field.is_empty() => break,
            Some(("content-length", value)) => length = value.parse().ok(),
            Some(("connection", "close")) => is_kept = false,
            _ => {}
        }
    }
    let mut body = Vec::new();
    match length {
        Some(length) => drop(stream.take(length).read_to_end(&mut body)?),
        None if status == 204 => {}
        None => {
            is_kept = false;
            stream.read_to_end(&mut body)?;
        }
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok((Answer { status, body }, is_kept))
}
