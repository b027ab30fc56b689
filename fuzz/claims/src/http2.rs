//! Connections of HTTP/2, by either end: any frames behind the peer's first SETTINGS.

mod owner;

use std::time::Duration;

use meshgate_codec::http1::HeadLimits;
use meshgate_codec::http2::{Config, Connection, PREFACE, Received, Role};

use crate::parts;
use owner::Owner;

/// Input: what a client sends behind its preface and an empty SETTINGS. What is claimed says `connection` below.
pub fn http2_server(input: &[u8]) {
    connection(Role::Server, input);
}

/// Input: what a server sends behind an empty SETTINGS, to a client that has asked a few things. What is claimed says `connection` below.
pub fn http2_client(input: &[u8]) {
    connection(Role::Client, input);
}

/// Wherever reads end, the same happens and the same is said. What is said are whole frames, and not much more than was
/// heard. The owner learns of each stream's beginning and end, each once, in an order that makes sense.
fn connection(role: Role, input: &[u8]) {
    let whole = Heard::of(role, input, &[input.len()]);
    for ends in parts::ways(input) {
        assert_eq!(Heard::of(role, input, &ends), whole);
    }
    are_frames(role, &whole.said);
    assert!(
        whole.said.len() <= SAID_FIRST_MAX + SAID_FOR_HEARD_MAX * input.len(),
        "{} bytes said for {}",
        whole.said.len(),
        input.len()
    );
}

/// Settings, requests, and a GOAWAY with its reason.
const SAID_FIRST_MAX: usize = 1024;
/// A frame has nine bytes at least; an owner that answers in few words says little more.
const SAID_FOR_HEARD_MAX: usize = 8;

const FIRST_SETTINGS: &[u8; 9] = b"\0\0\0\x04\0\0\0\0\0";

const CONFIG: Config = Config {
    streams_max: 4,
    stream_window: 64,
    connection_window: 65_535,
    limits: HeadLimits {
        head_bytes_max: 512,
        fields_max: 8,
        field_bytes_max: 128,
        target_bytes_max: 64,
    },
    extended_connect: true,
    speaks_for_many: false,
};

/// What became of a connection.
#[derive(PartialEq, Eq, Debug)]
struct Heard {
    /// As the owner notes it.
    events: Vec<String>,
    said: Vec<u8>,
}

impl Heard {
    fn of(role: Role, input: &[u8], ends: &[usize]) -> Self {
        let mut said = Vec::new();
        let mut connection = Connection::new(role, CONFIG, &mut said);
        let mut owner = Owner::new(role);
        let mut buffer = match role {
            Role::Server => [&PREFACE[..], FIRST_SETTINGS].concat(),
            Role::Client => FIRST_SETTINGS.to_vec(),
        };
        owner.begin(&mut connection, &mut said);
        let mut from = 0;
        for end in std::iter::once(&0).chain(ends) {
            buffer.extend_from_slice(&input[from..*end]);
            from = *end;
            if !read(&mut connection, &mut owner, &mut buffer, &mut said) {
                break;
            }
        }
        Self {
            events: owner.events,
            said,
        }
    }
}

/// Whether the connection goes on.
fn read(
    connection: &mut Connection,
    owner: &mut Owner,
    buffer: &mut Vec<u8>,
    said: &mut Vec<u8>,
) -> bool {
    loop {
        match connection.receive(buffer, Duration::ZERO, said) {
            Ok(Received::Partial) => return true,
            Ok(Received::Frame { consumed, event }) => {
                assert!((1..=buffer.len()).contains(&consumed));
                owner.hear(connection, event, buffer, said);
                buffer.drain(..consumed);
                assert_eq!(connection.open(), owner.open(), "after {:?}", owner.events);
                assert!(connection.open() <= CONFIG.streams_max as usize);
            }
            Err(broken) => {
                owner.events.push(format!("broken: {broken}"));
                return false;
            }
        }
    }
}

/// Heads of nine bytes, each with its payload behind it.
fn are_frames(role: Role, said: &[u8]) {
    let mut rest = match role {
        Role::Server => said,
        Role::Client => said.strip_prefix(PREFACE).expect("a client says so first"),
    };
    while !rest.is_empty() {
        let (head, behind) = rest.split_first_chunk::<9>().expect("a whole head");
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        assert!(length <= 16_384, "a frame that the peer did not allow");
        rest = behind.get(length..).expect("a whole payload");
    }
}
