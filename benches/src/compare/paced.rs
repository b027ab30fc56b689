//! Requests at a fixed rate, whether or not the answers keep up: open-loop load on a single thread. Latency counts from the
//! moment a request was due, so a proxy that stalls is not spared the requests that would have come meanwhile.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};

use super::client::Answer;
use crate::figures::Series;

/// For the answers that are under way when the last request was due.
const DRAIN: Duration = Duration::from_secs(5);

pub(crate) struct Pace {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
    pub(crate) path: &'static str,
    pub(crate) connections: usize,
    pub(crate) requests_per_s: f64,
    /// At the same rate, before what counts.
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
}

/// A look at the clock at least so often.
const PAUSE_MAX: Duration = Duration::from_millis(10);

/// All in µs.
pub(crate) struct Latencies {
    /// From due to answered.
    pub(crate) answered: Series,
    /// From due to sent where a connection was free: the generator's own part.
    pub(crate) late: Series,
}

impl Pace {
    pub(crate) fn run(&self) -> anyhow::Result<Latencies> {
        // The kernel wakes sleepers up to 50 µs late otherwise, to wake several at once.
        nix::sys::prctl::set_timerslack(1).context("timer slack")?;
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", self.path, self.host);
        let lines = (0..self.connections).map(|_| Line::open(self.address));
        let lines = lines.collect::<anyhow::Result<_>>()?;
        let start = Instant::now();
        let load = Load {
            start,
            counts_from: start + self.warm_up,
            gap: Duration::from_secs_f64(1.0 / self.requests_per_s),
            planned: (self.requests_per_s * (self.warm_up + self.duration).as_secs_f64()) as u32,
            issued: 0,
            waiting: VecDeque::new(),
            lines,
            latencies: Latencies {
                answered: Series::default(),
                late: Series::default(),
            },
            request: request.into_bytes(),
        };
        load.run(self.warm_up + self.duration + DRAIN)
    }
}

struct Load {
    start: Instant,
    /// Requests that were due before are not recorded.
    counts_from: Instant,
    gap: Duration,
    planned: u32,
    /// Requests that have become due.
    issued: u32,
    /// When those that no connection was free for were due.
    waiting: VecDeque<Instant>,
    lines: Vec<Line>,
    latencies: Latencies,
    request: Vec<u8>,
}

impl Load {
    fn run(mut self, limit: Duration) -> anyhow::Result<Latencies> {
        loop {
            self.send_due()?;
            if self.issued == self.planned && self.waiting.is_empty() && self.are_all_free() {
                return Ok(self.latencies);
            }
            if self.start.elapsed() > limit {
                return Ok(self.give_up());
            }
            self.exchange()?;
        }
    }

    fn due(&self, request: u32) -> Instant {
        self.start + self.gap.mul_f64(f64::from(request))
    }

    fn are_all_free(&self) -> bool {
        self.lines.iter().all(|line| line.due.is_none())
    }

    fn send_due(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        while self.issued < self.planned && self.due(self.issued) <= now {
            self.waiting.push_back(self.due(self.issued));
            self.issued += 1;
        }
        for line in self.lines.iter_mut().filter(|line| line.due.is_none()) {
            let Some(due) = self.waiting.pop_front() else {
                break;
            };
            let free = line.freed.max(due);
            line.send(&self.request, due)?;
            if due >= self.counts_from {
                let late = free.elapsed();
                self.latencies.late.push(late.as_secs_f64() * 1e6);
            }
        }
        Ok(())
    }

    /// Until an answer comes or a request is due; then takes what came.
    fn exchange(&mut self) -> anyhow::Result<()> {
        let next = (self.issued < self.planned).then(|| self.due(self.issued));
        let pause = next.map_or(PAUSE_MAX, |next| {
            next.saturating_duration_since(Instant::now())
        });
        let busy: Vec<usize> = (0..self.lines.len())
            .filter(|index| self.lines[*index].due.is_some())
            .collect();
        let mut polled: Vec<PollFd<'_>> = busy
            .iter()
            .map(|index| PollFd::new(self.lines[*index].stream.as_fd(), PollFlags::POLLIN))
            .collect();
        match ppoll(&mut polled, Some(pause.min(PAUSE_MAX).into()), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("ppoll"),
        }
        let answered = polled.iter().map(|fd| fd.any() == Some(true));
        let answered: Vec<bool> = answered.collect();
        for (index, answered) in busy.into_iter().zip(answered) {
            if answered && let Some(due) = self.lines[index].receive(&self.request)? {
                self.record(due);
            }
        }
        Ok(())
    }

    /// What is not answered by now has taken at least so long.
    fn give_up(mut self) -> Latencies {
        let sent = self.lines.iter().filter_map(|line| line.due);
        let unsent = (self.issued..self.planned).map(|request| self.due(request));
        let open: Vec<Instant> = sent
            .chain(self.waiting.iter().copied())
            .chain(unsent)
            .collect();
        for due in open {
            self.record(due);
        }
        self.latencies
    }

    fn record(&mut self, due: Instant) {
        if due >= self.counts_from {
            let latency = due.elapsed();
            self.latencies.answered.push(latency.as_secs_f64() * 1e6);
        }
    }
}

/// A connection, and the request that is under way on it.
struct Line {
    address: SocketAddr,
    stream: TcpStream,
    /// When the request was due; `None` on a free connection.
    due: Option<Instant>,
    /// Since when it is free.
    freed: Instant,
    answer: Vec<u8>,
}

impl Line {
    fn open(address: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self {
            address,
            stream: connect(address)?,
            due: None,
            freed: Instant::now(),
            answer: Vec::new(),
        })
    }

    fn send(&mut self, request: &[u8], due: Instant) -> anyhow::Result<()> {
        self.due = Some(due);
        // A request is shorter than an empty send buffer.
        match self.stream.write(request) {
            Ok(sent) => ensure!(sent == request.len(), "half a request was sent"),
            Err(_) => self.send_anew(request)?,
        }
        Ok(())
    }

    /// On another connection: an idle one may be closed in the moment it is used.
    fn send_anew(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream = connect(self.address)?;
        let sent = self.stream.write(request).context("a fresh connection")?;
        ensure!(sent == request.len(), "half a request was sent");
        Ok(())
    }

    /// When the request was due that is answered now.
    fn receive(&mut self, request: &[u8]) -> anyhow::Result<Option<Instant>> {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) if self.answer.is_empty() => self.send_anew(request)?,
            Ok(0) => bail!("the connection ended within an answer"),
            Ok(read) => self.answer.extend_from_slice(&bytes[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) if self.answer.is_empty() => self.send_anew(request)?,
            Err(error) => return Err(error).context("an answer"),
        }
        let Some(answer) = Answer::read(&self.answer)? else {
            return Ok(None);
        };
        if self.answer.len() < answer.bytes {
            return Ok(None);
        }
        ensure!(
            answer.status == 200,
            "an answer with status {}",
            answer.status
        );
        self.answer.clear();
        self.freed = Instant::now();
        if answer.is_last {
            self.stream = connect(self.address)?;
        }
        Ok(self.due.take())
    }
}

fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).context("connecting")?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that answers after `pause`, `requests` times on one connection.
    fn serve(requests: usize, pause: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for _ in 0..requests {
                let mut head = [0; 1024];
                if stream.read(&mut head).unwrap() == 0 {
                    return;
                }
                std::thread::sleep(pause);
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                stream.write_all(answer).unwrap();
            }
        });
        address
    }

    #[test]
    fn requests_that_wait_for_a_connection_count_from_when_they_were_due() {
        let pace = Pace {
            address: serve(10, Duration::from_millis(20)),
            host: "a.test".into(),
            path: "/",
            connections: 1,
            requests_per_s: 1000.0,
            warm_up: Duration::from_millis(5),
            duration: Duration::from_millis(5),
        };
        let latencies = pace.run().unwrap();
        // The sixth is due after 5 ms and answered after 120, the tenth after 9 and 200.
        assert_eq!(latencies.answered.iter().count(), 5);
        assert!(latencies.answered.quantile(0.0) >= 110_000.0);
        assert!(latencies.answered.quantile(1.0) >= 190_000.0);
    }
}
