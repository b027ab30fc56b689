//! Two ends that do random things to each other: what one says the other hears, windows are kept, nothing is left.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What two ends do to each other.
#[derive(Clone, Debug)]
enum Deed {
    Ask {
        ends: bool,
    },
    Answer {
        pick: usize,
        ends: bool,
    },
    Inform {
        pick: usize,
    },
    Say {
        side: bool,
        pick: usize,
        bytes: usize,
        ends: bool,
    },
    Trailers {
        side: bool,
        pick: usize,
    },
    Reset {
        side: bool,
        pick: usize,
    },
    Take {
        side: bool,
        pick: usize,
    },
    Settings {
        side: bool,
    },
    Move {
        side: bool,
        bytes: usize,
    },
}

fn deed() -> impl Strategy<Value = Deed> {
    let side = any::<bool>;
    let pick = || 0..8_usize;
    prop_oneof![
        3 => any::<bool>().prop_map(|ends| Deed::Ask { ends }),
        3 => (pick(), any::<bool>()).prop_map(|(pick, ends)| Deed::Answer { pick, ends }),
        1 => pick().prop_map(|pick| Deed::Inform { pick }),
        6 => (side(), pick(), 0..20_000_usize, any::<bool>())
            .prop_map(|(side, pick, bytes, ends)| Deed::Say { side, pick, bytes, ends }),
        1 => (side(), pick()).prop_map(|(side, pick)| Deed::Trailers { side, pick }),
        1 => (side(), pick()).prop_map(|(side, pick)| Deed::Reset { side, pick }),
        4 => (side(), pick()).prop_map(|(side, pick)| Deed::Take { side, pick }),
        1 => side().prop_map(|side| Deed::Settings { side }),
        8 => (side(), 1..40_000_usize).prop_map(|(side, bytes)| Deed::Move { side, bytes }),
    ]
}

/// One end, its owner, and what is on its way to it.
struct Side {
    connection: Connection,
    out: Vec<u8>,
    arrived: Vec<u8>,
    /// What was said on each stream, and whether to its end.
    said: BTreeMap<StreamId, (usize, bool)>,
    /// What was heard, and not released.
    heard: BTreeMap<StreamId, (usize, bool)>,
    unreleased: BTreeMap<StreamId, usize>,
    given_up: Vec<StreamId>,
}

impl Side {
    fn new(role: Role) -> Self {
        let mut out = Vec::new();
        let connection = Connection::new(role, CONFIG, &mut out);
        Self {
            connection,
            out,
            arrived: Vec::new(),
            said: BTreeMap::new(),
            heard: BTreeMap::new(),
            unreleased: BTreeMap::new(),
            given_up: Vec::new(),
        }
    }

    fn streams(&self) -> Vec<StreamId> {
        let mut streams: Vec<_> = self.connection.streams.keys().copied().collect();
        streams.sort_unstable();
        streams
    }

    fn picked(&self, pick: usize) -> Option<StreamId> {
        let streams = self.streams();
        (!streams.is_empty()).then(|| streams[pick % streams.len()])
    }

    fn hear(&mut self, now: Duration) {
        loop {
            let received = self.connection.receive(&self.arrived, now, &mut self.out);
            let Received::Frame { consumed, event } = received.expect("no rule is broken") else {
                return;
            };
            self.arrived.drain(..consumed);
            match event {
                Event::Data { stream, data, ends } => {
                    *self.unreleased.entry(stream).or_default() += data.len();
                    let heard = self.heard.entry(stream).or_default();
                    heard.0 += data.len();
                    heard.1 |= ends;
                }
                Event::Request { stream, ends, head } => {
                    assert!(head.is_ok());
                    self.heard.entry(stream).or_default().1 |= ends;
                }
                Event::Response { stream, ends, .. } => {
                    self.heard.entry(stream).or_default().1 |= ends;
                }
                Event::Trailers { stream, .. } => self.heard.entry(stream).or_default().1 = true,
                Event::Reset {
                    stream, by_peer, ..
                } => {
                    assert!(by_peer);
                    self.given_up.push(stream);
                }
                Event::Refused => panic!("refused"),
                _ => {}
            }
        }
    }

    fn say(&mut self, stream: StreamId, bytes: usize, ends: bool) {
        let headed = self
            .connection
            .streams
            .get(&stream)
            .is_some_and(|open| open.answered);
        let Some(room) = self.connection.room(stream).filter(|_| headed) else {
            return;
        };
        let bytes = bytes.min(room);
        self.connection
            .data(stream, bytes, ends, &mut self.out)
            .unwrap();
        self.out.resize(self.out.len() + bytes, b'x');
        let said = self.said.entry(stream).or_default();
        said.0 += bytes;
        said.1 |= ends;
    }

    fn take(&mut self, stream: StreamId) {
        let bytes = self.unreleased.remove(&stream).unwrap_or(0);
        self.connection.release(stream, bytes as u32, &mut self.out);
    }
}

fn act(sides: &mut [Side; 2], deed: &Deed, now: Duration) {
    let [client, server] = sides;
    match *deed {
        Deed::Ask { ends } => {
            if let Ok(stream) = ask(&mut client.connection, &Method::Get, ends, &mut client.out) {
                client.said.entry(stream).or_default().1 |= ends;
            }
        }
        Deed::Inform { pick } => {
            if let Some(stream) = server.picked(pick) {
                let _ = server
                    .connection
                    .inform(stream, 103, &Fields::default(), &mut server.out);
            }
        }
        Deed::Answer { pick, ends } => {
            let Some(stream) = server.picked(pick) else {
                return;
            };
            let open = &server.connection.streams[&stream];
            if open.sending && !open.answered {
                let fields = Fields::default();
                server
                    .connection
                    .respond(stream, 200, &fields, ends, &mut server.out)
                    .unwrap();
                server.said.entry(stream).or_default().1 |= ends;
            }
        }
        Deed::Say {
            side,
            pick,
            bytes,
            ends,
        } => {
            let side = &mut sides[usize::from(side)];
            if let Some(stream) = side.picked(pick) {
                side.say(stream, bytes, ends);
            }
        }
        Deed::Trailers { side, pick } => {
            let side = &mut sides[usize::from(side)];
            let Some(stream) = side.picked(pick) else {
                return;
            };
            if side.connection.streams[&stream].answered
                && side
                    .connection
                    .trailers(stream, &Fields::default(), &mut side.out)
                    .is_ok()
            {
                side.said.entry(stream).or_default().1 = true;
            }
        }
        Deed::Reset { side, pick } => {
            let side = &mut sides[usize::from(side)];
            if let Some(stream) = side.picked(pick) {
                side.connection.reset(stream, Code::CANCEL, &mut side.out);
                side.given_up.push(stream);
                side.take(stream);
            }
        }
        Deed::Take { side, pick } => {
            let side = &mut sides[usize::from(side)];
            let waiting: Vec<_> = side.unreleased.keys().copied().collect();
            if let Some(stream) = waiting.get(pick % waiting.len().max(1)) {
                side.take(*stream);
            }
        }
        Deed::Settings { side } => {
            let again = [(settings::INITIAL_WINDOW_SIZE, CONFIG.stream_window)];
            frame::write_settings(&again, &mut sides[usize::from(side)].out);
        }
        Deed::Move { side, bytes } => {
            let (from, to) = match side {
                false => (client, server),
                true => (server, client),
            };
            let bytes = bytes.min(from.out.len());
            to.arrived.extend(from.out.drain(..bytes));
            to.hear(now);
        }
    }
}

fn settle(sides: &mut [Side; 2], now: Duration) {
    while sides.iter().any(|side| !side.out.is_empty()) {
        for side in [false, true] {
            act(
                sides,
                &Deed::Move {
                    side,
                    bytes: usize::MAX,
                },
                now,
            );
        }
    }
}

fn agree(deeds: &[Deed]) {
    let mut sides = [Side::new(Role::Client), Side::new(Role::Server)];
    let mut now = Duration::ZERO;
    settle(&mut sides, now);
    for deed in deeds {
        now += Duration::from_millis(100);
        act(&mut sides, deed, now);
    }
    settle(&mut sides, now);
    // Everybody says to the end what was begun, and takes what came.
    for _ in 0..100 {
        for side in &mut sides {
            for stream in side.unreleased.keys().copied().collect::<Vec<_>>() {
                side.take(stream);
            }
            for stream in side.streams() {
                let open = &side.connection.streams[&stream];
                if open.sending && !open.answered {
                    let fields = Fields::default();
                    side.connection
                        .respond(stream, 200, &fields, false, &mut side.out)
                        .unwrap();
                }
                side.say(stream, 0, true);
            }
        }
        now += Duration::from_millis(100);
        settle(&mut sides, now);
    }
    let [client, server] = &sides;
    assert!(client.connection.streams.is_empty() && server.connection.streams.is_empty());
    for (from, to) in [(client, server), (server, client)] {
        assert!(to.arrived.is_empty());
        for (stream, (bytes, ends)) in &from.said {
            let given_up = from.given_up.contains(stream) || to.given_up.contains(stream);
            let heard = to.heard.get(stream).copied().unwrap_or_default();
            match given_up {
                true => assert!(heard.0 <= *bytes),
                false => assert_eq!(heard, (*bytes, *ends), "stream {stream}"),
            }
        }
        // All but what is told by halves came back.
        let room = from.connection.send.room();
        let whole = CONFIG.connection_window as usize;
        assert!((whole / 2..=whole).contains(&room), "{room} of {whole}");
    }
}

proptest! {
    // Each case is hundreds of steps.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_ends_agree(deeds in proptest::collection::vec(deed(), 0..400)) {
        agree(&deeds);
    }
}
