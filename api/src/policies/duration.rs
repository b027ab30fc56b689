//! Durations in Gateway API's format (GEP-2257): `500ms`, `10s`, `1h30m`.

use std::{fmt, str::FromStr, time::Duration};

use serde::Deserialize;

/// A duration as policies write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GatewayDuration(pub Duration);

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is not a duration: write one to four of NUMBERh, NUMBERm, NUMBERs, NUMBERms, as in 1m30s or 500ms"
)]
pub struct NotADuration {
    text: String,
}

impl FromStr for GatewayDuration {
    type Err = NotADuration;

    /// `^([0-9]{1,5}(h|m|s|ms)){1,4}$`
    fn from_str(text: &str) -> Result<Self, NotADuration> {
        let refuse = || NotADuration {
            text: text.chars().take(64).collect(),
        };
        let mut rest = text;
        let mut total = Duration::ZERO;
        let mut parts = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = match digits {
                1..=5 => rest[..digits].parse().map_err(|_| refuse())?,
                _ => return Err(refuse()),
            };
            rest = &rest[digits..];
            let (unit_ms, unit_len) = match rest.as_bytes() {
                [b'm', b's', ..] => (1, 2),
                [b'h', ..] => (3_600_000, 1),
                [b'm', ..] => (60_000, 1),
                [b's', ..] => (1_000, 1),
                _ => return Err(refuse()),
            };
            rest = &rest[unit_len..];
            total += Duration::from_millis(number * unit_ms);
            parts += 1;
        }
        if parts == 0 || parts > 4 {
            return Err(refuse());
        }
        Ok(Self(total))
    }
}

impl fmt::Display for GatewayDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest_ms = self.0.as_millis();
        if rest_ms == 0 {
            return f.write_str("0s");
        }
        for (unit, unit_ms) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            let count = rest_ms / unit_ms;
            rest_ms %= unit_ms;
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for GatewayDuration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::GatewayDuration;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let shown = match text.parse::<GatewayDuration>() {
            Ok(duration) => format!("{} ms, {duration}", duration.0.as_millis()),
            Err(_) => "refused".into(),
        };
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn durations() {
        check("0s", "0 ms, 0s");
        check("500ms", "500 ms, 500ms");
        check("10s", "10000 ms, 10s");
        check("1m", "60000 ms, 1m");
        check("1h30m5s7ms", "5405007 ms, 1h30m5s7ms");
        check("90s", "90000 ms, 1m30s");
        check("99999h", "359996400000 ms, 99999h");
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "1d",
            "100000s",
            "1s ",
            "1h1m1s1ms1s",
            "1é",
        ] {
            check(bad, "refused");
        }
    }
}
