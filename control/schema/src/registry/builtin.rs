//! The built-in kinds as data: names, scope, verbs and subresources.

/// Which rules (defaults, preparation, validation, columns) a built-in kind follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Builtin {
    Binding,
    ClusterRole,
    ClusterRoleBinding,
    ConfigMap,
    CustomResourceDefinition,
    Deployment,
    EndpointSlice,
    Endpoints,
    Event,
    /// The newer face of events: own field names, the same stored objects.
    EventsEvent,
    Ingress,
    IngressClass,
    Lease,
    MutatingWebhookConfiguration,
    Namespace,
    Node,
    Pod,
    ReplicaSet,
    Role,
    RoleBinding,
    Secret,
    Service,
    ServiceAccount,
    /// Create-only questions: SubjectAccessReview and its kin.
    Review,
}

/// One line of the table below.
pub(super) struct Row {
    pub(super) rules: Builtin,
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) singular: &'static str,
    pub(super) short_names: &'static [&'static str],
    pub(super) categories: &'static [&'static str],
    pub(super) namespaced: bool,
    pub(super) verbs: &'static [&'static str],
    pub(super) subresources: &'static [&'static str],
    /// Schema name without the kind: `io.k8s.api.core.v1`.
    pub(super) package: &'static str,
}

const ALL_VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
/// A namespace is deleted one by one: each takes everything inside with it.
const NAMESPACE_VERBS: &[&str] = &[
    "create", "delete", "get", "list", "patch", "update", "watch",
];
const CREATE_ONLY: &[&str] = &["create"];

const CORE: &str = "io.k8s.api.core.v1";
const APPS: &str = "io.k8s.api.apps.v1";
const RBAC: &str = "io.k8s.api.rbac.v1";
const NETWORKING: &str = "io.k8s.api.networking.v1";
const AUTHENTICATION: &str = "io.k8s.api.authentication.v1";
const AUTHORIZATION: &str = "io.k8s.api.authorization.v1";
const APIEXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";

impl Row {
    const fn new(
        rules: Builtin,
        package: &'static str,
        group: &'static str,
        kind: &'static str,
        plural: &'static str,
        singular: &'static str,
    ) -> Row {
        Row {
            rules,
            group,
            version: "v1",
            kind,
            plural,
            singular,
            short_names: &[],
            categories: &[],
            namespaced: true,
            verbs: ALL_VERBS,
            subresources: &[],
            package,
        }
    }

    const fn short(mut self, names: &'static [&'static str]) -> Row {
        self.short_names = names;
        self
    }

    const fn categories(mut self, categories: &'static [&'static str]) -> Row {
        self.categories = categories;
        self
    }

    const fn namespaced(mut self) -> Row {
        self.namespaced = true;
        self
    }

    const fn cluster(mut self) -> Row {
        self.namespaced = false;
        self
    }

    const fn verbs(mut self, verbs: &'static [&'static str]) -> Row {
        self.verbs = verbs;
        self
    }

    const fn subresources(mut self, names: &'static [&'static str]) -> Row {
        self.subresources = names;
        self
    }

    const fn review(package: &'static str, group: &'static str, kind: &'static str) -> Row {
        Row::new(Builtin::Review, package, group, kind, "", "")
            .cluster()
            .verbs(CREATE_ONLY)
    }
}

/// Every built-in kind, in the order in which discovery lists the groups. Reviews derive their plural from the kind.
pub(super) const ROWS: &[Row] = &[
    Row::new(Builtin::Binding, CORE, "", "Binding", "bindings", "binding").verbs(CREATE_ONLY),
    Row::new(
        Builtin::ConfigMap,
        CORE,
        "",
        "ConfigMap",
        "configmaps",
        "configmap",
    )
    .short(&["cm"]),
    Row::new(
        Builtin::Endpoints,
        CORE,
        "",
        "Endpoints",
        "endpoints",
        "endpoints",
    )
    .short(&["ep"]),
    Row::new(Builtin::Event, CORE, "", "Event", "events", "event").short(&["ev"]),
    Row::new(
        Builtin::Namespace,
        CORE,
        "",
        "Namespace",
        "namespaces",
        "namespace",
    )
    .short(&["ns"])
    .cluster()
    .verbs(NAMESPACE_VERBS)
    .subresources(&["finalize", "status"]),
    Row::new(Builtin::Node, CORE, "", "Node", "nodes", "node")
        .short(&["no"])
        .cluster()
        .subresources(&["status"]),
    Row::new(Builtin::Pod, CORE, "", "Pod", "pods", "pod")
        .short(&["po"])
        .categories(&["all"])
        .subresources(&["binding", "eviction", "log", "status"]),
    Row::new(Builtin::Secret, CORE, "", "Secret", "secrets", "secret"),
    Row::new(
        Builtin::ServiceAccount,
        CORE,
        "",
        "ServiceAccount",
        "serviceaccounts",
        "serviceaccount",
    )
    .short(&["sa"])
    .subresources(&["token"]),
    Row::new(Builtin::Service, CORE, "", "Service", "services", "service")
        .short(&["svc"])
        .categories(&["all"])
        .subresources(&["status"]),
    Row::new(
        Builtin::EventsEvent,
        "io.k8s.api.events.v1",
        "events.k8s.io",
        "Event",
        "events",
        "event",
    )
    .short(&["ev"]),
    Row::review(AUTHENTICATION, "authentication.k8s.io", "SelfSubjectReview"),
    Row::review(AUTHENTICATION, "authentication.k8s.io", "TokenReview"),
    Row::review(
        AUTHORIZATION,
        "authorization.k8s.io",
        "LocalSubjectAccessReview",
    )
    .namespaced(),
    Row::review(
        AUTHORIZATION,
        "authorization.k8s.io",
        "SelfSubjectAccessReview",
    ),
    Row::review(
        AUTHORIZATION,
        "authorization.k8s.io",
        "SelfSubjectRulesReview",
    ),
    Row::review(AUTHORIZATION, "authorization.k8s.io", "SubjectAccessReview"),
    Row::new(
        Builtin::Deployment,
        APPS,
        "apps",
        "Deployment",
        "deployments",
        "deployment",
    )
    .short(&["deploy"])
    .categories(&["all"])
    .subresources(&["scale", "status"]),
    Row::new(
        Builtin::ReplicaSet,
        APPS,
        "apps",
        "ReplicaSet",
        "replicasets",
        "replicaset",
    )
    .short(&["rs"])
    .categories(&["all"])
    .subresources(&["scale", "status"]),
    Row::new(
        Builtin::IngressClass,
        NETWORKING,
        "networking.k8s.io",
        "IngressClass",
        "ingressclasses",
        "ingressclass",
    )
    .cluster(),
    Row::new(
        Builtin::Ingress,
        NETWORKING,
        "networking.k8s.io",
        "Ingress",
        "ingresses",
        "ingress",
    )
    .short(&["ing"])
    .subresources(&["status"]),
    rbac(
        Builtin::ClusterRoleBinding,
        "ClusterRoleBinding",
        "clusterrolebindings",
        "clusterrolebinding",
    )
    .cluster(),
    rbac(
        Builtin::ClusterRole,
        "ClusterRole",
        "clusterroles",
        "clusterrole",
    )
    .cluster(),
    rbac(
        Builtin::RoleBinding,
        "RoleBinding",
        "rolebindings",
        "rolebinding",
    ),
    rbac(Builtin::Role, "Role", "roles", "role"),
    Row::new(
        Builtin::MutatingWebhookConfiguration,
        "io.k8s.api.admissionregistration.v1",
        "admissionregistration.k8s.io",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        "mutatingwebhookconfiguration",
    )
    .cluster()
    .categories(&["api-extensions"]),
    Row::new(
        Builtin::CustomResourceDefinition,
        APIEXTENSIONS,
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "customresourcedefinition",
    )
    .cluster()
    .short(&["crd", "crds"])
    .categories(&["api-extensions"])
    .subresources(&["status"]),
    Row::new(
        Builtin::Lease,
        "io.k8s.api.coordination.v1",
        "coordination.k8s.io",
        "Lease",
        "leases",
        "lease",
    ),
    Row::new(
        Builtin::EndpointSlice,
        "io.k8s.api.discovery.v1",
        "discovery.k8s.io",
        "EndpointSlice",
        "endpointslices",
        "endpointslice",
    ),
];

const fn rbac(
    rules: Builtin,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
) -> Row {
    Row::new(
        rules,
        RBAC,
        "rbac.authorization.k8s.io",
        kind,
        plural,
        singular,
    )
}
