use std::future::poll_fn;

use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, sockopt_impl};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

sockopt_impl!(
    /// What the kernel knows of a connection.
    TcpInfo, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, libc::tcp_info
);

/// A connection before its handshake, and its peer.
async fn pair() -> (Corked, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let near = near.unwrap();
    near.writable().await.unwrap();
    (Corked::new(near), far.unwrap().0)
}

/// Says it by two pieces, as TLS does.
async fn say(corked: &mut Corked, text: &[u8]) {
    let (front, back) = text.split_at(text.len() / 2);
    let bufs = [IoSlice::new(front), IoSlice::new(back)];
    let mut corked = Pin::new(corked);
    let said = poll_fn(|cx| corked.as_mut().poll_write_vectored(cx, &bufs)).await;
    assert_eq!(said.unwrap(), text.len());
    corked.flush().await.unwrap();
}

fn segments(peer: &TcpStream) -> u32 {
    getsockopt(peer, TcpInfo).unwrap().tcpi_data_segs_in
}

#[tokio::test]
async fn what_nobody_waits_for_goes_along_with_what_follows() {
    let (mut corked, mut peer) = pair().await;
    say(&mut corked, b"ticket").await;
    assert_eq!(segments(&peer), 0);
    corked.uncork();
    say(&mut corked, b", answer").await;
    let mut heard = [0; 14];
    peer.read_exact(&mut heard).await.unwrap();
    assert_eq!((&heard[..], segments(&peer)), (&b"ticket, answer"[..], 1));
    say(&mut corked, b"; more").await;
    peer.read_exact(&mut heard[..6]).await.unwrap();
    assert_eq!((&heard[..6], segments(&peer)), (&b"; more"[..], 2));
}

/// In a handshake, whoever waits for the peer must have been heard.
#[tokio::test]
async fn what_is_held_is_sent_before_the_peer_is_waited_for() {
    let (mut corked, mut peer) = pair().await;
    say(&mut corked, b"flight").await;
    let (mut heard, mut told) = ([0; 6], [0; 4]);
    let answer = async {
        peer.read_exact(&mut heard).await?;
        peer.write_all(b"done").await
    };
    let (told_all, answered) = tokio::join!(corked.read_exact(&mut told), answer);
    assert_eq!(told_all.unwrap(), 4);
    answered.unwrap();
    assert_eq!(&heard, b"flight");
}

/// By a flush, a shutdown, or the end of the connection: a failed handshake says why.
#[tokio::test]
async fn nothing_that_was_said_stays_behind() {
    type End = fn(Corked) -> Pin<Box<dyn Future<Output = Corked>>>;
    let flushed: End = |mut corked| {
        Box::pin(async {
            corked.uncork();
            corked.flush().await.unwrap();
            corked
        })
    };
    let shut: End = |mut corked| {
        Box::pin(async {
            corked.shutdown().await.unwrap();
            corked
        })
    };
    let dropped: End = |corked| Box::pin(async { corked });
    for end in [flushed, shut, dropped] {
        let (mut corked, mut peer) = pair().await;
        say(&mut corked, b"alert!").await;
        drop(end(corked).await);
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"alert!");
    }
}

/// A peer that takes nothing: what it does not take waits, in order, and no more is taken in.
#[tokio::test]
async fn a_slow_peer_gets_all_in_order() {
    let (mut corked, mut peer) = pair().await;
    let text: Vec<u8> = (0..4_000_000_u32).map(|index| (index / 7) as u8).collect();
    let (handshake, rest) = text.split_at(3_000_000);
    let all = text.clone();
    let hearing = tokio::spawn(async move {
        let mut heard = vec![0; all.len()];
        peer.read_exact(&mut heard).await.unwrap();
        assert!(heard == all);
    });
    for piece in handshake.chunks(10_000) {
        corked.write_all(piece).await.unwrap();
        assert!(corked.held.len() < HELD_BYTES_MAX + piece.len());
    }
    corked.uncork();
    corked.write_all(rest).await.unwrap();
    corked.flush().await.unwrap();
    hearing.await.unwrap();
}
