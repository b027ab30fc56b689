//! Keeps an edge at what its files say.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use meshgate_ingress::{Giver, NotEnforced};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::check::count;
use super::configuration::{Accepted, Configuration};
use super::files::{self, Text};
use super::place::Fault;
use super::watch::Watch;

/// Errors of one change that are told one by one; whoever broke more will look at the files.
const TOLD_MAX: usize = 50;
/// Readings after which files that never rest are taken as they are.
const READINGS_MAX: usize = 10;

/// Follows files.
#[derive(Debug)]
pub(crate) struct Follower {
    paths: Vec<PathBuf>,
    configuration: Configuration,
    watch: Watch,
    /// The files changed while they were read for the last time.
    restless: bool,
    /// SIGHUP. Taken early, for it ends a process that does not expect it.
    hangup: Signal,
    generation: u64,
    /// What was warned of last, to tell only what is new.
    warned: BTreeSet<Fault>,
    /// The errors of the last reading, for the same reason.
    refused: BTreeSet<Fault>,
}

impl Follower {
    /// Reads the files for the first time: what is wrong with them fails this.
    pub(crate) async fn start(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut follower = Self {
            paths: paths.to_vec(),
            configuration: Configuration::new()?,
            watch: Watch::new()?,
            restless: false,
            hangup: signal(SignalKind::hangup()).context("cannot take SIGHUP")?,
            generation: 0,
            warned: BTreeSet::new(),
            refused: BTreeSet::new(),
        };
        let texts = follower.read_settled().await;
        match follower.configuration.take(texts) {
            Ok(accepted) => follower.warn(&accepted),
            Err(faults) => {
                tell(&faults);
                bail!("the configuration has {}", count(faults.len(), "error"));
            }
        }
        Ok(follower)
    }

    /// Gives the edge what was read at the start: what it refuses fails this.
    pub(crate) async fn give_first(&mut self, giver: &Giver) -> anyhow::Result<()> {
        match self.give(giver).await {
            Ok(()) => Ok(()),
            Err(NotEnforced::Refused(refusals)) => {
                let faults = self.configuration.refused(&refusals);
                tell(&faults);
                bail!("the configuration has {}", count(faults.len(), "error"))
            }
            Err(ended) => Err(ended).context("the configuration"),
        }
    }

    /// Gives the edge every change, until it ends. SIGHUP reads as well, where changes are not told (network file
    /// systems).
    pub(crate) async fn run(mut self, giver: &Giver) {
        loop {
            let changed = async {
                match self.restless {
                    true => self.watch.settled().await,
                    false => self.watch.changed().await,
                }
            };
            tokio::select! {
                () = changed => {}
                _ = self.hangup.recv() => info!("reading all files again"),
            }
            if self.reload(giver).await.is_err() {
                return;
            }
        }
    }

    async fn reload(&mut self, giver: &Giver) -> Result<(), Ended> {
        let began = Instant::now();
        let texts = self.read_settled().await;
        let accepted = match self.configuration.take(texts) {
            Ok(accepted) => accepted,
            Err(faults) => {
                self.refuse(faults, giver);
                return Ok(());
            }
        };
        match self.give(giver).await {
            Ok(()) => giver.tell_stale(false),
            Err(NotEnforced::Ended) => return Err(Ended),
            Err(NotEnforced::Refused(refusals)) => {
                self.refuse(self.configuration.refused(&refusals), giver);
                return Ok(());
            }
        }
        self.warn(&accepted);
        if accepted.summary.changed > 0 || !self.refused.is_empty() {
            info!(
                generation = self.generation,
                files = accepted.summary.files,
                changed = accepted.summary.changed,
                took_ms = began.elapsed().as_millis(),
                "configuration enforced"
            );
        }
        self.refused.clear();
        Ok(())
    }

    /// Reads until nothing changed meanwhile.
    async fn read_settled(&mut self) -> Vec<Text> {
        let mut reading = 1;
        loop {
            let (texts, disturbed) = self.read();
            if !disturbed || reading == READINGS_MAX {
                self.restless = disturbed;
                return texts;
            }
            reading += 1;
            self.watch.settled().await;
        }
    }

    /// Reads once; whether something changed meanwhile.
    fn read(&mut self) -> (Vec<Text>, bool) {
        let mut renewal = self.watch.renew();
        let texts = files::read(&self.paths, &mut renewal);
        for (folder, why) in &renewal.failed {
            warn!(folder = %folder.display(), why, "cannot watch; SIGHUP reads again");
        }
        let disturbed = renewal.done();
        (texts, disturbed)
    }

    async fn give(&mut self, giver: &Giver) -> Result<(), NotEnforced> {
        let changes = self.configuration.changes(self.generation + 1);
        if changes.is_empty() && self.generation > 0 {
            return Ok(());
        }
        giver.give(changes).await?;
        self.generation += 1;
        self.configuration.enforced();
        Ok(())
    }

    fn refuse(&mut self, faults: BTreeSet<Fault>, giver: &Giver) {
        giver.tell_stale(true);
        if faults == self.refused {
            return;
        }
        tell(&faults);
        error!(
            errors = faults.len(),
            generation = self.generation,
            "configuration refused; the last good one stays"
        );
        self.refused = faults;
    }

    fn warn(&mut self, accepted: &Accepted) {
        for fault in accepted.warnings.difference(&self.warned).take(TOLD_MAX) {
            warn!("{fault}");
        }
        self.warned = accepted.warnings.clone();
    }
}

/// The edge is gone.
struct Ended;

fn tell(faults: &BTreeSet<Fault>) {
    for fault in faults.iter().take(TOLD_MAX) {
        error!("{fault}");
    }
    if let Some(more @ 1..) = faults.len().checked_sub(TOLD_MAX) {
        error!("and {more} more");
    }
}
