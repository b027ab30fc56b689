//! hyper's server, in memory: it reads the text, and then the end.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::rt::ReadBufCursor;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

use super::reading::{Field, Read, Reading};

/// Bytes to read; what is written goes nowhere.
struct Text<'t>(&'t [u8]);

impl hyper::rt::Read for Text<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut to: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.0.len().min(to.remaining());
        let (now, later) = self.0.split_at(length);
        to.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Text<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// More than any text here needs; only a server that waits for nothing meets it.
const POLLS_MAX: usize = 100_000;
/// More than our own limit and our own lines.
const FIELDS_MAX: usize = 200;

pub(super) fn read(text: &[u8]) -> Read {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let reading = reading(request).await;
            seen.borrow_mut().push(reading);
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut server = http1::Builder::new();
    // The text's end is no reason to give up what it asked for.
    server
        .half_close(true)
        .max_headers(FIELDS_MAX)
        .header_read_timeout(None);
    let mut connection = pin!(server.serve_connection(Text(text), service));
    let mut context = Context::from_waker(Waker::noop());
    let ended = (0..POLLS_MAX).find_map(|_| match connection.as_mut().poll(&mut context) {
        Poll::Ready(ended) => Some(ended),
        Poll::Pending => None,
    });
    let ended = ended.expect("a server without anything to wait for ends");
    let seen = std::mem::take(&mut *seen.borrow_mut());
    match (ended, seen.is_empty()) {
        (Err(_), true) => Read::Refused,
        // An error behind a request: the text did not end where the request did.
        (Err(problem), false) => Read::Requests(with_rest(seen, &problem.to_string())),
        (Ok(()), _) => Read::Requests(seen),
    }
}

async fn reading(request: Request<Incoming>) -> Reading {
    let (head, body) = request.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes().to_vec(),
        Err(problem) => format!("not whole: {problem}").into_bytes(),
    };
    let host = head.headers.get("host").map(|host| host.as_bytes());
    let named = head.uri.authority().map(|named| named.as_str().as_bytes());
    let fields = head.headers.iter().map(|(name, value)| Field {
        name: name.as_str().to_owned(),
        value: value.as_bytes().to_vec(),
    });
    Reading::new(
        head.method.as_str(),
        &head.uri.to_string(),
        &String::from_utf8_lossy(named.or(host).unwrap_or_default()),
        fields,
        body,
    )
}

fn with_rest(mut seen: Vec<Reading>, problem: &str) -> Vec<Reading> {
    let rest = Reading::new("", problem, "", std::iter::empty(), Vec::new());
    seen.push(rest);
    seen
}
