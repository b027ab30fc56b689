//! The task that moves the bytes of a connection to an endpoint, and how long it waits for what.

use std::future::poll_fn;
use std::sync::Weak;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::client::Owner;
use super::link::{Link, State};
use crate::deadline::{Deadline, Wait};

/// An endpoint that lets us wait is asked for a sign of life, and given up if it gives none.
const SILENCE_MAX: Duration = Duration::from_secs(20);
const PONG_MAX: Duration = Duration::from_secs(10);

/// Moves the bytes of a connection until it ends, or nobody has it.
pub(super) async fn drive<T>(link: Link, owner: Weak<Owner>, turn: T) {
    let mut turn = Some(turn);
    let mut life = Life::default();
    poll_fn(|cx| {
        let state = &mut *link.lock();
        state.driver.park(cx);
        loop {
            if owner.strong_count() == 0 && !std::mem::replace(&mut life.leaving, true) {
                state.protocol.leave(state.wire.front());
            }
            if state.poll_drive(cx).is_ready() {
                // Those who still know the connection only need to know why it ended.
                state.wire.hang_up();
                return Poll::Ready(());
            }
            if state.protocol.is_greeted() {
                turn = None;
            }
            if life.leaving && state.slots.is_empty() && !state.wire.has_unsent() {
                state.end("nobody needs it".into());
            } else {
                ready!(life.poll(state, cx));
            }
        }
    })
    .await;
}

/// How long an endpoint may be silent.
#[derive(Debug, Default)]
struct Life {
    deadline: Deadline,
    pinged: bool,
    /// Nobody has the connection any more.
    leaving: bool,
}

impl Life {
    /// Ready when something was done because nothing came for so long.
    fn poll(&mut self, state: &mut State, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::take(&mut state.heard) || state.slots.is_empty() {
            self.pinged = false;
            self.deadline.met();
        }
        if state.slots.is_empty() {
            return Poll::Pending;
        }
        let (wait, patience) = match self.pinged {
            true => (Wait::Pong, PONG_MAX),
            false => (Wait::Silence, SILENCE_MAX),
        };
        ready!(self.deadline.poll(cx, wait, patience));
        self.deadline.met();
        match std::mem::replace(&mut self.pinged, true) {
            true => state.end("no sign of life".into()),
            false => state.protocol.ping(*b"still on", state.wire.front()),
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use meshgate_codec::http1::HeadLimits;
    use meshgate_codec::http2::{Config, RequestLine, Scheme};
    use meshgate_codec::{Fields, Method};
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    use super::super::client::{Asked, Broken, Client};
    use super::*;
    use crate::body::RequestBody;
    use crate::interims::Interims;
    use crate::io::Io;

    const CONFIG: Config = Config {
        streams_max: 0,
        stream_window: 65_535,
        connection_window: 65_535,
        limits: HeadLimits {
            head_bytes_max: 1024,
            fields_max: 10,
            field_bytes_max: 1024,
            target_bytes_max: 1024,
        },
        extended_connect: false,
        speaks_for_many: false,
    };

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_gives_no_sign_of_life_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let near = near.await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let (client, driving) = Client::start(Io::from(near), CONFIG, ());
        let driver = tokio::spawn(driving);
        let asked = Asked {
            line: RequestLine {
                method: &Method::Get,
                scheme: Scheme::Http,
                authority: "a.test",
                path: "/",
                protocol: None,
            },
            fields: &Fields::default(),
            more: &[],
            interims: &Interims::Nowhere,
        };
        let began = Instant::now();
        let answer = client.exchange(asked, RequestBody::Empty).await;
        let Err(Broken::Ended { end, unsent }) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(end.to_string(), "the connection ended: no sign of life");
        assert!(!unsent);
        assert!(began.elapsed() >= SILENCE_MAX + PONG_MAX);
        // The socket is closed, although the connection is still known here.
        driver.await.unwrap();
        let mut said = Vec::new();
        far.read_to_end(&mut said).await.unwrap();
        assert!(said.windows(8).any(|bytes| bytes == b"still on"));
        assert!(client.is_used_up() && client.is_idle());
    }
}
