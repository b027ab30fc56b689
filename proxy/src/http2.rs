//! What the HTTP/2 library names and carries, in our words and back.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body;
use meshgate_codec::{Field, Fields, Known};

use crate::body::{BodyError, Frame, RequestBody, ResponseBody};
use crate::headers::set;

/// Fields as they came.
pub(crate) fn to_fields(headers: &HeaderMap) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in headers {
        // The library has judged both.
        let _ = fields.append(name.as_str(), value.as_bytes());
    }
    fields
}

/// HTTP/2 may split Cookie into crumbs; HTTP/1 has one line (RFC 9113 §8.2.3).
pub(crate) fn join_cookies(fields: &mut Fields) {
    if fields.count(Known::Cookie) < 2 {
        return;
    }
    let crumbs: Vec<&[u8]> = fields.all(Known::Cookie).collect();
    let joined = crumbs.join(&b"; "[..]);
    set(fields, Known::Cookie, &joined);
}

/// Fields as the library wants them. What HTTP/2 cannot say is left out.
pub(crate) fn to_header_map(fields: &Fields) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for Field { name, value, .. } in fields.iter() {
        let name = HeaderName::from_bytes(name);
        let value = HeaderValue::from_bytes(value);
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

/// The next piece of a body.
pub(crate) fn poll_frame(
    incoming: &mut hyper::body::Incoming,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame, BodyError>>> {
    let frame = match ready!(Pin::new(incoming).poll_frame(cx)) {
        None => return Poll::Ready(None),
        Some(Err(error)) => {
            return Poll::Ready(Some(Err(BodyError::Cut(error.to_string().into()))));
        }
        Some(Ok(frame)) => frame,
    };
    Poll::Ready(Some(Ok(match frame.into_data() {
        Ok(data) => Frame::Data(data),
        Err(frame) => {
            let trailers = frame.into_trailers().unwrap_or_default();
            Frame::Trailers(to_fields(&trailers))
        }
    })))
}

fn to_library(
    frame: Option<Result<Frame, BodyError>>,
) -> Option<Result<http_body::Frame<Bytes>, BodyError>> {
    Some(frame?.map(|frame| match frame {
        Frame::Data(data) => http_body::Frame::data(data),
        Frame::Trailers(trailers) => http_body::Frame::trailers(to_header_map(&trailers)),
    }))
}

fn size_hint(length: Option<u64>) -> http_body::SizeHint {
    length.map_or_else(Default::default, http_body::SizeHint::with_exact)
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        Self::poll_frame(self.get_mut(), cx).map(to_library)
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        size_hint(self.length())
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        Self::poll_frame(self.get_mut(), cx).map(to_library)
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        size_hint(self.length())
    }
}
