//! Flow control, theirs and ours.

use super::*;

#[test]
fn windows_of_the_peer() {
    server(&[
        ("head 1 get end; !answer 1; !room 1", "Some(16384)"),
        (
            "settings 4=10; head 1 get end; !answer 1; !room 1",
            "Some(10)",
        ),
        (
            "head 1 get end; !answer 1; settings 4=10; !room 1",
            "Some(10)",
        ),
        (
            "settings 4=10; head 1 get end; !answer 1; !say 1 8; settings 4=5; !room 1",
            "Some(0)",
        ),
        (
            "settings 4=10; head 1 get end; !answer 1; !say 1 8; settings 4=5; window 1 3; !room 1",
            "Some(0)",
        ),
        (
            "settings 4=10; head 1 get end; !answer 1; !say 1 8; settings 4=5; window 1 4; !room 1",
            "Some(1)",
        ),
        (
            "settings 4=10; head 1 get end; !answer 1; !say 1 8; settings 4=5; settings 4=9; !room 1",
            "Some(1)",
        ),
        (
            "settings 4=0; head 1 get end; !answer 1; !say 1 0 end; !open",
            "0",
        ),
        ("window 0 2147418112", "room"),
        ("window 0 2147418113", "broken FLOW_CONTROL_ERROR"),
        ("window 0 0", "broken PROTOCOL_ERROR"),
        ("head 1 get; window 1 2147418112", "room 1"),
        (
            "head 1 get; window 1 2147418113",
            "reset 1 FLOW_CONTROL_ERROR by us >reset 1 FLOW_CONTROL_ERROR",
        ),
        (
            "head 1 get; window 1 2147418112; settings 4=65536",
            "broken FLOW_CONTROL_ERROR",
        ),
        (
            "settings 4=2147483647; head 1 get; !answer 1; !room 1",
            "Some(16384)",
        ),
        ("settings 4=2147483648", "broken FLOW_CONTROL_ERROR"),
        ("settings 5=16383", "broken PROTOCOL_ERROR"),
    ]);
    // The connection's window is shared.
    let mut end = End::new(Role::Server);
    for step in [
        "settings 4=1000000",
        "head 1 get end",
        "head 3 get end",
        "!answer 1",
        "!answer 3",
    ] {
        end.step(step);
    }
    for _ in 0..3 {
        end.step("!say 1 16384");
    }
    assert_eq!(end.step("!room 3"), "Some(16383)");
    end.step("!say 3 16383");
    assert_eq!(end.step("!room 1"), "Some(0)");
    assert_eq!(end.step("window 0 1"), "room");
    assert_eq!(end.step("!room 1"), "Some(1)");
}

#[test]
fn windows_of_ours() {
    let whole = "data 1 16384; data 1 16384; data 1 16384; data 1 16383";
    let over = "reset 1 FLOW_CONTROL_ERROR by us >reset 1 FLOW_CONTROL_ERROR";
    server(&[
        (&format!("head 1 post; {whole}"), "data 1 16383"),
        (&format!("head 1 post; {whole}; data 1 1"), over),
        (
            &format!("head 1 post; {whole}; data 1 0 end"),
            "data 1 0 end",
        ),
        (&format!("head 1 post; {whole}; padded 1 0 0"), over),
        (&format!("head 1 post; {whole}; !take 1 32766"), ""),
        (
            &format!("head 1 post; {whole}; !take 1 32767"),
            ">window 1 32767",
        ),
        (
            &format!("head 1 post; {whole}; !take 1 32767; data 1 1"),
            "data 1 1",
        ),
        (
            &format!("head 1 post; {whole}; !take 1 65535"),
            ">window 0 65535 >window 1 65535",
        ),
        // Nobody needs to be told of a stream that has ended.
        (
            &format!("head 1 post; {whole}; data 1 0 end; !take 1 65535"),
            ">window 0 65535",
        ),
        (
            &format!("head 1 post; {whole}; reset 1 8; !take 1 65535"),
            ">window 0 65535",
        ),
    ]);
    // What comes on streams that were given up counts, and is given back.
    let mut end = End::new(Role::Server);
    for step in ["settings", "head 1 post", "!reset 1"] {
        end.step(step);
    }
    for round in 1..100 {
        let expected = if round % 4 == 0 {
            ">window 0 65536"
        } else {
            ""
        };
        assert_eq!(end.step("data 1 16384"), expected);
    }
    // Padding is given back at once.
    let mut end = End::new(Role::Server);
    end.step("settings");
    end.step("head 1 post");
    for _ in 0..10_000 {
        assert!(end.step("padded 1 0 255").starts_with("data 1 0"));
        end.now += Duration::from_millis(20);
    }
    let mut end = End::new(Role::Server);
    end.step("settings");
    for stream in [1, 3] {
        end.step(&format!("head {stream} post"));
    }
    for _ in 0..3 {
        end.step("data 1 16384");
        end.step("data 3 16384");
    }
    assert_eq!(end.step("data 1 1697"), "broken FLOW_CONTROL_ERROR");
}
