//! The heads of messages, whatever version they came by.

use thiserror::Error;

use crate::authority::Authority;
use crate::fields::{Fields, Known};
use crate::method::Method;
use crate::target::Target;
use crate::version::Version;

/// What is asked.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct RequestHead {
    /// The first word.
    pub method: Method,
    /// As the peer spoke.
    pub version: Version,
    /// The second word.
    pub target: Target,
    /// All lines.
    pub fields: Fields,
}

/// What is answered. The reason phrase is dropped: nobody may act on it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: u16,
    /// As the peer spoke.
    pub version: Version,
    /// All lines.
    pub fields: Fields,
}

/// Why it is not clear whom a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BadHost {
    /// HTTP/1.1 must have one.
    #[error("no Host")]
    Missing,
    /// Two servers might choose differently.
    #[error("more than one Host")]
    Several,
    /// See [`Authority`].
    #[error("Host is not a host name")]
    Invalid,
    /// Two servers might choose differently.
    #[error("Host and the target's authority differ")]
    Differs,
}

impl RequestHead {
    /// Forgets all; the room stays for the next head.
    pub fn clear(&mut self) {
        self.method = Method::default();
        self.version = Version::default();
        self.target.clear();
        self.fields.clear();
    }

    /// Whom the request is for (RFC 9112 §3.2). `None` only for HTTP/1.0, which need not say it.
    pub fn authority(&self) -> Result<Option<Authority<'_>>, BadHost> {
        let mut hosts = self.fields.all(Known::Host);
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(BadHost::Several);
        }
        let said = match (self.target.authority().map(str::as_bytes), host) {
            (Some(target), Some(host)) if !target.eq_ignore_ascii_case(host) => {
                return Err(BadHost::Differs);
            }
            (Some(_), None) if self.version == Version::Http11 => return Err(BadHost::Missing),
            (Some(said), _) | (None, Some(said)) => said,
            (None, None) if self.version == Version::Http10 => return Ok(None),
            (None, None) => return Err(BadHost::Missing),
        };
        let authority = Authority::parse(said).map_err(|_| BadHost::Invalid)?;
        Ok(Some(authority))
    }

    /// Whether the peer will send another request on this HTTP/1 connection (RFC 9112 §9.3).
    pub fn persists(&self) -> bool {
        persists(self.version, &self.fields)
    }
}

impl ResponseHead {
    /// Forgets all; the room stays for the next head.
    pub fn clear(&mut self) {
        self.status = 0;
        self.version = Version::default();
        self.fields.clear();
    }

    /// An answer before the answer. 101 is none: what follows it is another protocol.
    pub fn is_interim(&self) -> bool {
        matches!(self.status, 100 | 102..=199)
    }

    /// Whether the peer will answer another request on this HTTP/1 connection, provided that the body's end is known
    /// (RFC 9112 §9.3).
    pub fn persists(&self) -> bool {
        persists(self.version, &self.fields)
    }
}

fn persists(version: Version, fields: &Fields) -> bool {
    match version {
        Version::Http10 => {
            fields.has_token(Known::Connection, "keep-alive")
                && !fields.has_token(Known::Connection, "close")
        }
        Version::Http11 | Version::Http2 => !fields.has_token(Known::Connection, "close"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `version|target|field=value|…`
    fn head(text: &str) -> RequestHead {
        let mut head = RequestHead::default();
        let mut parts = text.split('|');
        if parts.next() == Some("1.0") {
            head.version = Version::Http10;
        }
        let target = parts.next().expect("a target");
        if !target.starts_with(['/', 'h']) {
            head.method = Method::Connect;
        }
        head.target
            .read(&head.method, target.as_bytes())
            .expect(text);
        for line in parts {
            let (name, value) = line.split_once('=').expect("name=value");
            head.fields.append(name, value.as_bytes()).expect(text);
        }
        head
    }

    fn check_authority(text: &str, expected: Result<Option<&str>, BadHost>) {
        let head = head(text);
        let found = head.authority();
        assert_eq!(
            found.map(|found| found.map(|found| found.as_str().to_owned())),
            expected.map(|expected| expected.map(str::to_owned)),
            "{text}"
        );
    }

    #[test]
    fn a_request_is_for_one_host() {
        check_authority("1.1|/|host=a.test:80", Ok(Some("a.test:80")));
        check_authority("1.1|/", Err(BadHost::Missing));
        check_authority("1.0|/", Ok(None));
        check_authority("1.0|/|host=a", Ok(Some("a")));
        check_authority("1.1|/|host=a|host=a", Err(BadHost::Several));
        check_authority("1.1|/|host=a,b", Err(BadHost::Invalid));
        check_authority("1.1|/|host=", Err(BadHost::Invalid));
        check_authority("1.1|/|host=u@a", Err(BadHost::Invalid));
        check_authority("1.1|http://a.test/|host=A.test", Ok(Some("a.test")));
        check_authority("1.1|http://a.test/|host=b.test", Err(BadHost::Differs));
        check_authority("1.1|http://a.test/", Err(BadHost::Missing));
        check_authority("1.0|http://a.test/", Ok(Some("a.test")));
        check_authority("1.1|a:443|host=a:443", Ok(Some("a:443")));
        check_authority("1.1|a:443|host=a", Err(BadHost::Differs));
    }

    #[test]
    fn who_closes() {
        let check = |text: &str, expected: bool| {
            assert_eq!(head(text).persists(), expected, "{text}");
        };
        check("1.1|/", true);
        check("1.1|/|connection=Close", false);
        check("1.1|/|connection=x|connection=y, close", false);
        check("1.1|/|connection=closed", true);
        check("1.0|/", false);
        check("1.0|/|connection=Keep-Alive", true);
        check("1.0|/|connection=keep-alive, close", false);
    }
}
