//! What a process logs, as it logs it.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::until;

/// What a process wrote to standard error; read by a thread.
#[derive(Clone, Debug)]
pub struct Log {
    text: Arc<Mutex<String>>,
    reader: Arc<JoinHandle<()>>,
}

impl Log {
    /// Begins to read.
    pub fn follow(from: impl Read + Send + 'static) -> Self {
        let text = Arc::<Mutex<String>>::default();
        let all = text.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let mut text = all.lock().unwrap_or_else(PoisonError::into_inner);
                *text += &line;
                text.push('\n');
            }
        });
        Self {
            text,
            reader: Arc::new(reader),
        }
    }

    /// All of it so far.
    pub fn text(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.clone()
    }

    /// Waits until everybody who writes to it has ended.
    pub fn ends(&self) {
        until("those who log have ended", || {
            self.reader.is_finished().then_some(())
        });
    }

    /// How often it says so.
    pub fn count(&self, wanted: &str) -> usize {
        self.text().matches(wanted).count()
    }

    /// Waits for the nth line with `wanted`.
    pub fn until(&self, wanted: &str, times: usize) {
        until(wanted, || (self.count(wanted) >= times).then_some(()));
    }

    /// Process ids of those that it started to take over.
    pub fn started(&self) -> Vec<String> {
        let text = self.text();
        let lines = text
            .lines()
            .filter(|line| line.contains("started the process that takes over"));
        lines
            .filter_map(|line| line.split_once("pid=")?.1.split_whitespace().next())
            .map(str::to_owned)
            .collect()
    }

    /// The address that a listener got; the first one, of several of that name.
    pub fn address(&self, listener: &str) -> SocketAddr {
        let what = format!("the address of {listener}");
        until(&what, || self.addresses(listener).first().copied())
    }

    /// All addresses that listeners of that name got so far.
    pub fn addresses(&self, listener: &str) -> Vec<SocketAddr> {
        let text = self.text();
        let wanted = format!("listener=\"{listener}\" sockets=");
        let lines = text.lines().filter(|line| line.contains(&wanted));
        let addresses = lines.filter_map(|line| {
            let at = line.split_once("at=")?.1.split_whitespace().next()?;
            at.parse().ok()
        });
        addresses.collect()
    }
}
