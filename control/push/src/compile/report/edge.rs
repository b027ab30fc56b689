//! What came of an AccessPolicy at the edge.

use std::collections::BTreeSet;

use meshgate_api::policies::TargetRef;

use super::{Key, Problem, Report, Unsupported, conflicted};
use crate::{
    compile::{
        Compiler,
        access::edge::{has_opinion, unsupported},
        index::{Target, TargetKind},
    },
    objects::{AccessPolicy, Name},
};

impl Compiler {
    pub(super) fn edge_access_target(
        &self,
        (name, policy): (&Name, &AccessPolicy),
        target: &Target,
        of: &TargetRef,
    ) -> Result<BTreeSet<Key>, Problem> {
        let hosts = self.hosts_of(target, of)?;
        let has_opinion = policy.spec.as_ref().is_some_and(has_opinion);
        match self.edge_access_policy(&target.name) {
            Some((winner, _)) if has_opinion && winner != name => Err(conflicted(winner)),
            _ => Ok(hosts),
        }
    }
}

/// What a policy asks for that an edge does not do.
pub(super) fn note_edge(name: &Name, policy: &AccessPolicy, report: &mut Report) {
    let (Report::Policy(report), Some(spec)) = (report, policy.valid()) else {
        return;
    };
    for ancestor in &mut report.ancestors {
        let target = Target::of(name, &ancestor.target);
        if target.is_some_and(|target| target.kind == TargetKind::Ingress) {
            let unsupported = unsupported(spec);
            // The edge's view of a field goes before that of pods.
            ancestor.unsupported.retain(|field| {
                let is_judged = |of: &Unsupported| of.path == field.path;
                !unsupported.iter().any(is_judged)
            });
            ancestor.unsupported.extend(unsupported);
        }
    }
}
