//! Whoever has a connection: answers what is asked, in few words, and notes what it hears.

use std::collections::BTreeMap;

use meshgate_codec::http2::{Connection, Event, RequestLine, Role, Scheme, StreamId};
use meshgate_codec::{Fields, Method};

pub(super) struct Owner {
    role: Role,
    pub(super) events: Vec<String>,
    streams: BTreeMap<StreamId, Stream>,
    /// The highest stream that was opened.
    highest: StreamId,
}

/// What is to come on a stream, and what is to be said.
#[derive(Debug)]
struct Stream {
    headed: bool,
    hearing: bool,
    saying: bool,
}

const BODY: &[u8] = b"hello";

impl Owner {
    pub(super) fn new(role: Role) -> Self {
        Self {
            role,
            events: Vec::new(),
            streams: BTreeMap::new(),
            highest: 0,
        }
    }

    /// Streams that are not over.
    pub(super) fn open(&self) -> usize {
        self.streams.len()
    }

    /// A client asks.
    pub(super) fn begin(&mut self, connection: &mut Connection, said: &mut Vec<u8>) {
        if self.role == Role::Server {
            return;
        }
        for (method, ends) in [
            (Method::Get, true),
            (Method::Head, true),
            (Method::Post, false),
        ] {
            let line = RequestLine {
                method: &method,
                scheme: Scheme::Http,
                authority: "a.test",
                path: "/",
                protocol: None,
            };
            let opened = connection.request(line, &Fields::default(), &[], ends, said);
            let id = opened.expect("nothing was said against it yet");
            self.highest = id;
            let stream = Stream {
                headed: false,
                hearing: true,
                saying: !ends,
            };
            self.streams.insert(id, stream);
        }
    }

    pub(super) fn hear(
        &mut self,
        connection: &mut Connection,
        event: Event,
        input: &[u8],
        said: &mut Vec<u8>,
    ) {
        let mut note = format!("{event:?}");
        match event {
            Event::Request { stream, head, ends } => {
                assert!(self.role == Role::Server && stream % 2 == 1 && stream > self.highest);
                self.highest = stream;
                let opened = Stream {
                    headed: true,
                    hearing: !ends,
                    saying: true,
                };
                self.streams.insert(stream, opened);
                let status = head.map_or_else(|bad| bad.status(), |_| 200);
                self.answer(connection, stream, status, said);
            }
            Event::Interim { stream, .. } => {
                let open = self.hearing(stream);
                assert!(!open.headed, "an answer before the answer came behind it");
            }
            Event::Response { stream, ends, .. } => {
                let open = self.hearing(stream);
                assert!(!std::mem::replace(&mut open.headed, true), "two answers");
                open.hearing = !ends;
            }
            Event::Data { stream, data, ends } => {
                let bytes = data.len();
                // Where it stands in the input depends on where reads end.
                note = format!("data of {stream}: {} {ends}", input[data].escape_ascii());
                let open = self.hearing(stream);
                assert!(open.headed, "a body before its head");
                open.hearing = !ends;
                let bytes = u32::try_from(bytes).expect("a frame is short");
                connection.release(stream, bytes, said);
            }
            Event::Trailers { stream, .. } => {
                let open = self.hearing(stream);
                assert!(open.headed, "trailers before their head");
                open.hearing = false;
            }
            // Also of streams that were over before anybody heard of them.
            Event::Reset { stream, .. } => {
                self.streams.remove(&stream);
            }
            Event::Room(_) => {
                let waiting: Vec<StreamId> = self.streams.keys().copied().collect();
                for stream in waiting {
                    self.say(connection, stream, said);
                }
            }
            Event::Refused | Event::GoAway { .. } | Event::Pong(_) | Event::Nothing => {}
        }
        self.events.push(note);
        self.streams
            .retain(|_, stream| stream.hearing || stream.saying);
    }

    /// A stream on which something may still come.
    fn hearing(&mut self, stream: StreamId) -> &mut Stream {
        let open = self.streams.get_mut(&stream);
        open.filter(|open| open.hearing)
            .unwrap_or_else(|| panic!("something came on stream {stream}, which was over"))
    }

    /// In one of a few ways, by the stream's number.
    fn answer(
        &mut self,
        connection: &mut Connection,
        stream: StreamId,
        status: u16,
        said: &mut Vec<u8>,
    ) {
        let fields = Fields::default();
        let bodyless = stream % 8 == 1;
        if stream % 8 == 3 {
            let told = connection.inform(stream, 103, &fields, said);
            assert!(told.is_ok(), "nothing was answered yet");
        }
        let told = connection.respond(stream, status, &fields, bodyless, said);
        assert!(told.is_ok(), "nothing was answered yet");
        if let Some(open) = self.streams.get_mut(&stream) {
            open.saying = !bodyless;
        }
        if stream % 8 == 5 {
            let told = connection.trailers(stream, &fields, said);
            assert!(told.is_ok(), "the body was not over");
            if let Some(open) = self.streams.get_mut(&stream) {
                open.saying = false;
            }
        }
        self.say(connection, stream, said);
    }

    /// As much of a body as there is room for, and then its end.
    fn say(&mut self, connection: &mut Connection, stream: StreamId, said: &mut Vec<u8>) {
        let open = self.streams.get_mut(&stream).filter(|open| open.saying);
        let room = connection.room(stream);
        assert_eq!(open.is_some(), room.is_some(), "who may speak on {stream}");
        let (Some(open), Some(room)) = (open, room) else {
            return;
        };
        if room < BODY.len() {
            return;
        }
        let told = connection.data(stream, BODY.len(), true, said);
        assert!(told.is_ok(), "there was room");
        said.extend_from_slice(BODY);
        open.saying = false;
    }
}
