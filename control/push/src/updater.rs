//! The task between watches and proxies: collects changes, compiles, publishes.

use std::{collections::HashSet, sync::Arc, time::Instant};

use tokio::sync::{mpsc, watch};

use crate::{
    compile::{Compiler, Update},
    metrics::Metrics,
    objects::{Change, Kind},
    quota::{LimitBook, QuotaService},
    status::StatusWriter,
    table::Table,
    watch::{LISTED, NamedWatches},
};

/// Changes compiled at once when many wait; one alone is compiled at once.
const BATCH_MAX: usize = 1024;

/// Everything that an update goes to.
pub(crate) struct Updater {
    pub(crate) compiler: Compiler,
    pub(crate) table: Arc<Table>,
    pub(crate) named: NamedWatches,
    pub(crate) quota: QuotaService,
    pub(crate) status: StatusWriter,
    pub(crate) metrics: Metrics,
    pub(crate) ready: watch::Sender<bool>,
}

impl Updater {
    /// Runs until the watches end.
    pub(crate) async fn run(
        mut self,
        mut changes: mpsc::Receiver<Change>,
        mut edges: watch::Receiver<u32>,
    ) {
        let mut unlisted: HashSet<Kind> = HashSet::from(LISTED);
        let mut limits = LimitBook::default();
        let mut waiting = Vec::new();
        loop {
            tokio::select! {
                received = changes.recv_many(&mut waiting, BATCH_MAX) => if received == 0 { return },
                changed = edges.changed() => if changed.is_err() { return },
            }
            for change in &waiting {
                if let Change::Listed(kind, _) = change {
                    unlisted.remove(kind);
                }
            }
            let started = Instant::now();
            let count = waiting.len();
            self.compiler.absorb(waiting.drain(..));
            // Half a list would say of what it does not name yet that it does not exist.
            if !unlisted.is_empty() {
                continue;
            }
            let mut update = self.compiler.compile();
            let replicas = *edges.borrow_and_update();
            update.merge(self.compiler.set_edge_replicas(replicas));
            // The owner knows a limit before any proxy does.
            self.quota.set_limits(limits.update(&update)).await;
            let (generation, changed) = self.table.publish(&update);
            self.metrics.compiled(started.elapsed(), count);
            if changed > 0 {
                tracing::debug!(
                    generation,
                    changed,
                    took_us = started.elapsed().as_micros() as u64,
                    "published"
                );
            }
            self.after(update, generation);
        }
    }

    fn after(&mut self, update: Update, generation: u64) {
        for (name, wanted) in &update.secrets {
            self.named.want_secret(name, *wanted);
        }
        for (name, wanted) in &update.config_maps {
            self.named.want_config_map(name, *wanted);
        }
        self.status.report(update.reports, generation);
        if self.compiler.referents_known() && !self.ready.send_replace(true) {
            tracing::info!(generation, "everything is listed and compiled");
        }
        self.metrics
            .generation
            .set(i64::try_from(generation).unwrap_or(i64::MAX));
    }
}

impl Update {
    /// What came later wins.
    fn merge(&mut self, later: Self) {
        self.resources.extend(later.resources);
        self.pods.extend(later.pods);
        self.reports.extend(later.reports);
        self.secrets.extend(later.secrets);
        self.config_maps.extend(later.config_maps);
    }
}
