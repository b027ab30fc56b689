//! Rules as data: what must hold of a packet, then what happens to it.

use std::net::Ipv4Addr;

/// One rule: all matches must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What must hold, in order.
    pub matches: Vec<Match>,
    /// What happens then.
    pub target: Target,
}

/// A condition on a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// Transport protocol.
    Protocol(Protocol),
    /// Source address within a network.
    Source(Ipv4Addr, u8),
    /// Destination address within a network.
    Destination(Ipv4Addr, u8),
    /// Destination address outside a network.
    NotDestination(Ipv4Addr, u8),
    /// Destination port within a range, both ends included. Needs [`Match::Protocol`] before it.
    DestinationPort(u16, u16),
    /// The packet asks for a new TCP connection: SYN without ACK. Needs [`Match::Protocol`] before it.
    TcpOpens,
    /// Name of the interface that the packet came by.
    InInterface(String),
    /// Name of the interface that the packet leaves by.
    OutInterface(String),
    /// User of the socket that made the packet.
    SocketUser(u32),
    /// Firewall mark.
    Mark(u32),
    /// True for one in `n` packets, by chance.
    OneIn(u32),
}

/// Transport protocols that have ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
}

/// What a rule does with a packet that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Ends the chain and accepts.
    Accept,
    /// Goes back to the calling chain; in a base chain: accepts.
    Return,
    /// Goes on in another chain of the same table.
    Jump(String),
    /// Sets the firewall mark and goes on with the next rule.
    SetMark(u32),
    /// Rewrites the destination.
    Dnat(Ipv4Addr, u16),
    /// Rewrites the source address.
    Snat(Ipv4Addr),
    /// Ends the packet; nobody is told.
    Drop,
    /// Answers with a TCP reset.
    RejectTcp,
    /// Answers with ICMP port unreachable.
    RejectUnreachable,
}

impl Rule {
    /// A rule without conditions.
    pub fn new(target: Target) -> Rule {
        Rule {
            matches: Vec::new(),
            target,
        }
    }

    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, condition: Match) -> Rule {
        self.matches.push(condition);
        self
    }
}
