//! How long a body is (RFC 9112 §6). Fails closed: what two servers could read as two lengths is refused, even where
//! the RFC would let a reader repair it.

use thiserror::Error;

use crate::content_length::BadLength;
use crate::fields::{Fields, Known};
use crate::head::{RequestHead, ResponseHead};
use crate::method::Method;
use crate::version::Version;

/// What follows the head.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Framing {
    /// Nothing.
    None,
    /// Nothing, but `Content-Length` says how long it would be: answers to HEAD, and 304.
    Announced(u64),
    /// So many bytes.
    Length(u64),
    /// Chunks: see [`Decoder`](super::Decoder).
    Chunked,
    /// All until the peer closes; responses only.
    UntilClose,
}

/// Why it is not clear how long a body is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum BadFraming {
    /// The classic way to smuggle a request.
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// Refused even if they agree.
    #[error("more than one Content-Length")]
    Lengths,
    /// Other than digits, or too many of them.
    #[error("Content-Length is no number")]
    Length,
    /// Other than exactly `chunked`.
    #[error("Transfer-Encoding is not chunked")]
    Coding,
    /// HTTP/1.0 does not know it.
    #[error("Transfer-Encoding outside of HTTP/1.1")]
    CodingVersion,
    /// 1xx, 204, and a successful answer to CONNECT have none.
    #[error("a body where none may be")]
    Forbidden,
}

impl From<BadLength> for BadFraming {
    fn from(error: BadLength) -> Self {
        match error {
            BadLength::Several => Self::Lengths,
            BadLength::NoNumber => Self::Length,
        }
    }
}

/// Of a request (RFC 9112 §6.3).
#[inline]
pub fn request_framing(head: &RequestHead) -> Result<Framing, BadFraming> {
    Ok(match said(head.version, &head.fields)? {
        Said::Nothing => Framing::None,
        Said::Length(length) => Framing::Length(length),
        Said::Chunked => Framing::Chunked,
    })
}

/// Of a response to a request with this method (RFC 9112 §6.3).
#[inline]
pub fn response_framing(head: &ResponseHead, method: &Method) -> Result<Framing, BadFraming> {
    let said = said(head.version, &head.fields)?;
    let connected = *method == Method::Connect && (200..300).contains(&head.status);
    match (head.status, said) {
        (100..=199 | 204, Said::Nothing | Said::Length(0)) => Ok(Framing::None),
        (100..=199 | 204, _) => Err(BadFraming::Forbidden),
        (_, Said::Nothing) if connected => Ok(Framing::None),
        _ if connected => Err(BadFraming::Forbidden),
        (304, said) => Ok(announced(said)),
        (_, said) if *method == Method::Head => Ok(announced(said)),
        (_, Said::Nothing) => Ok(Framing::UntilClose),
        (_, Said::Length(length)) => Ok(Framing::Length(length)),
        (_, Said::Chunked) => Ok(Framing::Chunked),
    }
}

fn announced(said: Said) -> Framing {
    match said {
        Said::Length(length) => Framing::Announced(length),
        Said::Nothing | Said::Chunked => Framing::None,
    }
}

/// What the fields say, whatever the message is.
enum Said {
    Nothing,
    Length(u64),
    Chunked,
}

#[inline]
fn said(version: Version, fields: &Fields) -> Result<Said, BadFraming> {
    let coded = fields.contains(Known::TransferEncoding);
    match (fields.contains(Known::ContentLength), coded) {
        (false, false) => Ok(Said::Nothing),
        (true, true) => Err(BadFraming::LengthAndCoding),
        (true, false) => Ok(fields.content_length()?.map_or(Said::Nothing, Said::Length)),
        (false, true) if version != Version::Http11 => Err(BadFraming::CodingVersion),
        (false, true) => {
            let mut codings = fields.all(Known::TransferEncoding);
            match (codings.next(), codings.next()) {
                (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => {
                    Ok(Said::Chunked)
                }
                _ => Err(BadFraming::Coding),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        match text {
            "1.0" => Version::Http10,
            "1.1" => Version::Http11,
            _ => Version::Http2,
        }
    }

    fn fields(text: &str) -> Fields {
        let mut fields = Fields::default();
        for line in text.split('|').filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once('=').expect("name=value");
            let name = match name {
                "CL" => "Content-Length",
                "TE" => "Transfer-Encoding",
                other => other,
            };
            fields.append(name, value.as_bytes()).expect(line);
        }
        fields
    }

    fn check_request(text: &str, expected: Result<Framing, BadFraming>) {
        let (number, lines) = text.split_once(' ').expect("version and lines");
        let head = RequestHead {
            version: version(number),
            fields: fields(lines),
            ..RequestHead::default()
        };
        assert_eq!(request_framing(&head), expected, "{text:?}");
        // A GET's answer is as strict; only the end of the connection is one more way to end.
        let head = ResponseHead {
            version: version(number),
            fields: fields(lines),
            status: 200,
        };
        let expected = match expected {
            Ok(Framing::None) => Ok(Framing::UntilClose),
            other => other,
        };
        let found = response_framing(&head, &Method::Get);
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn lengths_and_codings_are_exact() {
        check_request("1.1 ", Ok(Framing::None));
        check_request("1.1 CL=0", Ok(Framing::Length(0)));
        check_request("1.1 CL= 005", Ok(Framing::Length(5)));
        let most = 9_999_999_999_999_999_999;
        check_request("1.0 CL=9999999999999999999", Ok(Framing::Length(most)));
        check_request("1.1 TE=chunked", Ok(Framing::Chunked));
        check_request("1.1 te=Chunked", Ok(Framing::None));
        check_request("1.1 TE=Chunked", Ok(Framing::Chunked));
        for both in ["CL=5|TE=chunked", "TE=chunked|CL=5", "TE=x|CL=x"] {
            check_request(&format!("1.1 {both}"), Err(BadFraming::LengthAndCoding));
        }
        check_request("1.1 CL=5|CL=5", Err(BadFraming::Lengths));
        check_request("1.1 CL=5|x=y|CL=6", Err(BadFraming::Lengths));
        for bad in [
            "",
            "+5",
            "-5",
            "5,5",
            "5, 5",
            "0x5",
            "5 5",
            "5.0",
            "1e3",
            "\u{665}",
            "18446744073709551616",
            "99999999999999999999",
        ] {
            check_request(&format!("1.1 CL={bad}"), Err(BadFraming::Length));
        }
        for bad in [
            "",
            "xchunked",
            "chunked, gzip",
            "gzip, chunked",
            "chunked, chunked",
            "identity",
            "chunked;a=b",
            "\"chunked\"",
            "chunked|TE=chunked",
            "chunked,",
            "gzip|TE=chunked",
        ] {
            check_request(&format!("1.1 TE={bad}"), Err(BadFraming::Coding));
        }
        check_request("1.0 TE=chunked", Err(BadFraming::CodingVersion));
        check_request("2 TE=chunked", Err(BadFraming::CodingVersion));
    }

    fn check_response(text: &str, expected: Result<Framing, BadFraming>) {
        let mut words = text.splitn(3, ' ');
        let method = words.next().expect("a method");
        let head = ResponseHead {
            status: words.next().and_then(|w| w.parse().ok()).expect("a status"),
            version: Version::Http11,
            fields: fields(words.next().unwrap_or_default()),
        };
        let method = Method::parse(method.as_bytes()).expect("a method");
        assert_eq!(response_framing(&head, &method), expected, "{text:?}");
    }

    #[test]
    fn some_answers_have_no_body() {
        for status in [100, 101, 103, 204] {
            check_response(&format!("GET {status}"), Ok(Framing::None));
            check_response(&format!("GET {status} CL=0"), Ok(Framing::None));
            for bad in ["CL=1", "TE=chunked"] {
                let text = format!("GET {status} {bad}");
                check_response(&text, Err(BadFraming::Forbidden));
            }
        }
        check_response("HEAD 200 CL=7", Ok(Framing::Announced(7)));
        check_response("HEAD 200 TE=chunked", Ok(Framing::None));
        check_response("HEAD 200", Ok(Framing::None));
        check_response("HEAD 200 CL=7|CL=8", Err(BadFraming::Lengths));
        check_response("HEAD 204 CL=7", Err(BadFraming::Forbidden));
        check_response("GET 304 CL=7", Ok(Framing::Announced(7)));
        check_response("GET 304", Ok(Framing::None));
        check_response("CONNECT 200", Ok(Framing::None));
        check_response("CONNECT 200 CL=0", Err(BadFraming::Forbidden));
        check_response("CONNECT 200 TE=chunked", Err(BadFraming::Forbidden));
        check_response("CONNECT 407 CL=7", Ok(Framing::Length(7)));
        check_response("GET 205", Ok(Framing::UntilClose));
        check_response("GET 999 CL=7", Ok(Framing::Length(7)));
    }
}
