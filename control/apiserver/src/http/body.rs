//! Bodies: read within a limit, write whole or as a stream.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use meshgate_schema::Failure;

/// Bytes of a request's body, as in Kubernetes.
pub(crate) const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Bytes of a body beyond the limit that are read and forgotten.
const DRAIN_BYTES_MAX: usize = 4 * BODY_BYTES_MAX;
/// Time for that.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

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
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    let mut too_large = body.size_hint().lower() > BODY_BYTES_MAX as u64;
    while !too_large && let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Failure::bad_request(format!("the request's body broke off: {error}"))
        })?;
        let Ok(data) = frame.into_data() else {
            continue; // trailers
        };
        too_large = first.len() + more.len() + data.len() > BODY_BYTES_MAX;
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
    if too_large {
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, drain(&mut body)).await;
        return Err(Failure::too_large(format!(
            "Request entity too large: limit is {BODY_BYTES_MAX}"
        )));
    }
    Ok(if more.is_empty() {
        first
    } else {
        more.freeze()
    })
}

/// Reads on for a while: a client that is still sending would not see an answer on a connection that is cut.
async fn drain<B>(body: &mut B)
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let mut left = DRAIN_BYTES_MAX;
    while left > 0
        && let Some(Ok(frame)) = body.frame().await
    {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
    }
}
