//! The target of a request: what stands behind the method (RFC 9112 §3.2).

use thiserror::Error;

use crate::authority::Authority;
use crate::method::Method;
use crate::octets;

/// A target in one reusable text.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Target {
    text: String,
    shape: Shape,
}

/// Where the parts are in the text.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Shape {
    #[default]
    Origin,
    Absolute {
        scheme_end: usize,
        authority_end: usize,
    },
    Authority,
    Asterisk,
}

/// The four forms, with their parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form<'a> {
    /// `/path?query`
    Origin(&'a str),
    /// `scheme://authority/path?query`, as sent to proxies.
    Absolute {
        /// `http` or `https`, in the case it came in.
        scheme: &'a str,
        /// Judged: see [`Authority`].
        authority: &'a str,
        /// Starts with `/`, even where the sender left it out.
        path_and_query: &'a str,
    },
    /// `host:port`, for `CONNECT` only.
    Authority(&'a str),
    /// `*`, for `OPTIONS` only.
    Asterisk,
}

/// Why a target is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BadTarget {
    /// Something other than visible ASCII, or a fragment, or nothing at all.
    #[error("the target has a byte that does not belong there")]
    Byte,
    /// None of the four forms, or not with this method.
    #[error("the target has no form that goes with the method")]
    Form,
    /// Neither `http` nor `https`.
    #[error("the target's scheme is not HTTP")]
    Scheme,
    /// The authority is none.
    #[error("the target's authority is not a host with an optional port")]
    Authority,
}

impl Target {
    /// Forgets the text; its room stays.
    pub fn clear(&mut self) {
        self.text.clear();
        self.shape = Shape::Origin;
    }

    /// Takes the bytes that stand in a request line or in `:path`. After an error nothing is kept.
    pub fn read(&mut self, method: &Method, bytes: &[u8]) -> Result<(), BadTarget> {
        self.clear();
        if !octets::is_target(bytes) {
            return Err(BadTarget::Byte);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| BadTarget::Byte)?;
        match (method, bytes) {
            (Method::Connect, _) => {
                let authority = Authority::parse(bytes).map_err(|_| BadTarget::Authority)?;
                authority.port().ok_or(BadTarget::Authority)?;
                self.text.push_str(text);
                self.shape = Shape::Authority;
            }
            (_, [b'/', ..]) => self.text.push_str(text),
            (Method::Options, b"*") => {
                self.text.push_str(text);
                self.shape = Shape::Asterisk;
            }
            _ => self.read_absolute(text)?,
        }
        Ok(())
    }

    fn read_absolute(&mut self, text: &str) -> Result<(), BadTarget> {
        let (scheme, rest) = text.split_once("://").ok_or(BadTarget::Form)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(BadTarget::Scheme);
        }
        let length = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(length).ok_or(BadTarget::Form)?;
        Authority::parse(authority.as_bytes()).map_err(|_| BadTarget::Authority)?;
        self.text.push_str(scheme);
        self.text.push_str("://");
        self.text.push_str(authority);
        self.shape = Shape::Absolute {
            scheme_end: scheme.len(),
            authority_end: self.text.len(),
        };
        if !path.starts_with('/') {
            self.text.push('/');
        }
        self.text.push_str(path);
        Ok(())
    }

    /// The whole.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The form, with its parts.
    pub fn form(&self) -> Form<'_> {
        let part = |from: usize, to: usize| self.text.get(from..to).unwrap_or_default();
        match self.shape {
            Shape::Origin => Form::Origin(&self.text),
            Shape::Absolute {
                scheme_end,
                authority_end,
            } => Form::Absolute {
                scheme: part(0, scheme_end),
                authority: part(scheme_end + 3, authority_end),
                path_and_query: part(authority_end, self.text.len()),
            },
            Shape::Authority => Form::Authority(&self.text),
            Shape::Asterisk => Form::Asterisk,
        }
    }

    /// What is forwarded in origin form; `None` for the forms without a path.
    pub fn path_and_query(&self) -> Option<&str> {
        match self.form() {
            Form::Origin(path_and_query) | Form::Absolute { path_and_query, .. } => {
                Some(path_and_query)
            }
            Form::Authority(_) | Form::Asterisk => None,
        }
    }

    /// The authority that stands in the target itself.
    pub fn authority(&self) -> Option<&str> {
        match self.form() {
            Form::Absolute { authority, .. } | Form::Authority(authority) => Some(authority),
            Form::Origin(_) | Form::Asterisk => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BadTarget, Form, Target};
    use crate::Method;

    fn check(request: &str, expected: Result<Form<'_>, BadTarget>) {
        let (method, text) = request.split_once(' ').expect("method and target");
        let method = Method::parse(method.as_bytes()).expect("a method");
        // What was there before must not shine through.
        let mut target = Target::default();
        target
            .read(&Method::Get, b"http://old.test/old")
            .expect("an old target");
        let found = target.read(&method, text.as_bytes());
        assert_eq!(found.map(|()| target.form()), expected, "{request}");
        if expected.is_err() {
            assert_eq!(target, Target::default(), "{request}");
        }
    }

    #[test]
    fn each_form_goes_with_its_methods() {
        let absolute = |scheme, authority, path_and_query| {
            Ok(Form::Absolute {
                scheme,
                authority,
                path_and_query,
            })
        };
        check("GET /", Ok(Form::Origin("/")));
        check("GET /a?b=http://c", Ok(Form::Origin("/a?b=http://c")));
        check("OPTIONS *", Ok(Form::Asterisk));
        check("GET *", Err(BadTarget::Form));
        check("GET http://a.test", absolute("http", "a.test", "/"));
        check("GET HTTPS://a:8/b?c", absolute("HTTPS", "a:8", "/b?c"));
        check("GET http://a.test?q", absolute("http", "a.test", "/?q"));
        check("GET http://", Err(BadTarget::Authority));
        check("GET http://u@a/", Err(BadTarget::Authority));
        check("GET http:///b", Err(BadTarget::Authority));
        check("GET ftp://a/", Err(BadTarget::Scheme));
        check("GET a.test:80", Err(BadTarget::Form));
        check("GET a/b", Err(BadTarget::Form));
        check("CONNECT a.test:443", Ok(Form::Authority("a.test:443")));
        check("CONNECT a.test", Err(BadTarget::Authority));
        check("CONNECT /", Err(BadTarget::Authority));
        check("CONNECT http://a.test:443/", Err(BadTarget::Authority));
        for bad in ["", "/a#b", "/a b", "/\u{e4}", "/\t", "/\0", "/\x7f", "/\r"] {
            check(&format!("GET {bad}"), Err(BadTarget::Byte));
        }
    }
}
