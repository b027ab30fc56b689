//! Frames as words in, events and frames as words out.

mod agree;
mod blocks;
mod floods;
mod streams;
mod windows;

use std::time::Duration;

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
    speaks_for_many: false,
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
        Self::with(role, CONFIG)
    }

    fn with(role: Role, config: Config) -> Self {
        let mut out = Vec::new();
        let mut end = Self {
            connection: Connection::new(role, config, &mut out),
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
                let method = match split.get(1) {
                    Some(&"head") => Method::Head,
                    Some(&"connect") => Method::Connect,
                    _ => Method::Get,
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
