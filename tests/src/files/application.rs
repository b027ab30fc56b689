//! What stands behind an edge.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::until;

/// An application that answers with its name until the test ends.
pub fn application(name: &'static str) -> SocketAddr {
    listen(move |stream| answer(name, stream))
}

/// The same by TLS, with a certificate and its key (files).
pub fn tls_application(name: &'static str, certificate: &Path, key: &Path) -> SocketAddr {
    let chain = CertificateDer::pem_file_iter(certificate).expect("a file");
    let chain = chain.collect::<Result<_, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
    let config = Arc::new(config.expect("a certificate with its key"));
    listen(move |stream| {
        let session = ServerConnection::new(config.clone()).expect("a configuration");
        answer(name, StreamOwned::new(session, stream));
    })
}

/// Serves each connection in a thread of its own, until the test ends.
fn listen(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// The name, as often as the other end asks.
fn answer(name: &str, stream: impl io::Read + io::Write) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while let Ok(1..) = stream.read_line(&mut line) {
        if std::mem::take(&mut line).trim().is_empty() {
            let length = name.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}");
            if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// An application that begins its answers at once and ends them when it is told to.
#[derive(Clone, Debug)]
pub struct Held {
    /// Where it listens.
    pub address: SocketAddr,
    requests: Arc<(Mutex<Requests>, Condvar)>,
}

#[derive(Debug, Default)]
struct Requests {
    asked: usize,
    /// Of those, in the order in which they came.
    released: usize,
}

impl Held {
    /// A whole answer's body.
    pub const BODY: &str = "begun, and ended";

    /// Serves until the test ends.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let held = Self {
            address: listener.local_addr().expect("an address"),
            requests: Arc::default(),
        };
        let serving = held.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let held = serving.clone();
                // Whoever hangs up ends only this connection.
                std::thread::spawn(move || held.serve(&stream));
            }
        });
        held
    }

    /// Waits until so many requests have come since the start.
    pub fn was_asked(&self, times: usize) {
        until("the requests that are held", || {
            (self.requests().asked >= times).then_some(())
        });
    }

    /// Ends the answers to all that has come.
    pub fn release(&self) {
        let mut requests = self.requests();
        requests.released = requests.asked;
        self.requests.1.notify_all();
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        let requests = self.requests.0.lock();
        requests.unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: &TcpStream) -> io::Result<()> {
        let (begun, ended) = Self::BODY.split_at(5);
        let length = Self::BODY.len();
        let begin = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{begun}");
        let mut lines = BufReader::new(stream).lines();
        while let Some(line) = lines.next().transpose()? {
            if line.is_empty() {
                stream.write_all(begin.as_bytes())?;
                self.wait();
                stream.write_all(ended.as_bytes())?;
            }
        }
        Ok(())
    }

    fn wait(&self) {
        let mut requests = self.requests();
        let number = requests.asked;
        requests.asked += 1;
        let waiting = |requests: &mut Requests| requests.released <= number;
        let released = self.requests.1.wait_while(requests, waiting);
        drop(released);
    }
}
