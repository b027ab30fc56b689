//! A [`Table`] as one netlink transaction.

use std::io;
use std::net::Ipv4Addr;

use netlink_bindings::nftables::{
    Chained, CmpOps, MetaKeys, Nfgenmsg, NumgenTypes, PayloadBase, PushExprListAttrs,
    PushRuleAttrs, Registers, RejectTypes, VerdictCode,
};
use netlink_bindings::utils::RequestBuf;
use netlink_socket2::NetlinkSocket;

use crate::{Chain, ChainType, Family, Match, NetfilterError, Rule, Table, Target};

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NAT_SOURCE: u32 = 0;
const NAT_DESTINATION: u32 = 1;
const ICMP_PORT_UNREACHABLE: u8 = 3;
/// Offsets in the IPv4 header.
const OFFSET_SOURCE: u32 = 12;
const OFFSET_DESTINATION: u32 = 16;
/// Offset in TCP's and UDP's header.
const OFFSET_DESTINATION_PORT: u32 = 2;
/// Flags in TCP's header: where, which of them open a connection, and the one that must be set.
const OFFSET_TCP_FLAGS: u32 = 13;
const TCP_SYN_ACK: u8 = 0x12;
const TCP_SYN: u8 = 0x02;
/// Length of an interface's name in the kernel, filled with zeros.
const INTERFACE_NAME_BYTES: usize = 16;

type Expressions<'a> = PushExprListAttrs<PushRuleAttrs<RequestBuf<'a>>>;

pub(crate) fn replace(table: &Table) -> Result<(), NetfilterError> {
    transaction("replace", &table.name, |batch| {
        let family = header(table.family);
        delete(batch, &family, &table.name);
        batch
            .request()
            .set_create()
            .op_newtable_do(&family)
            .encode()
            .push_name_bytes(table.name.as_bytes());
        for chain in &table.chains {
            new_chain(batch, &family, &table.name, chain);
        }
        for chain in &table.chains {
            for rule in &chain.rules {
                new_rule(batch, &family, &table.name, &chain.name, rule);
            }
        }
    })
}

pub(crate) fn remove(name: &str) -> Result<(), NetfilterError> {
    transaction("removal", name, |batch| {
        delete(batch, &header(Family::Ipv4), name)
    })
}

fn transaction(
    step: &'static str,
    table: &str,
    fill: impl Fn(&mut Chained<'static>),
) -> Result<(), NetfilterError> {
    let failed = |source: io::Error| NetfilterError {
        step,
        table: table.to_owned(),
        source,
    };
    let mut socket = NetlinkSocket::new();
    let mut batch = Chained::new(socket.reserve_seq(1 << 20));
    batch.request().op_batch_begin_do(&batch_header());
    fill(&mut batch);
    batch.request().op_batch_end_do(&batch_header());
    let batch = batch.finalize();
    socket
        .request_chained(&batch)
        .map_err(failed)?
        .recv_all()
        .map_err(|e| failed(io::Error::other(e.to_string())))
}

/// Deletes a table that may be absent: adding one that exists is no error, so it is there to be deleted.
fn delete(batch: &mut Chained<'static>, family: &Nfgenmsg, name: &str) {
    batch
        .request()
        .set_create()
        .op_newtable_do(family)
        .encode()
        .push_name_bytes(name.as_bytes());
    batch
        .request()
        .op_deltable_do(family)
        .encode()
        .push_name_bytes(name.as_bytes());
}

fn new_chain(batch: &mut Chained<'static>, family: &Nfgenmsg, table: &str, chain: &Chain) {
    let mut request = batch.request().set_create().op_newchain_do(family);
    let made = request
        .encode()
        .push_table_bytes(table.as_bytes())
        .push_name_bytes(chain.name.as_bytes());
    let Some(base) = chain.base else { return };
    let kind: &[u8] = match base.kind {
        ChainType::Nat => b"nat",
        ChainType::Filter => b"filter",
    };
    made.nested_hook()
        .push_num(base.hook as u32)
        .push_priority(base.priority)
        .end_nested()
        .push_type_bytes(kind);
}

fn new_rule(
    batch: &mut Chained<'static>,
    family: &Nfgenmsg,
    table: &str,
    chain: &str,
    rule: &Rule,
) {
    let mut expressions = batch
        .request()
        .set_create()
        .set_append()
        .op_newrule_do(family)
        .into_encoder()
        .push_table_bytes(table.as_bytes())
        .push_chain_bytes(chain.as_bytes())
        .nested_expressions();
    for condition in &rule.matches {
        expressions = push_match(expressions, condition);
    }
    push_target(expressions, &rule.target)
        .end_nested()
        .end_nested();
}

fn push_match<'a>(e: Expressions<'a>, condition: &Match) -> Expressions<'a> {
    match condition {
        Match::Protocol(protocol) => {
            compare(meta(e, MetaKeys::L4Proto), CmpOps::Eq, &[*protocol as u8])
        }
        Match::Source(address, bits) => within(e, OFFSET_SOURCE, *address, *bits, CmpOps::Eq),
        Match::Destination(address, bits) => {
            within(e, OFFSET_DESTINATION, *address, *bits, CmpOps::Eq)
        }
        Match::NotDestination(address, bits) => {
            within(e, OFFSET_DESTINATION, *address, *bits, CmpOps::Neq)
        }
        Match::DestinationPort(first, last) => {
            let e = payload(e, PayloadBase::TransportHeader, OFFSET_DESTINATION_PORT, 2);
            if first == last {
                return compare(e, CmpOps::Eq, &first.to_be_bytes());
            }
            let e = compare(e, CmpOps::Gte, &first.to_be_bytes());
            compare(e, CmpOps::Lte, &last.to_be_bytes())
        }
        Match::TcpOpens => {
            let e = payload(e, PayloadBase::TransportHeader, OFFSET_TCP_FLAGS, 1);
            compare(masked(e, &[TCP_SYN_ACK]), CmpOps::Eq, &[TCP_SYN])
        }
        Match::InInterface(name) => interface(meta(e, MetaKeys::Iifname), name),
        Match::OutInterface(name) => interface(meta(e, MetaKeys::Oifname), name),
        Match::SocketUser(uid) => compare(meta(e, MetaKeys::Skuid), CmpOps::Eq, &uid.to_ne_bytes()),
        Match::Mark(mark) => compare(meta(e, MetaKeys::Mark), CmpOps::Eq, &mark.to_ne_bytes()),
        Match::OneIn(n) => compare(random_below(e, *n), CmpOps::Eq, &0u32.to_ne_bytes()),
    }
}

fn push_target<'a>(e: Expressions<'a>, target: &Target) -> Expressions<'a> {
    match target {
        Target::Accept => verdict(e, VerdictCode::Accept, None),
        Target::Return => verdict(e, VerdictCode::Return, None),
        Target::Drop => verdict(e, VerdictCode::Drop, None),
        Target::Jump(chain) => verdict(e, VerdictCode::Jump, Some(chain)),
        Target::SetMark(mark) => immediate(e, Registers::Reg1, &mark.to_ne_bytes())
            .nested_elem()
            .nested_data_meta()
            .push_key(MetaKeys::Mark as u32)
            .push_sreg(Registers::Reg1 as u32)
            .end_nested()
            .end_nested(),
        Target::Dnat(address, port) => {
            let e = immediate(e, Registers::Reg1, &address.octets());
            immediate(e, Registers::Reg2, &port.to_be_bytes())
                .nested_elem()
                .nested_data_nat()
                .push_type(NAT_DESTINATION)
                .push_family(Family::Ipv4 as u32)
                .push_reg_addr_min(Registers::Reg1 as u32)
                .push_reg_proto_min(Registers::Reg2 as u32)
                .end_nested()
                .end_nested()
        }
        Target::Snat(address) => immediate(e, Registers::Reg1, &address.octets())
            .nested_elem()
            .nested_data_nat()
            .push_type(NAT_SOURCE)
            .push_family(Family::Ipv4 as u32)
            .push_reg_addr_min(Registers::Reg1 as u32)
            .end_nested()
            .end_nested(),
        Target::RejectTcp => e
            .nested_elem()
            .nested_data_reject()
            .push_type(RejectTypes::TcpRst as u32)
            .end_nested()
            .end_nested(),
        Target::RejectUnreachable => e
            .nested_elem()
            .nested_data_reject()
            .push_type(RejectTypes::IcmpUnreach as u32)
            .push_icmp_code(ICMP_PORT_UNREACHABLE)
            .end_nested()
            .end_nested(),
    }
}

fn within<'a>(
    e: Expressions<'a>,
    offset: u32,
    address: Ipv4Addr,
    bits: u8,
    op: CmpOps,
) -> Expressions<'a> {
    let mask = u32::MAX
        .checked_shl(32 - u32::from(bits.min(32)))
        .unwrap_or(0);
    let network = address.to_bits() & mask;
    let e = payload(e, PayloadBase::NetworkHeader, offset, 4);
    let e = if mask == u32::MAX {
        e
    } else {
        masked(e, &mask.to_be_bytes())
    };
    compare(e, op, &network.to_be_bytes())
}

fn masked<'a, const N: usize>(e: Expressions<'a>, mask: &[u8; N]) -> Expressions<'a> {
    e.nested_elem()
        .nested_data_bitwise()
        .push_sreg(Registers::Reg1 as u32)
        .push_dreg(Registers::Reg1 as u32)
        .push_len(N as u32)
        .nested_mask()
        .push_value(mask)
        .end_nested()
        .nested_xor()
        .push_value(&[0; N])
        .end_nested()
        .end_nested()
        .end_nested()
}

fn interface<'a>(e: Expressions<'a>, name: &str) -> Expressions<'a> {
    let mut bytes = [0; INTERFACE_NAME_BYTES];
    let length = name.len().min(INTERFACE_NAME_BYTES - 1);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    compare(e, CmpOps::Eq, &bytes)
}

fn payload(e: Expressions<'_>, base: PayloadBase, offset: u32, length: u32) -> Expressions<'_> {
    e.nested_elem()
        .nested_data_payload()
        .push_dreg(Registers::Reg1 as u32)
        .push_base(base as u32)
        .push_offset(offset)
        .push_len(length)
        .end_nested()
        .end_nested()
}

fn meta(e: Expressions<'_>, key: MetaKeys) -> Expressions<'_> {
    e.nested_elem()
        .nested_data_meta()
        .push_dreg(Registers::Reg1 as u32)
        .push_key(key as u32)
        .end_nested()
        .end_nested()
}

fn random_below(e: Expressions<'_>, n: u32) -> Expressions<'_> {
    e.nested_elem()
        .nested_data_numgen()
        // The binding writes this one attribute in the machine's order; the kernel reads network order.
        .push_dreg((Registers::Reg1 as u32).to_be())
        .push_modulus(n)
        .push_type(NumgenTypes::Random as u32)
        .push_offset(0)
        .end_nested()
        .end_nested()
}

fn compare<'a>(e: Expressions<'a>, op: CmpOps, bytes: &[u8]) -> Expressions<'a> {
    e.nested_elem()
        .nested_data_cmp()
        .push_sreg(Registers::Reg1 as u32)
        .push_op(op as u32)
        .nested_data()
        .push_value(bytes)
        .end_nested()
        .end_nested()
        .end_nested()
}

fn immediate<'a>(e: Expressions<'a>, register: Registers, bytes: &[u8]) -> Expressions<'a> {
    e.nested_elem()
        .nested_data_immediate()
        .push_dreg(register as u32)
        .nested_data()
        .push_value(bytes)
        .end_nested()
        .end_nested()
        .end_nested()
}

fn verdict<'a>(e: Expressions<'a>, code: VerdictCode, chain: Option<&str>) -> Expressions<'a> {
    let verdict = e
        .nested_elem()
        .nested_data_immediate()
        .push_dreg(Registers::RegVerdict as u32)
        .nested_data()
        .nested_verdict()
        .push_code(code as u32);
    let verdict = match chain {
        Some(chain) => verdict.push_chain_bytes(chain.as_bytes()),
        None => verdict,
    };
    verdict.end_nested().end_nested().end_nested().end_nested()
}

fn batch_header() -> Nfgenmsg {
    let mut header = Nfgenmsg::new();
    header.set_res_id(NFNL_SUBSYS_NFTABLES);
    header
}

fn header(family: Family) -> Nfgenmsg {
    Nfgenmsg {
        nfgen_family: family as u8,
        ..Default::default()
    }
}
