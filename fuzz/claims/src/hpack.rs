//! Header blocks of HTTP/2, one after the other on one connection.

use meshgate_codec::Field;
use meshgate_codec::http2::{Decoder, Encoder};

type Lines = Vec<(Vec<u8>, Vec<u8>)>;

/// Of the tables, as both ends have it by default.
const TABLE_BYTES: usize = 4096;

/// Input: blocks, each behind its length in one byte. What is decoded here, another implementation decodes the same, the
/// tables staying in step; and what is encoded of it both decode the same again.
pub fn hpack(input: &[u8]) {
    let (mut decoder, mut again) = (Decoder::new(TABLE_BYTES), Decoder::new(TABLE_BYTES));
    let (mut other, mut other_again) = (others(), others());
    let mut encoder = Encoder::new();
    let mut rest = input;
    while let Some((length, behind)) = rest.split_first() {
        let (block, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        let Some(lines) = decoded(&mut decoder, block) else {
            // The connection would be over.
            return;
        };
        let theirs = other.decode(block).ok();
        // It takes no block that ends with sizes.
        assert!(theirs.as_ref() == Some(&lines) || lines.is_empty());
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for (name, value) in &lines {
            let field = Field {
                name,
                known: meshgate_codec::Known::find(name),
                value,
                never_indexed: value.len() % 5 == 0,
            };
            encoder.field(field, &mut out);
        }
        let expected: Lines = lines
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect();
        assert_eq!(decoded(&mut again, &out).as_ref(), Some(&expected));
        assert_eq!(other_again.decode(&out).ok(), Some(expected));
    }
}

fn decoded(decoder: &mut Decoder, block: &[u8]) -> Option<Lines> {
    let mut lines = Lines::new();
    let take = |field: meshgate_codec::http2::Decoded<'_>| {
        lines.push((field.name().to_vec(), field.value().to_vec()));
    };
    decoder.decode(block, take).ok()?;
    Some(lines)
}

fn others() -> fluke_hpack::Decoder<'static> {
    let mut other = fluke_hpack::Decoder::new();
    other.set_max_allowed_table_size(TABLE_BYTES);
    other
}
