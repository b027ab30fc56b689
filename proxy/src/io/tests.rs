use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Io;
use crate::tls::provider;

/// What a server does once the handshake is over.
#[derive(Clone, Copy, Debug)]
enum Then {
    Waits,
    Says(&'static [u8]),
    SaysGoodbye,
    Leaves,
    Breaks,
}

fn configs(tickets: usize) -> (TlsAcceptor, TlsConnector) {
    let own = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let mut server = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    server.send_tls13_tickets = tickets;
    // Many tickets are many records.
    server.max_fragment_size = Some(512);
    let mut roots = RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server).into(), Arc::new(client).into())
}

async fn check(tickets: usize, then: Then, expected: bool) {
    let (acceptor, connector) = configs(tickets);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let name = ServerName::try_from("a.test").unwrap();
    let client = async {
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
        connector.connect(name, stream.unwrap()).await.unwrap()
    };
    let server = async {
        let stream = listener.accept().await.unwrap().0;
        // All is there at once.
        stream.set_nodelay(true).unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        match then {
            Then::Waits => {}
            Then::Says(bytes) => stream.write_all(bytes).await.unwrap(),
            Then::SaysGoodbye => stream.shutdown().await.unwrap(),
            Then::Leaves => return None,
            Then::Breaks => {
                let tcp = stream.get_mut().0;
                tcp.write_all(b"\x17\x03\x03\x00\x20no record of the session's keys.")
                    .await
                    .unwrap();
            }
        }
        stream.flush().await.unwrap();
        Some(stream)
    };
    let (stream, _server) = tokio::join!(client, server);
    stream.get_ref().0.readable().await.unwrap();
    let has_input = Io::from(stream).has_input();
    assert_eq!(has_input, expected, "{tickets} tickets, then {then:?}");
}

#[tokio::test]
async fn a_server_that_waits_is_told_from_one_that_says_something() {
    check(2, Then::Waits, false).await;
    check(2, Then::Says(b"unasked"), true).await;
    check(0, Then::Says(b"u"), true).await;
    check(2, Then::SaysGoodbye, true).await;
    check(2, Then::Leaves, true).await;
    check(2, Then::Breaks, true).await;
}

/// Or it would keep the worker for as long as it likes.
#[tokio::test]
async fn a_server_is_not_listened_to_for_long() {
    check(1000, Then::Waits, true).await;
}
