//! What a path asks for.

use meshgate_schema::Failure;

use super::query::{Plus, decode};

/// A path under `/api/v1` or `/apis/<group>/<version>` that names a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    /// Empty: cluster scope or all namespaces.
    pub(crate) namespace: String,
    pub(crate) resource: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
    /// The old form `/api/v1/watch/…`.
    pub(crate) watch: bool,
    /// More segments than any resource has.
    pub(crate) too_deep: bool,
}

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// Objects.
    Resource(ResourcePath),
    /// Everything else: health, discovery, documents. The normalised path.
    Document(String),
}

/// Reads a path. Refuses only what could be read in two ways.
pub(crate) fn parse(path: &str) -> Result<Target, Failure> {
    let segments: Vec<_> = path
        .split('/')
        .skip(1)
        .map(|segment| decode(segment, Plus::Itself))
        .collect();
    if segments
        .iter()
        .any(|segment| segment == "." || segment == "..")
    {
        return Err(Failure::bad_request(
            "the path must not contain \".\" or \"..\"",
        ));
    }
    let parts: Vec<&str> = segments.iter().map(|segment| &**segment).collect();
    let parts = match parts.split_last() {
        // One slash at the end is allowed.
        Some((&"", rest)) if !rest.is_empty() => rest,
        _ => parts.as_slice(),
    };
    let (group, version, rest) = match parts {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return Ok(Target::Document(path.to_owned())),
    };
    Ok(Target::Resource(resource(group, version, rest)))
}

fn resource(group: &str, version: &str, rest: &[&str]) -> ResourcePath {
    let (watch, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        rest => (false, rest),
    };
    let (namespace, rest) = match rest {
        // `namespaces/<name>/status` and `/finalize` are subresources of the namespace itself.
        ["namespaces", namespace, "status" | "finalize", ..] if group.is_empty() => {
            (*namespace, rest)
        }
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        // The namespace of a Namespace is itself, which is what authorization rules see.
        ["namespaces", namespace] => (*namespace, rest),
        rest => ("", rest),
    };
    let part = |at: usize| rest.get(at).copied().unwrap_or_default().to_owned();
    ResourcePath {
        group: group.to_owned(),
        version: version.to_owned(),
        namespace: namespace.to_owned(),
        resource: part(0),
        name: part(1),
        subresource: part(2),
        watch,
        too_deep: rest.len() > 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: &str) {
        let got = match parse(path) {
            Ok(Target::Resource(p)) => format!(
                "{}/{} ns={} {} {} {}{}",
                p.group,
                p.version,
                p.namespace,
                p.resource,
                p.name,
                p.subresource,
                if p.watch { " watch" } else { "" }
            ),
            Ok(Target::Document(path)) => format!("document {path}"),
            Err(failure) => failure.code.to_string(),
        };
        assert_eq!(got, expected, "{path}");
    }

    #[test]
    fn paths() {
        check("/api/v1/pods", "/v1 ns= pods  ");
        check("/api/v1/namespaces/a/pods/b/log", "/v1 ns=a pods b log");
        check("/api/v1/namespaces/a", "/v1 ns=a namespaces a ");
        check(
            "/api/v1/namespaces/a/finalize",
            "/v1 ns=a namespaces a finalize",
        );
        check(
            "/api/v1/namespaces/a/status/",
            "/v1 ns=a namespaces a status",
        );
        check("/api/v1/namespaces/", "/v1 ns= namespaces  ");
        check("/api/v1/nodes/n", "/v1 ns= nodes n ");
        check(
            "/apis/apps/v1/namespaces/a/deployments/d/scale",
            "apps/v1 ns=a deployments d scale",
        );
        check("/api/v1/watch/namespaces/a/pods", "/v1 ns=a pods   watch");
        check("/apis/apps/v1", "document /apis/apps/v1");
        check("/apis", "document /apis");
        check("/", "document /");
        check("/livez/ping", "document /livez/ping");
        check("/api/v1/namespaces/a/configmaps/%2e%2e", "400");
        check(
            "/api/v1/namespaces/a/configmaps/a%2Fb",
            "/v1 ns=a configmaps a/b ",
        );
    }
}
