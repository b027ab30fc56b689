//! What becomes of an object that the API server does not hand out.

use std::convert::Infallible;

use http::{Request, Response};
use kube::client::Body;
use serde_json::json;

use super::*;

/// An API server that answers every list alike, and has no news.
fn answering(code: u16) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| async move {
        let query = request.uri().query().unwrap_or_default();
        if query.contains("watch=true") {
            return std::future::pending().await;
        }
        let map = json!({ "metadata": { "name": "ca", "namespace": "shop" } });
        let body = match code {
            200 => json!({ "metadata": { "resourceVersion": "1" }, "items": [map] }),
            204 => json!({ "metadata": { "resourceVersion": "1" }, "items": [] }),
            _ => json!({ "kind": "Status", "status": "Failure", "code": code, "message": "down" }),
        };
        let answer = Response::builder().status(if code == 204 { 200 } else { code });
        let body = Body::from(body.to_string().into_bytes());
        Ok::<_, Infallible>(answer.body(body).expect("an answer"))
    });
    Client::new(service, "default")
}

/// What is known first, and after how many seconds.
async fn check(code: u16, name: &str, expected: &str, after_s: u64) {
    let (changes, mut received) = mpsc::channel(1);
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let mut watches = NamedWatches::new(answering(code), changes, tasks, shutdown.clone());
    let begun = Instant::now();
    watches.want_config_map(&Name::new("shop", name), true);
    let change = received.recv().await.expect("the watch runs");
    let shown = match change {
        Change::Apply(name, _) => format!("{name} is there"),
        Change::Delete(_, name) => format!("{name} is not there"),
        Change::Unreadable(_, name, why) => format!("{name}: {why}"),
        Change::Listed(..) => "a list".into(),
    };
    assert_eq!(
        (shown.as_str(), begun.elapsed().as_secs()),
        (expected, after_s),
        "{code}"
    );
    shutdown.cancel();
}

/// Everything waits for the first answer about every object, so there is always one.
#[tokio::test(start_paused = true)]
async fn there_is_always_an_answer() {
    check(200, "ca", "shop/ca is there", 0).await;
    check(204, "ca", "shop/ca is not there", 0).await;
    check(403, "ca", &format!("shop/ca: {FORBIDDEN}"), 1).await;
    for code in [400, 500] {
        check(code, "ca", "shop/ca: down", 61).await;
    }
}

/// Proxies keep what they have, which is more than a control plane knows that has just started.
#[tokio::test(start_paused = true)]
async fn nobody_answering_is_no_answer() {
    let service = tower::service_fn(|_: Request<Body>| async {
        Err::<Response<Body>, _>(std::io::Error::other("refused"))
    });
    let (changes, mut received) = mpsc::channel(1);
    let shutdown = CancellationToken::new();
    let client = Client::new(service, "default");
    let mut watches = NamedWatches::new(client, changes, TaskTracker::new(), shutdown.clone());
    watches.want_config_map(&Name::new("shop", "ca"), true);
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, received.recv()).await.is_err());
    shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_name_that_no_object_can_have_is_not_asked_for() {
    for name in ["a,b", "a=b", "", "A", "-a", "a..b", &"a".repeat(254)] {
        check(500, name, &format!("shop/{name} is not there"), 0).await;
    }
    check(200, "a-1.b", "shop/a-1.b is there", 0).await;
}
