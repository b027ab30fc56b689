//! Floods: frames that are allowed one by one. The flooder is told to calm down and let go; everybody else is served.

use meshgate_proxy::Policy;
use tokio::io::AsyncWriteExt;

use crate::frames::{
    CALM, CANCEL, CONTINUATION, DATA, END_HEADERS, FLOW_CONTROL_ERROR, HEADERS, Heard, PING,
    PRIORITY, Peer, SETTINGS, WHOLE, block, frame, get, post, reset, settings, window,
};
use crate::kit::{Act, Origin, Proxy, service, soon, until};
use crate::ways::Way;

/// On every way: the flooder gets GOAWAY with one of these codes while somebody else's requests are answered.
async fn check(name: &str, start: Vec<u8>, round: impl Fn(u32) -> Vec<u8>, codes: &[u32]) {
    for way in Way::of_http2_clients().await {
        let context = format!("{}: {name}", way.name);
        let mut other = Peer::connect(way.address).await;
        let mut flooder = Peer::connect(way.address).await;
        flooder.say(&start).await;
        let mut stream = 1_u32;
        let mut asked = 1;
        let code = soon(async {
            loop {
                let frames: Vec<u8> = (0..100)
                    .flat_map(|index| round(stream + 2 * index))
                    .collect();
                stream += 200;
                let said = flooder.stream.write_all(&frames).await;
                other.say(&get(asked)).await;
                assert_eq!(other.answer(asked).await.0, 200, "{context}");
                asked += 2;
                if said.is_err() {
                    break;
                }
            }
            loop {
                match flooder.next().await {
                    Heard::GoAway(_, code) => break Some(code),
                    Heard::Closed => break None,
                    _ => {}
                }
            }
        })
        .await;
        // Whoever keeps on sending may lose the last word.
        assert!(
            code.is_none_or(|code| codes.contains(&code)),
            "{context}: {code:?}"
        );
        other.say(&get(asked)).await;
        assert_eq!(other.answer(asked).await.0, 200, "{context}");
    }
}

#[tokio::test]
async fn frames_that_carry_nothing() {
    check("PING", vec![], |_| frame(PING, 0, 0, &[7; 8]), &[CALM]).await;
    check("pongs", vec![], |_| frame(PING, 1, 0, &[7; 8]), &[CALM]).await;
    check("SETTINGS", vec![], |_| settings(&[(4, 70_000)]), &[CALM]).await;
    check(
        "acknowledgements",
        vec![],
        |_| frame(SETTINGS, 1, 0, &[]),
        &[CALM],
    )
    .await;
    check(
        "PRIORITY",
        vec![],
        |id| frame(PRIORITY, 0, id, &[0, 0, 0, 0, 1]),
        &[CALM],
    )
    .await;
    check("windows", vec![], |_| window(0, 1), &[CALM]).await;
    check("unknown", vec![], |_| frame(0x77, 0, 0, &[]), &[CALM]).await;
    check("empty DATA", post(1), |_| frame(DATA, 0, 1, &[]), &[CALM]).await;
    let open = frame(HEADERS, 1, 1, &block(crate::frames::GET));
    check(
        "empty CONTINUATION",
        open.clone(),
        |_| frame(CONTINUATION, 0, 1, &[]),
        &[CALM],
    )
    .await;
    let piece = vec![0x40; 16_000];
    check(
        "CONTINUATION",
        open,
        |_| frame(CONTINUATION, 0, 1, &piece),
        &[CALM],
    )
    .await;
}

#[tokio::test]
async fn streams_that_are_given_up() {
    let rapid = |id| [get(id), reset(id, CANCEL)].concat();
    check("rapid reset", vec![], rapid, &[CALM]).await;
}

/// Each makes us reset a stream of the flooder's.
#[tokio::test]
async fn streams_that_we_are_made_to_reset() {
    let with = |id: u32, frames: Vec<u8>| [post(id), frames].concat();
    check("window of 0", vec![], |id| with(id, window(id, 0)), &[CALM]).await;
    let wide = |id| with(id, window(id, 0x7fff_ffff));
    check("wide window", vec![], wide, &[CALM, FLOW_CONTROL_ERROR]).await;
    let own = |id: u32| {
        let payload = [&id.to_be_bytes()[..], &[1]].concat();
        with(id, frame(PRIORITY, 0, id, &payload))
    };
    check("own parent", vec![], own, &[CALM]).await;
    let short = |id| with(id, frame(PRIORITY, 0, id, &[0; 4]));
    check("short PRIORITY", vec![], short, &[CALM]).await;
    let closed = |id| [get(id), frame(DATA, 0, id, b"x")].concat();
    check("DATA after the end", vec![], closed, &[CALM, 5]).await;
    let upper = |id| {
        frame(
            HEADERS,
            WHOLE,
            id,
            &block(&format!("{}|X=1", crate::frames::GET)),
        )
    };
    check("bad fields", vec![], upper, &[CALM]).await;
    let headers = |id: u32| with(id, frame(HEADERS, END_HEADERS, id, &block("x=1")));
    check("trailers without an end", vec![], headers, &[CALM]).await;
    let long = |id: u32| {
        let head = block(&format!("{}|content-length=1", crate::frames::POST));
        let head = frame(HEADERS, END_HEADERS, id, &head);
        [head, frame(DATA, 0, id, b"xx")].concat()
    };
    check("a long body", vec![], long, &[CALM]).await;
}

/// A small block that would be a large head: each field is a reference to a long one.
#[tokio::test]
async fn a_bomb_of_references() {
    let mut bomb = block(crate::frames::GET);
    bomb.extend(b"\x40\x01x\x7f\xa1\x1e");
    bomb.extend([b'v'; 4000]);
    bomb.extend([0x80 | 62; 12_000]);
    for way in Way::of_http2_clients().await {
        let mut client = Peer::connect(way.address).await;
        for id in [1, 3, 5] {
            client.say(&frame(HEADERS, WHOLE, id, &bomb)).await;
            assert_eq!(client.answer(id).await.0, 431, "{}", way.name);
        }
        client.say(&get(7)).await;
        assert_eq!(client.answer(7).await.0, 200, "{}", way.name);
        assert_eq!(way.seen().len(), 1, "{}", way.name);
    }
}

/// The word reaches even those who go on talking for a while.
#[tokio::test]
async fn the_last_word_is_heard() {
    let origin = Origin::start(Act::Hang).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    for _ in 0..20 {
        let mut client = Peer::connect(proxy.address()).await;
        let pings = frame(PING, 0, 0, &[7; 8]).repeat(5_000);
        client.say(&pings).await;
        let heard = client.rest().await;
        assert!(
            heard
                .iter()
                .any(|heard| matches!(heard, Heard::GoAway(_, CALM))),
            "{:?}",
            heard.last()
        );
    }
}

/// Requests that are given up leave nothing behind.
#[tokio::test]
async fn given_up_requests_end_at_the_origin_too() {
    let origin = Origin::start(Act::Hang).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let mut client = Peer::connect(proxy.address()).await;
    for round in 0..10 {
        let ids = || (0..10).map(|index| 1 + 20 * round + 2 * index);
        client.say(&ids().flat_map(get).collect::<Vec<_>>()).await;
        until(|| origin.seen().len() == 10 * (round as usize + 1)).await;
        client
            .say(&ids().flat_map(|id| reset(id, CANCEL)).collect::<Vec<_>>())
            .await;
    }
    until(|| {
        let metrics = proxy.engine.metrics().render();
        let gone = metrics.lines().filter(|line| {
            line.starts_with("meshgate_requests_total") && line.contains("client-gone")
        });
        let counts = gone.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        counts.sum::<f64>() >= 100.0
    })
    .await;
}
