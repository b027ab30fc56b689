//! `meshgate ingress` and `meshgate sidecar`: arguments into options.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use meshgate_ingress::{ListenAt, Options, Source};
use meshgate_proxy::RecordFormat;
use meshgate_proxy::push::link::{ControlOptions, PodName};
use meshgate_proxy::trace::{Flags, TraceOptions};

use crate::args::{AccessLog, BodyMax, IngressArgs, Listens, SidecarArgs, TraceArgs};
use crate::{allocator, from, resident, runtime};

pub(crate) fn ingress(args: &IngressArgs) -> anyhow::Result<ExitCode> {
    let listens = args.listen.listens()?;
    if args.check {
        return from::check(&args.from);
    }
    if !args.from.is_empty() {
        return from::serve(args, &listens);
    }
    let address = args.control.as_deref().context("--control is missing")?;
    let control = control(address, &args.trust_domain)?;
    let options = edge_options(args, &listens, Source::Control(Box::new(control)));
    // Certificates and configuration need little; the engine brings the threads that serve.
    runtime::current_thread()?.block_on(async {
        let shutdown = runtime::shutdown_on_signal()?;
        resident::trim_when_settled();
        meshgate_ingress::run(options, shutdown)
            .await
            .context("the edge")
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn edge_options(args: &IngressArgs, listens: &Listens, source: Source) -> Options {
    let at = |name: &str, addresses: &[SocketAddr]| match args.host_sockets.clone() {
        None => addresses.iter().copied().map(ListenAt::Address).collect(),
        Some(server) => vec![ListenAt::HostSocket {
            server,
            name: name.to_owned(),
        }],
    };
    let (http, https) = (at("http", &listens.http), at("https", &listens.https));
    let mut options = Options::new(source, http, https);
    options.ready = ListenAt::Address(listens.ready);
    options.metrics = ListenAt::Address(listens.metrics);
    options.access_log = format(args.access_log);
    options.trace = trace(&args.trace, "meshgate-edge");
    options.proxies = args.proxy_protocol_from.clone();
    options.trusted_peers = args.trust_headers_from.clone();
    options.limits.connections = args.connections;
    options.limits.connections_per_client = args.connections_per_client;
    options.reclaim = Some(allocator::give_back);
    if args.memory.is_some() {
        options.memory_bytes_max = args.memory;
    }
    if let Some(BodyMax(bytes)) = args.body_max {
        options.limits.body_bytes_max = bytes;
    }
    if let Some(workers) = args.workers {
        options.workers = workers;
    }
    options
}

pub(crate) fn sidecar(args: &SidecarArgs) -> anyhow::Result<ExitCode> {
    let mut options = meshgate_sidecar::Options::new(control(&args.control, &args.trust_domain)?);
    options.skip_inbound_ports = args
        .skip_inbound_ports
        .parse()
        .context("--skip-inbound-ports")?;
    options.skip_outbound_ports = args
        .skip_outbound_ports
        .parse()
        .context("--skip-outbound-ports")?;
    options.opaque_ports = args.opaque_ports.parse().context("--opaque-ports")?;
    options.access_log = format(args.access_log);
    options.trace = trace(&args.trace, "meshgate-sidecar");
    options.reclaim = Some(allocator::give_back);
    // One thread until the privileges are dropped: they belong to threads.
    runtime::current_thread()?.block_on(async {
        let shutdown = runtime::shutdown_on_signal()?;
        resident::trim_when_settled();
        meshgate_sidecar::run(options, shutdown)
            .await
            .context("the sidecar")
    })?;
    Ok(ExitCode::SUCCESS)
}

fn control(address: &str, trust_domain: &str) -> anyhow::Result<ControlOptions> {
    Ok(ControlOptions::in_pod(
        address.parse().context("--control")?,
        trust_domain.parse().context("--trust-domain")?,
    ))
}

/// By flags and OpenTelemetry's variables; what is wrong with those is told and passed over.
fn trace(args: &TraceArgs, service: &str) -> Option<TraceOptions> {
    let flags = Flags {
        collector: args.otlp_endpoint.clone(),
        ratio: args.trace_ratio,
    };
    let pod = PodName::from_env();
    let known = [
        ("service.name", service),
        ("k8s.namespace.name", &pod.namespace),
        ("k8s.pod.name", &pod.name),
        ("k8s.pod.uid", &pod.uid),
        ("k8s.node.name", &pod.node),
    ];
    let known: Vec<_> = known
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let (options, wrong) = TraceOptions::read(flags, &known, |name| std::env::var(name).ok());
    for why in wrong {
        tracing::warn!("{why}");
    }
    if let Some(options) = &options {
        tracing::info!(collector = %options.collector, "spans are sent");
    }
    options
}

fn format(log: AccessLog) -> Option<RecordFormat> {
    match log {
        AccessLog::Off => None,
        AccessLog::Json => Some(RecordFormat::Json),
        AccessLog::Text => Some(RecordFormat::Text),
    }
}
