//! The client's side of HTTP/1: requests to endpoints and their answers.

use std::borrow::Cow;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use meshgate_codec::http1::{
    Framing, HeadLimits, Parsed, Persist, RequestLine, ResponseParser, encode_request,
    response_framing,
};
use meshgate_codec::{Known, ResponseHead};

use super::reader::Reader;
use super::writer::Writer;
use crate::body::{BodyError, Frame, RequestBody};
use crate::head::Request;
use crate::io::Io;
use crate::patience::Patience;
use crate::service::Pass;
use crate::spare;
use crate::wire::{Expect, Wire};

/// Answers before the answer (1xx) that are passed over; more are a flood.
const INTERIM_MAX: u32 = 16;

/// Of an answer's body that is not read with its head by a read of the usual size.
const LARGE_BYTES_MIN: u64 = spare::BUFFER_BYTES as u64;

/// A connection to an endpoint, between exchanges.
#[derive(Debug)]
pub(crate) struct Client {
    wire: Wire,
    parser: ResponseParser,
    /// The last answer's body was large, so the next one probably is: it is read in larger pieces from its head on.
    is_large: bool,
    /// Its place among the service's connections.
    place: Option<Pass>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Broken {
    /// Not a byte of the request was sent.
    pub(crate) unsent: bool,
    /// What came is no answer.
    pub(crate) malformed: bool,
    pub(crate) why: Cow<'static, str>,
}

/// An answer's head, and what follows it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: ResponseHead,
    pub(crate) outcome: Box<Outcome>,
}

/// What follows the head of an answer: its body, the rest of the request, and then perhaps another exchange.
#[derive(Debug)]
pub(crate) struct Outcome {
    client: Option<Box<Client>>,
    reader: Reader,
    /// Bytes of the answer's body that came.
    came: u64,
    /// The rest of the request; none when it is sent, or never will be.
    sending: Option<Sending>,
    /// Why the rest of the request is not to be had.
    failed: Option<BodyError>,
    persists: bool,
}

/// A request's body on its way.
#[derive(Debug)]
struct Sending {
    body: RequestBody,
    writer: Writer,
}

impl Client {
    pub(crate) fn new(io: Io, place: Option<Pass>) -> Box<Self> {
        Box::new(Self {
            wire: Wire::new(io, None),
            parser: ResponseParser::default(),
            is_large: false,
            place,
        })
    }

    /// Whether it may carry another request: the endpoint neither closed it nor said anything unasked.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.wire.is_quiet()
    }

    /// Tells who waits for a place among the service's connections that this one has nothing to do.
    pub(crate) fn wake_waiter(&self) {
        if let Some(place) = &self.place {
            place.wake_one();
        }
    }

    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn exchange(
        mut self: Box<Self>,
        request: &Request,
        body: RequestBody,
    ) -> Result<Answer, Broken> {
        let framing = match body.length() {
            Some(0) if !request.fields.contains(Known::ContentLength) => Framing::None,
            Some(bytes) => Framing::Length(bytes),
            None => Framing::Chunked,
        };
        encode(request, framing, self.wire.front())?;
        let mut sending = Some(Sending {
            body,
            writer: framing.into(),
        });
        let mut patience = Patience::of(&request.interims, sending.is_some());
        let mut broken_off = false;
        let mut head = ResponseHead {
            fields: spare::fields(),
            ..ResponseHead::default()
        };
        let mut interim = 0;
        let before = self.wire.written();
        let received = poll_fn(|cx| {
            let told = patience.poll(cx).is_ready();
            if !told && self.wire.has_unsent() && failed(self.wire.poll_flush(cx)) {
                (sending, broken_off) = (None, true);
            }
            if let Some(progress) = sending.as_mut().filter(|_| told) {
                match progress.poll(&mut self.wire, cx) {
                    Poll::Ready(Ok(())) => sending = None,
                    // It may have answered before it closed.
                    Poll::Ready(Err(Unsendable::Connection)) => {
                        sending = None;
                        broken_off = true;
                    }
                    Poll::Ready(Err(Unsendable::Body(error))) => {
                        return Poll::Ready(Err(Broken::connection(error.to_string().into())));
                    }
                    Poll::Pending => {}
                }
            }
            self.poll_head(cx, &mut head, &mut interim, request, &mut patience)
        });
        let received = received.await;
        let unsent = self.wire.written() == before;
        let framing = match received {
            Ok(_) if unsent => Err(Broken::malformed("an answer to nothing")),
            received => received,
        };
        let framing = framing.map_err(|broken| Broken { unsent, ..broken })?;
        // A body that nobody asked for is not sent, nor is anything behind its head.
        let kept_back = patience.is_waiting() && sending.take().is_some();
        // An endpoint that was asked for another protocol may have begun to speak it.
        let persists = head.persists()
            && !kept_back
            && framing != Framing::UntilClose
            && request.upgrade.is_none()
            && !broken_off;
        let outcome = Box::new(Outcome {
            client: Some(self),
            reader: framing.into(),
            came: 0,
            sending,
            failed: None,
            persists,
        });
        Ok(Answer { head, outcome })
    }

    /// The head of the final answer.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut ResponseHead,
        interim: &mut u32,
        request: &Request,
        patience: &mut Patience,
    ) -> Poll<Result<Framing, Broken>> {
        let limits = HeadLimits::default();
        let expect = match self.is_large {
            true => Expect::Body,
            false => Expect::Head,
        };
        loop {
            let parsed = self.parser.parse(&self.wire.read, &limits, head);
            match parsed.map_err(|bad| Broken::malformed(bad.to_string()))? {
                Parsed::Partial => match ready!(self.wire.poll_fill(cx, expect)) {
                    Ok(0) => {
                        return Poll::Ready(Err(Broken::connection(
                            "the endpoint closed the connection".into(),
                        )));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        return Poll::Ready(Err(Broken::connection(error.to_string().into())));
                    }
                },
                Parsed::Head { consumed } => {
                    self.wire.read.advance(consumed);
                    if !head.is_interim() {
                        let framing = response_framing(head, &request.method)
                            .map_err(|bad| Broken::malformed(bad.to_string()))?;
                        return Poll::Ready(Ok(framing));
                    }
                    *interim += 1;
                    if *interim > INTERIM_MAX {
                        return Poll::Ready(Err(Broken::malformed("a flood of interim answers")));
                    }
                    if head.status == 100 {
                        patience.end();
                        // The body is sent before more is waited for.
                        cx.waker().wake_by_ref();
                    }
                    request.interims.tell(std::mem::take(head));
                }
            }
        }
    }
}

fn failed(flushed: Poll<std::io::Result<()>>) -> bool {
    matches!(flushed, Poll::Ready(Err(_)))
}

/// Why a request could not be sent to its end.
enum Unsendable {
    Connection,
    Body(BodyError),
}

impl Sending {
    /// Moves the body on; ready when all is sent.
    fn poll(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<Result<(), Unsendable>> {
        loop {
            let mut waiting = false;
            while !self.writer.is_ended() && !wire.is_full() && !waiting {
                match self.body.poll_frame(cx) {
                    Poll::Ready(frame) => {
                        let frame = frame.transpose().map_err(Unsendable::Body)?;
                        self.writer.put(wire, frame).map_err(Unsendable::Body)?;
                    }
                    Poll::Pending => waiting = true,
                }
            }
            if wire.has_unsent() {
                ready!(wire.poll_flush(cx)).map_err(|_| Unsendable::Connection)?;
            }
            if self.writer.is_ended() {
                return Poll::Ready(Ok(()));
            }
            if waiting {
                return Poll::Pending;
            }
        }
    }
}

fn encode(request: &Request, framing: Framing, out: &mut Vec<u8>) -> Result<(), Broken> {
    let line = RequestLine {
        method: &request.method,
        target: &request.target,
        authority: &request.authority,
    };
    let persist = request
        .upgrade
        .as_deref()
        .map_or(Persist::Keep, Persist::Upgrade);
    encode_request(line, &request.fields, framing, persist, out).map_err(|error| Broken {
        unsent: false,
        malformed: true,
        why: error.to_string().into(),
    })
}

impl Broken {
    fn connection(why: Cow<'static, str>) -> Self {
        Self {
            unsent: false,
            malformed: false,
            why,
        }
    }

    fn malformed(why: impl Into<Cow<'static, str>>) -> Self {
        Self {
            unsent: false,
            malformed: true,
            why: why.into(),
        }
    }
}

impl Outcome {
    pub(crate) fn is_ended(&self) -> bool {
        self.reader.is_ended()
    }

    /// Bytes still to come, if that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        self.reader.length()
    }

    /// The next piece of the answer's body; the rest of the request goes on meanwhile.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        self.move_request(cx);
        let Some(client) = &mut self.client else {
            return Poll::Ready(None);
        };
        let polled = self.reader.poll_frame(&mut client.wire, cx);
        if let Poll::Ready(Some(Ok(Frame::Data(data)))) = &polled {
            self.came += data.len() as u64;
        }
        match (polled, &self.failed) {
            // What the endpoint waits for will never come.
            (Poll::Pending, Some(failed)) => Poll::Ready(Some(Err(failed.clone()))),
            (polled, _) => polled,
        }
    }

    /// Sends what there is of the rest of the request.
    pub(crate) fn move_request(&mut self, cx: &mut Context<'_>) {
        let (Some(client), Some(sending)) = (&mut self.client, &mut self.sending) else {
            return;
        };
        match sending.poll(&mut client.wire, cx) {
            Poll::Pending => return,
            Poll::Ready(Ok(())) => {}
            // It may have answered before it closed.
            Poll::Ready(Err(Unsendable::Connection)) => self.persists = false,
            Poll::Ready(Err(Unsendable::Body(error))) => {
                self.persists = false;
                self.failed = Some(error);
            }
        }
        self.sending = None;
    }

    /// The connection for further requests, if this exchange is provably over.
    pub(crate) fn take_connection(&mut self) -> Option<Box<Client>> {
        let over = self.persists && self.sending.is_none() && self.is_ended();
        let mut client = self.client.take()?;
        client.is_large = self.came > LARGE_BYTES_MIN;
        client.wire.give_back_read();
        (over && client.is_quiet()).then_some(client)
    }

    /// The bytes themselves and their place among the service's connections, after the agreement to change the
    /// protocol. `None` while the request was not sent to its end.
    pub(crate) fn into_io(self) -> Option<(Io, Option<Pass>)> {
        let client = self.client.filter(|_| self.sending.is_none())?;
        Some((client.wire.into_io(), client.place))
    }
}

#[cfg(test)]
mod tests;
