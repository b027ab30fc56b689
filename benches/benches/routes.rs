//! How long the edge takes to find the rule of a request, by the number of rules. Target: 1 µs at 10,000.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use meshgate_routing::route::{HostName, HostRules, PathKind, PathMatch, RouteRequest, RouteTable};

/// Rules of one host in the tables of many hosts, as Ingress objects usually have.
const RULES_OF_A_HOST: usize = 4;

/// `routes` rules over many hosts, a tenth of them wildcards.
fn many_hosts(routes: usize) -> RouteTable<usize> {
    let hosts = routes.div_ceil(RULES_OF_A_HOST);
    RouteTable::new((0..hosts).map(|host| {
        let name = match host % 10 {
            9 => format!("*.h{host}.example.com"),
            _ => format!("h{host}.example.com"),
        };
        (parse(&name), rules(RULES_OF_A_HOST))
    }))
}

/// `routes` rules of a single host: the worst case of a path search.
fn one_host(routes: usize) -> RouteTable<usize> {
    RouteTable::new([(parse("h0.example.com"), rules(routes))])
}

fn parse(host: &str) -> HostName {
    HostName::parse(host).expect("a valid host")
}

fn rules(count: usize) -> Arc<HostRules<usize>> {
    Arc::new(HostRules::new((0..count).map(|rule| {
        let path = PathMatch::new(PathKind::Prefix, &path(rule)).expect("a valid path");
        (path, rule)
    })))
}

fn path(rule: usize) -> String {
    format!("/api/v{}/things/{rule}", rule % 3)
}

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route_lookup");
    for routes in [10, 1_000, 10_000] {
        let table = many_hosts(routes);
        let host = routes / RULES_OF_A_HOST / 2;
        let exact = format!("h{}.example.com", host - host % 10);
        let wildcard = format!(
            "a.h{}.example.com",
            (host / 10 * 10 + 9).min(routes / RULES_OF_A_HOST)
        );
        let target = format!("{}/deeper/still", path(RULES_OF_A_HOST - 1));
        let asked = RouteRequest::for_path(&target);
        group.bench_with_input(
            BenchmarkId::new("exact_host", routes),
            &routes,
            |bench, _| {
                assert!(table.find(&exact, &asked).is_ok());
                bench.iter(|| table.find(black_box(&exact), black_box(&asked)).is_ok());
            },
        );
        group.bench_with_input(
            BenchmarkId::new("wildcard_host", routes),
            &routes,
            |bench, _| {
                bench.iter(|| table.find(black_box(&wildcard), black_box(&asked)).is_ok());
            },
        );
        group.bench_with_input(
            BenchmarkId::new("unknown_host", routes),
            &routes,
            |bench, _| {
                bench.iter(|| {
                    table
                        .find(black_box("nobody.example.org"), black_box(&asked))
                        .is_ok()
                });
            },
        );
        let table = one_host(routes);
        let target = format!("{}/deeper/still", path(routes / 2));
        let asked = RouteRequest::for_path(&target);
        group.bench_with_input(BenchmarkId::new("one_host", routes), &routes, |bench, _| {
            assert!(table.find("h0.example.com", &asked).is_ok());
            bench.iter(|| {
                table
                    .find(black_box("h0.example.com"), black_box(&asked))
                    .is_ok()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, lookup);
criterion_main!(benches);
