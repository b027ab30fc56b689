//! Bodies in chunks.

use std::num::NonZeroUsize;

use meshgate_codec::Fields;
use meshgate_codec::http1::{
    BadChunk, CHUNK_END, Decoder, StepKind, clean_trailers, encode_chunk_head, encode_last,
};

use crate::parts;

/// One body and one verdict wherever reads end; what is decoded is decoded the same after it was written.
pub fn chunked(input: &[u8]) {
    let whole = Decoded::of([input]);
    for ends in parts::ways(input) {
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let parts = starts.zip(&ends).map(|(from, to)| &input[from..*to]);
        assert_eq!(Decoded::of(parts), whole);
    }
    if whole.verdict == Ok(true) {
        assert!(whole.consumed <= input.len());
        same_when_written(&whole);
    }
}

/// What became of a body.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Decoded {
    pub(crate) data: Vec<u8>,
    pub(crate) trailers: Fields,
    /// Bytes up to the end of the body, or of what is there.
    pub(crate) consumed: usize,
    /// Whether the end was seen.
    pub(crate) verdict: Result<bool, BadChunk>,
}

impl Decoded {
    pub(crate) fn of<'i>(parts: impl IntoIterator<Item = &'i [u8]>) -> Self {
        let mut decoder = Decoder::default();
        let mut decoded = Self {
            data: Vec::new(),
            trailers: Fields::default(),
            consumed: 0,
            verdict: Ok(false),
        };
        for part in parts {
            decoded.verdict = decoded.take(&mut decoder, part);
            if decoded.verdict != Ok(false) {
                break;
            }
        }
        assert_eq!(decoder.is_ended(), decoded.verdict == Ok(true));
        match decoded.verdict {
            Ok(_) => decoded.trailers = decoder.trailers().clone(),
            // How far it came in the part with the mistake is nobody's business.
            Err(_) => decoded.consumed = 0,
        }
        decoded
    }

    fn take(&mut self, decoder: &mut Decoder, part: &[u8]) -> Result<bool, BadChunk> {
        let mut rest = part;
        loop {
            let step = decoder.decode(rest)?;
            let (seen, behind) = rest.split_at(step.consumed);
            self.consumed += step.consumed;
            match step.kind {
                StepKind::Data(place) => {
                    assert!(!place.is_empty() && place.end <= seen.len());
                    self.data.extend_from_slice(&seen[place]);
                }
                StepKind::End => return Ok(true),
                StepKind::More => {
                    assert!(behind.is_empty(), "all is consumed when more is needed");
                    return Ok(false);
                }
            }
            rest = behind;
        }
    }
}

/// A written line has a space behind its colon: with many trailers just below the limit it is over it.
const TRAILERS_BYTES_SAFE: usize = 15 * 1024;

fn same_when_written(body: &Decoded) {
    let mut out = Vec::new();
    for (size, chunk) in body.data.chunks(13).enumerate() {
        // Of sizes one after the other, so that there are some with a digit more.
        for part in chunk.chunks(size % 13 + 1) {
            let length = NonZeroUsize::new(part.len()).expect("chunks of a slice are not empty");
            encode_chunk_head(length, &mut out);
            out.extend_from_slice(part);
            out.extend_from_slice(CHUNK_END);
        }
    }
    let mut trailers = body.trailers.clone();
    clean_trailers(&mut trailers);
    if trailers.bytes() > TRAILERS_BYTES_SAFE {
        return;
    }
    encode_last(Some(&trailers), &mut out);
    let expected = Decoded {
        data: body.data.clone(),
        trailers,
        consumed: out.len(),
        verdict: Ok(true),
    };
    // What comes behind is another message.
    out.extend_from_slice(b"GET");
    assert_eq!(Decoded::of([&out[..]]), expected);
}
