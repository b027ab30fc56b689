//! The test kit: clusters of their own, side by side, driven by the real `meshgate`, `kubectl` and `curl`.
//!
//! The binary under test is `$MESHGATE`, which `./check` sets to the release build. A test that cannot run fails; none is
//! skipped. Nothing sleeps: [`until`] asks again until its deadline.

#![expect(
    clippy::print_stderr,
    reason = "a failing test must show what the cluster said"
)]

pub mod ask;
pub mod files;
pub mod image;
pub mod load;
pub mod mesh;
pub mod origin;
pub mod process;
pub mod siege;
pub mod tls;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for anything. Generous: the machines are busy and the tests are not about time.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Copies a program that will be run. A process of its own does it: what another test starts meanwhile would inherit a
/// descriptor of ours that is open for writing, and a file that anybody may write cannot be run (ETXTBSY).
pub fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp {to:?}");
}

/// The binary under test.
pub fn meshgate() -> PathBuf {
    let path = std::env::var_os("MESHGATE").map_or_else(built_beside, PathBuf::from);
    assert!(
        path.is_file(),
        "{} is not there: run ./check, or build with `cargo build` and set MESHGATE",
        path.display()
    );
    path
}

/// What the same build made: tests lie in `deps` beside it.
fn built_beside() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    test.ancestors()
        .nth(2)
        .expect("tests are built below a profile's folder")
        .join("meshgate")
}

/// The repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the repository")
}

/// A running cluster; ends with the value.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    dir: TempDir,
    status: Value,
}

impl Cluster {
    /// `meshgate up --detach` with free ports, a folder of its own, and `arguments`.
    pub fn start(arguments: &[&str]) -> Cluster {
        let cluster = Cluster::prepare();
        let output = cluster.up(arguments);
        assert!(
            output.status.success(),
            "up failed: {}\n{}",
            text(&output),
            cluster.logs()
        );
        cluster.started()
    }

    /// A name and a folder, nothing running yet.
    pub fn prepare() -> Cluster {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Cluster {
            name: format!("test-{}-{count}", std::process::id()),
            dir: tempfile::Builder::new()
                .prefix("meshgate-test-")
                .tempdir()
                .expect("a temporary folder"),
            status: Value::Null,
        }
    }

    /// Runs `up --detach` for this cluster and returns what it said.
    pub fn up(&self, arguments: &[&str]) -> Output {
        let mut command = self.meshgate("up");
        command.args([
            "--detach",
            "--http",
            "127.0.0.1:0",
            "--https",
            "127.0.0.1:0",
            "--api",
            "127.0.0.1:0",
        ]);
        run(command.args(arguments))
    }

    /// Notes the addresses after [`Cluster::up`].
    pub fn started(mut self) -> Cluster {
        self.status = self.status_now();
        self
    }

    /// `meshgate SUBCOMMAND` for this cluster, such as `status` or `image load`.
    pub fn meshgate(&self, subcommand: &str) -> Command {
        let mut command = Command::new(meshgate());
        command.env("XDG_DATA_HOME", self.dir.path().join("xdg"));
        command
            .args(subcommand.split(' '))
            .args(["--name", &self.name])
            .arg("--data-dir")
            .arg(self.data_dir());
        command
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Folder with the cluster's data.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A folder of the test's own that goes with the cluster.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// `status -o json`, asked now.
    pub fn status_now(&self) -> Value {
        let output = run(self.meshgate("status").args(["-o", "json"]));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("status: {error}: {}", text(&output)))
    }

    /// The edge's address for plain HTTP, ADDR:PORT.
    pub fn http(&self) -> &str {
        self.status["edge"]["http"]
            .as_str()
            .expect("the cluster has an edge")
    }

    /// The edge's address for HTTPS, ADDR:PORT.
    pub fn https(&self) -> &str {
        self.status["edge"]["https"]
            .as_str()
            .expect("the cluster has an edge")
    }

    /// Process id of the first component whose name starts with `prefix`.
    pub fn pid(&self, prefix: &str) -> i32 {
        let status = self.status_now();
        let components = status["components"].as_array().expect("components");
        let found = components.iter().find(|c| {
            c["name"]
                .as_str()
                .is_some_and(|name| name.starts_with(prefix))
        });
        let pid = found
            .and_then(|c| c["pid"].as_i64())
            .unwrap_or_else(|| panic!("no component {prefix}: {status:#}"));
        i32::try_from(pid).expect("a process id")
    }

    /// Process id of one of a pod's processes, by its control group; none without those, or before it runs.
    pub fn pod_pid(&self, namespace: &str, pod: &str) -> Option<i32> {
        let uid = "jsonpath={.metadata.uid}";
        let uid = self.kubectl(&["-n", namespace, "get", "pod", pod, "-o", uid]);
        let group = format!("/pod{uid}/");
        let mut pids = std::fs::read_dir("/proc")
            .expect("/proc")
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.find(|pid| {
            let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
            groups.is_ok_and(|groups| groups.contains(&group))
        })
    }

    /// `kubectl ARGUMENTS`, not run yet.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(self.data_dir().join("kubeconfig"));
        command
            .arg("--cache-dir")
            .arg(self.dir.path().join("kubectl-cache"));
        command.args(arguments);
        command
    }

    /// Runs kubectl; its standard output. Fails the test when kubectl fails.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output = run(&mut self.kubectl_command(arguments));
        assert!(
            output.status.success(),
            "kubectl {arguments:?}: {}",
            text(&output)
        );
        String::from_utf8(output.stdout).expect("kubectl prints text")
    }

    /// Runs kubectl that must fail; what it said.
    pub fn kubectl_fails(&self, arguments: &[&str]) -> String {
        let output = run(&mut self.kubectl_command(arguments));
        assert!(
            !output.status.success(),
            "kubectl {arguments:?} did not fail: {}",
            text(&output)
        );
        text(&output)
    }

    /// Applies a manifest given as text.
    pub fn apply(&self, manifest: &str) -> String {
        let output = with_input(&mut self.kubectl_command(&["apply", "-f", "-"]), manifest);
        assert!(
            output.status.success(),
            "kubectl apply: {}\n{manifest}",
            text(&output)
        );
        text(&output)
    }

    /// `GET path` at the edge for `host`: status and body. Status 0 when there was no answer.
    pub fn get(&self, host: &str, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.http());
        curl(&["-H", &format!("Host: {host}"), &url])
    }

    /// The ends of all logs, for a test that fails.
    pub fn logs(&self) -> String {
        let files = std::fs::read_dir(self.data_dir().join("logs"))
            .into_iter()
            .flatten()
            .flatten();
        let mut text = String::new();
        for file in files {
            let content = std::fs::read_to_string(file.path()).unwrap_or_default();
            let from = content.len().saturating_sub(4_000);
            let from = (from..content.len())
                .find(|i| content.is_char_boundary(*i))
                .unwrap_or(0);
            text += &format!("--- {}\n{}\n", file.path().display(), &content[from..]);
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        let output = run(&mut self.meshgate("down"));
        if !output.status.success() && !std::thread::panicking() {
            panic!("down failed: {}", text(&output));
        }
    }
}

/// `curl` with sensible limits: status and body.
pub fn curl<S: AsRef<OsStr>>(arguments: &[S]) -> (u16, String) {
    let mut command = Command::new("curl");
    command
        .args([
            "--silent",
            "--max-time",
            "20",
            "--write-out",
            "\n%{http_code}",
        ])
        .args(arguments);
    let output = run(&mut command);
    let all = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = all.rsplit_once('\n').unwrap_or(("", &all));
    (status.parse().unwrap_or(0), body.to_owned())
}

/// Runs to the end.
pub fn run(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{:?} cannot be run: {error}", command.get_program()))
}

/// Runs to the end with something to read.
pub fn with_input(command: &mut Command, input: &str) -> Output {
    use std::io::Write;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{:?} cannot be run: {error}", command.get_program()));
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    if let Err(error) = stdin.write_all(input.as_bytes()) {
        eprintln!(
            "{:?} did not read its input: {error}",
            command.get_program()
        );
    }
    drop(stdin);
    child
        .wait_with_output()
        .expect("a child that was started ends")
}

/// Both outputs as text.
pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Asks until the answer is there; fails the test at the deadline, saying what was waited for.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            start.elapsed() < DEADLINE,
            "waited {} s in vain for {what}",
            DEADLINE.as_secs()
        );
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
