//! What the two ends tell each other about themselves (RFC 9113 §6.5, RFC 8441 §3).

use super::error::Broken;
use super::frame::PAYLOAD_BYTES_MAX;
use super::window;

pub(super) const HEADER_TABLE_SIZE: u16 = 0x1;
pub(super) const ENABLE_PUSH: u16 = 0x2;
pub(super) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_FRAME_SIZE: u16 = 0x5;
pub(super) const MAX_HEADER_LIST_SIZE: u16 = 0x6;
pub(super) const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;

/// What the peer has said so far, or RFC 9113's defaults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PeerSettings {
    pub(super) table_bytes_max: u32,
    pub(super) streams_max: u32,
    pub(super) stream_window: u32,
    pub(super) extended_connect: bool,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            table_bytes_max: 4096,
            streams_max: u32::MAX,
            stream_window: window::DEFAULT,
            extended_connect: false,
        }
    }
}

impl PeerSettings {
    /// Takes a SETTINGS frame's payload over, whole or not at all. Only a server may not allow pushes.
    pub(super) fn take(&mut self, payload: &[u8], from_server: bool) -> Result<(), Broken> {
        let mut new = *self;
        for entry in payload.chunks_exact(6) {
            let [a, b, c, d, e, f] = *entry else { continue };
            let id = u16::from_be_bytes([a, b]);
            new.set(id, u32::from_be_bytes([c, d, e, f]), from_server)?;
        }
        *self = new;
        Ok(())
    }

    fn set(&mut self, id: u16, value: u32, from_server: bool) -> Result<(), Broken> {
        match id {
            HEADER_TABLE_SIZE => self.table_bytes_max = value,
            ENABLE_PUSH if value > 1 || from_server && value == 1 => {
                return Err(Broken::protocol("a bad ENABLE_PUSH"));
            }
            MAX_CONCURRENT_STREAMS => self.streams_max = value,
            INITIAL_WINDOW_SIZE if value > window::MAX => {
                return Err(Broken::flow("an INITIAL_WINDOW_SIZE that is too large"));
            }
            INITIAL_WINDOW_SIZE => self.stream_window = value,
            // Ours are never longer than everybody must take.
            MAX_FRAME_SIZE if !(PAYLOAD_BYTES_MAX as u32..1 << 24).contains(&value) => {
                return Err(Broken::protocol("a bad MAX_FRAME_SIZE"));
            }
            ENABLE_CONNECT_PROTOCOL if value > 1 || value == 0 && self.extended_connect => {
                return Err(Broken::protocol("a bad ENABLE_CONNECT_PROTOCOL"));
            }
            ENABLE_CONNECT_PROTOCOL => self.extended_connect = value == 1,
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::Code;

    fn check(settings: &[(u16, u32)], from_server: bool, expected: Result<PeerSettings, Code>) {
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        let mut peer = PeerSettings::default();
        let taken = peer.take(&payload, from_server);
        let found = taken.map(|()| peer).map_err(|broken| broken.code);
        assert_eq!(found, expected, "{settings:?}");
        if expected.is_err() {
            assert_eq!(peer, PeerSettings::default(), "{settings:?}");
        }
    }

    #[test]
    fn settings_are_taken_whole_or_not_at_all() {
        let default = PeerSettings::default();
        check(&[], false, Ok(default));
        let told = PeerSettings {
            table_bytes_max: 0,
            streams_max: 7,
            stream_window: 1 << 20,
            extended_connect: true,
        };
        let all = [(1, 0), (3, 7), (4, 1 << 20), (8, 1), (6, 1), (0x99, 5)];
        check(&all, false, Ok(told));
        check(&[(2, 0), (5, 16384), (5, 16777215)], true, Ok(default));
        check(&[(2, 1)], false, Ok(default));
        let bad = Err(Code::PROTOCOL_ERROR);
        check(&[(3, 1), (2, 1)], true, bad);
        check(&[(3, 1), (2, 2)], false, bad);
        check(&[(5, 16383)], false, bad);
        check(&[(5, 16777216)], false, bad);
        check(&[(8, 2)], false, bad);
        check(&[(8, 1), (8, 0)], false, bad);
        check(&[(4, 0x7fff_ffff)], false, {
            Ok(PeerSettings {
                stream_window: 0x7fff_ffff,
                ..default
            })
        });
        check(&[(4, 0x8000_0000)], false, Err(Code::FLOW_CONTROL_ERROR));
    }
}
