//! Bodies: read within a limit, write whole or as a stream.

use bytes::{Bytes, BytesMut};
use futures::Stream;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use meshgate_schema::Failure;

/// Bytes of a request's body, as in Kubernetes.
pub(crate) const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// An answer's body. An error cuts the connection, so a cut stream never looks complete.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

pub(crate) fn stream(
    chunks: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
) -> Body {
    use futures::TryStreamExt as _;
    StreamBody::new(chunks.map_ok(Frame::data)).boxed_unsync()
}

/// Reads a request's body.
pub(crate) async fn read<B>(mut body: B) -> Result<Bytes, Failure>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let too_large = || {
        Failure::too_large(format!(
            "Request entity too large: limit is {BODY_BYTES_MAX}"
        ))
    };
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Failure::bad_request(format!("the request's body broke off: {error}"))
        })?;
        let Ok(data) = frame.into_data() else {
            continue; // trailers
        };
        if first.len() + more.len() + data.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        // Most bodies are one frame: no copy for them.
        if first.is_empty() && more.is_empty() {
            first = data;
        } else {
            if more.is_empty() {
                more.extend_from_slice(&std::mem::take(&mut first));
            }
            more.extend_from_slice(&data);
        }
    }
    Ok(if more.is_empty() {
        first
    } else {
        more.freeze()
    })
}
