//! `wrk` and `h2load`, and what they report.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::cluster::Ports;
use crate::figures::Series;

/// A kind of load.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) tool: Tool,
    pub(crate) host: &'static str,
    pub(crate) path: &'static str,
}

/// Who makes it, always with one thread.
pub(crate) enum Tool {
    /// HTTP/1 without TLS.
    Wrk { connections: u32 },
    /// HTTPS.
    H2load {
        connections: u32,
        /// Requests under way on each connection.
        streams: u32,
        http1: bool,
    },
}

/// What came out of one run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Scenario {
    /// Runs once; any failed request fails the run, since figures of failures mean nothing.
    pub(crate) fn run(&self, ports: Ports, duration: Duration) -> anyhow::Result<Outcome> {
        match self.tool {
            Tool::Wrk { connections } => self.wrk(ports, duration, connections),
            Tool::H2load {
                connections,
                streams,
                http1,
            } => self.h2load(ports, duration, connections, streams, http1),
        }
        .with_context(|| format!("load {:?}", self.name))
    }

    fn wrk(&self, ports: Ports, duration: Duration, connections: u32) -> anyhow::Result<Outcome> {
        let mut command = Command::new("wrk");
        command
            .args(["--latency", "-t1"])
            .arg(format!("-c{connections}"))
            .arg(format!("-d{}s", duration.as_secs()))
            .arg(format!("-HHost: {}", self.host))
            .arg(format!("http://{}{}", ports.http, self.path));
        parse_wrk(&run(command)?)
    }

    fn h2load(
        &self,
        ports: Ports,
        duration: Duration,
        connections: u32,
        streams: u32,
        http1: bool,
    ) -> anyhow::Result<Outcome> {
        let log = tempfile::NamedTempFile::new().context("a log file")?;
        let mut command = Command::new("h2load");
        command
            .args(["-t1", "-c", &connections.to_string()])
            .args(["-m", &streams.to_string()])
            .args(["-D", &duration.as_secs().to_string()])
            .arg(format!("--log-file={}", log.path().display()))
            .arg(format!("--connect-to={}", ports.https))
            .arg(format!("https://{}{}", self.host, self.path));
        if http1 {
            command.arg("--h1");
        }
        let report = run(command)?;
        let log = std::fs::read_to_string(log.path()).context("h2load's log")?;
        parse_h2load(&report, &log, duration)
    }
}

/// What a load generator reports.
pub(crate) fn run(mut command: Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("{program} (Debian packages wrk and nghttp2-client)"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {text}{error}");
    Ok(text)
}

pub(crate) fn parse_wrk(report: &str) -> anyhow::Result<Outcome> {
    for failure in ["Socket errors:", "Non-2xx or 3xx responses:"] {
        if let Some(line) = report.lines().find(|line| line.trim().starts_with(failure)) {
            bail!("{}", line.trim());
        }
    }
    let percentile = |part: &str| {
        let mut lines = report.lines().map(str::trim);
        let time = lines.find_map(|line| line.strip_prefix(part));
        time.and_then(|time| wrk_time(time.trim()))
            .with_context(|| format!("no {part} in {report}"))
    };
    let mut lines = report.lines().map(str::trim);
    let total = lines.find(|line| line.contains(" requests in "));
    let total = total.with_context(|| format!("no requests in {report}"))?;
    let (requests, rest) = total.split_once(" requests in ").context("a count")?;
    let elapsed = rest.split(',').next().and_then(wrk_time);
    Ok(Outcome {
        requests: requests.parse().context("a count")?,
        elapsed: elapsed.context("a duration")?,
        p50: percentile("50%")?,
        p99: percentile("99%")?,
    })
}

/// `1.23ms`, `456.00us`, `5.00s`, `1.02m`.
fn wrk_time(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let unit_s = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Some(Duration::from_secs_f64(
        number.parse::<f64>().ok()? * unit_s,
    ))
}

/// `log` has a line a request: start (µs), status, duration (µs).
fn parse_h2load(report: &str, log: &str, duration: Duration) -> anyhow::Result<Outcome> {
    let counts = report.lines().find(|line| line.starts_with("requests:"));
    let counts = counts.with_context(|| format!("no requests in {report}"))?;
    ensure!(
        counts.contains(" 0 failed, 0 errored, 0 timeout"),
        "{counts}"
    );
    let mut times = Series::default();
    let mut requests = 0;
    for line in log.lines() {
        let mut fields = line.split('\t').skip(1);
        let status = fields.next().context("a status")?;
        ensure!(status == "200", "an answer with status {status}");
        let time = fields.next().context("a time")?;
        times.push(time.parse::<f64>().context("a time")? / 1e6);
        requests += 1;
    }
    Ok(Outcome {
        requests,
        elapsed: duration,
        p50: Duration::from_secs_f64(times.quantile(0.5)),
        p99: Duration::from_secs_f64(times.quantile(0.99)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read() {
        let wrk = "Running 1s test\n  Latency Distribution\n     50%  456.00us\n     75%    1.00ms\n     99%   12.50ms\n  \
                   14000 requests in 1.10s, 16.00MB read\nRequests/sec:  12727.27\n";
        let outcome = parse_wrk(wrk).unwrap();
        assert_eq!(
            (outcome.requests, outcome.elapsed.as_millis()),
            (14_000, 1100)
        );
        assert_eq!(
            (outcome.p50.as_micros(), outcome.p99.as_micros()),
            (456, 12_500)
        );
        let failed = format!("{wrk}  Non-2xx or 3xx responses: 7\n");
        assert_eq!(
            parse_wrk(&failed).unwrap_err().to_string(),
            "Non-2xx or 3xx responses: 7"
        );

        let h2load =
            "requests: 3 total, 3 started, 3 done, 3 succeeded, 0 failed, 0 errored, 0 timeout\n";
        let log = "1\t200\t1000\n2\t200\t3000\n3\t200\t2000\n";
        let outcome = parse_h2load(h2load, log, Duration::from_secs(1)).unwrap();
        assert_eq!(
            (
                outcome.requests,
                outcome.p50.as_micros(),
                outcome.p99.as_micros()
            ),
            (3, 2000, 3000)
        );
        assert!(parse_h2load(h2load, "1\t503\t10\n", Duration::from_secs(1)).is_err());
    }
}
