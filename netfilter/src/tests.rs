//! The kernel is the judge: rules are put into a fresh network namespace and read back by `nft`.

use std::net::Ipv4Addr;
use std::process::Command;

use super::*;

/// In a new network namespace: puts `build`'s table in force twice (the second replaces the first) and returns what
/// `nft list ruleset` shows.
fn listed(build: impl Fn() -> Table + Send + 'static) -> String {
    std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("root, to make a network namespace");
        build().replace().expect("the kernel takes the table");
        build().replace().expect("the kernel takes it again");
        let out = Command::new("nft")
            .args(["list", "ruleset"])
            .output()
            .expect("nft is installed");
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        Table::remove("t").expect("removal");
        Table::remove("t").expect("removal of what is not there");
        String::from_utf8(out.stdout).unwrap()
    })
    .join()
    .unwrap()
}

fn check(rule: Rule, shown: &str) {
    let listed = listed(move || {
        let mut table = Table::new("t");
        table.chain("target");
        table.base_chain("c", Hook::Output, ChainType::Nat, PRIORITY_DSTNAT);
        table.base_chain("f", Hook::Output, ChainType::Filter, PRIORITY_FILTER);
        table.base_chain("s", Hook::Postrouting, ChainType::Nat, PRIORITY_SRCNAT);
        let chain = match rule.target {
            Target::Drop | Target::RejectTcp | Target::RejectUnreachable => "f",
            Target::Snat(_) => "s",
            _ => "c",
        };
        table.rule(chain, rule.clone());
        table
    });
    assert_eq!(
        listed.matches(shown).count(),
        1,
        "wanted once: {shown}\n{listed}"
    );
}

#[test]
fn rules_as_the_kernel_shows_them() {
    use Match::*;
    let tcp = || Rule::new(Target::Return).when(Protocol(super::Protocol::Tcp));
    check(
        Rule::new(Target::Accept).when(SocketUser(1337)),
        "meta skuid 1337 accept",
    );
    check(
        Rule::new(Target::Return).when(Mark(0x539)),
        "meta mark 0x00000539 return",
    );
    check(
        Rule::new(Target::Return).when(OutInterface("lo".into())),
        "oifname \"lo\" return",
    );
    check(tcp().when(DestinationPort(80, 80)), "tcp dport 80 return");
    check(tcp().when(TcpOpens), "tcp flags syn / syn,ack return");
    check(
        tcp().when(DestinationPort(80, 90)),
        "tcp dport 80-90 return",
    );
    check(
        Rule::new(Target::Jump("target".into())).when(Destination(Ipv4Addr::new(10, 96, 0, 0), 16)),
        "ip daddr 10.96.0.0/16 jump target",
    );
    check(
        Rule::new(Target::Return).when(NotDestination(Ipv4Addr::new(10, 96, 0, 1), 32)),
        "ip daddr != 10.96.0.1 return",
    );
    check(
        Rule::new(Target::Return).when(OneIn(3)),
        "numgen random mod 3 0 return",
    );
    check(
        Rule::new(Target::SetMark(0x4000)),
        "meta mark set 0x00004000",
    );
    check(
        Rule::new(Target::Dnat(Ipv4Addr::new(10, 244, 0, 9), 8080))
            .when(Protocol(super::Protocol::Tcp)),
        "dnat to 10.244.0.9:8080",
    );
    check(
        Rule::new(Target::Snat(Ipv4Addr::new(10, 244, 0, 1))),
        "snat to 10.244.0.1",
    );
    check(
        Rule::new(Target::RejectTcp).when(Protocol(super::Protocol::Tcp)),
        "reject with tcp reset",
    );
    check(Rule::new(Target::RejectUnreachable), "reject");
    check(Rule::new(Target::Drop).when(Mark(0x539)), "0x00000539 drop");
}

#[test]
fn a_table_for_ipv6() {
    let listed = listed(|| {
        let mut table = Table::ipv6("t");
        table.base_chain("c", Hook::Input, ChainType::Filter, PRIORITY_FILTER);
        let tcp = |target| Rule::new(target).when(Match::Protocol(Protocol::Tcp));
        let here = Match::InInterface("lo".into());
        table.rule("c", tcp(Target::Return).when(here));
        table.rule("c", tcp(Target::RejectTcp).when(Match::TcpOpens));
        table
    });
    for shown in [
        "table ip6 t",
        "iifname \"lo\" return",
        "tcp flags syn / syn,ack reject with tcp reset",
    ] {
        assert_eq!(listed.matches(shown).count(), 1, "{shown}\n{listed}");
    }
}
