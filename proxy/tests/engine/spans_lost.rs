//! A collector that is away, slow, or unwilling: requests know nothing of it, and what it never got is counted.

use std::time::Duration;

use meshgate_proxy::trace::TraceOptions;
use meshgate_proxy::{ListenerLimits, Policy};
use tokio::net::TcpListener;

use crate::collector::{Collector, Manner, to, traced};
use crate::kit::{Origin, Proxy, ok, service, status_of, until};

/// Sent as they come, of which few may wait.
fn hasty(to: TraceOptions) -> TraceOptions {
    TraceOptions {
        delay: Duration::from_millis(1),
        queue_spans_max: 8,
        batch_spans_max: 4,
        timeout: Duration::from_millis(100),
        ..to
    }
}

async fn start(origin: &Origin, trace: TraceOptions) -> Proxy {
    let web = service(&[origin], Policy::default());
    Proxy::edge_with(web, traced(trace), ListenerLimits::default())
}

/// Requests, each with two spans, that are all answered.
async fn requests(proxy: &Proxy, count: usize) {
    for _ in 0..count {
        assert_eq!(status_of(&proxy.get("/").await), 200);
    }
}

/// The value of a series; 0 when it is not there.
fn count(proxy: &Proxy, series: &str) -> usize {
    let text = proxy.engine.metrics().render();
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

const EXPORTED: &str = "meshgate_spans_exported_total";
const NO_ROOM: &str = "meshgate_spans_dropped_total{reason=\"queue-full\"}";
const REFUSED: &str = "meshgate_spans_dropped_total{reason=\"refused\"}";
const AT_THE_END: &str = "meshgate_spans_dropped_total{reason=\"shutdown\"}";

#[tokio::test]
async fn a_collector_that_is_away_costs_no_request_and_gets_the_rest_when_it_is_back() {
    let origin = Origin::start(ok("")).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let mut proxy = start(&origin, hasty(to(address))).await;
    requests(&proxy, 50).await;
    assert!(
        count(&proxy, NO_ROOM) > 0,
        "{}",
        proxy.engine.metrics().render()
    );
    assert_eq!(count(&proxy, EXPORTED), 0);
    let collector = Collector::start_at(address, Manner::Take).await;
    until(|| count(&proxy, EXPORTED) + count(&proxy, NO_ROOM) == 100).await;
    assert_eq!(collector.spans().len(), count(&proxy, EXPORTED));
    // And again, on the same connection.
    requests(&proxy, 1).await;
    proxy.end().await;
    assert_eq!(collector.spans().len(), count(&proxy, EXPORTED));
    assert_eq!(count(&proxy, EXPORTED) + count(&proxy, NO_ROOM), 102);
}

#[tokio::test]
async fn a_collector_that_hangs_costs_no_request_and_does_not_hold_the_end_up() {
    let origin = Origin::start(ok("")).await;
    let collector = Collector::start(Manner::Hang).await;
    let trace = TraceOptions {
        timeout: Duration::from_secs(3600),
        ..hasty(to(collector.address))
    };
    let mut proxy = start(&origin, trace).await;
    requests(&proxy, 50).await;
    proxy.end().await;
    let lost = [NO_ROOM, AT_THE_END].map(|series| count(&proxy, series));
    assert!(lost[0] > 0 && lost[1] > 0, "{lost:?}");
    assert_eq!((lost[0] + lost[1], count(&proxy, EXPORTED)), (100, 0));
}

#[tokio::test]
async fn a_collector_that_was_slow_gets_what_waits() {
    let origin = Origin::start(ok("")).await;
    let collector = Collector::start(Manner::Hang).await;
    let mut proxy = start(&origin, hasty(to(collector.address))).await;
    requests(&proxy, 20).await;
    collector.behave(Manner::Take);
    until(|| count(&proxy, EXPORTED) + count(&proxy, NO_ROOM) == 40).await;
    proxy.end().await;
    assert_eq!(collector.spans().len(), count(&proxy, EXPORTED));
}

#[tokio::test]
async fn what_a_collector_refuses_is_not_sent_again() {
    let origin = Origin::start(ok("")).await;
    let collector = Collector::start(Manner::Refuse).await;
    let mut proxy = start(&origin, hasty(to(collector.address))).await;
    requests(&proxy, 2).await;
    until(|| count(&proxy, REFUSED) == 4).await;
    collector.behave(Manner::Take);
    requests(&proxy, 2).await;
    proxy.end().await;
    assert_eq!((count(&proxy, REFUSED), count(&proxy, EXPORTED)), (4, 4));
}

#[tokio::test]
async fn without_a_collector_nothing_is_counted() {
    let origin = Origin::start(ok("")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    requests(&proxy, 1).await;
    assert!(!proxy.engine.metrics().render().contains("spans"));
}
