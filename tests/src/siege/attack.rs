//! The kinds of attacks, and an attacker's life.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::{Front, frames, slow};
use crate::tls;

/// What an attacker does. Of each kind every second one does it over TLS, where that makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attack {
    /// Asks once, and then nothing more.
    Idle,
    /// A head, a field a second.
    SlowHead,
    /// A handshake that does not go on.
    SlowHandshake,
    /// A body, a byte a second.
    SlowBody,
    /// A large answer, of which a few bytes a second are read.
    SlowReader,
    /// Streams that are opened and reset.
    RapidReset,
    /// PING, without reading what is answered.
    Ping,
    /// SETTINGS.
    Settings,
    /// A head that goes on in CONTINUATION for ever.
    Continuation,
    /// DATA without a byte.
    EmptyData,
    /// Handshakes that are left when the server has done its part.
    Handshake,
    /// Connections of one single address.
    OneAddress,
}

/// Connections of one address, below what an edge usually allows a client.
const CONNECTIONS_PER_SOURCE: usize = 200;
/// Between the first tries of two attackers of a kind: all at once they would only be more requests than a service takes,
/// and whoever asks in that moment would be refused with them.
const GAP: Duration = Duration::from_millis(1);
/// Between an end and the next try.
const PAUSE: Duration = Duration::from_millis(100);
/// An attacker in a hurry.
const SHORT_PAUSE: Duration = Duration::from_millis(50);

impl Attack {
    /// All there are.
    pub const ALL: [Attack; 12] = [
        Self::Idle,
        Self::SlowHead,
        Self::SlowHandshake,
        Self::SlowBody,
        Self::SlowReader,
        Self::RapidReset,
        Self::Ping,
        Self::Settings,
        Self::Continuation,
        Self::EmptyData,
        Self::Handshake,
        Self::OneAddress,
    ];

    /// What the server closes at once: reset floods and the like.
    pub const FLOODS: [Attack; 5] = [
        Self::RapidReset,
        Self::Ping,
        Self::Settings,
        Self::Continuation,
        Self::EmptyData,
    ];

    fn pause(self) -> Duration {
        match self {
            Self::Handshake => SHORT_PAUSE,
            _ => PAUSE,
        }
    }

    fn source(self, number: usize) -> Ipv4Addr {
        let address = match self {
            Self::OneAddress => 0,
            _ => number / CONNECTIONS_PER_SOURCE,
        };
        let byte = |value: usize| u8::try_from(value).expect("250 sources are left in a byte");
        Ipv4Addr::new(
            127,
            10 + self as u8,
            byte(address / 250),
            byte(1 + address % 250),
        )
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Idle => "idle connections",
            Self::SlowHead => "slow heads",
            Self::SlowHandshake => "handshakes that stop",
            Self::SlowBody => "slow bodies",
            Self::SlowReader => "slow readers",
            Self::RapidReset => "rapid resets",
            Self::Ping => "PING floods",
            Self::Settings => "SETTINGS floods",
            Self::Continuation => "CONTINUATION floods",
            Self::EmptyData => "floods of empty DATA",
            Self::Handshake => "handshake floods",
            Self::OneAddress => "connections of one address",
        })
    }
}

pub(super) trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Bytes for S {}

/// A connection, whatever it travels in.
pub(super) type Wire = Box<dyn Bytes>;

impl Front {
    /// One attacker, for ever.
    pub(super) async fn attack(self, number: usize) {
        let before = u32::try_from(number).expect("a machine has fewer ports");
        tokio::time::sleep(GAP * before).await;
        loop {
            match self.connect(number).await {
                Ok(stream) => {
                    self.counts.opened.fetch_add(1, Ordering::Relaxed);
                    // However it ends, it is the server that ended it; but for those that leave by themselves.
                    let _ = self.strike(stream, number).await;
                    if self.attack != Attack::Handshake {
                        self.counts.closed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(_) => {
                    self.counts.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
            tokio::time::sleep(self.attack.pause()).await;
        }
    }

    fn is_secure(&self, number: usize) -> bool {
        match self.attack {
            Attack::SlowHandshake | Attack::Handshake => true,
            Attack::OneAddress => false,
            _ => number % 2 == 1,
        }
    }

    async fn connect(&self, number: usize) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if self.attack == Attack::SlowReader {
            socket.set_recv_buffer_size(slow::WINDOW)?;
        }
        socket.bind((IpAddr::V4(self.attack.source(number)), 0).into())?;
        let target = &self.ground.target;
        let stream = socket.connect(match self.is_secure(number) {
            true => target.https,
            false => target.http,
        });
        let stream = stream.await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// One connection's life, until the server ends it.
    fn strike(
        &self,
        stream: TcpStream,
        number: usize,
    ) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + '_>> {
        let target = &self.ground.target;
        let standing = &self.counts.standing;
        match self.attack {
            Attack::SlowHandshake => Box::pin(slow::handshake(stream, standing)),
            Attack::Handshake => Box::pin(slow::handshake_left(
                stream,
                &self.ground.http1,
                &target.host,
            )),
            _ => Box::pin(async move {
                let wire = self.wire(stream, number).await?;
                match self.attack {
                    Attack::Idle | Attack::OneAddress => slow::idle(wire, target, standing).await,
                    Attack::SlowHead => slow::head(wire, target, standing).await,
                    Attack::SlowBody => slow::body(wire, target, standing).await,
                    Attack::SlowReader => slow::reader(wire, target, standing).await,
                    flood => frames::flood(flood, wire, target).await,
                }
            }),
        }
    }

    async fn wire(&self, stream: TcpStream, number: usize) -> io::Result<Wire> {
        if !self.is_secure(number) {
            return Ok(Box::new(stream));
        }
        let config = match Attack::FLOODS.contains(&self.attack) {
            true => self.ground.http2.clone(),
            false => self.ground.http1.clone(),
        };
        let name = tls::server_name(&self.ground.target.host)?;
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        Ok(Box::new(stream))
    }
}
