//! Lists of ports in annotations: `22,4000-4100`.

/// Ports and ranges of ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PortSet(Vec<(u16, u16)>);

impl PortSet {
    /// Parses a comma list of ports and ranges; the error names the part that is neither.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let part = |part: &str| -> Option<(u16, u16)> {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (range.0 > 0 && range.0 <= range.1).then_some(range)
        };
        text.split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(|text| {
                part(text)
                    .ok_or_else(|| format!("\"{text}\" is neither a port nor a range of ports"))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(crate) fn contains(&self, port: u16) -> bool {
        self.0
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&port))
    }
}

impl std::fmt::Display for PortSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::PortSet;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let shown = match PortSet::parse(text) {
            Ok(set) => format!("{set}"),
            Err(problem) => problem,
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn lists_of_ports() {
        check("", "");
        check("22, 4000-4100,", "22,4000-4100");
        check("0", "\"0\" is neither a port nor a range of ports");
        check("9-8", "\"9-8\" is neither a port nor a range of ports");
        check("70000", "\"70000\" is neither a port nor a range of ports");
        check("http", "\"http\" is neither a port nor a range of ports");
    }
}
