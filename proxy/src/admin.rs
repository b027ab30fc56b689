//! What people and probes ask a proxy: `/metrics` on one port, `/readyz` on another. Never on a port of the data path.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;

/// What a proxy still waits for. Ready when nothing is left.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    missing: Arc<Mutex<Vec<&'static str>>>,
}

impl Readiness {
    /// Not ready until each of these has been [`met`](Self::met).
    pub fn waiting_for(conditions: &[&'static str]) -> Self {
        Self {
            missing: Arc::new(Mutex::new(conditions.to_vec())),
        }
    }

    /// A condition holds.
    pub fn met(&self, condition: &'static str) {
        self.lock().retain(|other| *other != condition);
    }

    /// A condition does not hold any more (a proxy that drains is not ready).
    pub fn unmet(&self, condition: &'static str) {
        let mut missing = self.lock();
        if !missing.contains(&condition) {
            missing.push(condition);
        }
    }

    /// What is missing; empty when ready.
    pub fn missing(&self) -> Vec<&'static str> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<&'static str>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves both paths on any number of sockets.
#[derive(Clone, Debug)]
pub struct Admin {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/readyz`; `/livez` is always fine.
    pub readiness: Readiness,
}

/// Probes and scrapers are few. Whoever can reach the port may open more, and a probe has only a second: newer ones are
/// taken in place of older ones.
const CONNECTIONS_MAX: usize = 32;
/// From connecting to the end of the request's head.
const HEAD_MAX: Duration = Duration::from_secs(1);
/// A whole exchange; the answers are small and the peers near.
const EXCHANGE_MAX: Duration = Duration::from_secs(10);
/// Longest request head that is read.
const HEAD_BYTES_MAX: usize = 8 * 1024;

impl Admin {
    /// Serves one socket until `shutdown`.
    pub async fn serve(
        &self,
        socket: TcpListener,
        shutdown: CancellationToken,
    ) -> std::io::Result<()> {
        socket.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(socket)?;
        let tasks = TaskTracker::new();
        let mut open = Open::default();
        let serving = async {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        open.make_room();
                        let admin = self.clone();
                        let asked = Arc::new(AtomicBool::new(false));
                        let asks = asked.clone();
                        let task = tasks.spawn(async move {
                            let exchange = admin.exchange(stream, &asks);
                            let _ = tokio::time::timeout(EXCHANGE_MAX, exchange).await;
                        });
                        open.0.push_back((task.abort_handle(), asked));
                    }
                    // Out of descriptors, most likely: the next one may do.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        };
        tokio::select! {
            () = serving => {}
            () = shutdown.cancelled() => {}
        }
        tasks.close();
        let _ = tokio::time::timeout(Duration::from_secs(1), tasks.wait()).await;
        Ok(())
    }

    /// One request, one answer, then the connection closes.
    async fn exchange(&self, mut stream: TcpStream, asked: &AtomicBool) {
        let head = tokio::time::timeout(HEAD_MAX, head(&mut stream)).await;
        if let Ok(Some(head)) = head {
            asked.store(true, Ordering::Relaxed);
            self.answer(stream, &head).await;
        }
    }

    async fn answer(&self, mut stream: TcpStream, head: &[u8]) {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let mut words = line.split(|byte| *byte == b' ');
        let (method, target) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let path = target
            .split(|byte| *byte == b'?')
            .next()
            .unwrap_or_default();
        let (status, kind, body) = match (method, path) {
            (b"GET" | b"HEAD", b"/metrics") => (
                "200 OK",
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                self.metrics.render(),
            ),
            (b"GET" | b"HEAD", b"/readyz") => self.ready(),
            (b"GET" | b"HEAD", b"/livez") => ("200 OK", TEXT, "ok\n".to_owned()),
            (b"GET" | b"HEAD", _) => ("404 Not Found", TEXT, "not found\n".to_owned()),
            _ => (
                "405 Method Not Allowed",
                TEXT,
                "only GET and HEAD\n".to_owned(),
            ),
        };
        let length = body.len();
        let body = if method == b"HEAD" { "" } else { &body };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        if stream.write_all(answer.as_bytes()).await.is_ok() {
            let _ = stream.shutdown().await;
        }
    }

    fn ready(&self) -> (&'static str, &'static str, String) {
        let missing = self.readiness.missing();
        if missing.is_empty() {
            return ("200 OK", TEXT, "ok\n".to_owned());
        }
        let text = format!("waiting for {}\n", missing.join(", "));
        ("503 Service Unavailable", TEXT, text)
    }
}

/// A request's head, if a whole one comes.
async fn head(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::with_capacity(1024);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let is_full = head.len() >= HEAD_BYTES_MAX;
        if is_full || !matches!(stream.read_buf(&mut head).await, Ok(1..)) {
            return None;
        }
    }
    Some(head)
}

/// Connections of one socket, oldest first, and whether each has asked already.
#[derive(Default)]
struct Open(VecDeque<(AbortHandle, Arc<AtomicBool>)>);

impl Open {
    /// Ends one connection if there are too many: one that has asked nothing, if possible, and the oldest of those.
    fn make_room(&mut self) {
        self.0.retain(|(task, _)| !task.is_finished());
        if self.0.len() < CONNECTIONS_MAX {
            return;
        }
        let mut asked = self
            .0
            .iter()
            .map(|(_, asked)| asked.load(Ordering::Relaxed));
        let idle = asked.position(|asked| !asked).unwrap_or(0);
        if let Some((task, _)) = self.0.remove(idle) {
            task.abort();
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;

    /// How a port answers a probe while so many connections, of those that send `request`, hold it.
    async fn check(request: &[u8], before: usize) {
        let admin = Admin {
            metrics: Arc::new(Metrics::new()),
            readiness: Readiness::default(),
        };
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn({
            let stop = stop.clone();
            async move { admin.serve(socket, stop).await }
        });
        let mut held = Vec::new();
        for _ in 0..before {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request).await.unwrap();
            held.push(stream);
        }
        let mut probe = TcpStream::connect(address).await.unwrap();
        let asked = b"GET /readyz HTTP/1.1\r\nHost: pod\r\n\r\n";
        probe.write_all(asked).await.unwrap();
        let mut answer = String::new();
        let answered = probe.read_to_string(&mut answer);
        // What a kubelet gives a probe.
        let answered = tokio::time::timeout(Duration::from_secs(1), answered).await;
        answered.expect("an answer in time").expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        stop.cancel();
        serving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn idle_connections_do_not_keep_probes_out() {
        check(b"", 0).await;
        check(b"", 3 * CONNECTIONS_MAX).await;
        check(b"GET /readyz HTTP/1.1\r\n", 3 * CONNECTIONS_MAX).await;
    }
}
