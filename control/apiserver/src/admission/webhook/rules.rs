//! A webhook as configured, and whether it wants to see a write.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meshgate_schema::{FieldError, LabelSelector};
use serde_json::Value;

use crate::admission::Operation;
use crate::server::{Call, Server};

/// Seconds to wait for an answer if the configuration does not say; its own limit is 30.
const TIMEOUT_S: u64 = 10;
const TIMEOUT_S_MAX: u64 = 30;

/// One entry of a `MutatingWebhookConfiguration`.
#[derive(Debug)]
pub(crate) struct Webhook {
    pub(crate) name: String,
    pub(crate) client: ClientConfig,
    /// `failurePolicy: Ignore`.
    pub(crate) ignores_failures: bool,
    pub(crate) timeout: Duration,
    /// `reinvocationPolicy: IfNeeded`.
    pub(crate) reinvoked: bool,
    /// It may not be asked about a dry run.
    pub(crate) has_side_effects: bool,
    rules: Vec<Rule>,
    namespaces: LabelSelector,
    objects: LabelSelector,
}

/// Where a webhook is.
#[derive(Debug)]
pub(crate) struct ClientConfig {
    pub(crate) url: Option<String>,
    pub(crate) service: Option<ServiceReference>,
    /// PEM; empty: the cluster's own CA.
    pub(crate) ca_pem: Vec<u8>,
    /// The TLS configuration made of it, at its first use.
    pub(crate) tls: OnceLock<Arc<rustls::ClientConfig>>,
}

/// A Service in the cluster.
#[derive(Debug, Clone)]
pub(crate) struct ServiceReference {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) port: u16,
}

#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// `pods`, `pods/status`, `*`, `*/*`, `pods/*`.
    resources: Vec<String>,
    scope: String,
}

impl Webhook {
    /// The webhooks of a stored configuration. A selector that cannot be read leaves its webhook out: the API
    /// refuses such configurations, so this is about older data only.
    pub(crate) fn of(configuration: &Value) -> Vec<Arc<Webhook>> {
        let webhooks = configuration["webhooks"].as_array().into_iter().flatten();
        webhooks
            .filter_map(|webhook| {
                let parsed = Webhook::parse(webhook);
                if parsed.is_none() {
                    tracing::error!(webhook = %webhook["name"], "a webhook's selector cannot be read; it is not called");
                }
                parsed.map(Arc::new)
            })
            .collect()
    }

    fn parse(webhook: &Value) -> Option<Webhook> {
        let text = |field: &str| webhook[field].as_str().unwrap_or_default();
        let selector = |field: &str| match &webhook[field] {
            Value::Null => Some(LabelSelector::default()),
            selector => LabelSelector::from_json(selector).ok(),
        };
        let timeout_s = webhook["timeoutSeconds"]
            .as_u64()
            .unwrap_or(TIMEOUT_S)
            .clamp(1, TIMEOUT_S_MAX);
        Some(Webhook {
            name: text("name").to_owned(),
            client: ClientConfig::parse(&webhook["clientConfig"]),
            ignores_failures: text("failurePolicy") == "Ignore",
            timeout: Duration::from_secs(timeout_s),
            reinvoked: text("reinvocationPolicy") == "IfNeeded",
            has_side_effects: !matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            rules: webhook["rules"]
                .as_array()
                .into_iter()
                .flatten()
                .map(Rule::parse)
                .collect(),
            namespaces: selector("namespaceSelector")?,
            objects: selector("objectSelector")?,
        })
    }

    /// Whether the webhook is to be asked about this write.
    pub(crate) fn wants(
        &self,
        call: &Call,
        operation: Operation,
        object: &Value,
        old: Option<&Value>,
    ) -> bool {
        self.rules.iter().any(|rule| rule.covers(call, operation))
            && (self.objects.is_empty()
                || self.objects.matches(object)
                || old.is_some_and(|old| self.objects.matches(old)))
            && self.wants_namespace(call, object, old)
    }

    fn wants_namespace(&self, call: &Call, object: &Value, old: Option<&Value>) -> bool {
        if self.namespaces.is_empty() {
            return true;
        }
        if call.kind.namespaced() {
            return namespace(&call.server, &call.path.namespace)
                .is_some_and(|namespace| self.namespaces.matches(&namespace));
        }
        if call.kind.group().is_empty() && call.kind.plural() == "namespaces" {
            return self.namespaces.matches(if object.is_null() {
                old.unwrap_or(object)
            } else {
                object
            });
        }
        // Other cluster-wide objects are in no namespace that could be left out.
        true
    }
}

/// What a configuration asks for that webhooks here do not honour: better refused than called too often.
pub(crate) fn unsupported(configuration: &Value) -> Vec<FieldError> {
    let webhooks = configuration["webhooks"].as_array().into_iter().flatten();
    let conditional = webhooks.enumerate().filter(|(_, webhook)| {
        let conditions = webhook["matchConditions"].as_array();
        conditions.is_some_and(|conditions| !conditions.is_empty())
    });
    let errors = conditional.map(|(at, _)| {
        let detail = "CEL conditions are not supported by this server; use rules and selectors";
        FieldError::forbidden(format!("webhooks[{at}].matchConditions"), detail)
    });
    errors.collect()
}

fn namespace(server: &Server, name: &str) -> Option<Value> {
    server.find("", "namespaces", "", name)
}

impl ClientConfig {
    fn parse(config: &Value) -> ClientConfig {
        let service = config["service"].as_object().map(|service| {
            let text = |field: &str| {
                service
                    .get(field)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            ServiceReference {
                namespace: text("namespace"),
                name: text("name"),
                path: text("path"),
                port: service
                    .get("port")
                    .and_then(Value::as_u64)
                    .and_then(|port| u16::try_from(port).ok())
                    .unwrap_or(443),
            }
        });
        ClientConfig {
            url: config["url"].as_str().map(str::to_owned),
            service,
            ca_pem: STANDARD
                .decode(config["caBundle"].as_str().unwrap_or_default())
                .unwrap_or_default(),
            tls: OnceLock::new(),
        }
    }
}

impl Rule {
    fn parse(rule: &Value) -> Rule {
        let list = |field: &str| {
            let words = rule[field]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            words.map(str::to_owned).collect::<Vec<_>>()
        };
        Rule {
            operations: list("operations"),
            groups: list("apiGroups"),
            versions: list("apiVersions"),
            resources: list("resources"),
            scope: rule["scope"].as_str().unwrap_or("*").to_owned(),
        }
    }

    fn covers(&self, call: &Call, operation: Operation) -> bool {
        let has = |list: &[String], word: &str| list.iter().any(|item| item == "*" || item == word);
        let scope = match self.scope.as_str() {
            "Namespaced" => call.kind.namespaced(),
            "Cluster" => !call.kind.namespaced(),
            _ => true,
        };
        scope
            && has(&self.operations, operation.word())
            && has(&self.groups, call.kind.group())
            && has(&self.versions, call.kind.version())
            && self
                .resources
                .iter()
                .any(|pattern| covers_resource(pattern, call.kind.plural(), &call.path.subresource))
    }
}

fn covers_resource(pattern: &str, resource: &str, subresource: &str) -> bool {
    match pattern.split_once('/') {
        None => subresource.is_empty() && (pattern == "*" || pattern == resource),
        Some((left, right)) => {
            (left == "*" || left == resource)
                && (right == "*" || (right == subresource && !subresource.is_empty()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::covers_resource;

    #[test]
    fn resource_patterns() {
        let check = |pattern, resource, subresource, expected| {
            assert_eq!(
                covers_resource(pattern, resource, subresource),
                expected,
                "{pattern} {resource}/{subresource}"
            );
        };
        check("pods", "pods", "", true);
        check("pods", "pods", "status", false);
        check("*", "pods", "", true);
        check("*", "pods", "status", false);
        check("*/*", "pods", "", true);
        check("*/*", "pods", "status", true);
        check("pods/*", "pods", "binding", true);
        check("pods/status", "pods", "status", true);
        check("pods/status", "pods", "", false);
        check("*/scale", "deployments", "scale", true);
    }
}
