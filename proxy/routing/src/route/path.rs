//! One normal form of a path, made once: the string that is matched is the string that is forwarded.

use std::borrow::Cow;

use thiserror::Error;

/// Why a path is refused instead of normalised: two readers would see two paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BadPath {
    /// Not absolute.
    #[error("the path does not start with '/'")]
    Relative,
    /// `%` without two hexadecimal digits.
    #[error("the path has a broken percent-encoding")]
    Escape,
    /// A control character, plain or encoded (`%00` above all).
    #[error("the path has a control character")]
    Control,
    /// Bytes that hide an ASCII character in too long a UTF-8 sequence.
    #[error("the path has overlong UTF-8")]
    Overlong,
    /// `..;` is `..` to some servers and a name to others.
    #[error("the path has a dot element with parameters")]
    DotParameter,
    /// A raw byte that must be encoded.
    #[error("the path has a character that must be percent-encoded")]
    Raw,
}

/// Normalises an absolute path without query (RFC 3986 §6.2.2): unreserved characters decoded, hexadecimal digits in
/// upper case, `\` taken as `/`, slashes merged, dot elements resolved (never above the root).
///
/// `%2F` and `%5C` stay encoded: they are data within an element, here and for the server behind.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, BadPath> {
    if !path.starts_with('/') && !path.starts_with('\\') {
        return Err(BadPath::Relative);
    }
    if is_normal(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path.as_bytes())?;
    resolve(&decoded).map(Cow::Owned)
}

/// Most paths: nothing to do. False negatives only cost the slow way.
fn is_normal(path: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in path {
        let plain = byte.is_ascii_graphic()
            && !matches!(byte, b'%' | b'\\' | b'?' | b'#')
            && !(previous == b'/' && matches!(byte, b'/' | b'.'));
        if !plain {
            return false;
        }
        previous = byte;
    }
    true
}

/// Decodes what may be decoded and canonicalises the rest; checks the bytes behind the encoding.
fn decode(path: &[u8]) -> Result<String, BadPath> {
    let mut out = String::with_capacity(path.len());
    // The last two decoded bytes: enough to see an overlong sequence begin.
    let mut before = 0;
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        at += 1;
        let decoded = match byte {
            b'%' => {
                let digits = path.get(at..at + 2).ok_or(BadPath::Escape)?;
                at += 2;
                hex(digits[0]).ok_or(BadPath::Escape)? << 4
                    | hex(digits[1]).ok_or(BadPath::Escape)?
            }
            b'?' | b'#' => return Err(BadPath::Raw),
            0x80.. => return Err(BadPath::Raw),
            _ if byte.is_ascii_control() => return Err(BadPath::Control),
            b' ' => return Err(BadPath::Raw),
            b'\\' => b'/',
            _ => byte,
        };
        if decoded.is_ascii_control() {
            return Err(BadPath::Control);
        }
        if matches!(decoded, 0xc0 | 0xc1)
            || (before == 0xe0 && matches!(decoded, 0x80..=0x9f))
            || (before == 0xf0 && matches!(decoded, 0x80..=0x8f))
        {
            return Err(BadPath::Overlong);
        }
        before = decoded;
        let unreserved =
            decoded.is_ascii_alphanumeric() || matches!(decoded, b'-' | b'.' | b'_' | b'~');
        if byte != b'%' || unreserved {
            out.push(char::from(decoded));
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            out.push('%');
            out.push(char::from(DIGITS[usize::from(decoded >> 4)]));
            out.push(char::from(DIGITS[usize::from(decoded & 15)]));
        }
    }
    Ok(out)
}

/// Merges slashes and resolves dot elements.
fn resolve(path: &str) -> Result<String, BadPath> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path.split('/').skip(1).peekable();
    while let Some(element) = rest.next() {
        let last = rest.peek().is_none();
        match element {
            "" | "." => {}
            ".." => out.truncate(out.rfind('/').unwrap_or(0)),
            _ if element.split(';').next().is_some_and(is_dots) => {
                return Err(BadPath::DotParameter);
            }
            _ => {
                out.push('/');
                out.push_str(element);
                continue;
            }
        }
        if last {
            out.push('/');
        }
    }
    if out.is_empty() {
        out.push('/');
    }
    Ok(out)
}

fn is_dots(name: &str) -> bool {
    matches!(name, "." | "..")
}

pub(super) fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{BadPath, normalise};

    fn check(path: &str, expected: Result<&str, BadPath>) {
        let normal = normalise(path);
        assert_eq!(
            normal.as_deref().map_err(|error| *error),
            expected,
            "{path:?}"
        );
        if let Ok(normal) = normal {
            assert_eq!(
                normalise(&normal).as_deref(),
                Ok(&*normal),
                "{path:?} again"
            );
        }
    }

    #[test]
    fn one_form_for_every_spelling() {
        check("/", Ok("/"));
        check("/a/b", Ok("/a/b"));
        check("/a/b/", Ok("/a/b/"));
        check("/a//b///c", Ok("/a/b/c"));
        check("//", Ok("/"));
        check("/a/./b/../c", Ok("/a/c"));
        check("/a/..", Ok("/"));
        check("/a/b/..", Ok("/a/"));
        check("/../../x", Ok("/x"));
        check("/%2e%2e/x", Ok("/x"));
        check("/a/%2E%2e/b", Ok("/b"));
        check("/%61%7e", Ok("/a~"));
        check("/a%2fb", Ok("/a%2Fb"));
        check("/a%5cb", Ok("/a%5Cb"));
        check("/a\\..\\b", Ok("/b"));
        check("/%252e%252e/x", Ok("/%252e%252e/x"));
        check("/%c3%a4", Ok("/%C3%A4"));
        check("/.hidden/..x", Ok("/.hidden/..x"));
        check("/a;v=1/b", Ok("/a;v=1/b"));
    }

    proptest! {
        /// Whatever comes in: no panic, one form, nothing left that another reader would resolve.
        #[test]
        fn any_path_is_refused_or_normal(path in "(/|%2[eEfF]|%5[cC]|%25|[.;a%\\\\?#\u{0}-\u{ff}])*") {
            if let Ok(normal) = normalise(&path) {
                let again = normalise(&normal);
                prop_assert_eq!(again.as_deref(), Ok(&*normal));
                prop_assert!(normal.starts_with('/') && normal.is_ascii());
                prop_assert!(!normal.contains("//") && !normal.contains('\\') && !normal.contains("%00"));
                prop_assert!(!normal.split('/').any(|element| matches!(element, "." | "..")));
            }
        }
    }

    #[test]
    fn what_two_readers_would_read_differently_is_refused() {
        check("/%00", Err(BadPath::Control));
        check("/a%0d%0ab", Err(BadPath::Control));
        check("/\u{1}", Err(BadPath::Control));
        check("/%zz", Err(BadPath::Escape));
        check("/%4", Err(BadPath::Escape));
        check("/%c0%ae", Err(BadPath::Overlong));
        check("/%e0%80%ae", Err(BadPath::Overlong));
        check("/..;/x", Err(BadPath::DotParameter));
        check("/%2e.;a=b/x", Err(BadPath::DotParameter));
        check("/\u{e4}", Err(BadPath::Raw));
        check("/a b", Err(BadPath::Raw));
        check("a", Err(BadPath::Relative));
        check("", Err(BadPath::Relative));
    }
}
