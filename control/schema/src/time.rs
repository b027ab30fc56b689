//! Times and durations as Kubernetes writes them.

use std::time::Duration;

use jiff::Timestamp;

/// `metav1.Time`: RFC 3339 in UTC with whole seconds.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `metav1.MicroTime`: RFC 3339 in UTC with six digits of a second.
pub fn micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads RFC 3339 as Go's `time.RFC3339` does: any offset, any fraction, but no other form.
pub fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let shaped = bytes.len() >= 20
        && bytes[10] == b'T'
        && bytes[..10]
            .iter()
            .enumerate()
            .all(|(index, byte)| match index {
                4 | 7 => *byte == b'-',
                _ => byte.is_ascii_digit(),
            });
    if shaped { text.parse().ok() } else { None }
}

/// Age as kubectl shows it: two units at most, coarser the older (`5m3s`, `3h`, `47h`, `12d`).
pub fn human_duration(age: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let seconds = age.as_secs();
    let pair = |big: u64, big_unit: &str, small: u64, small_unit: &str| {
        let rest = (seconds % big) / small;
        if rest == 0 {
            format!("{}{big_unit}", seconds / big)
        } else {
            format!("{}{big_unit}{rest}{small_unit}", seconds / big)
        }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => pair(MINUTE, "m", 1, "s"),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => pair(HOUR, "h", MINUTE, "m"),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => pair(DAY, "d", HOUR, "h"),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => pair(365 * DAY, "y", DAY, "d"),
        _ => format!("{}y", seconds / (365 * DAY)),
    }
}

/// How long ago a stored time is; `<unknown>` when it is missing or no time.
pub fn age(then: Option<&str>, now: Timestamp) -> String {
    let Some(then) = then.and_then(parse) else {
        return "<unknown>".to_owned();
    };
    let span = now.duration_since(then);
    human_duration(Duration::from_secs(
        u64::try_from(span.as_secs()).unwrap_or(0),
    ))
}

/// A Go duration (`1h30m`, `500ms`) in nanoseconds.
pub fn parse_go_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1f64,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[end..];
    }
    if text.is_empty() || total > 9.2e18 {
        return None;
    }
    Some(if negative {
        -(total as i64)
    } else {
        total as i64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        for (seconds, want) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (303, "5m3s"),
            (660, "11m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 120, "3h2m"),
            (9 * 3600, "9h"),
            (47 * 3600, "47h"),
            (49 * 3600, "2d1h"),
            (10 * 86_400, "10d"),
            (800 * 86_400, "2y70d"),
            (9 * 365 * 86_400, "9y"),
        ] {
            assert_eq!(
                human_duration(Duration::from_secs(seconds)),
                want,
                "{seconds}"
            );
        }
    }

    #[test]
    fn times() {
        let time = parse("2024-03-01T10:20:30.123456789+02:00").unwrap();
        assert_eq!(rfc3339(time), "2024-03-01T08:20:30Z");
        assert_eq!(micro(time), "2024-03-01T08:20:30.123456Z");
        for bad in [
            "yesterday",
            "",
            "2024-03-01",
            "2024-03-01 10:20:30Z",
            "20240301T102030Z",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn go_durations() {
        assert_eq!(parse_go_duration("1h30m"), Some(5_400_000_000_000));
        assert_eq!(parse_go_duration("500ms"), Some(500_000_000));
        for bad in ["", "5", "h", "5x"] {
            assert_eq!(parse_go_duration(bad), None, "{bad}");
        }
    }
}
