//! The command line: a contract that scripts rely on.

mod listen;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use meshgate_api::client::Quantity;
use meshgate_proxy::ListenerLimits;
use meshgate_proxy::trace::{Collector, Ratio};

pub(crate) use listen::{ListenArgs, Listens};

/// One binary: a Kubernetes ingress, a service mesh, the certificates between them, and the cluster under them.
#[derive(Debug, Parser)]
#[command(
    name = "meshgate",
    version,
    about,
    propagate_version = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a cluster: API server, nodes, edge and mesh, on this machine
    Up(UpArgs),
    /// Stop a cluster; its data stays
    Down(ClusterArgs),
    /// Show a cluster's addresses, components, nodes and certificates
    Status(StatusArgs),
    /// Container images of a cluster
    Image(ImageArgs),
    /// Print a manifest as the sidecar injector would change it
    Inject(InjectArgs),
    /// Run a small HTTP, gRPC, WebSocket and TCP test server (or its client: `echo call`)
    Echo(EchoArgs),
    /// Run the control plane (API server, scheduler, controllers, configuration push)
    Control(ControlArgs),
    /// Run a node agent
    Node(NodeArgs),
    /// Run the edge proxy
    Ingress(IngressArgs),
    /// Run the mesh proxy of a pod
    Sidecar(SidecarArgs),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Holds a cluster's namespaces for `up`
    #[command(hide = true)]
    Keeper(SpecArgs),
    /// First process of a cluster
    #[command(hide = true)]
    Supervisor(SpecArgs),
    /// Parent of one container
    #[command(hide = true, disable_help_flag = true)]
    Shim {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

/// Which cluster is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClusterArgs {
    /// Name of the cluster
    #[arg(long, default_value = "default", value_parser = cluster_name)]
    pub(crate) name: String,
    /// Folder with the cluster's data [default: meshgate/NAME in the XDG data directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// Number of nodes; 0 is a control plane only
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=64))]
    pub(crate) nodes: u8,
    /// Where the edge takes HTTP; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    pub(crate) http: SocketAddr,
    /// Where the edge takes HTTPS; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8443")]
    pub(crate) https: SocketAddr,
    /// Where the API server listens; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:6443")]
    pub(crate) api: SocketAddr,
    /// Life of workload certificates, such as 24h, 90m or 30s
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub(crate) cert_ttl: Duration,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
    /// Also run the shop example: three meshed services behind the edge
    #[arg(long)]
    pub(crate) demo: bool,
    /// Return once everything is ready; `meshgate down` stops it
    #[arg(long)]
    pub(crate) detach: bool,
    /// Empty the data directory first
    #[arg(long)]
    pub(crate) fresh: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// Format
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For scripts
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Load OCI layouts, OCI archives and `docker save` archives into the cluster's store
    Load {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Archives or folders
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// List the cluster's images
    List {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Format
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

#[derive(Debug, Args)]
pub(crate) struct InjectArgs {
    /// Manifest; - is standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct EchoArgs {
    #[command(subcommand)]
    pub(crate) command: Option<EchoCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EchoCommand {
    /// Send requests and print each answer's status and body
    Call {
        /// Where to
        url: String,
        /// How many requests, one after the other
        #[arg(long, default_value_t = 1)]
        count: u64,
        /// Method [default: GET, with --data POST]
        #[arg(long)]
        method: Option<String>,
        /// Header, `Name: value`; may be repeated
        #[arg(long = "header", short = 'H', value_name = "HEADER")]
        headers: Vec<String>,
        /// Body
        #[arg(long)]
        data: Option<String>,
        /// Accept any certificate
        #[arg(long)]
        insecure: bool,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ControlArgs {
    /// Folder with the cluster's data; made if absent
    #[arg(long, value_name = "DIR", required_unless_present = "kubeconfig")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Run no API server: only the parts of `--parts`, against the API server of this kubeconfig
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// With `--kubeconfig`: the parts to run. A cluster that has a scheduler and controllers needs push only
    #[arg(long, value_enum, value_delimiter = ',', default_value = "push")]
    pub(crate) parts: Vec<Part>,
    /// With `--kubeconfig`: certificate chain of push and webhook, for meshgate-control.meshgate-system.svc
    #[arg(long, value_name = "FILE", requires = "kubeconfig")]
    pub(crate) serving_cert: Option<PathBuf>,
    /// With `--kubeconfig`: its key
    #[arg(long, value_name = "FILE", requires = "kubeconfig")]
    pub(crate) serving_key: Option<PathBuf>,
    /// Address of the API server
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:6443")]
    pub(crate) listen: SocketAddr,
    /// Where proxies get configuration and certificates
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:15012")]
    pub(crate) push_listen: SocketAddr,
    /// Where the injector's webhook listens
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:15017")]
    pub(crate) webhook_listen: SocketAddr,
    /// Life of workload certificates
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub(crate) cert_ttl: Duration,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
    /// Address that Ingresses show as theirs; may be repeated
    #[arg(long, value_name = "ADDR")]
    pub(crate) edge_address: Vec<std::net::IpAddr>,
    /// Descriptor of a listening socket for the API server, besides `--listen`
    #[arg(long, hide = true)]
    pub(crate) api_fd: Option<i32>,
    /// Descriptor to say on that the API serves
    #[arg(long, hide = true)]
    pub(crate) ready_fd: Option<i32>,
    /// Run the edge on the nodes
    #[arg(long, hide = true)]
    pub(crate) with_edge: bool,
    /// End when the parent process ends
    #[arg(long, hide = true)]
    pub(crate) die_with_parent: bool,
}

/// A part of the control plane that is a plain client of the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Places pods on nodes
    Scheduler,
    /// Deployments, EndpointSlices, garbage collection and the others
    Controllers,
    /// Configuration, certificates and sidecars for proxies
    Push,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct NodeArgs {
    /// Name of the node
    #[arg(long)]
    pub(crate) name: String,
    /// Number of the node, from 0: decides its pods' addresses
    #[arg(long, default_value_t = 0)]
    pub(crate) index: u8,
    /// Kubeconfig of the node
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: PathBuf,
    /// Folder with the cluster's data (images, logs, certificates of the node)
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// The node's address
    #[arg(long)]
    pub(crate) address: std::net::Ipv4Addr,
    /// Folder for what does not outlive the machine
    #[arg(long, value_name = "DIR", default_value = "/run/meshgate")]
    pub(crate) run_dir: PathBuf,
    /// Control group that the pods' groups are made in
    #[arg(long, default_value = "meshgate")]
    pub(crate) cgroup_parent: String,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct IngressArgs {
    /// Control plane: HOST:PORT of configuration and certificates
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "from")]
    pub(crate) control: Option<String>,
    /// Without a cluster: serve the manifests of these files and folders (*.yaml, *.yml, *.json, with all below), and
    /// follow their changes
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with_all = ["control", "host_sockets"])]
    pub(crate) from: Vec<PathBuf>,
    /// With `--from`: only say what is wrong with the files
    #[arg(long, requires = "from")]
    pub(crate) check: bool,
    /// With `--from`: take the sockets of the edge that is running, which then drains and ends. Listeners that only these
    /// arguments name are opened, those that they do not name close
    #[arg(long, requires = "from")]
    pub(crate) take_over: bool,
    /// With `--from`: where `--take-over` finds this process [default: $XDG_RUNTIME_DIR/meshgate/ingress-ADDR:PORT.sock
    /// of the first listener, or the same in /run]
    #[arg(long, value_name = "PATH", requires = "from")]
    pub(crate) control_socket: Option<PathBuf>,
    /// Descriptor of a connection to the process that is to be replaced
    #[arg(long, hide = true, requires = "from")]
    pub(crate) take_over_fd: Option<i32>,
    /// SPIFFE trust domain
    #[arg(long, default_value = meshgate_api::names::TRUST_DOMAIN)]
    pub(crate) trust_domain: String,
    /// Take the listening sockets from the host, through this Unix socket
    #[arg(long, value_name = "SOCKET", conflicts_with_all = ["http", "https"])]
    pub(crate) host_sockets: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
    /// Networks of load balancers whose connections all begin with a PROXY header (version 1 or 2): the client's address
    /// is the one that it tells. From anybody else a connection that begins so is closed
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub(crate) proxy_protocol_from: Vec<IpNet>,
    /// Networks of proxies that are believed about where a request came from: X-Forwarded-*, Forwarded, X-Request-ID and
    /// traceparent are kept and extended, of others replaced
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub(crate) trust_headers_from: Vec<IpNet>,
    /// Access record on standard output
    #[arg(long, value_enum, default_value_t = AccessLog::Json)]
    pub(crate) access_log: AccessLog,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
    /// Threads that serve connections [default: one per processor]
    #[arg(long)]
    pub(crate) workers: Option<usize>,
    /// Most connections at once of each listener
    #[arg(long, value_name = "COUNT", default_value_t = ListenerLimits::default().connections)]
    pub(crate) connections: u32,
    /// Most connections at once of one client address at each listener; 0: no limit of its own
    #[arg(long, value_name = "COUNT", default_value_t = ListenerLimits::default().connections_per_client)]
    pub(crate) connections_per_client: u32,
    /// Memory, such as 512Mi, from which on new requests are answered 503; from an eighth more on, connections are closed
    /// [default: three quarters of what the control group allows, or of the machine's]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) memory: Option<u64>,
    /// Largest body of a request, such as 100Mi, or none for any size; gRPC's are of any size always [default: 10Mi]
    #[arg(long, value_name = "BYTES", value_parser = body_max)]
    pub(crate) body_max: Option<BodyMax>,
}

/// Of a request's body in bytes, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BodyMax(pub(crate) Option<u64>);

fn body_max(text: &str) -> Result<BodyMax, String> {
    match text {
        "none" => Ok(BodyMax(None)),
        _ => bytes(text).map(|bytes| BodyMax(Some(bytes))),
    }
}

/// `512Mi`, `2Gi`, `300000000`: Kubernetes' quantities.
fn bytes(text: &str) -> Result<u64, String> {
    let quantity = Quantity::parse(text).ok().map(Quantity::units);
    quantity
        .and_then(|units| u64::try_from(units).ok())
        .filter(|units| *units > 0)
        .ok_or_else(|| format!("{text:?} is no amount of memory such as 512Mi or 2Gi"))
}

/// Spans of edge and sidecars.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TraceArgs {
    /// Where proxies send spans, http://HOST:PORT or https://HOST:PORT of a collector (OTLP over gRPC). A proxy also reads
    /// OpenTelemetry's variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER and others)
    #[arg(long, value_name = "URL")]
    pub(crate) otlp_endpoint: Option<Collector>,
    /// Share of traces that have spans, from 0 to 1, where they begin at a proxy; else who asks decides [default: 1]
    #[arg(long, value_name = "SHARE")]
    pub(crate) trace_ratio: Option<Ratio>,
}

impl TraceArgs {
    /// As a command line again, for those who are started with the same.
    pub(crate) fn to_arguments(&self) -> Vec<String> {
        let endpoint = self.otlp_endpoint.iter();
        let endpoint = endpoint.map(|collector| format!("--otlp-endpoint={collector}"));
        let ratio = self.trace_ratio.iter();
        endpoint
            .chain(ratio.map(|ratio| format!("--trace-ratio={ratio}")))
            .collect()
    }
}

/// Form of the access record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum AccessLog {
    /// None
    Off,
    /// One JSON object a line
    Json,
    /// One line of text
    Text,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SidecarArgs {
    /// Control plane: HOST:PORT of configuration and certificates
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) control: String,
    /// SPIFFE trust domain
    #[arg(long, default_value = meshgate_api::names::TRUST_DOMAIN)]
    pub(crate) trust_domain: String,
    /// Inbound ports that bypass the proxy, such as 9090,9100-9110
    #[arg(long, value_name = "PORTS", default_value = "")]
    pub(crate) skip_inbound_ports: String,
    /// Outbound ports that bypass the proxy
    #[arg(long, value_name = "PORTS", default_value = "")]
    pub(crate) skip_outbound_ports: String,
    /// Ports passed on as TCP without detection
    #[arg(long, value_name = "PORTS", default_value = "")]
    pub(crate) opaque_ports: String,
    /// Access record on standard output
    #[arg(long, value_enum, default_value_t = AccessLog::Off)]
    pub(crate) access_log: AccessLog,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

/// What keeper and supervisor are told, as JSON.
#[derive(Debug, Clone, Args)]
pub(crate) struct SpecArgs {
    pub(crate) spec: String,
}

/// Also the name of folders and control groups, so a plain one.
fn cluster_name(name: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 40 || !name.chars().all(plain) || name.starts_with('-') {
        return Err("a name has 1 to 40 lower-case letters, digits and dashes, and starts with none of the last".into());
    }
    Ok(name.to_owned())
}

/// `90s`, `15m`, `24h`, `1h30m`, `500ms`: Gateway API's durations.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 24h, 90m, 30s or 1h30m");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit_end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit_ms = match &rest[..unit_end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        rest = &rest[unit_end..];
        let ms = number.checked_mul(unit_ms).ok_or_else(wrong)?;
        total = total
            .checked_add(Duration::from_millis(ms))
            .ok_or_else(wrong)?;
    }
    if total.is_zero() {
        return Err(format!("{text:?}: a duration above zero is needed"));
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn amounts_of_memory() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(bytes(text).ok(), expected, "{text}");
        };
        check("512Mi", Some(512 << 20));
        check("300000000", Some(300_000_000));
        check("0", None);
        check("-1Gi", None);
        check("much", None);
        assert_eq!(body_max("none"), Ok(BodyMax(None)));
        assert_eq!(body_max("1Gi"), Ok(BodyMax(Some(1 << 30))));
        assert!(body_max("nothing").is_err());
    }

    #[test]
    fn durations() {
        let check = |text: &str, ms: Option<u64>| {
            assert_eq!(duration(text).ok(), ms.map(Duration::from_millis), "{text}");
        };
        check("24h", Some(86_400_000));
        check("1h30m", Some(5_400_000));
        check("30s", Some(30_000));
        check("500ms", Some(500));
        for wrong in [
            "",
            "0s",
            "30",
            "s",
            "1d",
            "-1s",
            "99999999999999999999h",
            "9999999999999999h",
        ] {
            check(wrong, None);
        }
    }
}
