//! Frames as words in, events and frames as words out.

mod agree;

use std::time::Duration;

use proptest::prelude::*;

use super::super::code::Code;
use super::super::frame::{self, Frame, PAYLOAD_BYTES_MAX};
use super::super::head::{RequestLine, Scheme};
use super::*;
use crate::method::Method;

const CONFIG: Config = Config {
    streams_max: 3,
    stream_window: 65_535,
    connection_window: 100_000,
    limits: HeadLimits {
        head_bytes_max: 64 * 1024,
        fields_max: 100,
        field_bytes_max: 16 * 1024,
        target_bytes_max: 8 * 1024,
    },
    extended_connect: true,
};

/// Blocks of literals that change no table.
fn block(name: &str) -> Vec<u8> {
    let get = ":method=GET|:scheme=http|:path=/|:authority=a";
    let text = match name {
        "get" => get.to_owned(),
        "long" => format!("{get}|x={}", "v".repeat(17_000)),
        "post" => get.replace("GET", "POST"),
        "post5" => get.replace("GET", "POST") + "|content-length=5",
        "upper" => format!("{get}|X=1"),
        "ok" => ":status=200".into(),
        "ok5" => ":status=200|content-length=5".into(),
        "none5" => ":status=204|content-length=5".into(),
        "early" => ":status=103".into(),
        "trailers" => "x=1".into(),
        "pseudo" => ":path=/".into(),
        "switch" => ":status=101".into(),
        "nothing" => String::new(),
        // Adds an entry to the table, and refers to it.
        "adds" => return [block("get"), b"\x40\x01x\x011".to_vec()].concat(),
        "refers" => return [block("get"), vec![0x80 | 62]].concat(),
        "broken" => return vec![0x80],
        other => panic!("{other}"),
    };
    let mut out = Vec::new();
    for line in text.split('|').filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once('=').unwrap();
        out.push(0);
        for text in [name, value] {
            match text.len() {
                short @ 0..127 => out.push(short as u8),
                long => {
                    let left = long - 127;
                    out.extend([127, left as u8 | 0x80, (left >> 7) as u8 | 0x80]);
                    out.push((left >> 14) as u8);
                }
            }
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

fn raw(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    let mut out = vec![a, b, c, kind, flags];
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// One frame: its type, its stream, and what else it says.
fn bytes(words: &str) -> Vec<u8> {
    let words: Vec<&str> = words.split_whitespace().collect();
    let number = |at: usize| words[at].parse::<u32>().unwrap();
    let has = |word| words.contains(&word);
    let ends = u8::from(has("end"));
    let complete = if has("open") { 0 } else { 4 };
    match words[0] {
        "head" => raw(1, ends | complete, number(1), &block(words[2])),
        "own" => {
            let payload = [&number(1).to_be_bytes()[..], &[7], &block(words[2])].concat();
            raw(1, 0x20 | ends | complete, number(1), &payload)
        }
        "more" => raw(9, complete, number(1), &block(words[2])),
        "data" => raw(0, ends, number(1), &vec![b'x'; number(2) as usize]),
        "padded" => {
            let mut payload = vec![number(3) as u8];
            payload.resize(1 + number(2) as usize + number(3) as usize, 0);
            raw(0, 8 | ends, number(1), &payload)
        }
        "reset" => raw(3, 0, number(1), &number(2).to_be_bytes()),
        "window" => raw(8, 0, number(1), &number(2).to_be_bytes()),
        "settings" => {
            let mut payload = Vec::new();
            for pair in &words[1..] {
                let (id, value) = pair.split_once('=').unwrap();
                payload.extend(id.parse::<u16>().unwrap().to_be_bytes());
                payload.extend(value.parse::<u32>().unwrap().to_be_bytes());
            }
            raw(4, 0, 0, &payload)
        }
        "ack" => raw(4, 1, 0, &[]),
        "ping" => raw(6, 0, 0, b"12345678"),
        "pong" => raw(6, 1, 0, b"12345678"),
        "priority" => raw(
            2,
            0,
            number(1),
            &[&number(2).to_be_bytes()[..], &[1]].concat(),
        ),
        "leaves" => raw(
            7,
            0,
            0,
            &[number(1).to_be_bytes(), number(2).to_be_bytes()].concat(),
        ),
        "unknown" => raw(0x55, 0xff, number(1), b"?"),
        "push" => raw(5, 4, number(1), &[0; 4]),
        other => panic!("{other}"),
    }
}

fn told(event: &Event) -> String {
    let end = |ends: &bool| if *ends { " end" } else { "" };
    match event {
        Event::Request { stream, head, ends } => match head {
            Ok(_) => format!("request {stream}{}", end(ends)),
            Err(bad) => format!("request {stream}: {bad}"),
        },
        Event::Interim { stream, head } => format!("interim {stream} {}", head.status),
        Event::Response { stream, head, ends } => {
            format!("response {stream} {}{}", head.status, end(ends))
        }
        Event::Data { stream, data, ends } => format!("data {stream} {}{}", data.len(), end(ends)),
        Event::Trailers { stream, .. } => format!("trailers {stream}"),
        Event::Reset {
            stream,
            code,
            by_peer,
        } => {
            let who = if *by_peer { "peer" } else { "us" };
            format!("reset {stream} {code} by {who}")
        }
        Event::Refused => "refused".into(),
        Event::Room(None) => "room".into(),
        Event::Room(Some(stream)) => format!("room {stream}"),
        Event::GoAway { last, code } => format!("leaves {last} {code}"),
        Event::Pong(_) => "pong".into(),
        Event::Nothing => String::new(),
    }
}

/// Frames that were written.
fn written(out: &[u8]) -> Vec<String> {
    let mut at = 0;
    let mut told = Vec::new();
    while let Ok(Some((frame, length))) = frame::read(&out[at..], PAYLOAD_BYTES_MAX) {
        at += length;
        told.push(match frame {
            Frame::Reset { stream, code } => format!(">reset {stream} {code}"),
            Frame::WindowUpdate { stream, bytes } => format!(">window {stream} {bytes}"),
            Frame::GoAway { last, code } => format!(">leaves {last} {code}"),
            Frame::SettingsAck => ">ack".into(),
            Frame::Pong(_) => ">pong".into(),
            Frame::Headers { stream, ends, .. } => {
                format!(">head {stream}{}", if ends { " end" } else { "" })
            }
            other => format!(">{other:?}"),
        });
    }
    assert_eq!(at, out.len());
    told
}

struct End {
    connection: Connection,
    now: Duration,
}

impl End {
    fn new(role: Role) -> Self {
        let mut out = Vec::new();
        let mut end = Self {
            connection: Connection::new(role, CONFIG, &mut out),
            now: Duration::from_secs(1),
        };
        if role == Role::Server {
            assert_eq!(end.hear(PREFACE), "");
        }
        end
    }

    /// What a frame comes to, and what is written.
    fn hear(&mut self, input: &[u8]) -> String {
        let mut out = Vec::new();
        let received = self.connection.receive(input, self.now, &mut out);
        let event = match &received {
            Ok(Received::Frame { consumed, event }) => {
                assert_eq!(*consumed, input.len());
                told(event)
            }
            Ok(Received::Partial) => panic!("not a whole frame"),
            Err(broken) => format!("broken {}", broken.code),
        };
        let mut words: Vec<String> = Some(event)
            .filter(|word| !word.is_empty())
            .into_iter()
            .collect();
        // What breaks the connection is always said.
        let said = written(&out);
        match received.is_err() {
            true => assert!(said.last().unwrap().starts_with(">leaves")),
            false => words.extend(said),
        }
        words.join(" ")
    }

    fn step(&mut self, words: &str) -> String {
        let mut out = Vec::new();
        let split: Vec<&str> = words.split_whitespace().collect();
        let number = |at: usize| split[at].parse::<u32>().unwrap();
        let ends = split.contains(&"end");
        let connection = &mut self.connection;
        match split[0] {
            // What we do.
            "!ask" => {
                let method = if split.contains(&"head") {
                    Method::Head
                } else {
                    Method::Get
                };
                let asked = ask(connection, &method, ends, &mut out);
                if asked.is_err() {
                    return "none".into();
                }
            }
            "!answer" => {
                let said = connection.respond(number(1), 200, &Fields::default(), ends, &mut out);
                if said.is_err() {
                    return "gone".into();
                }
            }
            "!say" => match connection.data(number(1), number(2) as usize, ends, &mut out) {
                Ok(()) => return String::new(),
                Err(Gone) => return "gone".into(),
            },
            "!room" => return format!("{:?}", connection.room(number(1))),
            "!take" => connection.release(number(1), number(2), &mut out),
            "!reset" => connection.reset(number(1), Code::CANCEL, &mut out),
            "!leave" => connection.leave(&mut out),
            "!ask-to-leave" => connection.ask_to_leave(&mut out),
            "!open" => return connection.open().to_string(),
            _ => return self.hear(&bytes(words)),
        }
        written(&out).join(" ")
    }
}

fn ask(
    connection: &mut Connection,
    method: &Method,
    ends: bool,
    out: &mut Vec<u8>,
) -> Result<StreamId, NoStream> {
    let line = RequestLine {
        method,
        scheme: Scheme::Http,
        authority: "a",
        path: "/",
        protocol: None,
    };
    connection.request(line, &Fields::default(), &[], ends, out)
}

/// Steps, divided by `;`, and what the last one comes to.
fn check(role: Role, steps: &str, expected: &str) {
    let mut end = End::new(role);
    let mut last = String::new();
    for step in steps.split(';') {
        last = end.step(step.trim());
    }
    assert_eq!(last, expected, "{role:?}: {steps}");
}

fn server(rows: &[(&str, &str)]) {
    for (steps, expected) in rows {
        check(Role::Server, &format!("settings; {steps}"), expected);
    }
}

fn client(rows: &[(&str, &str)]) {
    for (steps, expected) in rows {
        check(Role::Client, &format!("settings; {steps}"), expected);
    }
}

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
        ("head 1 post; !reset 1; window 1 7", ""),
        ("head 1 post; !reset 1; !reset 1", ""),
        ("head 1 upper end; data 1 5", ""),
    ]);
}

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
    ]);
}

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

/// How many frames of a flood are taken.
fn flood(start: &str, words: impl Fn(u32) -> String) -> u32 {
    let mut end = End::new(Role::Server);
    end.step("settings");
    for step in start.split(';').filter(|step| !step.is_empty()) {
        end.step(step.trim());
    }
    for round in 0..100_000 {
        for step in words(2 * round + 1).split(';') {
            match end.step(step.trim()).as_str() {
                "broken ENHANCE_YOUR_CALM" => return round,
                other => assert!(!other.starts_with("broken"), "{other}"),
            }
        }
    }
    panic!("never ends");
}

#[test]
fn floods_end() {
    for (start, words) in [
        ("", "ping"),
        ("", "pong"),
        ("", "settings 4=5"),
        ("ack", "ack"),
        ("", "priority 1 0"),
        ("", "window 0 1"),
        ("", "unknown 0"),
        ("", "leaves 1 0"),
        ("head 1 post", "data 1 0"),
        ("head 1 post", "window 1 1"),
        ("head 1 post", "reset 1 8"),
        ("head 1 post; !reset 1", "reset 1 8"),
        ("head 1 get end; !answer 1 end", "window 1 0"),
    ] {
        let taken = flood(start, |_| words.into());
        assert!((900..1100).contains(&taken), "{words}: {taken}");
    }
    let rapid = flood("", |id| format!("head {id} get end; reset {id} 8"));
    assert_eq!(rapid, 499);
    for provoke in [
        "window ID 0",
        "window ID 2147483647",
        "priority ID ID",
        "head ID trailers",
    ] {
        let taken = flood("", |id| {
            format!("head {id} post; {}", provoke.replace("ID", &id.to_string()))
        });
        assert_eq!(taken, 100, "{provoke}");
    }
    assert_eq!(flood("", |id| format!("head {id} upper end")), 100);
    assert_eq!(
        flood("", |id| format!("head {id} get end; data {id} 1")),
        100
    );
    assert_eq!(flood("head 1 post; reset 1 8", |_| "data 1 1".into()), 100);
}

/// A request that brings two frames of nothing with each answer is no flood.
#[test]
fn asking_earns_patience() {
    let mut end = End::new(Role::Client);
    end.step("settings");
    for round in 0..5_000 {
        let stream = 2 * round + 1;
        end.step("!ask end");
        end.step("ping");
        assert_eq!(end.step("window 0 1"), "room");
        assert_eq!(
            end.step(&format!("head {stream} ok end")),
            format!("response {stream} 200 end")
        );
    }
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
