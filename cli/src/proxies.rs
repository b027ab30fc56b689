//! `meshgate ingress` and `meshgate sidecar`: arguments into options.

use std::process::ExitCode;

use anyhow::Context;
use meshgate_ingress::ListenAt;
use meshgate_proxy::RecordFormat;
use meshgate_proxy::push::link::ControlOptions;

use crate::args::{AccessLog, IngressArgs, SidecarArgs};
use crate::runtime;

pub(crate) fn ingress(args: &IngressArgs) -> anyhow::Result<ExitCode> {
    let from_host = |name: &str| {
        let server = args.host_sockets.clone()?;
        Some(ListenAt::HostSocket {
            server,
            name: name.to_owned(),
        })
    };
    let mut options = meshgate_ingress::Options::new(
        control(&args.control, &args.trust_domain)?,
        from_host("http").or(Some(ListenAt::Address(args.http))),
        from_host("https").or(Some(ListenAt::Address(args.https))),
    );
    options.access_log = format(args.access_log);
    if let Some(workers) = args.workers {
        options.workers = workers;
    }
    // Certificates and configuration need little; the engine brings the threads that serve.
    runtime::current_thread()?.block_on(async {
        let shutdown = runtime::shutdown_on_signal()?;
        meshgate_ingress::run(options, shutdown)
            .await
            .context("the edge")
    })?;
    Ok(ExitCode::SUCCESS)
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
    // One thread until the privileges are dropped: they belong to threads.
    runtime::current_thread()?.block_on(async {
        let shutdown = runtime::shutdown_on_signal()?;
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

fn format(log: AccessLog) -> Option<RecordFormat> {
    match log {
        AccessLog::Off => None,
        AccessLog::Json => Some(RecordFormat::Json),
        AccessLog::Text => Some(RecordFormat::Text),
    }
}
