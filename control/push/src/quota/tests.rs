//! Quotas over real sockets, and which limits the owner is told of.

use std::{collections::BTreeMap, time::Duration};

use meshgate_api::push::{self, Demand, LeaseRequest, LeaseResponse, quota_client::QuotaClient};
use meshgate_routing::permit::{Rate, lease::Grant, owner::QuotaTerms};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use super::{ANSWERS_MAX, LimitBook, Streams, send};
use crate::{
    compile::{Body, Key, ResourceKind, Update},
    metrics::Metrics,
    xds::tests::{DEADLINE, Server, client::channel, credential},
};

struct Replica {
    requests: mpsc::Sender<LeaseRequest>,
    responses: Streaming<LeaseResponse>,
}

async fn open(server: &Server, namespace: &str, account: &str) -> Result<Replica, tonic::Status> {
    let credential = credential(&server.authority, namespace, account);
    let channel = channel(server, Some(credential)).await.expect("connected");
    let (requests, receiver) = mpsc::channel(16);
    let opened = QuotaClient::new(channel)
        .lease(ReceiverStream::new(receiver))
        .await?;
    Ok(Replica {
        requests,
        responses: opened.into_inner(),
    })
}

impl Replica {
    async fn want(&self, name: &str, limit: &str, want: u64) {
        let demand = Demand {
            limit: limit.to_owned(),
            seen: want,
            want,
            whole: true,
            ..Demand::default()
        };
        let request = LeaseRequest {
            demands: vec![demand],
            replica: name.to_owned(),
        };
        self.requests
            .send(request)
            .await
            .expect("the stream is open");
    }

    async fn granted(&mut self) -> u64 {
        let message = tokio::time::timeout(DEADLINE, self.responses.message()).await;
        let response = message
            .expect("in time")
            .expect("a response")
            .expect("the stream goes on");
        response.grants.iter().map(|grant| grant.tokens).sum()
    }
}

fn terms(requests: u64) -> QuotaTerms {
    QuotaTerms {
        rate: Rate::new(requests, Duration::from_secs(60), 0),
        replicas: 2,
    }
}

#[tokio::test]
async fn two_replicas_get_the_limit_between_them_and_no_more() {
    let server = Server::start().await;
    // Not at the very start: a new owner waits out what a former one may have leased.
    server
        .quota
        .set_limits(vec![("shop/p/all".into(), Some(terms(100)))])
        .await;
    let mut one = open(&server, "meshgate-system", "edge")
        .await
        .expect("opened");
    let mut two = open(&server, "meshgate-system", "edge")
        .await
        .expect("opened");
    one.want("one", "shop/p/all", 1000).await;
    two.want("two", "shop/p/all", 1000).await;
    let first = one.granted().await + two.granted().await;
    assert!(first <= 100, "{first} of 100");
}

#[test]
fn what_is_granted_at_once_goes_in_parts() {
    let check = |grants: usize, messages: &[usize]| {
        let (answers, mut receiver) = mpsc::channel(ANSWERS_MAX);
        let streams = Streams::from([("one".into(), (0, answers))]);
        let grant = |key: usize| Grant {
            limit: "shop/p/all".into(),
            key: key.to_string().into(),
            tokens: 1,
            valid: Duration::from_secs(2),
            retry_after: Duration::ZERO,
        };
        let granted = (0..grants).map(|key| ("one".into(), grant(key)));
        send(granted.collect(), &streams, &Metrics::new());
        let mut sent = Vec::new();
        while let Ok(message) = receiver.try_recv() {
            sent.push(message.expect("a response").grants.len());
        }
        assert_eq!(sent, messages);
    };
    check(0, &[]);
    check(3, &[3]);
    check(2500, &[1024, 1024, 452]);
}

#[tokio::test]
async fn only_the_edge_leases() {
    let server = Server::start().await;
    let refused = open(&server, "shop", "web").await.err().expect("refused");
    assert_eq!(refused.code(), Code::PermissionDenied);
}

fn host(limits: &[(&str, u64, bool)]) -> Option<Body> {
    let limits = limits.iter().map(|(id, requests, global)| push::RateLimit {
        id: (*id).to_owned(),
        requests: *requests,
        per: Some(prost_types::Duration {
            seconds: 60,
            nanos: 0,
        }),
        scope: match global {
            true => push::rate_limit::Scope::Global,
            false => push::rate_limit::Scope::Local,
        }
        .into(),
        replicas: 2,
        ..push::RateLimit::default()
    });
    let rule = push::Rule {
        rate_limits: limits.collect(),
        ..push::Rule::default()
    };
    Some(Body::EdgeHost(push::EdgeHost {
        rules: vec![rule.clone(), rule],
        ..push::EdgeHost::default()
    }))
}

#[test]
fn the_owner_hears_of_global_limits_while_any_host_has_them() {
    let mut book = LimitBook::default();
    let mut check = |changes: &[(&str, Option<Body>)], expected: &[(&str, Option<u64>)]| {
        let resources: BTreeMap<_, _> = changes
            .iter()
            .map(|(name, body)| (Key::new(ResourceKind::EdgeHost, *name), body.clone()))
            .collect();
        let told = book.update(&Update {
            resources,
            ..Update::default()
        });
        let expected: Vec<_> = expected
            .iter()
            .map(|(id, requests)| ((*id).to_owned(), requests.map(terms)))
            .collect();
        assert_eq!(told, expected);
    };
    check(
        &[("a.test", host(&[("all", 5, true), ("local", 5, false)]))],
        &[("all", Some(5))],
    );
    check(&[("b.test", host(&[("all", 5, true)]))], &[]);
    check(&[("a.test", None)], &[]);
    check(
        &[("b.test", host(&[("all", 6, true)]))],
        &[("all", Some(6))],
    );
    check(&[("b.test", host(&[]))], &[("all", None)]);
}
