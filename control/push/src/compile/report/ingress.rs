//! What came of an Ingress.

use std::collections::BTreeSet;

use super::{IngressReport, Problem};
use crate::{
    compile::{
        Compiler, Key, ResourceKind, certificate,
        host::{compared, valid_host},
        index,
    },
    objects::{Known, Name},
};

impl Compiler {
    pub(super) fn ingress_report(&self, name: &Name) -> Option<IngressReport> {
        let ingress = self
            .objects
            .ingresses
            .get(name)
            .filter(|_| self.index.owned.contains(name))?;
        let mut problems = Vec::new();
        let mut affects = BTreeSet::new();
        for rule in &ingress.rules {
            if !valid_host(&rule.host) {
                problems.push(Problem::new(
                    "InvalidHost",
                    format!("\"{}\" is no host name", rule.host),
                ));
            }
            problems.extend(rule.paths.iter().filter_map(|path| compared(path).err()));
            problems.extend(
                rule.paths
                    .iter()
                    .filter_map(|path| self.resolve(name, &path.backend).err()),
            );
        }
        problems.extend(
            ingress
                .default_backend
                .iter()
                .filter_map(|backend| self.resolve(name, backend).err()),
        );
        for host in index::hosts(ingress) {
            let lost = self
                .host_conflicts
                .get(&host)
                .and_then(|conflicts| conflicts.get(name));
            let lost = lost.into_iter().flatten();
            problems.extend(lost.map(|message| Problem::new("Conflicted", message.clone())));
            affects.insert(Key::new(ResourceKind::EdgeHost, host));
        }
        problems.extend(self.tls_problems(name));
        let secrets = self
            .tls_claims(name)
            .into_iter()
            .map(|(secret, _)| secret.to_string());
        affects.extend(secrets.map(|secret| Key::new(ResourceKind::Certificate, secret)));
        problems.dedup();
        Some(IngressReport {
            meta: ingress.meta.clone(),
            problems,
            affects,
            addresses: ingress.addresses.clone(),
        })
    }

    fn tls_problems(&self, name: &Name) -> Vec<Problem> {
        let claims = self.tls_claims(name);
        let secrets: BTreeSet<&Name> = claims.iter().map(|(secret, _)| secret).collect();
        let mut problems: Vec<_> = secrets
            .into_iter()
            .filter_map(|secret| match self.objects.secrets.get(secret)? {
                Known::Missing => Some(Problem::new(
                    "SecretNotFound",
                    format!("secret {secret} does not exist"),
                )),
                Known::Unreadable(why) => Some(Problem::new(
                    "SecretUnreadable",
                    format!("secret {secret} cannot be read: {why}"),
                )),
                Known::Present(content) => certificate::key_pair(content).err().map(|problem| {
                    let stays = match self.good_pairs.contains_key(secret) {
                        true => "; the last valid certificate stays in use",
                        false => "",
                    };
                    Problem::new(
                        "SecretInvalid",
                        format!("secret {secret}: {problem}{stays}"),
                    )
                }),
            })
            .collect();
        let lost = claims.iter().filter_map(|(secret, host)| {
            let winner = self.tls_secret(host).filter(|winner| winner != secret)?;
            let message = format!("host {host} is served with secret {winner} of an older Ingress");
            Some(Problem::new("Conflicted", message))
        });
        problems.extend(lost);
        problems
    }
}
