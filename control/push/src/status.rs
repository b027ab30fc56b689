//! Says on the objects what was accepted and what every replica enforces.

mod ingress;
mod policy;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
};
use meshgate_api::client::{Queue, Recorder, is_not_found};
use serde_json::Value;

use crate::{
    EdgeAddress,
    compile::{Report, Subject, SubjectKind},
    table::Table,
    watch::policy_resource,
    xds::{lock, replicas::Replicas},
};

/// Statuses written at the same time.
const WRITERS: usize = 4;
/// After a start, replicas need a moment to come back: until then, what a status says of them is left as it is.
const RETURN: Duration = Duration::from_secs(10);
/// After a write that failed.
const RETRY: Duration = Duration::from_millis(500);
/// Replicas that come and go change counts in many statuses: those are written together, after this time.
const RECOUNT: Duration = Duration::from_millis(250);

/// Takes reports; cheap to clone.
#[derive(Clone)]
pub(crate) struct StatusWriter(Arc<Shared>);

struct Shared {
    client: Client,
    table: Arc<Table>,
    replicas: Arc<Replicas>,
    recorder: Recorder,
    edge_addresses: Vec<EdgeAddress>,
    queue: Queue<Subject>,
    tracked: Mutex<HashMap<Subject, Tracked>>,
    started: Instant,
}

/// What is known of one object.
#[derive(Debug, Clone)]
struct Tracked {
    /// None: no longer ours, to be cleaned.
    report: Option<Report>,
    /// Generation that contains it.
    generation: u64,
    /// Every replica enforces it, and the object says so.
    settled: bool,
    /// What Events say at present: each is recorded once while it lasts, and again when it comes back.
    told: BTreeSet<(String, String)>,
}

impl StatusWriter {
    pub(crate) fn new(
        client: Client,
        table: Arc<Table>,
        replicas: Arc<Replicas>,
        recorder: Recorder,
        edge_addresses: Vec<EdgeAddress>,
    ) -> Self {
        Self(Arc::new(Shared {
            client,
            table,
            replicas,
            recorder,
            edge_addresses,
            queue: Queue::default(),
            tracked: Mutex::default(),
            started: Instant::now(),
        }))
    }

    /// Takes over what a compilation said, contained in `generation`.
    pub(crate) fn report(&self, reports: BTreeMap<Subject, Option<Report>>, generation: u64) {
        let mut tracked = lock(&self.0.tracked);
        for (subject, report) in reports {
            let entry = tracked.entry(subject.clone()).or_insert_with(|| Tracked {
                report: None,
                generation,
                settled: false,
                told: BTreeSet::new(),
            });
            // An echo of what was written, or of what others write, makes nothing new to wait for.
            let same = entry
                .report
                .as_ref()
                .zip(report.as_ref())
                .is_some_and(|(a, b)| a.same_but_observed(b));
            if !same {
                entry.generation = generation;
                entry.settled = false;
            }
            entry.report = report;
            self.0.queue.add(subject);
        }
    }

    /// Writes until dropped.
    pub(crate) async fn run(self) {
        let workers = (0..WRITERS).map(|_| self.0.work());
        tokio::join!(futures::future::join_all(workers), self.0.follow());
    }
}

impl Shared {
    async fn work(&self) {
        loop {
            let subject = self.queue.next().await;
            if let Err(error) = self.write(&subject).await {
                tracing::debug!(?subject, %error, "status not written, trying again");
                self.queue.add_after(subject.clone(), RETRY);
            }
            self.queue.done(&subject);
        }
    }

    /// Looks again at what waits for replicas whenever one made progress.
    async fn follow(&self) {
        let mut replicas = 0;
        loop {
            self.replicas.progress().await;
            let now = self.replicas.count();
            let recount = std::mem::replace(&mut replicas, now) != now;
            for (subject, tracked) in lock(&self.tracked).iter() {
                if !tracked.settled {
                    self.queue.add(subject.clone());
                } else if recount && subject.kind != SubjectKind::Ingress {
                    self.queue.add_after(subject.clone(), RECOUNT);
                }
            }
        }
    }

    async fn write(&self, subject: &Subject) -> Result<(), kube::Error> {
        let Some(tracked) = lock(&self.tracked).get(subject).cloned() else {
            return Ok(());
        };
        let written = match &tracked.report {
            None => self.clean(subject).await?,
            Some(Report::Ingress(report)) => self.write_ingress(subject, report, &tracked).await?,
            Some(Report::Policy(report)) => self.write_policy(subject, report, &tracked).await?,
        };
        let mut all = lock(&self.tracked);
        if let Some(entry) = all.get_mut(subject) {
            entry.told = written.told;
            // A newer report has its own turn in the queue.
            if entry.generation == tracked.generation {
                entry.settled = written.settled;
            }
            if entry.report.is_none() {
                all.remove(subject);
            }
        }
        Ok(())
    }

    /// Merges into the status; an object that is gone needs none.
    async fn patch(&self, subject: &Subject, status: Value) -> Result<(), kube::Error> {
        let resource = policy_resource(subject.kind);
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &subject.name.namespace, &resource);
        let patch = Patch::Merge(serde_json::json!({ "status": status }));
        match api
            .patch_status(&subject.name.name, &PatchParams::default(), &patch)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What came of a turn.
#[derive(Debug, Default)]
struct Written {
    settled: bool,
    told: BTreeSet<(String, String)>,
}

impl Report {
    /// Equal in all but what the object's status shows.
    fn same_but_observed(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ingress(a), Self::Ingress(b)) => {
                a.meta == b.meta && a.problems == b.problems && a.affects == b.affects
            }
            (Self::Policy(a), Self::Policy(b)) => a.meta == b.meta && a.ancestors == b.ancestors,
            _ => false,
        }
    }
}
