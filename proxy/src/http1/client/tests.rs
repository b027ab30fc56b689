use std::net::Ipv4Addr;

use meshgate_codec::{Fields, Method, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::interims::Interims;

/// Less than a socket takes at once, so that an answer is there as a whole before it is read.
const LARGE: usize = 40 * 1024;
const SMALL: usize = 1024;

/// How an endpoint says where its body ends.
#[derive(Clone, Copy)]
enum Coding {
    Length,
    Chunked,
}
use Coding::{Chunked, Length};

fn answer(coding: Coding, bytes: usize) -> Vec<u8> {
    let body = "x".repeat(bytes);
    let answer = match coding {
        Length => format!("Content-Length: {bytes}\r\n\r\n{body}"),
        Chunked => format!("Transfer-Encoding: chunked\r\n\r\n{bytes:x}\r\n{body}\r\n0\r\n\r\n"),
    };
    format!("HTTP/1.1 200 OK\r\n{answer}").into_bytes()
}

fn request() -> Request {
    Request {
        method: Method::Get,
        version: Version::Http11,
        authority: "a.test".into(),
        host_end: 6,
        target: "/".into(),
        path_end: 1,
        fields: Fields::default(),
        body: RequestBody::Empty,
        upgrade: None,
        interims: Interims::Nowhere,
        destination: None,
    }
}

/// Of an answer that is there as a whole: in how many pieces its body is read.
async fn pieces(
    client: Box<Client>,
    endpoint: &mut TcpStream,
    answer: &[u8],
) -> (usize, Box<Client>) {
    let request = request();
    let exchange = client.exchange(&request, RequestBody::Empty);
    let answering = async {
        let mut head = [0; 1024];
        assert!(endpoint.read(&mut head).await.unwrap() > 0);
        endpoint.write_all(answer).await.unwrap();
    };
    // Not a byte is read before all of it is written.
    let (answered, ()) = tokio::join!(biased; exchange, answering);
    let mut outcome = answered.unwrap().outcome;
    let mut count = 0;
    while let Some(frame) = poll_fn(|cx| outcome.poll_frame(cx)).await {
        assert!(matches!(frame.unwrap(), Frame::Data(_)));
        count += 1;
    }
    (count, outcome.take_connection().unwrap())
}

/// Answers on one connection, and in how many pieces each is read.
async fn check(answers: &[(Coding, usize, usize)]) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (mut client, mut endpoint) = (Client::new(near.unwrap().into(), None), far.unwrap().0);
    for (index, (coding, bytes, expected)) in answers.iter().enumerate() {
        let answer = answer(*coding, *bytes);
        let (count, next) = pieces(client, &mut endpoint, &answer).await;
        client = next;
        assert_eq!(count, *expected, "answer {index}");
    }
}

/// The first is read with a head's buffer, and then the rest. A small one tells that the next is not large.
#[tokio::test]
async fn behind_a_large_answer_a_large_one_is_expected() {
    for coding in [Length, Chunked] {
        check(&[(coding, SMALL, 1), (coding, LARGE, 2), (coding, LARGE, 1)]).await;
        check(&[(coding, LARGE, 2), (coding, SMALL, 1), (coding, LARGE, 2)]).await;
    }
    check(&[(Chunked, LARGE, 2), (Length, LARGE, 1), (Chunked, LARGE, 1)]).await;
}
