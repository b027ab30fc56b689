//! The task that moves the bytes of a connection to an endpoint, and how long it waits for what.

use std::future::poll_fn;
use std::sync::Weak;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use meshgate_routing::Time;
use tokio_util::sync::DropGuard;

use super::client::Owner;
use super::link::{Link, State};
use crate::clock;
use crate::deadline::{Deadline, Wait};

/// An endpoint that lets us wait is asked for a sign of life, and given up if it gives none.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Having given one, it is not asked again so soon unless it is asked something else: servers of gRPC end connections that
/// ask them more often than every five minutes and carry nothing. What vanishes meanwhile is noticed by TCP's keepalive.
const SILENCE_AGAIN_MAX: Duration = Duration::from_secs(330);
const PONG_MAX: Duration = Duration::from_secs(10);
/// One that was silent for so long is asked at once when a request is given up without an answer: the next request should
/// not meet a connection that leads nowhere. Not sooner: clients that change their minds are no reason to doubt it.
const DOUBT_AFTER: Duration = Duration::from_secs(1);

/// Moves the bytes of a connection until it ends, or nobody has it.
pub(super) async fn drive<T>(link: Link, owner: Weak<Owner>, greeting: Greeting<T>) {
    let mut greeting = Some(greeting);
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
            greeting.take_if(|_| state.protocol.is_greeted());
            let greeting = greeting.as_mut();
            if greeting.is_some_and(|greeting| greeting.poll_missed(state, cx).is_ready()) {
                state.end("no SETTINGS".into());
            } else {
                ready!(life.poll(state, cx));
            }
        }
    })
    .await;
}

/// Those who wait until the endpoint has said what it takes.
pub(super) struct Greeting<T> {
    /// Whoever makes the next connection waits for this one, but not for longer than for any connection.
    turn: Option<T>,
    _said: DropGuard,
    patience: Duration,
    deadline: Deadline,
}

impl<T> Greeting<T> {
    pub(super) fn new(turn: T, said: DropGuard, patience: Duration) -> Self {
        Self {
            turn: Some(turn),
            _said: said,
            patience,
            deadline: Deadline::default(),
        }
    }

    /// Ready when it took too long, and nobody waits for an answer.
    fn poll_missed(&mut self, state: &State, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.deadline.poll(cx, Wait::Head, self.patience));
        self.turn = None;
        match state.slots.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

/// Whether an endpoint that says nothing is there all the same.
#[derive(Debug, Default)]
struct Presence {
    /// It gave a sign of life, and said nothing else since.
    is_known: bool,
}

impl Presence {
    /// Something came; what was asked for, if a sign of life was.
    fn heard(&mut self, pinged: bool) {
        self.is_known = pinged;
    }

    fn patience(&self, pinged: bool) -> (Wait, Duration) {
        match (pinged, self.is_known) {
            (true, _) => (Wait::Pong, PONG_MAX),
            (false, true) => (Wait::Silence, SILENCE_AGAIN_MAX),
            (false, false) => (Wait::Silence, SILENCE_MAX),
        }
    }
}

/// How long an endpoint may be silent.
#[derive(Debug, Default)]
struct Life {
    deadline: Deadline,
    /// Since when it says nothing, though it was asked something.
    silent: Option<Time>,
    presence: Presence,
    /// Nobody has the connection any more.
    leaving: bool,
}

impl Life {
    /// Ready when something was done because nothing came for so long.
    fn poll(&mut self, state: &mut State, cx: &mut Context<'_>) -> Poll<()> {
        if self.leaving && state.slots.is_empty() {
            if state.wire.has_unsent() {
                ready!(self.deadline.poll(cx, Wait::Close, PONG_MAX));
            }
            state.end("nobody needs it".into());
            return Poll::Ready(());
        }
        let heard = std::mem::take(&mut state.heard);
        state.unanswered &= !heard;
        let asked = !state.slots.is_empty() || state.unanswered;
        if std::mem::take(&mut state.opened) && std::mem::take(&mut self.presence).is_known {
            self.deadline.met();
        }
        if heard || !asked {
            self.presence
                .heard(std::mem::take(&mut state.pinged) && heard);
            self.silent = None;
            self.deadline.met();
        }
        if !asked {
            return Poll::Pending;
        }
        let silent = *self.silent.get_or_insert_with(clock::now);
        let is_long = || clock::now().since(silent) >= DOUBT_AFTER;
        let doubtful = state.unanswered && !state.pinged && is_long();
        let (wait, patience) = self.presence.patience(state.pinged);
        if !doubtful {
            ready!(self.deadline.poll(cx, wait, patience));
        }
        self.deadline.met();
        match std::mem::replace(&mut state.pinged, true) {
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
    use socket2::SockRef;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::super::client::{Answer, Asked, Broken, Client};
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

    /// An endpoint that says nothing by itself, and takes little.
    async fn endpoint<T: Send + 'static>(turn: T) -> (TcpStream, Client, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let near = near.await.unwrap();
        SockRef::from(&near).set_send_buffer_size(4096).unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let (client, driving) = Client::start(Io::from(near), CONFIG, (turn, GREETING_MAX));
        (far, client, tokio::spawn(driving))
    }

    /// What comes of a request; nothing if it is given up after so long.
    async fn ask(
        client: &Client,
        path: &str,
        patience: Duration,
    ) -> Option<Result<Answer, Broken>> {
        let asked = Asked {
            line: RequestLine {
                method: &Method::Get,
                scheme: Scheme::Http,
                authority: "a.test",
                path,
                protocol: None,
            },
            fields: &Fields::default(),
            more: &[],
            interims: &Interims::Nowhere,
        };
        let answer = client.exchange(asked, RequestBody::Empty);
        tokio::time::timeout(patience, answer).await.ok()
    }

    const GREETING_MAX: Duration = Duration::from_secs(5);
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    const PONG: &[u8] = b"\0\0\x08\x06\x01\0\0\0\0still on";
    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_gives_no_sign_of_life_is_given_up() {
        let (mut far, client, driver) = endpoint(()).await;
        let began = Instant::now();
        let answer = ask(&client, "/", Duration::MAX).await;
        let Some(Err(Broken::Ended { end, unsent })) = answer else {
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

    /// What happens (`p` the endpoint is asked for a sign of life, `h` something comes, `o` a request is sent), and how long
    /// the endpoint may then be silent.
    fn check_patience(happens: &str, expected: Duration) {
        let (mut presence, mut pinged) = (Presence::default(), false);
        for what in happens.chars() {
            match what {
                'p' => pinged = true,
                'h' => presence.heard(std::mem::take(&mut pinged)),
                _ => presence = Presence::default(),
            }
        }
        assert_eq!(presence.patience(pinged).1, expected, "{happens}");
    }

    /// As a client waits that watches something: later it would only be a nuisance to be asked.
    #[test]
    fn who_gave_a_sign_of_life_is_left_alone_for_a_while() {
        check_patience("", SILENCE_MAX);
        check_patience("oh", SILENCE_MAX);
        check_patience("op", PONG_MAX);
        check_patience("oph", SILENCE_AGAIN_MAX);
        check_patience("ophp", PONG_MAX);
        check_patience("ophph", SILENCE_AGAIN_MAX);
        // Something else came, or is to come.
        check_patience("ophh", SILENCE_MAX);
        check_patience("opho", SILENCE_MAX);
        check_patience("ophoph", SILENCE_AGAIN_MAX);
    }

    /// Requests that are given up after so long each, and when the connection ends by that.
    async fn check_silence(given_up_after: Duration, requests: u32, ends_after: Duration) {
        let (mut far, client, driver) = endpoint(()).await;
        far.write_all(SETTINGS).await.unwrap();
        client.opens_protocols().await;
        let began = Instant::now();
        for _ in 0..requests {
            assert!(client.has_room(100));
            assert!(ask(&client, "/", given_up_after).await.is_none());
            tokio::task::yield_now().await;
        }
        let doubted = began.elapsed() >= DOUBT_AFTER;
        assert_eq!(client.has_room(100), !doubted);
        driver.await.unwrap();
        let ended = began.elapsed();
        let context = format!("{requests} requests of {given_up_after:?}: {ended:?}");
        assert!(
            (ends_after..ends_after + SECOND).contains(&ended),
            "{context}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_are_given_up_do_not_hide_the_silence() {
        check_silence(SECOND * 5, 1, SECOND * 5 + PONG_MAX).await;
        check_silence(SECOND / 2, 2, SECOND + PONG_MAX).await;
        check_silence(SECOND / 2, 1, SILENCE_MAX + PONG_MAX).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_of_life_ends_the_doubt() {
        let (mut far, client, _driver) = endpoint(()).await;
        far.write_all(SETTINGS).await.unwrap();
        client.opens_protocols().await;
        assert!(ask(&client, "/", SECOND * 2).await.is_none());
        tokio::task::yield_now().await;
        assert!(!client.has_room(100));
        far.write_all(PONG).await.unwrap();
        while !client.has_room(100) {
            tokio::task::yield_now().await;
        }
    }

    /// An endpoint that takes nothing is not told to the end that nobody needs it.
    #[tokio::test(start_paused = true)]
    async fn leaving_ends_although_nothing_is_taken() {
        let (mut far, client, driver) = endpoint(()).await;
        far.write_all(SETTINGS).await.unwrap();
        client.opens_protocols().await;
        let long = "/".repeat(1024 * 1024);
        assert!(ask(&client, &long, SECOND / 10).await.is_none());
        drop(client);
        let began = Instant::now();
        driver.await.unwrap();
        let took = began.elapsed();
        assert!((PONG_MAX..PONG_MAX + SECOND).contains(&took), "{took:?}");
        drop(far);
    }

    /// Whoever makes the next connection does not wait for ever; an answer may still come.
    #[tokio::test(start_paused = true)]
    async fn without_a_greeting_the_turn_is_the_next_ones() {
        let (turn, taken) = tokio::sync::oneshot::channel::<()>();
        let (far, client, driver) = endpoint(turn).await;
        let began = Instant::now();
        let asking = ask(&client, "/", GREETING_MAX * 2);
        let (answer, turn) = tokio::join!(asking, async {
            let turn = taken.await;
            assert!((GREETING_MAX..GREETING_MAX + SECOND).contains(&began.elapsed()));
            turn
        });
        assert!(answer.is_none() && turn.is_err());
        driver.await.unwrap();
        assert!(client.is_used_up());
        assert!(began.elapsed() < GREETING_MAX * 2 + SECOND);
        drop(far);
    }
}
