//! What people and probes ask a proxy: `/metrics` on one port, `/readyz` on another. Never on a port of the data path.

use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
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

/// Probes and scrapers are few.
const CONNECTIONS_MAX: usize = 32;
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
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let tasks = TaskTracker::new();
        let serving = async {
            loop {
                let Ok(place) = places.clone().acquire_owned().await else {
                    return;
                };
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let admin = self.clone();
                        tasks.spawn(async move {
                            let _ = tokio::time::timeout(EXCHANGE_MAX, admin.answer(stream)).await;
                            drop(place);
                        });
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
    async fn answer(&self, mut stream: TcpStream) {
        let mut head = Vec::with_capacity(1024);
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            if head.len() >= HEAD_BYTES_MAX || !matches!(stream.read_buf(&mut head).await, Ok(1..))
            {
                return;
            }
        }
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

const TEXT: &str = "text/plain; charset=utf-8";
