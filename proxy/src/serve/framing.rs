//! Where messages of an HTTP/1 connection begin and end, strictly (RFC 9112). Pure: bytes in, verdict out.
//!
//! Runs before the HTTP library sees a byte. What two servers could read as two different requests is refused here.

use super::chunked::Chunked;
use crate::failure::Reason;
use crate::listen::{HEAD_BYTES_MAX, HEADERS_MAX};

/// Follows the requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Framer {
    phase: Phase,
    /// The beginning of a head that is not complete yet.
    head: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests.
    #[default]
    Idle,
    /// Within a head.
    Head,
    /// Bytes of a body that are still to come.
    Length(u64),
    Chunked(Chunked),
    /// After a request to change the protocol, until its answer.
    Asking,
    /// The protocol was changed: anything goes.
    Open,
}

/// What becomes of bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// All were accepted.
    More,
    /// The rest must wait for an answer.
    Hold,
    /// The rest, and the connection, are refused.
    Fault(Fault),
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Bad(&'static str),
    HeadTooLarge,
}

impl Fault {
    /// As in `Meshgate-Reason`.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Bad(_) => Reason::BadRequest.as_str(),
            Self::HeadTooLarge => Reason::HeadersTooLarge.as_str(),
        }
    }
}

impl Framer {
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// The answer to a request to change the protocol.
    pub(super) fn answered(&mut self, changed: bool) {
        if self.phase == Phase::Asking {
            self.phase = if changed { Phase::Open } else { Phase::Idle };
        }
    }

    /// Looks at further bytes; says how many of them may pass and what then.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> (usize, Then) {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self.phase {
                Phase::Open => return (bytes.len(), Then::More),
                Phase::Asking => return (at, Then::Hold),
                Phase::Idle | Phase::Head => match self.feed_head(rest) {
                    Ok(taken) => at += taken,
                    Err(fault) => return (at, Then::Fault(fault)),
                },
                Phase::Length(left) => {
                    let taken = left.min(rest.len() as u64);
                    at += taken as usize;
                    self.phase = match left - taken {
                        0 => Phase::Idle,
                        left => Phase::Length(left),
                    };
                }
                Phase::Chunked(mut chunked) => match chunked.feed(rest) {
                    Ok((taken, ended)) => {
                        at += taken;
                        self.phase = if ended {
                            Phase::Idle
                        } else {
                            Phase::Chunked(chunked)
                        };
                    }
                    Err(why) => return (at, Then::Fault(Fault::Bad(why))),
                },
            }
        }
        (at, Then::More)
    }

    /// Takes bytes up to the end of the head, if it is there.
    fn feed_head(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let before = self.head.len();
        // The end may lie across the border of two reads.
        let from = before.saturating_sub(3);
        self.head.extend_from_slice(bytes);
        // Empty lines before a request are skipped by everybody (RFC 9112 §2.2), but not for ever.
        let blank = self
            .head
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'));
        if blank.count() > 4 {
            return Err(Fault::Bad("empty lines instead of a request"));
        }
        let end = find_end(&self.head, from);
        // Before anything is passed on: the library would take a bare LF for the end of a line, and of a head.
        if !ends_lines_with_crlf(
            &self.head[before.saturating_sub(1)..end.unwrap_or(self.head.len())],
        ) {
            return Err(Fault::Bad("a line does not end with CR LF"));
        }
        let Some(end) = end else {
            if self.head.len() > HEAD_BYTES_MAX {
                return Err(Fault::HeadTooLarge);
            }
            self.phase = Phase::Head;
            return Ok(bytes.len());
        };
        if end > HEAD_BYTES_MAX {
            return Err(Fault::HeadTooLarge);
        }
        let head = std::mem::take(&mut self.head);
        self.phase = judge(&head[..end])?;
        Ok(end - before)
    }
}

/// The position after the empty line that ends a head.
fn find_end(head: &[u8], from: usize) -> Option<usize> {
    let start = head
        .iter()
        .take(4)
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    let from = from.max(start);
    head.get(from..)?
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|position| from + position + 4)
}

/// No CR without LF and no LF without CR, but for what the next bytes may complete.
fn ends_lines_with_crlf(bytes: &[u8]) -> bool {
    bytes
        .windows(2)
        .all(|pair| (pair[0] == b'\r') == (pair[1] == b'\n'))
}

/// What follows a complete head.
fn judge(head: &[u8]) -> Result<Phase, Fault> {
    let bad = |why| Err(Fault::Bad(why));
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return bad("the head is incomplete"),
        Err(httparse::Error::TooManyHeaders) => return Err(Fault::HeadTooLarge),
        Err(httparse::Error::Version) => return bad("the HTTP version is not supported"),
        Err(_) => return bad("the head is malformed"),
    }
    let http11 = request.version == Some(1);
    let mut length = None;
    let mut chunked = false;
    let mut upgrade = false;
    for field in request.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            let value =
                content_length(field.value).ok_or(Fault::Bad("Content-Length is no number"))?;
            if length.replace(value).is_some() {
                return bad("more than one Content-Length");
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked || !field.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return bad("Transfer-Encoding is not chunked");
            }
            chunked = true;
        } else if field.name.eq_ignore_ascii_case("upgrade") {
            upgrade = true;
        }
    }
    match (length, chunked) {
        (Some(_), true) => bad("both Content-Length and Transfer-Encoding"),
        (None, true) if !http11 => bad("Transfer-Encoding in HTTP/1.0"),
        (None, true) => Ok(Phase::Chunked(Chunked::default())),
        (Some(length), false) if length > 0 => Ok(Phase::Length(length)),
        _ if upgrade => Ok(Phase::Asking),
        _ => Ok(Phase::Idle),
    }
}

/// Digits and nothing else (RFC 9110 §8.6).
fn content_length(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds the text whole, and byte by byte: both must end the same way.
    fn check(text: &str, expected: Result<Phase, &str>) {
        for size in [text.len(), 1, 3] {
            let mut framer = Framer::default();
            let mut fault = None;
            for part in text.as_bytes().chunks(size.max(1)) {
                if let (_, Then::Fault(Fault::Bad(why))) = framer.feed(part) {
                    fault = Some(why);
                    break;
                }
            }
            let found = fault.map_or(Ok(framer.phase()), Err);
            assert_eq!(found, expected, "{text:?} in parts of {size}");
        }
    }

    #[test]
    fn well_formed_requests_end_where_they_end() {
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(Phase::Idle));
        check("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(Phase::Idle));
        check("GET / HTTP/1.1\r\nHost: a\r\n", Ok(Phase::Head));
        check(
            "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab",
            Ok(Phase::Length(3)),
        );
        check(
            "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nabGET / HTTP/1.1\r\n\r\n",
            Ok(Phase::Idle),
        );
        check(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n",
            Ok(Phase::Idle),
        );
        check(
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\nX-T: 1\r\n\r\nGET",
            Ok(Phase::Head),
        );
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        let head = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let no_number = "Content-Length is no number";
        let not_chunked = "Transfer-Encoding is not chunked";
        for (fields, why) in [
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                "both Content-Length and Transfer-Encoding",
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                "both Content-Length and Transfer-Encoding",
            ),
            (
                "Content-Length: 5\r\nContent-Length: 5\r\n",
                "more than one Content-Length",
            ),
            ("Content-Length: +5\r\n", no_number),
            ("Content-Length: 5,5\r\n", no_number),
            ("Content-Length: 0x5\r\n", no_number),
            ("Content-Length: 99999999999999999999\r\n", no_number),
            ("Content-Length:\r\n", no_number),
            ("Transfer-Encoding: xchunked\r\n", not_chunked),
            ("Transfer-Encoding: chunked, gzip\r\n", not_chunked),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                not_chunked,
            ),
            ("X: a\r\n b\r\n", "the head is malformed"),
            ("X : a\r\n", "the head is malformed"),
            ("X: a\nY: b\r\n", "a line does not end with CR LF"),
            ("X: a\rb\r\n", "a line does not end with CR LF"),
            ("X: a\0b\r\n", "the head is malformed"),
        ] {
            check(&head(fields), Err(why));
        }
        check(
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            Err("Transfer-Encoding in HTTP/1.0"),
        );
        check("\r\n\r\n\r\n\r\n", Err("empty lines instead of a request"));
    }

    /// Everything that may pass of these bytes, and the fault if there is one.
    fn passed(text: &[u8], sizes: &[usize]) -> (usize, Option<Fault>) {
        let mut framer = Framer::default();
        let mut rest = text;
        let mut total = 0;
        let mut sizes = sizes.iter().cycle();
        while !rest.is_empty() {
            let size = sizes.next().map_or(1, |size| size + 1).min(rest.len());
            let (taken, then) = framer.feed(&rest[..size]);
            total += taken;
            match then {
                Then::Fault(fault) => return (total, Some(fault)),
                Then::Hold => framer.answered(false),
                Then::More => {}
            }
            rest = &rest[taken..];
        }
        (total, None)
    }

    proptest! {
        /// Any bytes: no panic. Where reads end makes no difference to the verdict, and whatever is refused was never
        /// passed on when it came in one read.
        #[test]
        fn reads_may_end_anywhere(
            parts in prop::collection::vec(prop_oneof![
                Just("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
                Just("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"),
                Just("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
                Just("GET / HTTP/1.1\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
                Just("Content-Length: 3\r\n"), Just("3;a=b\r\nabc\r\n"), Just("0\r\n\r\n"),
                Just("\r\n"), Just("\n"), Just("\r"), Just("\0"), Just("x"), Just(" "), Just(":"),
            ], 0..12),
            sizes in prop::collection::vec(0_usize..9, 1..5),
        ) {
            let text = parts.concat();
            let (whole, fault) = passed(text.as_bytes(), &[text.len()]);
            let (split, other) = passed(text.as_bytes(), &sizes);
            // Which of two faults is met first may depend on where reads end; that there is one may not.
            prop_assert_eq!(fault.is_some(), other.is_some(), "{:?}", text);
            prop_assert!(split >= whole);
        }
    }

    #[test]
    fn a_change_of_protocol_holds_what_follows() {
        let text = b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nearly";
        let mut framer = Framer::default();
        assert_eq!(framer.feed(text), (text.len() - 5, Then::Hold));
        framer.answered(true);
        assert_eq!(framer.feed(b"early"), (5, Then::More));
    }
}
