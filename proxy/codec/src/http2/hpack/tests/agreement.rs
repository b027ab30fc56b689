//! Two ends agree whatever happens, and so does an implementation that has nothing in common with ours.

use proptest::prelude::*;

use super::super::*;
use crate::fields::Field;

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec!["accept", "Server", "x-a", "X-Own", "cookie", "date"])
            .prop_map(str::to_owned),
        "[a-zA-Z0-9-]{1,12}",
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let few = prop::sample::select(vec!["", "a", "text/html", "gzip, br", "1; 2"]);
    prop_oneof![
        3 => few.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ]
}

/// Names, values, and which are never to be indexed.
type Block = Vec<(String, Vec<u8>, bool)>;

/// A block of fields, maybe after the peer has said how large the table may be.
fn block() -> impl Strategy<Value = (Option<usize>, Block)> {
    let limit = prop::option::weighted(0.2, prop_oneof![0..200_usize, 0..5000_usize]);
    let field = (name(), value(), prop::bool::weighted(0.1));
    (limit, prop::collection::vec(field, 0..20))
}

/// Parts of blocks, most of them well-formed.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let literal = |first: u8, (name, value): (Vec<u8>, Vec<u8>), coded: bool| {
        let mut out = vec![first];
        for text in [name, value] {
            let mut string = text;
            if coded {
                let plain = std::mem::take(&mut string);
                huffman::encode(&plain, &mut string);
            }
            integer::write(u8::from(coded) << 7, 7, string.len(), &mut out);
            out.extend(string);
        }
        out
    };
    let texts = (
        prop::collection::vec(any::<u8>(), 0..20),
        prop::collection::vec(any::<u8>(), 0..200),
    );
    let first = prop::sample::select(vec![0x40, 0x40, 0, 0x10]);
    prop_oneof![
        4 => (0x80..=0xc8_u8).prop_map(|index| vec![index]),
        4 => (first, texts, any::<bool>()).prop_map(move |(f, t, c)| literal(f, t, c)),
        2 => (0x41..=0x48_u8).prop_map(|index| vec![index, 1, b'a']),
        1 => (0x20..=0x3f_u8).prop_map(|size| vec![size, 1]),
        1 => prop::collection::vec(any::<u8>(), 0..10),
    ]
}

/// Reads a block by an implementation that has nothing in common with ours.
fn oracle(decoder: &mut fluke_hpack::Decoder<'_>, block: &[u8]) -> Option<Texts> {
    decoder.decode(block).ok()
}

type Texts = Vec<(Vec<u8>, Vec<u8>)>;

fn ours(decoder: &mut Decoder, block: &[u8]) -> Result<Texts, BadBlock> {
    let mut fields = Vec::new();
    decoder.decode(block, |field| {
        fields.push((field.name().to_vec(), field.value().to_vec()));
    })?;
    Ok(fields)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn what_is_written_is_read(blocks in prop::collection::vec(block(), 1..30)) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
        let mut witness = fluke_hpack::Decoder::new();
        witness.set_max_allowed_table_size(4096);
        for (limit, fields) in blocks {
            if let Some(limit) = limit {
                encoder.limit_table(limit);
            }
            let mut out = Vec::new();
            encoder.begin(&mut out);
            for (name, value, never_indexed) in &fields {
                let known = Known::find(name.as_bytes());
                let (name, never_indexed) = (name.as_bytes(), *never_indexed);
                encoder.field(Field { name, known, value, never_indexed }, &mut out);
            }
            let expected: Texts = fields
                .into_iter()
                .map(|(name, value, _)| (name.to_ascii_lowercase().into_bytes(), value))
                .collect();
            let told = oracle(&mut witness, &out);
            // It takes no block of sizes alone.
            prop_assert!(told.as_ref() == Some(&expected) || expected.is_empty());
            prop_assert_eq!(ours(&mut decoder, &out), Ok(expected));
            prop_assert_eq!(decoder.table_size(), encoder.table_size());
            prop_assert!(encoder.table_size().1 <= limit.unwrap_or(4096));
        }
    }

    /// And never more is kept than may be.
    #[test]
    fn anything_is_read_as_others_read_it(
        blocks in prop::collection::vec(prop::collection::vec(part(), 0..30), 1..10),
    ) {
        let mut decoder = Decoder::new(4096);
        let mut witness = fluke_hpack::Decoder::new();
        witness.set_max_allowed_table_size(4096);
        for block in blocks {
            let block = block.concat();
            let found = ours(&mut decoder, &block);
            prop_assert!(decoder.table_size().1 <= 4096 && decoder.room() <= 4 * 4096);
            match found {
                // It is stricter with blocks of sizes alone, and more lenient with late ones; cut ones may panic it.
                Ok(fields) if fields.is_empty() => {
                    let _ = oracle(&mut witness, &block);
                }
                Err(BadBlock::LateTableSize | BadBlock::Partial) => break,
                Ok(fields) => prop_assert_eq!(Some(fields), oracle(&mut witness, &block)),
                Err(_) => {
                    prop_assert_eq!(oracle(&mut witness, &block), None);
                    break;
                }
            }
        }
    }

    #[test]
    fn huffman_codes_are_read_as_others_read_them(code in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut out = b"before".to_vec();
        let found = huffman::decode(&code, &mut out);
        let told = fluke_hpack::huffman::HuffmanDecoder::new().decode(&code);
        prop_assert_eq!(found.is_ok(), told.is_ok());
        if let Ok(told) = told {
            prop_assert_eq!(out.strip_prefix(b"before"), Some(&told[..]));
        }
    }

    #[test]
    fn huffman_codes_are_written_as_others_read_them(text in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut code = Vec::new();
        huffman::encode(&text, &mut code);
        prop_assert_eq!(code.len(), huffman::encoded_length(&text));
        let told = fluke_hpack::huffman::HuffmanDecoder::new().decode(&code);
        prop_assert_eq!(told.as_ref(), Ok(&text));
        let mut out = Vec::new();
        prop_assert_eq!(huffman::decode(&code, &mut out), Ok(()));
        prop_assert_eq!(out, text);
    }
}
