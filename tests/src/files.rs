//! The edge without a cluster: a folder of manifests, and `meshgate ingress --from` that serves it. Nothing here needs root.

mod application;
mod edge;
mod log;
mod manifest;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

pub use application::{Held, application, tls_application};
pub use edge::{Edge, get_at, is_closed};
pub use log::Log;
pub use manifest::{authority, route, secret, service, tls_route};

use crate::{run, text};

/// A folder of manifests, and the edges that serve it.
#[derive(Debug)]
pub struct Site {
    dir: TempDir,
}

impl Default for Site {
    fn default() -> Self {
        let dir = tempfile::Builder::new().prefix("meshgate-files-").tempdir();
        let site = Self {
            dir: dir.expect("a temporary folder"),
        };
        std::fs::create_dir(site.folder()).expect("a folder");
        site
    }
}

impl Site {
    /// A folder of the test's own that goes with the site; not the one that is served.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// What is served.
    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("conf")
    }

    /// Writes a file as an editor does: beside it, then in its place.
    pub fn write(&self, name: &str, content: &str) {
        // Several may write at once.
        let beside = self.dir.path().join(format!("{name}.beside"));
        std::fs::write(&beside, content).expect("a file");
        std::fs::rename(beside, self.folder().join(name)).expect("a file in its place");
    }

    /// Takes a file away.
    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.folder().join(name)).expect("a file");
    }

    /// `ingress --check`.
    fn check(&self) -> Output {
        let mut command = Command::new(crate::meshgate());
        run(command
            .args(["ingress", "--check", "--from"])
            .arg(self.folder()))
    }

    /// What `--check` says, without the path of the folder.
    pub fn checked(&self) -> (bool, String) {
        let output = self.check();
        let folder = format!("{}/", self.folder().display());
        (output.status.success(), text(&output).replace(&folder, ""))
    }

    /// The control socket.
    pub fn control(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    /// How an edge with free ports is started.
    pub fn arguments(&self) -> Vec<OsString> {
        let fixed = "ingress --access-log off --workers 2 --http 127.0.0.1:0 --https 127.0.0.1:0 \
                     --ready 127.0.0.1:0 --metrics 127.0.0.1:0 --from";
        let words = fixed.split_whitespace().map(OsString::from);
        let paths = [
            self.folder().into(),
            "--control-socket".into(),
            self.control().into(),
        ];
        words.chain(paths).collect()
    }

    /// How one is started that takes over.
    pub fn taking_over(&self) -> Vec<OsString> {
        [self.arguments(), vec!["--take-over".into()]].concat()
    }

    /// An edge with free ports that serves the folder.
    pub fn serve(&self) -> Edge {
        self.serve_with(&[])
    }

    /// The same with more arguments.
    pub fn serve_with(&self, more: &[&str]) -> Edge {
        let more = more.iter().map(OsString::from).collect();
        Edge::start(&[self.arguments(), more].concat())
    }
}
