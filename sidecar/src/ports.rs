//! Sets of ports as annotations write them: `80, 9000-9100`.

use std::ops::RangeInclusive;
use std::str::FromStr;

/// Ports by ranges, both ends included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortSet(Vec<(u16, u16)>);

/// An annotation is written by a person; more parts are a mistake, and each is a rule that packets pass.
const PARTS_MAX: usize = 64;

impl PortSet {
    /// Whether `port` is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.0
            .iter()
            .any(|&(first, last)| (first..=last).contains(&port))
    }

    /// Each range.
    pub fn inclusive(&self) -> impl Iterator<Item = RangeInclusive<u16>> + '_ {
        self.0.iter().map(|&(first, last)| first..=last)
    }

    /// First and last port of each range.
    pub fn ranges(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        self.0.iter().copied()
    }
}

impl FromStr for PortSet {
    type Err = InvalidPorts;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
        let ranges: Vec<(u16, u16)> = parts.map(range).collect::<Result<_, _>>()?;
        if ranges.len() > PARTS_MAX {
            return Err(InvalidPorts::TooMany);
        }
        Ok(Self(ranges))
    }
}

fn range(text: &str) -> Result<(u16, u16), InvalidPorts> {
    let invalid = || InvalidPorts::Part(text.chars().take(64).collect());
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let first = port(first).ok_or_else(invalid)?;
    let last = port(last).ok_or_else(invalid)?;
    if first > last {
        return Err(invalid());
    }
    Ok((first, last))
}

/// Why a text is no set of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPorts {
    /// One part of it.
    #[error("{0:?} is no port and no range of ports (1-65535, FIRST-LAST)")]
    Part(String),
    /// All of it.
    #[error("more than {PARTS_MAX} ports and ranges")]
    TooMany,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&[(u16, u16)], &str>) {
        let parsed = text.parse::<PortSet>();
        let shown = parsed.as_ref().map(|set| set.0.as_slice());
        match (shown, expected) {
            (Ok(ranges), Ok(expected)) => assert_eq!(ranges, expected, "{text}"),
            (Err(InvalidPorts::Part(part)), Err(expected)) => assert_eq!(part, expected, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn annotations_parse() {
        check("", Ok(&[]));
        check("80", Ok(&[(80, 80)]));
        check(" 80, 9000-9100 ,", Ok(&[(80, 80), (9000, 9100)]));
        check("0", Err("0"));
        check("80,http", Err("http"));
        check("90-80", Err("90-80"));
        check("65536", Err("65536"));
        check("1-", Err("1-"));
        assert!("9000-9100".parse::<PortSet>().unwrap().contains(9050));
        let many = vec!["1"; 65].join(",");
        assert_eq!(many.parse::<PortSet>(), Err(InvalidPorts::TooMany));
    }
}
