//! RFC 7541's own examples, what is refused, and what two ends agree on whatever happens.

use super::*;

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
