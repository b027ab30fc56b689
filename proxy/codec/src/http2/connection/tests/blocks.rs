//! Blocks of fields: their pieces, their tables, and the bodies that they announce.

use proptest::prelude::*;

use super::*;

#[test]
fn blocks_in_pieces() {
    server(&[
        ("head 1 get open end", ""),
        ("head 1 get open end; more 1 trailers", "request 1 end"),
        (
            "head 1 get open end; more 1 trailers open; more 1 trailers",
            "request 1 end",
        ),
        ("head 1 get open; more 3 trailers", "broken PROTOCOL_ERROR"),
        ("head 1 get open; head 1 get", "broken PROTOCOL_ERROR"),
        ("head 1 get open; data 1 1", "broken PROTOCOL_ERROR"),
        ("head 1 get open; ping", "broken PROTOCOL_ERROR"),
        ("head 1 get open; unknown 0", "broken PROTOCOL_ERROR"),
        ("head 1 broken", "broken COMPRESSION_ERROR"),
        ("head 1 post; head 1 broken end", "broken COMPRESSION_ERROR"),
        (
            "head 1 post; !reset 1; head 1 broken end",
            "broken COMPRESSION_ERROR",
        ),
        (
            "head 1 get; own 1 trailers end",
            "reset 1 PROTOCOL_ERROR by us >reset 1 PROTOCOL_ERROR",
        ),
    ]);
    let mut end = End::new(Role::Server);
    end.step("settings");
    end.step("head 1 get open");
    for _ in 0..62 {
        assert_eq!(end.step("more 1 nothing open"), "");
    }
    end.step("more 1 nothing open");
    assert_eq!(end.step("more 1 nothing open"), "broken ENHANCE_YOUR_CALM");
}

#[test]
fn tables_stay_in_step_whatever_becomes_of_a_stream() {
    let adds = [
        "head 1 get; head 3 get; head 5 get; head 7 adds end",
        "!leave; head 7 adds end",
        "head 7 get; !reset 7; head 7 adds end",
        "head 7 post; reset 7 8; head 7 adds end",
        "own 7 adds",
        "head 7 post; head 7 adds",
    ];
    for steps in adds {
        let mut end = End::new(Role::Server);
        end.step("settings");
        for step in steps.split(';') {
            assert!(!end.step(step.trim()).starts_with("broken"), "{steps}");
        }
        for stream in [1, 3, 5] {
            end.step(&format!("!reset {stream}"));
        }
        // Whether the entry is there shows only when the head is taken.
        let found = end.step("head 9 refers end");
        let expected = if steps.contains("leave") {
            ""
        } else {
            "request 9 end"
        };
        assert_eq!(found, expected, "{steps}");
    }
}

#[test]
fn lengths() {
    let reset = "reset 1 PROTOCOL_ERROR by us >reset 1 PROTOCOL_ERROR";
    server(&[
        ("head 1 post5; data 1 5 end", "data 1 5 end"),
        ("head 1 post5; data 1 2; data 1 3 end", "data 1 3 end"),
        ("head 1 post5; data 1 5; data 1 0 end", "data 1 0 end"),
        ("head 1 post5; data 1 5; head 1 trailers end", "trailers 1"),
        ("head 1 post5; data 1 4 end", reset),
        ("head 1 post5; data 1 6", reset),
        ("head 1 post5; data 1 5; data 1 1", reset),
        ("head 1 post5; head 1 trailers end", reset),
        ("head 1 post5; padded 1 5 100 end", "data 1 5 end"),
        ("head 1 post5 end", "refused >reset 1 PROTOCOL_ERROR"),
    ]);
    client(&[
        ("!ask end; head 1 ok5; data 1 5 end", "data 1 5 end"),
        ("!ask end; head 1 ok5; data 1 4 end", reset),
        ("!ask end; head 1 ok5; data 1 6 end", reset),
        ("!ask end; head 1 ok5 end", reset),
        ("!ask head end; head 1 ok5 end", "response 1 200 end"),
        ("!ask head end; head 1 ok5; data 1 0 end", "data 1 0 end"),
        ("!ask head end; head 1 ok5; data 1 5 end", reset),
        ("!ask end; head 1 none5 end", "response 1 204 end"),
        ("!ask end; head 1 none5; data 1 5", reset),
        // What was opened has no length.
        ("!ask connect; head 1 ok5; data 1 9; data 1 9", "data 1 9"),
        ("!ask connect; head 1 none5; data 1 9", "data 1 9"),
    ]);
}

#[test]
fn a_head_in_any_two_pieces() {
    let mut out = Vec::new();
    let mut connection = Connection::new(Role::Client, CONFIG, &mut out);
    let start = out.len();
    ask(&mut connection, &Method::Get, true, &mut out).unwrap();
    let asked = out.split_off(start);
    for cut in 0..asked.len() {
        let mut end = End::new(Role::Server);
        end.step("settings");
        let mut said = Vec::new();
        let early = end.connection.receive(&asked[..cut], end.now, &mut said);
        assert!(matches!(early, Ok(Received::Partial)), "{cut}");
        assert_eq!(end.hear(&asked), "request 1 end");
    }
}

proptest! {
    #[test]
    fn any_bytes_end_well(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        for role in [Role::Server, Role::Client] {
            let mut end = End::new(role);
            end.step("settings");
            let (mut at, mut out) = (0, Vec::new());
            while let Ok(Received::Frame { consumed, .. }) =
                end.connection.receive(&bytes[at..], end.now, &mut out)
            {
                at += consumed;
            }
        }
    }
}
