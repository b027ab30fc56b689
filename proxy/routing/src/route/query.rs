//! The parameters of a query: `name=value` between `&`.

use super::path::hex;

/// The value of the first parameter with this name, percent-decoded and compared by `is`; false without one.
pub(super) fn first_is(query: &str, name: &str, is: impl FnOnce(Decoded<'_>) -> bool) -> bool {
    query
        .split('&')
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
        .find(|(found, _)| Decoded(found.as_bytes()).eq(name.bytes()))
        .is_some_and(|(_, value)| is(Decoded(value.as_bytes())))
}

/// The value of the first parameter with this name, percent-decoded.
pub fn parameter(query: &str, name: &str) -> Option<Vec<u8>> {
    let mut found = None;
    first_is(query, name, |value| {
        found = Some(value.collect());
        true
    });
    found
}

/// Bytes with their percent-encodings resolved. What is no encoding stays as it is, and so does `+`.
#[derive(Clone)]
pub(super) struct Decoded<'a>(&'a [u8]);

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if let [b'%', high, low, rest @ ..] = self.0
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            self.0 = rest;
            return Some(high << 4 | low);
        }
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
}

#[cfg(test)]
mod tests {
    use super::parameter;

    fn check(query: &str, name: &str, expected: Option<&str>) {
        let found = parameter(query, name);
        assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{query:?}");
    }

    #[test]
    fn the_first_of_a_name_counts_decoded() {
        check("a=1&b=2&a=3", "a", Some("1"));
        check("a=1&b=2", "b", Some("2"));
        check("a=1", "c", None);
        check("a", "a", Some(""));
        check("", "a", None);
        check("a=b=c", "a", Some("b=c"));
        check("%61=%31%2f", "a", Some("1/"));
        check("A=1", "a", None);
        check("a=%zz%4", "a", Some("%zz%4"));
        check("a=1+2%20", "a", Some("1+2 "));
        check("a%3d1=2", "a=1", Some("2"));
        check("&&a=1", "a", Some("1"));
    }
}
