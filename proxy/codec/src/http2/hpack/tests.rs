//! RFC 7541's own examples, what is refused, and what is indexed.

mod agreement;

use super::*;
use crate::fields::Field;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    assert_eq!(rest, b"", "{hex}");
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).expect(hex), 16);
    pairs.iter().map(|pair| byte(pair).expect(hex)).collect()
}

/// `name: value`, with `!` in front if it is never to be indexed.
fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, BadBlock> {
    let mut fields = Vec::new();
    decoder.decode(block, |field| {
        let never = if field.never_indexed { "!" } else { "" };
        let (name, value) = (field.name().escape_ascii(), field.value().escape_ascii());
        fields.push(format!("{never}{name}: {value}"));
    })?;
    Ok(fields)
}

/// Decodes blocks of one connection; the last words are how many entries the table has then, and their bytes.
fn check_blocks(decoder: &mut Decoder, blocks: &[(&str, &str, (usize, usize))]) {
    for (hex, fields, table) in blocks {
        let found = decode(decoder, &bytes(hex)).expect(hex);
        let expected: Vec<&str> = fields.split('|').collect();
        assert_eq!(found, expected, "{hex}");
        assert_eq!(decoder.table_size(), *table, "{hex}");
    }
}

/// Appendix C.2.
#[test]
fn representations() {
    let check = |hex, fields, table| {
        check_blocks(&mut Decoder::new(4096), &[(hex, fields, table)]);
    };
    check(
        "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
        "custom-key: custom-header",
        (1, 55),
    );
    check(
        "040c 2f73 616d 706c 652f 7061 7468",
        ":path: /sample/path",
        (0, 0),
    );
    check(
        "1008 7061 7373 776f 7264 0673 6563 7265 74",
        "!password: secret",
        (0, 0),
    );
    check("82", ":method: GET", (0, 0));
}

/// Appendix C.3 and C.4: the same requests, as plain text and coded.
#[test]
fn requests() {
    let first = ":method: GET|:scheme: http|:path: /|:authority: www.example.com";
    let second =
        ":method: GET|:scheme: http|:path: /|:authority: www.example.com|cache-control: no-cache";
    let third = ":method: GET|:scheme: https|:path: /index.html|:authority: www.example.com|custom-key: custom-value";
    for [one, two, three] in [
        [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ],
        [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ],
    ] {
        check_blocks(
            &mut Decoder::new(4096),
            &[
                (one, first, (1, 57)),
                (two, second, (2, 110)),
                (three, third, (3, 164)),
            ],
        );
    }
}

/// Appendix C.5 and C.6: the same responses, in a table of 256 bytes.
#[test]
fn responses() {
    let first = ":status: 302|cache-control: private|date: Mon, 21 Oct 2013 20:13:21 GMT|\
                 location: https://www.example.com";
    let second = first.replace("302", "307");
    let third = ":status: 200|cache-control: private|date: Mon, 21 Oct 2013 20:13:22 GMT|\
                 location: https://www.example.com|content-encoding: gzip|\
                 set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
    for [one, two, three] in [
        [
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32
             3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970
             7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61
             6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
        ],
        [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad
             1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2
             e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ],
    ] {
        let mut decoder = Decoder::new(4096);
        // To 256.
        assert_eq!(decode(&mut decoder, &bytes("3fe1 01")), Ok(Vec::new()));
        check_blocks(
            &mut decoder,
            &[
                (one, first, (4, 222)),
                (two, &second, (4, 222)),
                (three, third, (3, 215)),
            ],
        );
    }
}

#[test]
fn blocks_that_break_the_connection() {
    let check = |hex: &str, expected: BadBlock| {
        let found = decode(&mut Decoder::new(4096), &bytes(hex));
        assert_eq!(found, Err(expected), "{hex}");
    };
    for index in ["80", "be", "ff00", "7e", "0f2f", "ffff ffff 0f"] {
        check(index, BadBlock::Index);
    }
    check("ff81 ffff ff0f", BadBlock::Integer);
    check("ff80 8080 8080", BadBlock::Integer);
    for cut in [
        "ff",
        "ff80",
        "40",
        "4001",
        "4001 61",
        "4001 6101",
        "4181",
        "0f",
        "3f",
    ] {
        check(cut, BadBlock::Partial);
    }
    // 4,097 bytes.
    check("3fe2 1f", BadBlock::TableSize);
    check("8220", BadBlock::LateTableSize);
    check("8220 82", BadBlock::LateTableSize);
    // The filling is a whole byte, is not all ones, is the end's whole code; a code is cut.
    for code in [
        "82 1fff",
        "81 1e",
        "81 18",
        "84 ffff ffff",
        "81 ff",
        "82 ffff",
        "81 fe",
    ] {
        check(&format!("0001 61 {code}"), BadBlock::Huffman);
    }
}

/// A table may shrink, grow again, and hold nothing at all.
#[test]
fn the_peer_says_how_large_the_table_is() {
    let own = "400161 0162";
    check_blocks(
        &mut Decoder::new(4096),
        &[
            (own, "a: b", (1, 34)),
            ("be", "a: b", (1, 34)),
            // 33, 4096
            ("3f02 3fe1 1f 82", ":method: GET", (0, 0)),
            (&own.repeat(2), "a: b|a: b", (2, 68)),
            // 34
            ("3f03 be", "a: b", (1, 34)),
            // Its name is read before it is pushed out by itself.
            ("7e01 63", "a: c", (1, 34)),
            // It does not fit, and pushes the other out.
            ("7e02 6363", "a: cc", (0, 0)),
            ("20 400161 0162", "a: b", (0, 0)),
        ],
    );
    let mut decoder = Decoder::new(8192);
    // 8,192
    assert_eq!(decode(&mut decoder, &bytes("3fe1 3f")), Ok(Vec::new()));
    let mut decoder = Decoder::new(0);
    assert_eq!(decode(&mut decoder, &bytes("3fe1 1f")), Ok(Vec::new()));
}

#[test]
fn what_is_said_of_a_name_and_a_value() {
    let check = |name: &str, value: &str, kind: Kind, clean: bool| {
        let mut block = vec![0x40];
        for text in [name, value] {
            integer::write(0, 7, text.len(), &mut block);
            block.extend_from_slice(text.as_bytes());
        }
        // And again, from the table.
        block.push(0xbe);
        let mut count = 0;
        let decoded = Decoder::new(4096).decode(&block, |field| {
            assert_eq!(field.name(), name.as_bytes());
            assert_eq!(field.value(), value.as_bytes());
            assert_eq!((field.kind, field.clean), (kind, clean), "{field:?}");
            count += 1;
        });
        assert_eq!((decoded, count), (Ok(()), 2));
    };
    check(":path", "x", Kind::Pseudo(Pseudo::Path), true);
    check("te", "a\tb \u{e4}", Kind::Known(Known::Te), true);
    check("x-own", "", Kind::Other, true);
    for bad in [
        "", "Te", "X-own", "x own", ":Path", ":other", ":", "a:", "\u{e4}", "a\0",
    ] {
        check(bad, "x", Kind::Malformed, true);
    }
    for bad in [
        " a", "a ", "\ta", "a\t", " ", "a\r\nb", "a\n", "\0", "a\x7f",
    ] {
        check("x-own", bad, Kind::Other, false);
    }
}

/// A secret is hidden, whether we know it or the sender says so.
#[test]
fn secrets_are_not_shown() {
    let check = |hex: &str, expected: &str| {
        let mut shown = String::new();
        let decoded = Decoder::new(4096).decode(&bytes(hex), |field| shown = format!("{field:?}"));
        assert_eq!((decoded, shown.as_str()), (Ok(()), expected));
    };
    check("0001 6101 73", "a: s");
    check("1001 6101 73", "a: <hidden>");
    check("6001 73", "cookie: <hidden>");
}

/// Writes a block and reads it back; says how each field was written.
fn encode(encoder: &mut Encoder, decoder: &mut Decoder, fields: &str) -> String {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    let mut shapes = String::new();
    let mut expected = Vec::new();
    for line in fields.split('|') {
        let (mark, text) = line.split_at(usize::from(line.starts_with('!')));
        let (name, value) = text.split_once(": ").expect(line);
        let at = out.len();
        let pseudo = Pseudo::ALL
            .into_iter()
            .find(|pseudo| pseudo.as_str() == name);
        match pseudo {
            Some(pseudo) => encoder.pseudo(pseudo, value.as_bytes(), &mut out),
            None => {
                let field = Field {
                    name: name.as_bytes(),
                    known: Known::find(name.as_bytes()),
                    value: value.as_bytes(),
                    never_indexed: !mark.is_empty(),
                };
                encoder.field(field, &mut out);
            }
        }
        shapes.push(match out[at] {
            0x80..=0xbd => 'S',
            0xbe.. => 'D',
            0x40.. => '+',
            0x20.. => panic!("{line}"),
            0x10.. => '!',
            _ => '-',
        });
        let never = if out[at] & 0xf0 == 0x10 { "!" } else { "" };
        expected.push(format!("{never}{}: {value}", name.to_ascii_lowercase()));
    }
    assert_eq!(decode(decoder, &out), Ok(expected), "{fields}");
    assert_eq!(decoder.table_size(), encoder.table_size());
    shapes
}

#[test]
fn what_comes_again_is_indexed() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    let mut check = |fields: &str, shapes: &[&str]| {
        for expected in shapes {
            let found = encode(&mut encoder, &mut decoder, fields);
            assert_eq!(found, *expected, "{fields}");
        }
    };
    check(
        ":method: GET|:scheme: https|:path: /|:status: 404|accept-encoding: gzip, deflate",
        &["SSSS-", "SSSS+", "SSSSD"],
    );
    check(
        ":method: PUT|:path: /a|:status: 418",
        &["---", "+++", "DDD"],
    );
    check(":path: /a?b", &["-", "-", "-"]);
    check("server: a|X-Own: b|x-own: c", &["--+", "++D", "DDD"]);
    check("x-OWN: b", &["D"]);
    check("x-other: 1", &["-"]);
    check("x-other: 2", &["+"]);
    check("x-other: 3", &["-"]);
    // What is never to be indexed here is neither found nor kept.
    check(
        "!server: a|!X-Own: b|authorization: c|cookie: d|set-cookie: e",
        &["!!!!!"; 3],
    );
    check("x-api-key: a|x-auth-token: b|csrf: c", &["---"; 3]);
    check(&format!("x-long: {}", "x".repeat(1000)), &["-"; 3]);
    check(&format!("x-shorter: {}", "x".repeat(900)), &["-", "+", "D"]);
}

#[test]
fn the_oldest_entries_go() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    let field = |number: usize| format!("x-{number}: {}", "v".repeat(number % 7));
    for number in 0..1000 {
        let field = field(number);
        assert_eq!(encode(&mut encoder, &mut decoder, &field), "-", "{field}");
        assert_eq!(encode(&mut encoder, &mut decoder, &field), "+", "{field}");
        assert_eq!(encode(&mut encoder, &mut decoder, &field), "D", "{field}");
    }
    let (count, bytes) = encoder.table_size();
    assert!(bytes <= 4096 && bytes > 4096 - 50, "{bytes}");
    let found = (1000 - count..1000)
        .filter(|number| encode(&mut encoder, &mut decoder, &field(*number)) == "D")
        .count();
    assert!(found > count * 9 / 10, "{found} of {count}");
    assert_ne!(encode(&mut encoder, &mut decoder, &field(999 - count)), "D");
}

#[test]
fn an_idle_connection_keeps_its_table_alone() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    let give_back = |encoder: &mut Encoder, decoder: &mut Decoder| {
        encoder.give_back();
        decoder.give_back();
    };
    give_back(&mut encoder, &mut decoder);
    assert_eq!(decoder.room(), 0);
    let long = format!("x-long: {}", "v".repeat(900));
    for field in ["a: b", "a: c", &long, "a: b"] {
        for _ in 0..3 {
            encode(&mut encoder, &mut decoder, field);
        }
        assert_eq!(encode(&mut encoder, &mut decoder, field), "D", "{field}");
        give_back(&mut encoder, &mut decoder);
        assert_eq!(encode(&mut encoder, &mut decoder, field), "D", "{field}");
    }
    let (count, bytes) = decoder.table_size();
    assert_eq!(decoder.room(), bytes - count * (32 - 4));
    // What the peer pushes out leaves nothing behind.
    encoder.limit_table(938 + 34);
    assert_eq!(encode(&mut encoder, &mut decoder, "a: b"), "D");
    assert_eq!(decoder.table_size(), (2, 938 + 34));
    decoder.give_back();
    assert_eq!(decoder.room(), 938 + 34 - 2 * (32 - 4));
    assert_eq!(encode(&mut encoder, &mut decoder, &long), "D");
}

#[test]
fn a_smaller_table_is_told() {
    let check = |limits: &[usize], expected: &str| {
        let mut encoder = Encoder::new();
        for limit in limits {
            encoder.limit_table(*limit);
        }
        let mut out = Vec::new();
        encoder.begin(&mut out);
        encoder.begin(&mut out);
        assert_eq!(out, bytes(expected), "{limits:?}");
    };
    check(&[], "");
    check(&[4096], "");
    check(&[65536], "");
    check(&[0], "20");
    check(&[100], "3f45");
    check(&[0, 4096], "20 3fe1 1f");
    check(&[200, 100, 150], "3f45 3f77");
    check(&[4096, 100, 65536], "3f45 3fe1 1f");
    // What the peer has forgotten is not named.
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    for expected in ["-", "+", "D"] {
        assert_eq!(encode(&mut encoder, &mut decoder, "a: b"), expected);
    }
    encoder.limit_table(0);
    encoder.limit_table(4096);
    for expected in ["+", "D"] {
        assert_eq!(encode(&mut encoder, &mut decoder, "a: b"), expected);
    }
    encoder.limit_table(33);
    assert_eq!(encode(&mut encoder, &mut decoder, "a: b"), "-");
}

/// A few bytes that name a large entry again and again.
#[test]
fn a_bomb_is_only_read() {
    let mut block = vec![0x40, 1, b'a'];
    integer::write(0, 7, 4000, &mut block);
    block.resize(block.len() + 4000, b'x');
    block.resize(block.len() + 100_000, 0xbe);
    let mut decoder = Decoder::new(4096);
    let mut count = 0;
    let decoded = decoder.decode(&block, |field| {
        assert_eq!(field.value().len(), 4000);
        count += 1;
    });
    assert_eq!((decoded, count), (Ok(()), 100_001));
    assert_eq!(decoder.table_size(), (1, 4033));
    assert!(decoder.room() < 3 * 4096, "{}", decoder.room());
}

/// Appendix C.4 and C.6, the other way.
#[test]
fn strings_are_coded() {
    for (text, hex) in [
        ("www.example.com", "f1e3 c2e5 f23a 6ba0 ab90 f4ff"),
        ("no-cache", "a8eb 1064 9cbf"),
        ("custom-key", "25a8 49e9 5ba9 7d7f"),
        ("custom-value", "25a8 49e9 5bb8 e8b4 bf"),
        ("private", "aec3 771a 4b"),
        (
            "Mon, 21 Oct 2013 20:13:21 GMT",
            "d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff",
        ),
        ("https://www.example.com", "9d29 ad17 1863 c78f 0b97 c8e9 ae82 ae43 d3"),
        ("gzip", "9bd9 ab"),
        (
            "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            "94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed
             4ee5 b106 3d50 07",
        ),
    ] {
        let mut code = Vec::new();
        huffman::encode(text.as_bytes(), &mut code);
        assert_eq!(code, bytes(hex), "{text}");
    }
}
