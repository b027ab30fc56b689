//! Compression of large answers.

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue, VARY};
use http::{HeaderMap, Response};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::body::{Body, whole};

/// Answers from this size on are compressed for who takes it, as in Kubernetes: below, it costs more than it saves.
const GZIP_BYTES_MIN: usize = 128 * 1024;

/// Compresses a large whole answer for a client that takes gzip.
pub(crate) async fn compressed(response: Response<Body>, headers: &HeaderMap) -> Response<Body> {
    let takes_gzip = headers.get_all(ACCEPT_ENCODING).iter().any(|value| {
        let codings = value.to_str().unwrap_or_default().split(',');
        codings.map(str::trim).any(|coding| {
            coding == "gzip" || (coding.starts_with("gzip;") && !coding.ends_with("q=0"))
        })
    });
    let large = response
        .body()
        .size_hint()
        .exact()
        .is_some_and(|bytes| bytes >= GZIP_BYTES_MIN as u64);
    if !takes_gzip || !large || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    match gzip(&body) {
        Ok(packed) => {
            parts
                .headers
                .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            parts
                .headers
                .insert(VARY, HeaderValue::from_static("Accept-Encoding"));
            Response::from_parts(parts, whole(packed))
        }
        Err(error) => {
            tracing::warn!(%error, "an answer could not be compressed");
            Response::from_parts(parts, whole(body))
        }
    }
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(
        Vec::with_capacity(body.len() / 4),
        flate2::Compression::fast(),
    );
    encoder.write_all(body)?;
    encoder.finish()
}
