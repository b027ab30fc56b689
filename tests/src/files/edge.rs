//! A running edge.

use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::Log;
use crate::{DEADLINE, curl, run, text, until};

/// A running edge and what it logs.
#[derive(Debug)]
pub struct Edge {
    child: Child,
    /// What it and those that it started said.
    pub log: Log,
    /// Where it takes HTTP.
    pub http: SocketAddr,
    /// Where it takes HTTPS.
    pub https: SocketAddr,
    /// Where it answers probes.
    pub ready: SocketAddr,
    /// Where it answers scrapers.
    pub metrics: SocketAddr,
}

impl Edge {
    /// The binary under test, once it serves.
    pub fn start(arguments: &[OsString]) -> Self {
        Self::of(&crate::meshgate(), arguments)
    }

    /// Another binary.
    pub fn of(program: &Path, arguments: &[OsString]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the edge starts");
        let log = Log::follow(child.stderr.take().expect("a pipe"));
        let edge = Self {
            http: log.address("http"),
            https: log.address("https"),
            ready: log.address("ready"),
            metrics: log.address("metrics"),
            child,
            log,
        };
        edge.log.until(" serving", 1);
        edge
    }

    /// Status and body of `GET path` for a host.
    pub fn get(&self, host: &str, path: &str) -> (u16, String) {
        curl(&[
            "-H",
            &format!("Host: {host}"),
            &format!("http://{}{path}", self.http),
        ])
    }

    /// Whether the metrics have this line.
    pub fn counts(&self, line: &str) -> bool {
        self.page().lines().any(|other| other == line)
    }

    /// The sum of a metric's series that have this label, such as `listener="http"`.
    pub fn counted(&self, metric: &str, label: &str) -> f64 {
        let page = self.page();
        let lines = page.lines().filter(|line| line.starts_with(metric));
        let values = lines
            .filter(|line| line.contains(label))
            .filter_map(|line| {
                let value = line.rsplit_once(' ')?.1;
                value.parse::<f64>().ok()
            });
        values.sum()
    }

    fn page(&self) -> String {
        curl(&[&format!("http://{}/metrics", self.metrics)]).1
    }

    /// Waits until a host is answered so.
    pub fn answers(&self, host: &str, status: u16, body: &str) {
        let what = format!("{host} answers {status} {body:?}");
        until(&what, || {
            (self.get(host, "/") == (status, body.to_owned())).then_some(())
        });
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as "USR2".
    pub fn signal(&self, name: &str) {
        let output = run(Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]));
        assert!(output.status.success(), "{}", text(&output));
    }

    /// Ends it, and sees that it ends well.
    pub fn end(mut self) {
        self.signal("TERM");
        self.has_ended();
    }

    /// Waits until it has drained and ended, as it should.
    pub fn has_ended(&mut self) {
        let status = until("the process ends", || {
            self.child.try_wait().expect("it was started")
        });
        assert!(status.success(), "{status}\n{}", self.log.text());
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _unread = std::io::stderr().write_all(self.log.text().as_bytes());
        }
        // Has ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.log.started().into_iter().for_each(|pid| {
                let _gone = run(Command::new("kill").arg(pid));
            });
        }
    }
}

/// `GET /` for a host at one of an edge's addresses, by "http" or "https": status and body.
pub fn get_at(scheme: &str, at: SocketAddr, host: &str) -> (u16, String) {
    let port = at.port();
    curl(&[
        // As long as anything here is waited for.
        "--max-time",
        &DEADLINE.as_secs().to_string(),
        "--insecure",
        "--resolve",
        &format!("{host}:{port}:{}", at.ip()),
        &format!("{scheme}://{host}:{port}/"),
    ])
}

/// Waits until nobody listens there any more.
pub fn is_closed(at: SocketAddr) {
    until(&format!("{at} is closed"), || {
        let refused = TcpStream::connect(at).err()?;
        (refused.kind() == ErrorKind::ConnectionRefused).then_some(())
    });
}
