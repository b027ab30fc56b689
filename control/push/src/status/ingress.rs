//! Ingresses: the address of the edge in the status, everything else as Events (Ingress v1 has no conditions).

use meshgate_api::client::{EventKind, Reference};
use serde_json::{Value, json};

use super::{Shared, Tracked, Written};
use crate::{
    EdgeAddress,
    compile::{IngressReport, Subject},
};

impl Shared {
    pub(super) async fn write_ingress(
        &self,
        subject: &Subject,
        report: &IngressReport,
        tracked: &Tracked,
    ) -> Result<Written, kube::Error> {
        if report.addresses != self.edge_addresses {
            self.patch(subject, load_balancer(&self.edge_addresses))
                .await?;
        }
        let progress = self
            .replicas
            .progress_of(&report.affects, tracked.generation, &self.table);
        let mut written = Written::default();
        let mut tell = |kind: EventKind, reason: &str, message: String| {
            // Once for each version of the object: a message that comes back after a change is news.
            let told = (
                format!("{}/{}", report.meta.generation, reason),
                message.clone(),
            );
            if !tracked.told.contains(&told) {
                self.recorder
                    .record(reference(subject, report), kind, reason, message);
                written.told.insert(told);
            }
        };
        for problem in &report.problems {
            tell(EventKind::Warning, problem.reason, problem.message.clone());
        }
        for (replica, reason) in &progress.refused {
            tell(
                EventKind::Warning,
                "Refused",
                format!("{replica} keeps the last good configuration: {reason}"),
            );
        }
        let settled = progress.total > 0 && progress.enforced == progress.total;
        if settled {
            let already = tracked
                .told
                .iter()
                .any(|(of, _)| *of == format!("{}/Programmed", report.meta.generation));
            if !already {
                let message = format!(
                    "enforced by {} of {} edge replicas",
                    progress.enforced, progress.total
                );
                tell(EventKind::Normal, "Programmed", message);
            }
        }
        written.settled = settled;
        Ok(written)
    }

    /// An Ingress that went to another class must not point at our edge any more; one that is gone needs nothing.
    pub(super) async fn clean(&self, subject: &Subject) -> Result<Written, kube::Error> {
        if subject.kind == crate::compile::SubjectKind::Ingress {
            self.patch(subject, json!({ "loadBalancer": null })).await?;
        }
        Ok(Written::default())
    }
}

fn load_balancer(addresses: &[EdgeAddress]) -> Value {
    let entry = |address: &EdgeAddress| match address {
        EdgeAddress::Ip(ip) => json!({ "ip": ip }),
        EdgeAddress::Hostname(name) => json!({ "hostname": name }),
    };
    let entries: Vec<Value> = addresses.iter().map(entry).collect();
    json!({ "loadBalancer": { "ingress": entries } })
}

fn reference(subject: &Subject, report: &IngressReport) -> Reference {
    Reference {
        api_version: "networking.k8s.io/v1".into(),
        kind: "Ingress".into(),
        namespace: subject.name.namespace.to_string(),
        name: subject.name.name.to_string(),
        uid: report.meta.uid.clone(),
        field_path: String::new(),
    }
}
