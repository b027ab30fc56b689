//! Ingresses: the address of the edge in the status, everything else as Events (Ingress v1 has no conditions).

use meshgate_api::client::{EventKind, Reference};
use serde_json::{Value, json};

use super::{Shared, Tracked, Written};
use crate::{
    EdgeAddress,
    compile::{IngressReport, Subject},
    xds::replicas::Progress,
};

/// Reason of the Event that proves propagation.
const PROGRAMMED: &str = "Programmed";

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
        let settled = progress.total > 0 && progress.enforced == progress.total;
        let mut news: Vec<(&str, String)> = Vec::new();
        for problem in &report.problems {
            news.push((problem.reason, problem.message.clone()));
        }
        for (replica, reason) in &progress.refused {
            news.push((
                "Refused",
                format!("{replica} keeps the last good configuration: {reason}"),
            ));
        }
        let mut written = Written {
            settled,
            ..Written::default()
        };
        let version = report.meta.generation;
        for (reason, message) in news {
            let told = (format!("{version}/{reason}"), message);
            if !tracked.told.contains(&told) {
                self.tell(subject, report, EventKind::Warning, reason, told.1.clone());
            }
            written.told.insert(told);
        }
        // How many replicas there were then is no news when it changes.
        let programmed = (format!("{version}/{PROGRAMMED}"), String::new());
        let already = tracked.told.contains(&programmed);
        if settled && !already {
            let Progress {
                enforced, total, ..
            } = progress;
            let message = format!("enforced by {enforced} of {total} edge replicas");
            self.tell(subject, report, EventKind::Normal, PROGRAMMED, message);
        }
        if settled || already {
            written.told.insert(programmed);
        }
        Ok(written)
    }

    fn tell(
        &self,
        subject: &Subject,
        report: &IngressReport,
        kind: EventKind,
        reason: &str,
        message: String,
    ) {
        self.recorder
            .record(reference(subject, report), kind, reason, message);
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
