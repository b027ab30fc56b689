//! The custom resource definitions of our policies, as YAML.

/// One CustomResourceDefinition document each.
pub const ALL: [&str; 3] = [
    include_str!("../../crds/ratelimitpolicies.yaml"),
    include_str!("../../crds/backendpolicies.yaml"),
    include_str!("../../crds/accesspolicies.yaml"),
];
