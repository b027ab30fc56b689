//! Failures on request, read from the request's target.

use std::collections::HashMap;
use std::time::Duration;

use http::StatusCode;

/// Longest pause that may be asked for.
const DELAY_MAX: Duration = Duration::from_secs(3600);
/// Most bytes that `/bytes/N` sends.
const BYTES_MAX: u64 = 16 << 30;
/// Series of `/retry/` that are remembered; the counts start anew when there are more.
const SERIES_MAX: usize = 1024;

/// What a request asks to happen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    Echo,
    Health,
    Status(StatusCode),
    Flaky(f64),
    Close,
    Bytes(u64),
    Retry(Retry),
    WebSocket,
}

/// A series of failures before success.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Retry {
    pub(crate) series: String,
    pub(crate) failures: u64,
    pub(crate) status: StatusCode,
    pub(crate) delay: Duration,
}

/// What a target asks for, and the pause before; an error is the message of a 400.
pub(crate) fn wanted(path: &str, query: &str) -> Result<(Wanted, Duration), String> {
    let delay = match parameter(query, "delay") {
        None => Duration::ZERO,
        Some(text) => duration(&text)?,
    };
    let segments = path.trim_start_matches('/');
    let (first, rest) = segments.split_once('/').unwrap_or((segments, ""));
    let wanted = match (first, rest) {
        ("health", "") => Wanted::Health,
        ("ws", "") => Wanted::WebSocket,
        ("close", "") => Wanted::Close,
        ("status", code) => Wanted::Status(status(code).ok_or("/status/NNN: 200 to 599")?),
        ("bytes", count) => match count.parse() {
            Ok(count) if count <= BYTES_MAX => Wanted::Bytes(count),
            _ => return Err(format!("/bytes/N: 0 to {BYTES_MAX}")),
        },
        ("flaky", "") => {
            let rate = parameter(query, "rate").unwrap_or_else(|| "0.5".to_owned());
            match rate.parse() {
                Ok(rate) if (0.0..=1.0).contains(&rate) => Wanted::Flaky(rate),
                _ => return Err("/flaky?rate=R: 0 to 1".to_owned()),
            }
        }
        ("retry", "") => Wanted::Retry(retry(query)?),
        _ => Wanted::Echo,
    };
    Ok((wanted, delay))
}

fn retry(query: &str) -> Result<Retry, String> {
    let number = |name: &str| {
        let text = parameter(query, name).unwrap_or_else(|| "0".to_owned());
        text.parse::<u64>()
            .map_err(|_| format!("{name} is not a number"))
    };
    let code = parameter(query, "responseCode").unwrap_or_else(|| "500".to_owned());
    Ok(Retry {
        series: parameter(query, "uuid").ok_or("uuid is missing")?,
        failures: number("succeedAfter")?,
        status: status(&code).ok_or("responseCode: 200 to 599")?,
        delay: match parameter(query, "delayRetry") {
            None => Duration::ZERO,
            Some(text) => duration(&text)?,
        },
    })
}

/// A final status; 1xx would leave the client waiting.
fn status(code: &str) -> Option<StatusCode> {
    let code = code.parse().ok()?;
    (200..600)
        .contains(&code)
        .then(|| StatusCode::from_u16(code).ok())?
}

/// The decoded value of a query parameter.
fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(own, _)| *own == name)?;
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A duration as Go writes it: `300ms`, `1.5s`, `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("{text:?} is not a duration such as 300ms or 1.5s");
    let mut rest = text;
    let mut sum_s = 0.0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(invalid)?;
        let (number, tail) = rest.split_at(digits);
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit_s = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(invalid()),
        };
        sum_s += number.parse::<f64>().map_err(|_| invalid())? * unit_s;
        rest = tail;
    }
    match Duration::try_from_secs_f64(sum_s) {
        Ok(sum) if !text.is_empty() && sum <= DELAY_MAX => Ok(sum),
        _ => Err(invalid()),
    }
}

/// How often each series of `/retry/` was asked for.
#[derive(Debug, Default)]
pub(crate) struct Series(HashMap<String, u64>);

impl Series {
    /// Whether this request is one of the failing ones.
    pub(crate) fn fails(&mut self, retry: &Retry) -> bool {
        if self.0.len() >= SERIES_MAX && !self.0.contains_key(&retry.series) {
            self.0.clear();
        }
        let count = self.0.entry(retry.series.clone()).or_default();
        *count += 1;
        *count <= retry.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(target: &str, expected: &str) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let read = match wanted(path, query) {
            Ok((wanted, Duration::ZERO)) => format!("{wanted:?}"),
            Ok((wanted, delay)) => format!("{wanted:?} after {delay:?}"),
            Err(message) => message,
        };
        assert!(read.starts_with(expected), "{target}: {read}");
    }

    #[test]
    fn targets_say_what_is_to_happen() {
        check("/", "Echo");
        check("/anything/else?x=1", "Echo");
        check("/?delay=300ms", "Echo after 300ms");
        check("/x?a=b&delay=1m1.5s", "Echo after 61.5s");
        check("/?delay=soon", "\"soon\" is not a duration");
        check("/?delay=5", "\"5\" is not a duration");
        check("/?delay=", "\"\" is not a duration");
        check("/?delay=-1s", "\"-1s\" is not a duration");
        check("/?delay=1e9h", "\"1e9h\" is not a duration");
        check("/?delay=9999h", "\"9999h\" is not a duration");
        check("/health", "Health");
        check("/healthy", "Echo");
        check("/status/503", "Status(503)");
        check("/status/100", "/status/NNN");
        check("/status/x", "/status/NNN");
        check("/flaky?rate=0.3", "Flaky(0.3)");
        check("/flaky", "Flaky(0.5)");
        check("/flaky?rate=2", "/flaky?rate=R");
        check("/flaky?rate=NaN", "/flaky?rate=R");
        check("/close", "Close");
        check("/bytes/1000", "Bytes(1000)");
        check("/bytes/-1", "/bytes/N");
        check("/ws", "WebSocket");
        check(
            "/retry/?uuid=a%20b&succeedAfter=2&responseCode=502&delayRetry=1s",
            "Retry(Retry { series: \"a b\", failures: 2, status: 502, delay: 1s })",
        );
        check("/retry/", "uuid is missing");
        check("/retry/?uuid=%zz", "uuid is missing");
    }

    #[test]
    fn a_series_fails_as_often_as_asked() {
        let mut series = Series::default();
        let retry = retry("uuid=a&succeedAfter=2").unwrap();
        let other = super::retry("uuid=b&succeedAfter=1").unwrap();
        let answers = [&retry, &other, &retry, &other, &retry].map(|retry| series.fails(retry));
        assert_eq!(answers, [true, true, true, false, false]);
    }
}
