//! What `up` says: a line for each step, then what to do next. Plain text without a terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::host::reachable;
use crate::args::UpArgs;
use crate::cluster::{Cluster, State};

/// Steps and their times, on standard error.
#[derive(Debug)]
pub(super) struct Progress {
    started: Instant,
    last: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn start() -> Progress {
        let now = Instant::now();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(
                ProgressStyle::with_template("{spinner} {msg}").expect("a template that is right"),
            );
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Progress {
            started: now,
            last: now,
            bar,
        }
    }

    /// What is waited for now.
    pub(super) fn waiting(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("waiting for {what}"));
        }
    }

    pub(super) fn done(&mut self, step: &str) {
        let now = Instant::now();
        let line = format!("{step:<14}{:>6} ms", (now - self.last).as_millis());
        self.last = now;
        match &self.bar {
            Some(bar) => bar.println(line),
            None => warn(&line),
        }
    }

    /// The block that ends the start, on standard output.
    pub(super) fn summary(self, cluster: &Cluster, args: &UpArgs, state: &State) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let mut text = format!(
            "\ncluster {:?} is ready after {} ms\n\n  export KUBECONFIG={}\n",
            cluster.name,
            self.started.elapsed().as_millis(),
            cluster.kubeconfig().display()
        );
        if let (Some(http), Some(https)) = (state.http, state.https) {
            let (http, https) = (reachable(http), reachable(https));
            text += &format!("  edge: http://{http}  https://{https}\n\ntry next:\n");
            text += &if args.demo {
                format!("  curl -H 'Host: shop.localhost' http://{http}/\n")
            } else {
                format!("  curl -i http://{http}/\n")
            };
        } else {
            text += "\ntry next:\n";
        }
        let name = if cluster.name == "default" {
            String::new()
        } else {
            format!(" --name {}", cluster.name)
        };
        text += &format!("  kubectl get pods -A\n  meshgate status{name}");
        say(&text);
    }
}

/// A line on standard output. A reader that has gone is no reason to end the cluster.
pub(super) fn say(line: &str) {
    let _gone = writeln!(std::io::stdout(), "{line}");
}

/// A line on standard error.
fn warn(line: &str) {
    let _gone = writeln!(std::io::stderr(), "{line}");
}
