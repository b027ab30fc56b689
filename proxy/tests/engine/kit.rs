//! Origins that do as they are told, a proxy in front of them, and clients that show every byte.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meshgate_proxy::{
    EndpointSpec, Engine, EngineOptions, Listener, ListenerKind, ListenerLimits, Policy, Protocol,
    Rule, Service, ServiceSpec, Services, Snapshot, Target, listen,
};
use meshgate_routing::permit::AccessRules;
use meshgate_routing::route::{HostName, HostRules, PathKind, PathMatch, RouteTable};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes; only a hanging test meets it.
const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what)
        .await
        .expect("took too long")
}

/// What an origin does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Sends these bytes and waits for the next request.
    Say(String),
    /// The same after a while.
    SayLate(Duration, String),
    /// Sends these bytes and closes.
    SayAndClose(String),
    /// Closes without a byte.
    Close,
    /// Never answers.
    Hang,
}

/// A 200 with this body.
pub(crate) fn ok(body: &str) -> Act {
    status(200, body)
}

pub(crate) fn status(status: u16, body: &str) -> Act {
    let length = body.len();
    Act::Say(format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}"
    ))
}

/// An HTTP/1 server that follows a script, then a default.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

struct State {
    script: VecDeque<Act>,
    default: Act,
    seen: Vec<String>,
    connections: usize,
    /// Answers of which no byte more is taken at present.
    stuck: usize,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Origin {
    pub(crate) async fn start(default: Act) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            script: VecDeque::new(),
            default,
            seen: Vec::new(),
            connections: 0,
            stuck: 0,
        }));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                shared.lock().unwrap().connections += 1;
                connections.spawn(serve(stream, shared.clone()));
            }
        });
        Self {
            address,
            state,
            task,
        }
    }

    /// What to do with the next requests.
    pub(crate) fn next(&self, acts: impl IntoIterator<Item = Act>) {
        self.state.lock().unwrap().script.extend(acts);
    }

    pub(crate) fn always(&self, act: Act) {
        self.state.lock().unwrap().default = act;
    }

    /// Requests as they came, bodies included.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.state.lock().unwrap().seen.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    /// How many answers wait for somebody to take more of them.
    pub(crate) fn stuck(&self) -> usize {
        self.state.lock().unwrap().stuck
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut buffer = Vec::new();
    loop {
        let Some(request) = read_message(&mut stream, &mut buffer).await else {
            return;
        };
        let act = {
            let mut state = state.lock().unwrap();
            state.seen.push(request);
            let default = state.default.clone();
            state.script.pop_front().unwrap_or(default)
        };
        match act {
            Act::Say(text) => write(&mut stream, text.as_bytes(), &state).await,
            Act::SayLate(after, text) => {
                tokio::time::sleep(after).await;
                write(&mut stream, text.as_bytes(), &state).await;
            }
            Act::SayAndClose(text) => return write(&mut stream, text.as_bytes(), &state).await,
            Act::Close => return,
            Act::Hang => std::future::pending().await,
        }
    }
}

async fn write(stream: &mut TcpStream, mut rest: &[u8], state: &Mutex<State>) {
    while !rest.is_empty() {
        match stream.try_write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                state.lock().unwrap().stuck += 1;
                stream.writable().await.unwrap();
                state.lock().unwrap().stuck -= 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// One message: its head, and its body by Content-Length or chunks (kept as they are).
pub(crate) async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Option<String> {
    loop {
        if let Some(length) = message_length(buffer) {
            let message: Vec<u8> = buffer.drain(..length).collect();
            return Some(String::from_utf8_lossy(&message).into_owned());
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// The length of the first message, if it is there as a whole.
pub(crate) fn message_length(buffer: &[u8]) -> Option<usize> {
    let head = find(buffer, b"\r\n\r\n")? + 4;
    let fields = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    if fields.contains("transfer-encoding: chunked") {
        return chunks_length(&buffer[head..]).map(|length| head + length);
    }
    let length = fields
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next()?.parse().ok())
        .unwrap_or(0);
    (buffer.len() >= head + length).then_some(head + length)
}

/// The length of a chunked body with its trailers.
fn chunks_length(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = find(&body[at..], b"\r\n")?;
        let size = std::str::from_utf8(&body[at..at + line]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        at += line + 2;
        if size == 0 {
            break;
        }
        at += size + 2;
        if at > body.len() {
            return None;
        }
    }
    loop {
        let line = find(&body[at..], b"\r\n")?;
        at += line + 2;
        if line == 0 {
            return Some(at);
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|part| part == what)
}

/// A running engine.
pub(crate) struct Proxy {
    pub(crate) engine: Engine,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) running: JoinHandle<Result<(), meshgate_proxy::EngineError>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Proxy {
    pub(crate) fn start(
        options: EngineOptions,
        kinds: impl IntoIterator<Item = (ListenerKind, ListenerLimits)>,
    ) -> Self {
        let workers = options.workers;
        let engine = Engine::new(options).unwrap();
        let listeners: Vec<Listener> = kinds
            .into_iter()
            .enumerate()
            .map(|(index, (kind, limits))| Listener {
                name: format!("{index}").into(),
                sockets: listen::bind("127.0.0.1:0".parse().unwrap(), workers).unwrap(),
                kind,
                limits,
                proxies: Vec::new(),
            })
            .collect();
        let addresses = listeners
            .iter()
            .map(|listener| listener.sockets[0].local_addr().unwrap())
            .collect();
        for listener in listeners {
            engine.open(listener).unwrap();
        }
        let shutdown = CancellationToken::new();
        let running = tokio::spawn({
            let (engine, shutdown) = (engine.clone(), shutdown.clone());
            async move { engine.run(shutdown).await }
        });
        Self {
            engine,
            addresses,
            shutdown,
            running,
        }
    }

    /// An edge in the clear that sends everything to one service.
    pub(crate) fn edge(service: Service) -> Self {
        Self::edge_with(service, EngineOptions::default(), ListenerLimits::default())
    }

    pub(crate) fn edge_with(
        service: Service,
        options: EngineOptions,
        limits: ListenerLimits,
    ) -> Self {
        let proxy = Self::start(options, [(ListenerKind::EdgeHttp, limits)]);
        proxy.engine.swap(everything_to(service, Vec::new()));
        proxy
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Ends it, and waits for that.
    pub(crate) async fn end(&mut self) {
        self.shutdown.cancel();
        soon(&mut self.running).await.unwrap().unwrap();
    }

    /// Sends bytes on a new connection and reads until it closes.
    pub(crate) async fn raw(&self, bytes: &str) -> String {
        raw(self.address(), bytes).await
    }

    /// A GET on a new connection; the whole answer.
    pub(crate) async fn get(&self, path: &str) -> String {
        self.raw(&get(path)).await
    }
}

/// A GET after which the connection closes.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
}

pub(crate) async fn raw(address: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    say(&mut stream, bytes).await
}

/// Sends bytes and reads until the end.
pub(crate) async fn say(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &str) -> String {
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is an end as well.
    let _ = soon(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Waits until something is so.
pub(crate) async fn until(mut holds: impl FnMut() -> bool) {
    soon(async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The status of an answer.
/// Without the answers before it.
pub(crate) fn final_answer(mut answer: &str) -> &str {
    while let Some((_, rest)) = answer
        .split_once("\r\n\r\n")
        .filter(|_| status_of(answer) < 200)
    {
        answer = rest;
    }
    answer
}

pub(crate) fn status_of(answer: &str) -> u16 {
    answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0)
}

/// The value of a field.
pub(crate) fn field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message
        .split("\r\n\r\n")
        .next()?
        .split("\r\n")
        .skip(1)
        .find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
}

pub(crate) fn endpoint(address: SocketAddr, name: &str) -> EndpointSpec {
    EndpointSpec {
        address,
        uid: name.into(),
        pod: name.into(),
        identity: None,
        terminating: false,
    }
}

/// A service of these origins.
pub(crate) fn service(origins: &[&Origin], policy: Policy) -> Service {
    let endpoints = origins
        .iter()
        .enumerate()
        .map(|(index, origin)| endpoint(origin.address, &format!("pod-{index}")))
        .collect();
    service_of(endpoints, policy, None)
}

pub(crate) fn service_of(
    endpoints: Vec<EndpointSpec>,
    policy: Policy,
    previous: Option<&Service>,
) -> Service {
    let spec = ServiceSpec {
        name: "shop/web:80".into(),
        protocol: Protocol::Auto,
        addresses: vec![],
        endpoints,
        policy,
    };
    Service::new(spec, previous)
}

/// Any host, any path.
pub(crate) fn everything_to(
    service: Service,
    limits: Vec<Arc<meshgate_proxy::limits::RateLimit>>,
) -> Snapshot {
    everything_permitted(service, limits, None)
}

/// The same, of those who may ask.
pub(crate) fn everything_permitted(
    service: Service,
    limits: Vec<Arc<meshgate_proxy::limits::RateLimit>>,
    access: Option<Arc<AccessRules>>,
) -> Snapshot {
    let rule = Rule {
        target: Target::Service(service.name().clone()),
        origin: "ingress/shop/web".into(),
        index: 0,
        limits,
        access,
    };
    let path = PathMatch::new(PathKind::Prefix, "/").unwrap();
    Snapshot {
        generation: 1,
        routes: RouteTable::new([(HostName::Any, Arc::new(HostRules::new([(path, rule)])))]),
        services: Services::new([Arc::new(service)], true),
        ..Snapshot::default()
    }
}
