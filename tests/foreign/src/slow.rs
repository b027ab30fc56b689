//! slowhttptest against the edge: heads, bodies and readers that take their time, more of them than one address may
//! have connections, while another client goes on as if nothing were.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::process::Command;

use crate::Outcome;
use crate::edge::{Edge, HOST};
use crate::origin::{LARGE, Origin};
use crate::tools;

/// Four times what the edge gives to one address.
const CONNECTIONS: &str = "1000";
const CONNECTIONS_A_SECOND: &str = "500";
/// Longer than the edge waits for a head (10 s).
const SECONDS: &str = "20";
const PATIENCE: Duration = Duration::from_secs(120);

/// The other client's address: limits are by address.
const OTHER: &str = "127.0.0.2:0";
const PACE: Duration = Duration::from_millis(20);
/// What the other client may wait, on a machine that is busy with slow clients: mostly, and ever.
const WAIT_P99_MAX: Duration = Duration::from_millis(250);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What is slow, and what becomes of it in the end.
struct Attack {
    what: &'static str,
    scheme: &'static str,
    path: &'static str,
    mode: &'static [&'static str],
    /// Whether the edge ends all of it before the time is over.
    ended: bool,
}

const ATTACKS: [Attack; 4] = [
    Attack {
        what: "heads",
        scheme: "http",
        path: "/",
        mode: &["-H", "-i", "5"],
        ended: true,
    },
    Attack {
        what: "heads, TLS",
        scheme: "https",
        path: "/",
        mode: &["-H", "-i", "5"],
        ended: true,
    },
    Attack {
        what: "bodies",
        scheme: "http",
        path: "/",
        mode: &["-B", "-i", "5", "-s", "8192"],
        ended: false,
    },
    Attack {
        what: "readers",
        scheme: "http",
        path: LARGE,
        mode: &["-X", "-w", "1", "-y", "64", "-n", "1", "-z", "8"],
        ended: false,
    },
];

pub(crate) async fn run() -> anyhow::Result<Vec<Outcome>> {
    let origin = Origin::start().await?;
    let edge = Edge::start(origin.address).await?;
    let mut outcomes = Vec::new();
    for attack in &ATTACKS {
        let (printed, met) = meanwhile(edge.http, attack.command(&edge))
            .await
            .with_context(|| format!("slow {}", attack.what))?;
        outcomes.push(judge(attack, &printed, &met));
    }
    Ok(outcomes)
}

impl Attack {
    fn command(&self, edge: &Edge) -> Command {
        let port = match self.scheme {
            "https" => edge.https.port(),
            _ => edge.http.port(),
        };
        let mut command = Command::new("slowhttptest");
        command
            .args(self.mode)
            .args(["-c", CONNECTIONS, "-r", CONNECTIONS_A_SECOND, "-l", SECONDS])
            .args([
                "-u",
                &format!("{}://{HOST}:{port}{}", self.scheme, self.path),
            ]);
        command
    }

    /// What must be the reason of its end.
    fn expected_end(&self) -> &'static str {
        match self.ended {
            true => "No open connections left",
            false => "Hit test time limit",
        }
    }
}

/// What the other client met, answer by answer.
type Met = Vec<Result<Duration, String>>;

/// Asks as the other client until the program ends.
async fn meanwhile(edge: SocketAddr, command: Command) -> anyhow::Result<(String, Met)> {
    let slow = tools::printed(command, PATIENCE);
    tokio::pin!(slow);
    let mut met = Met::new();
    let mut pace = tokio::time::interval(PACE);
    let printed = loop {
        tokio::select! {
            printed = &mut slow => break printed?,
            _ = pace.tick() => {
                let asked = Instant::now();
                let answer = tokio::time::timeout(Duration::from_secs(10), ask(edge)).await;
                met.push(match answer {
                    Ok(Ok(())) => Ok(asked.elapsed()),
                    Ok(Err(error)) => Err(format!("{error:#}")),
                    Err(_) => Err("no answer within 10 s".to_owned()),
                });
            }
        }
    };
    Ok((printed, met))
}

async fn ask(edge: SocketAddr) -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(OTHER.parse()?)?;
    let mut stream = socket.connect(edge).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let line = answer
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    ensure!(line == b"HTTP/1.1 200 OK", "{}", line.escape_ascii());
    Ok(())
}

fn judge(attack: &Attack, printed: &str, met: &Met) -> Outcome {
    let mut failed = Vec::new();
    if !printed.contains(attack.expected_end()) {
        let end = printed.trim_end().lines().next_back().unwrap_or_default();
        failed.push(format!(
            "slowhttptest ended otherwise: {}",
            end.escape_debug()
        ));
    }
    let mut waited: Vec<Duration> = Vec::new();
    for answer in met {
        match answer {
            Ok(wait) => waited.push(*wait),
            Err(problem) => failed.push(format!("another client: {problem}")),
        }
    }
    waited.sort();
    let part = |percent: usize| waited.get(waited.len() * percent / 100).copied();
    let most = waited.last().copied().unwrap_or(Duration::MAX);
    let p99 = part(99).unwrap_or(Duration::MAX);
    if p99 > WAIT_P99_MAX || most > WAIT_MAX {
        failed.push(format!(
            "another client waited {p99:.1?} (p99), {most:.1?} (most)"
        ));
    }
    Outcome {
        suite: format!(
            "slowhttptest, {}; another client waited {:.1?} (median), {p99:.1?} (p99), {most:.1?} (most)",
            attack.what,
            part(50).unwrap_or_default()
        ),
        passed: waited.len(),
        failed,
    }
}
