//! A steady load of HTTP/1.1 requests from a few connections, counted.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// An answer that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked, and how often.
#[derive(Debug, Clone)]
pub struct Plan {
    /// ADDR:PORT.
    pub address: String,
    /// Host header.
    pub host: String,
    /// Path.
    pub path: String,
    /// Requests a second, over all connections.
    pub rate: u32,
    /// Connections, each asking one request at a time.
    pub connections: u32,
}

/// One request: when it was answered, and the status; 0 when there was no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Since the load began.
    pub at: Duration,
    /// HTTP status, or 0.
    pub status: u16,
    /// What went wrong, or the reason a proxy gave.
    pub detail: String,
}

/// A load that runs until it is stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Vec<Answer>>>,
    began: Instant,
}

impl Load {
    /// Begins.
    pub fn start(plan: &Plan) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let pace = Duration::from_secs(1) * plan.connections / plan.rate;
        let workers = (0..plan.connections)
            .map(|i| {
                let (plan, stop) = (plan.clone(), stop.clone());
                let first = began + pace * i / plan.connections;
                std::thread::spawn(move || ask_until(&plan, &stop, began, first, pace))
            })
            .collect();
        Load {
            stop,
            workers,
            began,
        }
    }

    /// Time since it began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Ends it; all answers, in order of time.
    pub fn stop(self) -> Vec<Answer> {
        self.stop.store(true, Ordering::Relaxed);
        let mut answers: Vec<Answer> = self
            .workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("a worker does not panic"))
            .collect();
        answers.sort_by_key(|answer| answer.at);
        answers
    }
}

/// The answers that are not 200.
pub fn failures(answers: &[Answer]) -> Vec<&Answer> {
    answers
        .iter()
        .filter(|answer| answer.status != 200)
        .collect()
}

fn ask_until(
    plan: &Plan,
    stop: &AtomicBool,
    began: Instant,
    first: Instant,
    pace: Duration,
) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut connection = None;
    let mut next = first;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next += pace;
        let (status, detail) = match ask(plan, &mut connection) {
            Ok(answer) => answer,
            Err(error) => {
                connection = None;
                (0, error.to_string())
            }
        };
        answers.push(Answer {
            at: began.elapsed(),
            status,
            detail,
        });
    }
    answers
}

/// One request. A kept connection that the server closed before it answered anything is no failure: a new one is used.
fn ask(
    plan: &Plan,
    connection: &mut Option<BufReader<TcpStream>>,
) -> std::io::Result<(u16, String)> {
    if let Some(mut kept) = connection.take() {
        match exchange(plan, &mut kept) {
            Ok(Some((answer, again))) => {
                *connection = again.then_some(kept);
                return Ok(answer);
            }
            Ok(None) => {}
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(error),
        }
    }
    let stream = TcpStream::connect(&plan.address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut fresh = BufReader::new(stream);
    let (answer, again) = exchange(plan, &mut fresh)?
        .ok_or_else(|| std::io::Error::other("the connection was closed without an answer"))?;
    *connection = again.then_some(fresh);
    Ok(answer)
}

type Exchanged = Option<((u16, String), bool)>;

/// The answer and whether the connection goes on; none when the connection ended before the first byte.
fn exchange(plan: &Plan, stream: &mut BufReader<TcpStream>) -> std::io::Result<Exchanged> {
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", plan.path, plan.host);
    stream.get_mut().write_all(request.as_bytes())?;
    let mut line = String::new();
    match stream.read_line(&mut line) {
        Ok(0) => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset && line.is_empty() => {
            return Ok(None);
        }
        other => drop(other?),
    }
    let wrong = |what: &str| std::io::Error::other(format!("{what}: {line:?}"));
    let status = line
        .get(9..12)
        .and_then(|s| s.parse().ok())
        .ok_or_else(|| wrong("no status"))?;
    let (mut length, mut chunked, mut again, mut reason) = (0, false, true, String::new());
    loop {
        let mut field = String::new();
        stream.read_line(&mut field)?;
        let field = field.trim_end();
        if field.is_empty() {
            break;
        }
        let (name, value) = field.split_once(':').ok_or_else(|| wrong("no field"))?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(|_| wrong("no length"))?,
            "transfer-encoding" => chunked = true,
            "connection" => again = !value.to_ascii_lowercase().contains("close"),
            "meshgate-reason" => value.trim().clone_into(&mut reason),
            _ => {}
        }
    }
    if chunked {
        read_chunks(stream)?;
    } else {
        std::io::copy(&mut stream.by_ref().take(length), &mut std::io::sink())?;
    }
    Ok(Some(((status, reason), again)))
}

fn read_chunks(stream: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    loop {
        let mut size = String::new();
        stream.read_line(&mut size)?;
        let size = u64::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
        std::io::copy(&mut stream.by_ref().take(size + 2), &mut std::io::sink())?;
        if size == 0 {
            return Ok(());
        }
    }
}
