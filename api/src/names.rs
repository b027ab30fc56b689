//! Names that are contracts: labels, annotations, ports, addresses, identities' parts.

/// Group and version of our policies.
pub const POLICY_GROUP: &str = "meshgate.dev";
/// Version of our policies.
pub const POLICY_VERSION: &str = "v1alpha1";
/// Where the control plane's and the edge's own objects live.
pub const SYSTEM_NAMESPACE: &str = "meshgate-system";
/// Name of the edge's Deployment, Service and ServiceAccount in [`SYSTEM_NAMESPACE`].
pub const EDGE: &str = "edge";
/// `controllerName` in the status of our policies.
pub const POLICY_CONTROLLER: &str = "meshgate.dev/control";
/// `spec.controller` of our IngressClass.
pub const INGRESS_CONTROLLER: &str = "meshgate.dev/ingress";
/// Name of our IngressClass, the default one.
pub const INGRESS_CLASS: &str = "meshgate";
/// SPIFFE trust domain of a cluster that was given none.
pub const TRUST_DOMAIN: &str = "cluster.local";
/// DNS domain of the cluster.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// Image of the binary itself, always in every node's store.
pub const SELF_IMAGE: &str = "meshgate/meshgate";

/// Namespace or pod label: inject a sidecar.
pub const INJECT: &str = "meshgate.dev/inject";
/// Pod annotation, set by the injector: the pod has a sidecar that takes mTLS on [`PORT_MTLS`].
pub const SIDECAR_STATUS: &str = "meshgate.dev/sidecar";
/// Pod annotation: inbound ports that bypass the sidecar.
pub const SKIP_INBOUND_PORTS: &str = "meshgate.dev/skip-inbound-ports";
/// Pod annotation: outbound ports that bypass the sidecar.
pub const SKIP_OUTBOUND_PORTS: &str = "meshgate.dev/skip-outbound-ports";
/// Pod or Service annotation: ports passed on as TCP without detection.
pub const OPAQUE_PORTS: &str = "meshgate.dev/opaque-ports";
/// Pod annotation: memory request and limit of the injected container.
pub const PROXY_MEMORY: &str = "meshgate.dev/proxy-memory";
/// Pod annotation: CPU request of the injected container.
pub const PROXY_CPU: &str = "meshgate.dev/proxy-cpu";
/// Pod annotation: log filter of the injected container.
pub const PROXY_LOG_LEVEL: &str = "meshgate.dev/proxy-log-level";
/// Name of the injected container.
pub const SIDECAR_CONTAINER: &str = "meshgate-sidecar";

/// Audience of the projected token that proves a workload's identity to the identity service.
pub const IDENTITY_AUDIENCE: &str = "meshgate.dev/identity";
/// Where that token is mounted in proxies (file `token`).
pub const IDENTITY_TOKEN_DIR: &str = "/var/run/secrets/meshgate.dev/identity";
/// Where the cluster's CA (file `ca.crt`) is mounted in every pod, as in Kubernetes.
pub const SERVICE_ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Sidecar: outbound traffic is redirected here.
pub const PORT_OUTBOUND: u16 = 15001;
/// Sidecar: plain inbound traffic is redirected here.
pub const PORT_INBOUND: u16 = 15006;
/// Sidecar: mTLS inbound, HTTP/2; CONNECT is tunnelled TCP (HBONE).
pub const PORT_MTLS: u16 = 15008;
/// Control plane: push, identity and quota (gRPC over TLS).
pub const PORT_PUSH: u16 = 15012;
/// Control plane: the injector's webhook (HTTPS).
pub const PORT_WEBHOOK: u16 = 15017;
/// Proxies: Prometheus metrics.
pub const PORT_METRICS: u16 = 15020;
/// Proxies: readiness (`/readyz`).
pub const PORT_READY: u16 = 15021;
/// User that sidecars run as; its traffic is not redirected.
pub const SIDECAR_UID: u32 = 1337;
/// Firewall mark of a sidecar's own packets, for where its user cannot be changed (no other uid mapped).
pub const SIDECAR_MARK: u32 = 0x539;
/// Service of the control plane in [`SYSTEM_NAMESPACE`].
pub const CONTROL_SERVICE: &str = "meshgate-control";

/// Unix socket (hostPath) where a pod asks for listening sockets of the host by name.
pub const HOST_SOCKETS: &str = "/run/meshgate/host-sockets.sock";

/// First address of the network that joins the control plane and the nodes; nodes follow at `.10 + index`.
pub const CONTROL_ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 88, 0, 1);
/// Cluster addresses of Services: 10.96.0.0/16.
pub const SERVICE_CIDR: (std::net::Ipv4Addr, u8) = (std::net::Ipv4Addr::new(10, 96, 0, 0), 16);
/// Address of the `kubernetes` Service.
pub const KUBERNETES_SERVICE_ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 96, 0, 1);
/// Address of the `kube-dns` Service.
pub const DNS_SERVICE_ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 96, 0, 10);
/// Pods: node N owns 10.244.N.0/24, its bridge is .1.
pub const POD_CIDR: (std::net::Ipv4Addr, u8) = (std::net::Ipv4Addr::new(10, 244, 0, 0), 16);
/// Port of the API server inside the cluster's network.
pub const PORT_API: u16 = 6443;
/// Port of a node agent (logs, health).
pub const PORT_AGENT: u16 = 10250;

/// `spiffe://<trust-domain>/ns/<namespace>/sa/<service account>`.
pub fn spiffe_id(trust_domain: &str, namespace: &str, service_account: &str) -> String {
    format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
}
