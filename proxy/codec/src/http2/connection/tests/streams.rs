//! Streams from their beginning to their end, and the connection's own.

use super::*;

#[test]
fn the_beginning() {
    check(Role::Server, "settings", "room >ack");
    check(Role::Server, "settings 4=1 3=1", "room >ack");
    for first in ["ack", "ping", "window 0 1", "head 1 get end", "unknown 0"] {
        check(Role::Server, first, "broken PROTOCOL_ERROR");
        check(Role::Client, first, "broken PROTOCOL_ERROR");
    }
    let mut out = Vec::new();
    let mut connection = Connection::new(Role::Server, CONFIG, &mut out);
    for byte in PREFACE {
        let read = connection.receive(&[*byte], Duration::ZERO, &mut out);
        assert!(matches!(read, Ok(Received::Frame { consumed: 1, .. })));
    }
    let mut connection = Connection::new(Role::Server, CONFIG, &mut out);
    let read = connection.receive(b"PRI * HTTP/1.1\r\n", Duration::ZERO, &mut out);
    assert_eq!(read.unwrap_err().code, Code::PROTOCOL_ERROR);
}

#[test]
fn idle_streams() {
    server(&[
        ("head 1 get end", "request 1 end"),
        ("head 1 get", "request 1"),
        ("head 7 get", "request 7"),
        ("head 2 get", "broken PROTOCOL_ERROR"),
        ("data 1 1", "broken PROTOCOL_ERROR"),
        ("reset 1 8", "broken PROTOCOL_ERROR"),
        ("window 1 8", "broken PROTOCOL_ERROR"),
        ("priority 1 0", ""),
        ("priority 1 1", "refused >reset 1 PROTOCOL_ERROR"),
        ("push 1", "broken PROTOCOL_ERROR"),
        ("more 1 get", "broken PROTOCOL_ERROR"),
        ("unknown 9", ""),
        ("head 3 get; head 1 get", "broken PROTOCOL_ERROR"),
        ("head 3 get; reset 1 0", ""),
        ("head 3 get; data 1 0", "broken PROTOCOL_ERROR"),
        (
            "own 1 get end",
            "reset 1 PROTOCOL_ERROR by us >reset 1 PROTOCOL_ERROR",
        ),
    ]);
    client(&[
        ("head 1 ok", "broken PROTOCOL_ERROR"),
        ("head 2 ok", "broken PROTOCOL_ERROR"),
        ("!ask; head 3 ok", "broken PROTOCOL_ERROR"),
        ("!ask; push 1", "broken PROTOCOL_ERROR"),
        ("!ask; window 3 1", "broken PROTOCOL_ERROR"),
    ]);
}

#[test]
fn open_and_half_closed_streams() {
    server(&[
        ("head 1 post; data 1 3", "data 1 3"),
        ("head 1 post; data 1 3 end", "data 1 3 end"),
        ("head 1 post; data 1 0", "data 1 0"),
        ("head 1 post; head 1 trailers end", "trailers 1"),
        (
            "head 1 post; head 1 trailers",
            "reset 1 PROTOCOL_ERROR by us >reset 1 PROTOCOL_ERROR",
        ),
        (
            "head 1 post; head 1 pseudo end",
            "reset 1 PROTOCOL_ERROR by us >reset 1 PROTOCOL_ERROR",
        ),
        (
            "head 1 post; window 1 0",
            "reset 1 PROTOCOL_ERROR by us >reset 1 PROTOCOL_ERROR",
        ),
        ("head 1 post; reset 1 8", "reset 1 CANCEL by peer"),
        (
            "head 1 get end; data 1 1",
            "reset 1 STREAM_CLOSED by us >reset 1 STREAM_CLOSED",
        ),
        (
            "head 1 get end; head 1 trailers end",
            "reset 1 STREAM_CLOSED by us >reset 1 STREAM_CLOSED",
        ),
        ("head 1 get end; window 1 5", "room 1"),
        ("head 1 get end; reset 1 8", "reset 1 CANCEL by peer"),
        ("head 1 get end; !answer 1 end; !open", "0"),
        ("head 1 post; !answer 1 end; !open", "1"),
        ("head 1 post; !answer 1 end; data 1 1", "data 1 1"),
        ("head 1 post; !answer 1 end; data 1 1 end; !open", "0"),
        ("head 1 post; !answer 1 end; !say 1 1", "gone"),
        ("head 1 post; !answer 1; !say 1 5 end; !say 1 1", "gone"),
        ("!answer 1", "gone"),
    ]);
    client(&[
        ("!ask; head 1 ok", "response 1 200"),
        ("!ask end; head 1 ok end; !open", "0"),
        ("!ask; head 1 ok end; !open", "1"),
        (
            "!ask; data 1 1",
            "reset 1 PROTOCOL_ERROR by us >reset 1 PROTOCOL_ERROR",
        ),
        ("!ask; head 1 early; head 1 early", "interim 1 103"),
        (
            "!ask; head 1 early end",
            "reset 1 PROTOCOL_ERROR by us >reset 1 PROTOCOL_ERROR",
        ),
        (
            "!ask; head 1 switch",
            "reset 1 PROTOCOL_ERROR by us >reset 1 PROTOCOL_ERROR",
        ),
        (
            "!ask; head 1 ok; head 1 ok end",
            "reset 1 PROTOCOL_ERROR by us >reset 1 PROTOCOL_ERROR",
        ),
        ("!ask; head 1 ok; head 1 trailers end", "trailers 1"),
        ("!ask end; head 1 ok end; data 1 1", "broken STREAM_CLOSED"),
    ]);
}

#[test]
fn closed_streams() {
    server(&[
        (
            "head 1 get end; !answer 1 end; data 1 1",
            "broken STREAM_CLOSED",
        ),
        (
            "head 1 get end; !answer 1 end; head 1 trailers end",
            "broken STREAM_CLOSED",
        ),
        ("head 1 get end; !answer 1 end; window 1 5", ""),
        ("head 1 get end; !answer 1 end; window 1 0", ""),
        ("head 1 get end; !answer 1 end; reset 1 8", ""),
        ("head 1 get end; !answer 1 end; priority 1 3", ""),
        (
            "head 1 post; reset 1 8; data 1 1",
            "refused >reset 1 STREAM_CLOSED",
        ),
        (
            "head 1 post; reset 1 8; head 1 trailers end",
            "refused >reset 1 STREAM_CLOSED",
        ),
        ("head 1 post; !reset 1; data 1 1", ""),
        ("head 1 post; !reset 1; head 1 trailers end", ""),
        ("head 1 post; !reset 1; reset 1 8", ""),
        ("head 1 post; !reset 1; data 1 1; reset 1 8; reset 1 8", ""),
        ("head 1 post; !reset 1; reset 1 8; window 1 7", ""),
        (
            "head 1 post; !reset 1; reset 1 8; data 1 1",
            "refused >reset 1 STREAM_CLOSED",
        ),
        (
            "head 1 post; !reset 1; reset 1 8; head 1 trailers end",
            "refused >reset 1 STREAM_CLOSED",
        ),
        ("head 1 post; !reset 1; window 1 7", ""),
        ("head 1 post; !reset 1; !reset 1", ""),
        ("head 1 upper end; data 1 5", ""),
    ]);
}

#[test]
fn limits_and_leaving() {
    server(&[
        (
            "head 1 get; head 3 get; head 5 get; head 7 get",
            "refused >reset 7 REFUSED_STREAM",
        ),
        (
            "head 1 get; head 3 get; head 5 get; head 7 get; data 7 5",
            "",
        ),
        ("!leave; head 1 get", ""),
        ("head 1 post; !leave", ">leaves 1 NO_ERROR"),
        ("head 1 post; !leave; data 1 5 end", "data 1 5 end"),
        ("head 1 post; !leave; head 3 post; data 3 5", ""),
        (
            "head 1 post; !leave; head 3 post; !leave",
            ">leaves 1 NO_ERROR",
        ),
        ("!ask-to-leave; head 1 post", "request 1"),
        ("leaves 0 0; head 1 post", "request 1"),
    ]);
    client(&[
        ("settings 3=1; !ask; !ask", "none"),
        ("settings 3=0; !ask", "none"),
        ("settings 3=1; !ask; !reset 1; !ask", ">head 3"),
        ("leaves 0 0; !ask", "none"),
        ("!ask; leaves 2147483647 0", "leaves 2147483647 NO_ERROR"),
        ("!ask; leaves 1 0; head 1 ok end", "response 1 200 end"),
    ]);
    let mut end = End::new(Role::Client);
    end.step("settings");
    end.connection.next = STREAM_MAX;
    assert_eq!(end.step("!ask end"), ">head 2147483647 end");
    assert!(end.connection.is_used_up());
    assert_eq!(end.step("!ask end"), "none");
}

/// RFC 8441 §4: nobody may ask for another protocol where that was not announced.
#[test]
fn other_protocols_are_for_those_who_were_told() {
    let ask = b"\x00\x07:method\x07CONNECT\x00\x07:scheme\x04http\x00\x05:path\x01/\x00\x0a:authority\x01a\
                \x00\x09:protocol\x09websocket";
    for announced in [true, false] {
        let config = Config {
            extended_connect: announced,
            ..CONFIG
        };
        let mut out = Vec::new();
        let mut connection = Connection::new(Role::Server, config, &mut out);
        let mut input = PREFACE.to_vec();
        frame::write_settings(&[], &mut input);
        let start = input.len();
        input.extend_from_slice(&[0; frame::HEAD_BYTES]);
        input.extend_from_slice(ask);
        frame::finish_block(1, false, start, &mut input);
        let mut events = Vec::new();
        let mut rest = &input[..];
        while !rest.is_empty() {
            match connection.receive(rest, Duration::ZERO, &mut out) {
                Ok(Received::Frame { consumed, event }) => {
                    events.push(event);
                    rest = &rest[consumed..];
                }
                other => panic!("{other:?}"),
            }
        }
        match events.last() {
            Some(Event::Request { head: Ok(head), .. }) => {
                assert!(announced && head.protocol.as_deref() == Some("websocket"));
            }
            Some(Event::Refused) => assert!(!announced),
            other => panic!("{other:?}"),
        }
    }
}
