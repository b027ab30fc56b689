//! nf_tables rules by netlink: a table as a value, put in force whole in one transaction.
//!
//! Node agents (service addresses) and sidecars (redirection) both need it and may not know each other.
//! Deliberately absent: reading rules back. A [`Table`] is owned by its writer and replaced as a whole, so that what is
//! in the kernel never depends on what was there before.

mod rule;
mod wire;

pub use rule::{Match, Protocol, Rule, Target};

use std::io;

/// A table of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    family: Family,
    name: String,
    chains: Vec<Chain>,
}

/// Whose packets a table sees (`AF_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Family {
    Ipv4 = 2,
    Ipv6 = 10,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Chain {
    name: String,
    base: Option<Base>,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Base {
    hook: Hook,
    kind: ChainType,
    priority: i32,
}

/// Where in the packet's path a base chain runs (`NF_INET_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// Packets that arrive, before routing.
    Prerouting = 0,
    /// Packets for this host.
    Input = 1,
    /// Packets passed through.
    Forward = 2,
    /// Packets made by this host.
    Output = 3,
    /// Packets about to leave.
    Postrouting = 4,
}

/// Kind of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainType {
    /// Sees the first packet of a connection; may change addresses.
    Nat,
    /// Sees every packet; may refuse.
    Filter,
}

/// Priority of destination NAT among the chains of a hook.
pub const PRIORITY_DSTNAT: i32 = -100;
/// Priority of source NAT.
pub const PRIORITY_SRCNAT: i32 = 100;
/// Priority of filters.
pub const PRIORITY_FILTER: i32 = 0;

/// Why the kernel did not take a table.
#[derive(Debug, thiserror::Error)]
#[error("nf_tables: {step} of table {table} failed")]
pub struct NetfilterError {
    step: &'static str,
    table: String,
    #[source]
    source: io::Error,
}

impl Table {
    /// An empty table for IPv4.
    pub fn new(name: &str) -> Table {
        Table::of(Family::Ipv4, name)
    }

    /// An empty table for IPv6. Matches and targets with addresses are IPv4's alone.
    pub fn ipv6(name: &str) -> Table {
        Table::of(Family::Ipv6, name)
    }

    fn of(family: Family, name: &str) -> Table {
        Table {
            family,
            name: name.to_owned(),
            chains: Vec::new(),
        }
    }

    /// Adds a chain that the kernel calls at `hook`. Its policy is accept.
    pub fn base_chain(&mut self, name: &str, hook: Hook, kind: ChainType, priority: i32) {
        self.chains.push(Chain {
            name: name.to_owned(),
            base: Some(Base {
                hook,
                kind,
                priority,
            }),
            rules: Vec::new(),
        });
    }

    /// Adds a chain that rules jump to. Chains must be added before rules that jump to them.
    pub fn chain(&mut self, name: &str) {
        self.chains.push(Chain {
            name: name.to_owned(),
            base: None,
            rules: Vec::new(),
        });
    }

    /// Appends a rule to `chain`.
    ///
    /// # Panics
    /// If the chain was not added: a mistake in the program, never in its input.
    pub fn rule(&mut self, chain: &str, rule: Rule) {
        self.chains
            .iter_mut()
            .find(|c| c.name == chain)
            .expect("a chain is added before its rules")
            .rules
            .push(rule);
    }

    /// Replaces the table of this name in the calling thread's network namespace, in one transaction: packets see the
    /// old rules or the new ones, never a part. Blocks for the kernel's answer (well below a millisecond).
    pub fn replace(&self) -> Result<(), NetfilterError> {
        wire::replace(self)
    }

    /// Removes the IPv4 table of this name, if there is one.
    pub fn remove(name: &str) -> Result<(), NetfilterError> {
        wire::remove(name)
    }
}

#[cfg(test)]
mod tests;
