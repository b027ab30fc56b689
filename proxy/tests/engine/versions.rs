//! What one version of HTTP can say and another cannot.

use http::{HeaderMap, Request, Response};
use meshgate_proxy::Policy;

use crate::by_hand::{CHUNKED, post};
use crate::kit::{Act, Origin, Proxy, field, get, ok, raw, service, status_of};
use crate::ways::{Way, ask_http2, http2_service, read_all, serve_http2};

#[tokio::test]
async fn trailers_cross_versions() {
    let says = format!("HTTP/1.1 200 OK\r\n{CHUNKED}\r\n1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n");
    let origin = Origin::start(Act::Say(says)).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let request = Request::post("http://a.test/").body(()).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "8".parse().unwrap());
    trailers.insert("authorization", "9".parse().unwrap());
    let answer = ask_http2(proxy.address(), request, &["b"], Some(trailers)).await;
    let (body, trailers) = answer.unwrap().body.unwrap();
    assert_eq!(
        (body.as_str(), &trailers.unwrap()["x-sum"]),
        ("a", &"7".parse().unwrap())
    );
    let seen = &origin.seen()[0];
    assert!(
        seen.ends_with("\r\n\r\n1\r\nb\r\n0\r\nx-sum: 8\r\n\r\n"),
        "{seen}"
    );
    // From HTTP/1 to HTTP/2.
    let (address, _task) = serve_http2(|request, mut respond| async move {
        let (body, trailers) = read_all(request.into_body()).await.unwrap();
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        send.send_data(body.into(), false).unwrap();
        send.send_trailers(trailers.unwrap()).unwrap();
    })
    .await;
    let proxy = Proxy::edge(http2_service(address));
    let request = post(
        &format!("Connection: close\r\n{CHUNKED}"),
        "1\r\na\r\n0\r\nX-Sum: 7\r\nCookie: x\r\n\r\n",
    );
    let answer = proxy.raw(&request).await;
    assert!(
        answer.ends_with("\r\n\r\n1\r\na\r\n0\r\nx-sum: 7\r\n\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_http2_cannot_say_is_refused() {
    for way in Way::all().await {
        let answer = raw(way.address, &get("/admin?q=<b>")).await;
        let seen = way.seen();
        match status_of(&answer) {
            // The origin is as strict as it likes.
            400 | 502 => assert_eq!(seen, [""; 0], "{}", way.name),
            _ => assert!(
                seen[0].starts_with("GET /admin?q=<b> "),
                "{}: {seen:?}",
                way.name
            ),
        }
    }
}

#[tokio::test]
async fn options_of_a_whole_server_are_for_sidecars_to_forward() {
    let request = "OPTIONS * HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    for way in Way::to_http1(ok("")).await {
        let answer = raw(way.address, request).await;
        match way.name {
            "outbound" | "inbound" => {
                assert_eq!(status_of(&answer), 200, "{}: {answer}", way.name);
                assert!(way.seen()[0].starts_with("OPTIONS * HTTP/1.1\r\n"));
            }
            "edge" => assert_eq!(status_of(&answer), 400, "{answer}"),
            // HTTP/2 between the proxies can say it or refuses it, but never means something else by it.
            _ => assert!(way.seen().iter().all(|seen| seen.starts_with("OPTIONS * "))),
        }
    }
}

#[tokio::test]
async fn requests_by_http2_are_judged_alike() {
    let origin = Origin::start(ok("yes")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let request = || Request::get("http://a.test/");
    let ask = |request: Request<()>, body| ask_http2(proxy.address(), request, body, None);
    // Answers to HEAD end with their heads, the proxy's own as well.
    for (path, status) in [("/", 200), ("/%00", 400)] {
        let head = Request::head(format!("http://a.test{path}"))
            .body(())
            .unwrap();
        let answer = ask(head, &[]).await.unwrap();
        assert_eq!(
            (answer.status, answer.body.unwrap().0.as_str()),
            (status, "")
        );
    }
    let before = origin.seen().len();
    let mut many = request();
    for number in 0..101 {
        many = many.header(format!("x-{number}"), "1");
    }
    let long = request().header("x", "v".repeat(17_000));
    for (refused, status) in [
        (many, 431),
        (long, 431),
        (request().uri("http://a.test/%00"), 400),
    ] {
        let answer = ask(refused.body(()).unwrap(), &[]).await.unwrap();
        assert_eq!(answer.status, status, "{:?}", answer.fields);
    }
    for broken in [
        request().header("content-length", "5"),
        request().header("content-length", "1"),
        request().header("transfer-encoding", "chunked"),
        request().header("connection", "x"),
        request().header("te", "gzip"),
        request().header("host", "b.test"),
    ] {
        let broken = broken.body(()).unwrap();
        let context = format!("{broken:?}");
        if let Ok(answer) = ask(broken, &["ab"]).await {
            assert_eq!(answer.status, 400, "{context}");
        }
    }
    assert_eq!(origin.seen().len(), before);
    let crumbs = request().header("cookie", "a=1").header("cookie", "b=2");
    let answer = ask(crumbs.body(()).unwrap(), &[]).await.unwrap();
    assert_eq!(answer.body.unwrap().0, "yes");
    assert_eq!(
        field(origin.seen().last().unwrap(), "cookie"),
        Some("a=1; b=2")
    );
}
