//! gRPC's interoperability tests, client and server by grpc-go, through edge and sidecar.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::Outcome;
use crate::edge::{Edge, HOST};
use crate::sidecar::Sidecar;
use crate::tools;

/// All that ask for no cloud, no accounts and no second server.
const CASES: [&str; 14] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
];
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn run() -> anyhow::Result<Vec<Outcome>> {
    let server = Server::start().await?;
    let edge = Edge::start(server.address).await?;
    let sidecar = Sidecar::start(server.address).await?;
    let certificate = edge.certificate().display().to_string();
    let tls = [
        "-use_tls",
        "-use_test_ca",
        "-ca_file",
        &certificate,
        "-server_host_override",
        HOST,
    ];
    let mut outcomes = Vec::new();
    for (way, address, flags) in [
        ("no proxy", server.address, &[][..]),
        ("edge, in the clear", edge.http, &[]),
        ("edge, TLS", edge.https, &tls),
        ("sidecar, inbound", sidecar.inbound, &[]),
        ("sidecar, outbound", sidecar.outbound, &[]),
        ("two sidecars", sidecar.both, &[]),
    ] {
        outcomes.push(judge(way, address, flags).await?);
    }
    Ok(outcomes)
}

async fn judge(way: &str, address: SocketAddr, flags: &[&str]) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome {
        suite: format!("gRPC interoperability, {way}"),
        passed: 0,
        failed: Vec::new(),
    };
    for case in CASES {
        let mut command = Command::new(tools::path("GRPC_INTEROP")?.join("client"));
        command
            .args(["-server_host", &address.ip().to_string()])
            .args(["-server_port", &address.port().to_string()])
            .args(["-test_case", case])
            .args(flags);
        match tools::succeeds(command, PATIENCE).await? {
            Ok(()) => outcome.passed += 1,
            Err(printed) => outcome.failed.push(format!("{case}: {printed}")),
        }
    }
    Ok(outcome)
}

/// Ends when dropped.
struct Server {
    address: SocketAddr,
    _process: Child,
}

impl Server {
    async fn start() -> anyhow::Result<Self> {
        // It does not say which port it got, so it is told one that was free a moment ago.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = free.local_addr()?;
        drop(free);
        let process = Command::new(tools::path("GRPC_INTEROP")?.join("server"))
            .args(["-port", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("the gRPC server")?;
        let listens = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, listens)
            .await
            .context("the gRPC server did not listen in time")?;
        Ok(Self {
            address,
            _process: process,
        })
    }
}
