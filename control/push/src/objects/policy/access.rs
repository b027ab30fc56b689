//! What makes an AccessPolicy valid.

use std::{net::IpAddr, str::FromStr};

use meshgate_api::policies::{
    TargetRef,
    access::{AccessPolicySpec, Mtls, PodSelector, PortMtls, Rule},
};
use meshgate_routing::route::HostName;
use serde::Deserialize;
use serde_json::Value;

use super::{Checked, check_path, check_sections};

/// Of the texts in one policy's rules: a host carries those of all its Ingresses, a pod those of one, and a message must
/// hold them.
const RULES_BYTES_MAX: usize = 512 << 10;

/// What an account's identity adds to its name.
const IDENTITY_BYTES: usize = 128;

impl Checked for AccessPolicySpec {
    fn targets(&self) -> &[TargetRef] {
        &self.target_refs
    }

    /// Closed for all that it may have meant: what narrows a selector and cannot be read leaves it wide.
    fn stand_in(spec: &Value, declared: &[TargetRef]) -> Option<(Self, &'static str)> {
        let given = |field: &str| spec.get(field).filter(|value| !value.is_null());
        let is_guarded = given("rules").is_some() || given("authentication").is_some();
        let said = given("mtls").is_some_and(|mtls| mtls != "Permissive");
        let ports = given("ports").map_or(Ok(Vec::new()), strict_ports);
        // An exception from another policy's Strict is not taken from one that is broken.
        let mtls = (said || ports.is_err()).then_some(Mtls::Strict);
        let ports = ports.unwrap_or_default();
        let refuses_plaintext = mtls.is_some() || !ports.is_empty();
        if !is_guarded && !refuses_plaintext {
            return None;
        }
        let audit = given("audit") == Some(&Value::Bool(true));
        let closes = match is_guarded && !audit {
            true => "nobody is let in",
            false if refuses_plaintext => "plaintext is refused",
            false => "",
        };
        let closed = Self {
            target_refs: declared.to_vec(),
            selector: selector(spec, declared),
            mtls,
            ports,
            rules: is_guarded.then(Vec::new),
            authentication: None,
            audit,
        };
        Some((closed, closes))
    }

    fn check(&self) -> Result<(), String> {
        if self.selector.is_some() != self.target_refs.is_empty() {
            return Err("spec: give either targetRefs or selector".into());
        }
        if self
            .selector
            .as_ref()
            .is_some_and(|selector| selector.match_expressions.is_some())
        {
            return Err("spec.selector.matchExpressions: not supported yet".into());
        }
        check_sections(&self.target_refs, &["Namespace", "Service", "Ingress"])?;
        check_ports(
            "spec.ports",
            self.ports.iter().map(|exception| exception.port),
        )?;
        let bytes = self.rules.iter().flatten().map(rule_bytes).sum::<usize>();
        if bytes > RULES_BYTES_MAX {
            return Err(format!(
                "spec.rules: about {bytes} bytes are more than {RULES_BYTES_MAX}: join networks, paths or hosts"
            ));
        }
        for (index, rule) in self.rules.iter().flatten().enumerate() {
            let at = format!("spec.rules[{index}]");
            for from in &rule.from {
                from.ip_blocks
                    .iter()
                    .chain(&from.not_ip_blocks)
                    .try_for_each(|block| check_block(&at, block))?;
            }
            for to in &rule.to {
                to.paths
                    .iter()
                    .try_for_each(|path| check_path(&at, &path.value))?;
                to.hosts.iter().try_for_each(|host| check_host(&at, host))?;
                check_ports(&at, to.ports.iter().copied())?;
            }
        }
        Ok(())
    }
}

/// Those that refuse plaintext.
fn strict_ports(ports: &Value) -> serde_json::Result<Vec<PortMtls>> {
    let mut ports = Vec::<PortMtls>::deserialize(ports)?;
    ports.retain(|exception| exception.mtls == Mtls::Strict && exception.port > 0);
    Ok(ports)
}

/// Pods that a broken policy may mean.
fn selector(spec: &Value, declared: &[TargetRef]) -> Option<PodSelector> {
    let given = |field: &str| spec.get(field).filter(|value| !value.is_null());
    let labels = given("selector").map(|selector| selector.get("matchLabels"));
    let names_nothing = given("targetRefs").is_none_or(|refs| refs == &Value::Array(Vec::new()));
    match labels {
        None if !declared.is_empty() || names_nothing => None,
        labels => Some(PodSelector {
            match_labels: labels
                .flatten()
                .and_then(|labels| Deserialize::deserialize(labels).ok())
                .unwrap_or_default(),
            match_expressions: None,
        }),
    }
}

/// What a rule takes in a message, about.
fn rule_bytes(rule: &Rule) -> usize {
    let from = rule.from.iter().map(|from| {
        let texts = [
            &from.identities,
            &from.namespaces,
            &from.ip_blocks,
            &from.not_ip_blocks,
        ];
        texts_bytes(&from.service_accounts)
            + from.service_accounts.len() * IDENTITY_BYTES
            + texts.into_iter().map(texts_bytes).sum::<usize>()
    });
    let to = rule.to.iter().map(|to| {
        let paths = to.paths.iter().map(|path| &path.value);
        texts_bytes(&to.methods) + texts_bytes(&to.hosts) + texts_bytes(paths) + 4 * to.ports.len()
    });
    from.chain(to).sum()
}

/// Each with its tag and length.
fn texts_bytes<'a>(texts: impl IntoIterator<Item = &'a String>) -> usize {
    texts.into_iter().map(|text| text.len() + 4).sum()
}

fn check_ports(at: &str, ports: impl IntoIterator<Item = u16>) -> Result<(), String> {
    match ports.into_iter().any(|port| port == 0) {
        true => Err(format!("{at}: 0 is no port")),
        false => Ok(()),
    }
}

/// A Deny for a host that no request can have would deny nothing.
fn check_host(at: &str, host: &str) -> Result<(), String> {
    // Nothing is everything to a route; in a list of hosts it is a mistake.
    if host.is_empty() {
        return Err(format!("{at}: a host is empty"));
    }
    HostName::parse(without_last_dot(host))
        .map(drop)
        .map_err(|problem| format!("{at}: {problem}"))
}

/// `a.test.` is `a.test`: that is how proxies see it.
pub(crate) fn without_last_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

fn check_block(at: &str, block: &str) -> Result<(), String> {
    if ipnet::IpNet::from_str(block).is_ok() || IpAddr::from_str(block).is_ok() {
        return Ok(());
    }
    Err(format!("{at}: \"{block}\" is no network"))
}
