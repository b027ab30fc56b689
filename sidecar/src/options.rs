//! What a sidecar is told at its start.

use std::net::SocketAddr;
use std::time::Duration;

use meshgate_api::names::{PORT_METRICS, PORT_READY};
use meshgate_proxy::RecordFormat;
use meshgate_proxy::push::link::ControlOptions;
use meshgate_proxy::trace::TraceOptions;

use crate::ports::PortSet;

/// All of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the control plane is, and who asks.
    pub control: ControlOptions,
    /// Inbound ports that bypass the sidecar.
    pub skip_inbound_ports: PortSet,
    /// Outbound ports that bypass the sidecar.
    pub skip_outbound_ports: PortSet,
    /// Ports passed on as TCP without detection.
    pub opaque_ports: PortSet,
    /// `/readyz`.
    pub ready: SocketAddr,
    /// `/metrics`.
    pub metrics: SocketAddr,
    /// One record for each request; `None` turns them off.
    pub access_log: Option<RecordFormat>,
    /// Where spans of sampled requests go; `None` turns them off.
    pub trace: Option<TraceOptions>,
    /// How long requests in flight may take to finish after the shutdown began.
    pub drain: Duration,
    /// Has the allocator give back what it keeps; asked before anybody is refused for memory.
    pub reclaim: Option<fn()>,
}

impl Options {
    /// Everything but the control plane at its default.
    pub fn new(control: ControlOptions) -> Self {
        let everywhere = |port| SocketAddr::from(([0, 0, 0, 0], port));
        Self {
            control,
            skip_inbound_ports: PortSet::default(),
            skip_outbound_ports: PortSet::default(),
            opaque_ports: PortSet::default(),
            ready: everywhere(PORT_READY),
            metrics: everywhere(PORT_METRICS),
            access_log: None,
            trace: None,
            drain: Duration::from_secs(25),
            reclaim: None,
        }
    }
}
