//! The client's side of HTTP/2: requests to one endpoint, many at a time, and their answers.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use meshgate_codec::http2::{Code, Config, RequestLine, Role, StreamId};
use meshgate_codec::{Fields, Known, Method, ResponseHead};
use tokio_util::sync::CancellationToken;

use super::drive::{Greeting, drive};
use super::link::Link;
use super::outbound::{Outbound, Unsent};
use super::slot::{End, Slot};
use super::tunnel::Tunnel;
use crate::body::{BodyError, Frame, RequestBody};
use crate::interims::Interims;
use crate::io::Io;
use crate::patience::Patience;

/// A connection to an endpoint, shared by those who ask. It closes when nobody has it any more.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    link: Link,
    owner: Arc<Owner>,
    /// The endpoint has said what it takes, or never will.
    greeted: CancellationToken,
}

/// Wakes the task that moves the bytes when the last owner goes.
#[derive(Debug)]
pub(super) struct Owner(Link);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().driver.wake();
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The connection takes no further request.
    Full,
    /// The stream ended, and whether all of the request stayed here.
    Ended { end: End, unsent: bool },
    /// The request's body ended early.
    Body(BodyError),
}

/// An answer's head, and what follows it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: ResponseHead,
    pub(crate) outcome: Box<Outcome>,
}

/// What follows the head of an answer: its body, and the rest of the request. The stream is given up when dropped.
#[derive(Debug)]
pub(crate) struct Outcome {
    stream: Stream,
    /// The rest of the request; none when it is sent, or never will be.
    sending: Option<(Outbound, RequestBody)>,
    /// Why the rest of the request is not to be had.
    failed: Option<BodyError>,
}

/// An open stream.
#[derive(Debug)]
struct Stream {
    link: Link,
    id: StreamId,
    /// Keeps the connection.
    _owner: Arc<Owner>,
    handed_on: bool,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.handed_on {
            self.link.close(self.id, Code::CANCEL);
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) line: RequestLine<'a>,
    pub(crate) fields: &'a Fields,
    /// Between proxies, besides the fields of the application.
    pub(crate) more: &'a [(Known, &'a [u8])],
    /// Where answers before the answer go.
    pub(crate) interims: &'a Interims,
}

impl Client {
    /// A new connection, and the task that moves its bytes as long as somebody has it. `turn` is dropped once the
    /// endpoint has said how many requests it takes, or has not for so long.
    pub(crate) fn start<T: Send>(
        io: Io,
        config: Config,
        (turn, patience): (T, Duration),
    ) -> (Self, impl Future<Output = ()> + Send + use<T>) {
        let link = Link::new(Role::Client, config, io, None);
        let owner = Arc::new(Owner(link.clone()));
        let greeted = CancellationToken::new();
        let greeting = Greeting::new(turn, greeted.clone().drop_guard(), patience);
        let driving = drive(link.clone(), Arc::downgrade(&owner), greeting);
        let client = Self {
            link,
            owner,
            greeted,
        };
        (client, driving)
    }

    /// Whether it will never carry a further request.
    pub(crate) fn is_used_up(&self) -> bool {
        let state = self.link.lock();
        state.ended.is_some() || state.protocol.is_used_up()
    }

    /// Whether it can carry another request now, besides at most `others`. Not before the endpoint has said how many it
    /// takes, nor while it owes a sign of life.
    pub(crate) fn has_room(&self, others: usize) -> bool {
        let state = self.link.lock();
        let protocol = &state.protocol;
        let is_open = state.ended.is_none() && protocol.is_greeted() && protocol.can_open();
        is_open && !state.pinged && protocol.open() < others
    }

    /// Whether requests may open other protocols on it (RFC 8441 §3), which is known once the endpoint has greeted.
    pub(crate) async fn opens_protocols(&self) -> bool {
        self.greeted.cancelled().await;
        let state = self.link.lock();
        state.ended.is_none() && state.protocol.opens_protocols()
    }

    /// Whether nothing is going on.
    pub(crate) fn is_idle(&self) -> bool {
        self.link.lock().slots.is_empty()
    }

    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn exchange(
        &self,
        asked: Asked<'_>,
        body: RequestBody,
    ) -> Result<Answer, Broken> {
        let has_body = !body.is_ended();
        // What is opened is spoken on both ways.
        let ends = !has_body && *asked.line.method != Method::Connect;
        let (stream, begins) = self.open(asked, ends)?;
        let outbound = Outbound::new(self.link.clone(), stream.id, None);
        let mut sending = has_body.then_some((outbound, body));
        let mut patience = Patience::of(asked.interims, has_body);
        let head = poll_fn(|cx| {
            while let Some(interim) = stream.take_interim() {
                if interim.status == 100 {
                    patience.end();
                }
                asked.interims.tell(interim);
            }
            let told = patience.poll(cx).is_ready();
            if let Some((outbound, body)) = sending.as_mut().filter(|_| told) {
                match outbound.poll(cx, body) {
                    Poll::Ready(Ok(()) | Err(Unsent::Gone | Unsent::Stalled)) => sending = None,
                    Poll::Ready(Err(Unsent::Body(error))) => {
                        return Poll::Ready(Err(Broken::Body(error)));
                    }
                    Poll::Pending => {}
                }
            }
            stream.poll_head(cx, begins)
        });
        let head = head.await?;
        if patience.is_waiting() {
            // A body that nobody asked for is not sent.
            sending = None;
        }
        let failed = None;
        let outcome = Box::new(Outcome {
            stream,
            sending,
            failed,
        });
        Ok(Answer { head, outcome })
    }

    /// Opens a stream to something else than messages; the answer's head, and the stream if the endpoint agreed.
    pub(crate) async fn tunnel(
        &self,
        asked: Asked<'_>,
    ) -> Result<(ResponseHead, Option<Tunnel>), Broken> {
        let answer = self.exchange(asked, RequestBody::Empty).await?;
        let agrees = answer.agrees();
        let Answer { head, outcome } = answer;
        let tunnel = agrees.then(|| outcome.into_tunnel(self.clone()));
        Ok((head, tunnel))
    }

    fn open(&self, asked: Asked<'_>, ends: bool) -> Result<(Stream, u64), Broken> {
        let state = &mut *self.link.lock();
        if state.ended.is_some() {
            return Err(Broken::Full);
        }
        let begins = state.wire.position();
        let Asked {
            line, fields, more, ..
        } = asked;
        let out = state.wire.front();
        let id = state
            .protocol
            .request(line, fields, more, ends, out)
            .map_err(|_| Broken::Full)?;
        state.slots.insert(id, Slot::default());
        state.opened = true;
        state.driver.wake();
        let stream = Stream {
            link: self.link.clone(),
            id,
            _owner: self.owner.clone(),
            handed_on: false,
        };
        Ok((stream, begins))
    }
}

impl Stream {
    fn take_interim(&self) -> Option<ResponseHead> {
        let mut state = self.link.lock();
        state.slots.get_mut(&self.id)?.interim.pop_front()
    }

    /// The head of the final answer. The request's head was `begins` bytes behind the connection's beginning.
    fn poll_head(&self, cx: &mut Context<'_>, begins: u64) -> Poll<Result<ResponseHead, Broken>> {
        let mut state = self.link.lock();
        let unsent = state.wire.written() <= begins;
        let Some(slot) = state.slots.get_mut(&self.id) else {
            let end = End::Lost("nobody looks after the stream".into());
            return Poll::Ready(Err(Broken::Ended { end, unsent }));
        };
        if let Some(head) = slot.head.take() {
            return Poll::Ready(Ok(head));
        }
        match slot.end.clone() {
            Some(end) => Poll::Ready(Err(Broken::Ended { end, unsent })),
            None => {
                slot.reader.park(cx);
                Poll::Pending
            }
        }
    }
}

impl Answer {
    /// Whether what the request asked to open is open (RFC 9113 §8.5).
    pub(crate) fn agrees(&self) -> bool {
        (200..300).contains(&self.head.status)
    }
}

impl Outcome {
    /// The stream as a connection of its own, after the agreement on that.
    pub(crate) fn into_tunnel(mut self, client: Client) -> Tunnel {
        self.stream.handed_on = true;
        Tunnel::new(self.stream.link.clone(), self.stream.id, Some(client))
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ask(Slot::is_drained) == Some(true)
    }

    /// Bytes still to come, if that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        self.ask(Slot::length).flatten()
    }

    fn ask<T>(&self, question: impl FnOnce(&Slot) -> T) -> Option<T> {
        let state = self.stream.link.lock();
        state.slots.get(&self.stream.id).map(question)
    }

    /// The next piece of the answer's body; the rest of the request goes on meanwhile.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        self.move_request(cx);
        let polled = self.stream.link.poll_frame(self.stream.id, cx);
        match (polled, &self.failed) {
            // What the endpoint waits for will never come.
            (Poll::Pending, Some(failed)) => Poll::Ready(Some(Err(failed.clone()))),
            (polled, _) => polled,
        }
    }

    /// Sends what there is of the rest of the request.
    pub(crate) fn move_request(&mut self, cx: &mut Context<'_>) {
        let Some((outbound, body)) = &mut self.sending else {
            return;
        };
        match outbound.poll(cx, body) {
            Poll::Pending => return,
            // The answer may come to its end all the same.
            Poll::Ready(Ok(()) | Err(Unsent::Gone | Unsent::Stalled)) => {}
            Poll::Ready(Err(Unsent::Body(error))) => self.failed = Some(error),
        }
        self.sending = None;
    }
}
