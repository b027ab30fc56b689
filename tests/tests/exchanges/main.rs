//! What HTTP carries besides a request and its answer, through edge and sidecars as they run in a cluster.
//!
//! Each kind of exchange is written once, for HTTP/1 and HTTP/2, and is led through every way that can carry it. Both ends
//! are the test's own: sockets in the networks of pods.

// Each module says that it is a test, because clippy's exemption for tests asks for exactly that.
#[cfg(test)]
mod bodies;
#[cfg(test)]
mod ends;
#[cfg(test)]
mod events;
#[cfg(test)]
mod grpc;
#[cfg(test)]
mod large;
#[cfg(test)]
mod scene;
#[cfg(test)]
mod websocket;

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::time::Duration;

    use futures::FutureExt as _;
    use futures::future::BoxFuture;
    use http::Version;

    use crate::scene::{LARGE, Scene, WAYS, Way};
    use crate::{bodies, events, grpc, large, websocket};

    /// An exchange that takes longer hangs. The machines are busy, and some builds slow.
    const PATIENCE: Duration = Duration::from_secs(180);

    type Exchange = for<'a> fn(&'a mut Scene, &'a Way) -> BoxFuture<'a, ()>;

    /// A kind of exchange, and which ways can carry it.
    struct Kind {
        name: &'static str,
        exchange: Exchange,
        goes: fn(&Way) -> bool,
    }

    macro_rules! kind {
        ($name:literal, $exchange:path, $goes:expr) => {
            Kind {
                name: $name,
                exchange: |scene, way| $exchange(scene, way).boxed(),
                goes: $goes,
            }
        };
    }

    fn any(_: &Way) -> bool {
        true
    }

    fn http2_client(way: &Way) -> bool {
        way.client == Version::HTTP_2 && way.service != "http1"
    }

    fn kinds() -> Vec<Kind> {
        vec![
            kind!("WebSocket", websocket::conversation, any),
            kind!("WebSocket that is refused", websocket::refusal, any),
            kind!("gRPC, unary", grpc::unary, http2_client),
            kind!("gRPC, client stream", grpc::client_stream, http2_client),
            kind!("gRPC, server stream", grpc::server_stream, http2_client),
            kind!("gRPC, both streams", grpc::both_streams, http2_client),
            kind!("gRPC, an error", grpc::error, http2_client),
            kind!("gRPC, deadline of the client", grpc::deadline, http2_client),
            kind!("gRPC, deadline of the proxy", grpc::impatience, |way| {
                http2_client(way) && way.service == "any"
            }),
            kind!("gRPC, a call given up", grpc::cancellation, http2_client),
            kind!("server-sent events", events::stream, any),
            kind!("100-continue", bodies::expectation, |way| {
                way.application == Version::HTTP_11
            }),
            kind!("417 instead of 100", bodies::refused_expectation, any),
            kind!("an answer to half a body", bodies::early_answer, any),
            kind!("both ends at once", bodies::both_at_once, any),
        ]
    }

    #[test]
    fn every_kind_of_exchange_goes_every_way() {
        let mut failed = Vec::new();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let mut scene = Scene::start();
            for way in &WAYS {
                scene.is_programmed(way).await;
            }
            // They are silent for as long as everything else takes, and go on then.
            let mut silent = Vec::new();
            for way in &WAYS {
                silent.push(events::Open::new(&mut scene, way).await);
            }
            for kind in kinds() {
                for way in WAYS.iter().filter(|way| (kind.goes)(way)) {
                    check(&mut failed, &mut scene, &kind, way).await;
                }
            }
            let up = kind!("1 GiB up", large::up, any);
            let down = kind!("1 GiB down", large::down, any);
            for kind in [up, down] {
                for way in &WAYS[..LARGE] {
                    check(&mut failed, &mut scene, &kind, way).await;
                }
            }
            for (open, way) in silent.into_iter().zip(&WAYS) {
                note(&mut failed, "events after silence", way, open.goes_on()).await;
            }
        });
        assert!(failed.is_empty(), "failed:\n{}", failed.join("\n"));
    }

    async fn check(failed: &mut Vec<String>, scene: &mut Scene, kind: &Kind, way: &Way) {
        note(failed, kind.name, way, (kind.exchange)(scene, way)).await;
        while let Some(request) = scene.application(way).unexpected() {
            failed.push(format!("{} ({way}): left over: {request:?}", kind.name));
        }
    }

    /// All that fails is told, not only the first.
    async fn note(
        failed: &mut Vec<String>,
        name: &str,
        way: &Way,
        exchange: impl Future<Output = ()>,
    ) {
        let exchange = AssertUnwindSafe(exchange).catch_unwind();
        let why = match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(Ok(())) => return,
            Ok(Err(panic)) => match panic.downcast_ref::<String>() {
                Some(why) => why.clone(),
                None => "see above".into(),
            },
            Err(_) => "hangs".into(),
        };
        failed.push(format!("{name} ({way}): {why}"));
    }
}
