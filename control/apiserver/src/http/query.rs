//! The query string.

use std::borrow::Cow;

/// Decoded parameters in the order given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub(crate) fn parse(text: Option<&str>) -> Query {
        let pairs = text
            .unwrap_or_default()
            .split('&')
            .filter(|part| !part.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (
                decode(name, Plus::Space).into_owned(),
                decode(value, Plus::Space).into_owned(),
            )
        });
        Query {
            pairs: pairs.collect(),
        }
    }

    /// The first value of a parameter; an empty one counts as missing, as in Kubernetes.
    pub(crate) fn find(&self, name: &str) -> Option<&str> {
        let mut values = self
            .pairs
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, value)| value.as_str());
        values.next().filter(|value| !value.is_empty())
    }

    /// Every value of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// A switch. Kubernetes counts everything but these as on, `watch=` too.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.all(name)
            .next()
            .is_some_and(|value| !matches!(value, "false" | "0" | "f" | "F" | "False" | "FALSE"))
    }

    /// The parameters as `name=value` pairs, encoded again, but for the named ones.
    pub(crate) fn encode_without(&self, dropped: &[&str]) -> String {
        let kept = self
            .pairs
            .iter()
            .filter(|(name, _)| !dropped.contains(&name.as_str()));
        let pairs: Vec<String> = kept
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
            .collect();
        pairs.join("&")
    }
}

/// What `+` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plus {
    /// In a query.
    Space,
    /// In a path.
    Itself,
}

/// Percent-decodes; bytes that are no UTF-8 become U+FFFD, a broken escape stays as it is.
pub(crate) fn decode(text: &str, plus: Plus) -> Cow<'_, str> {
    if !text.contains('%') && (plus == Plus::Itself || !text.contains('+')) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => match after
                .split_at_checked(2)
                .and_then(|(hex, after)| Some((hex_byte(hex)?, after)))
            {
                Some((decoded, after)) => {
                    out.push(decoded);
                    rest = after;
                }
                None => out.push(b'%'),
            },
            b'+' if plus == Plus::Space => out.push(b' '),
            other => out.push(other),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

fn hex_byte(hex: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (high, low) = (digit(hex[0])?, digit(hex[1])?);
    u8::try_from(high * 16 + low).ok()
}

fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte))
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        let query = Query::parse(Some(
            "labelSelector=a%3Db%2Cc&watch=1&limit=&x=1&x=2+3&bad=%zz",
        ));
        assert_eq!(query.find("labelSelector"), Some("a=b,c"));
        assert!(query.is_set("watch"));
        assert_eq!(query.find("limit"), None);
        assert_eq!(query.all("x").collect::<Vec<_>>(), ["1", "2 3"]);
        assert_eq!(query.find("bad"), Some("%zz"));
        assert_eq!(
            query.encode_without(&["x", "bad", "limit"]),
            "labelSelector=a%3Db%2Cc&watch=1"
        );
    }
}
