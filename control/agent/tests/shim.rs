//! Real containers through the shim, as an agent drives it: files, one line, signals. Needs root; fails without.
//!
//! This program is three: the tests, the shim (`shim …`), and what runs in the containers (`payload …`).

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what it prints is what the tests look at"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};
use serde_json::{Value, json};

/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(30);

type Test = (&'static str, fn());

const TESTS: [Test; 9] = [
    (
        "output_and_exit_code_are_kept",
        output_and_exit_code_are_kept,
    ),
    (
        "stop_and_kill_reach_the_container",
        stop_and_kill_reach_the_container,
    ),
    (
        "a_container_outlives_its_agent",
        a_container_outlives_its_agent,
    ),
    ("a_container_is_alone", a_container_is_alone),
    ("what_cannot_start_says_why", what_cannot_start_says_why),
    ("memory_is_limited", memory_is_limited),
    ("commands_run_inside", commands_run_inside),
    ("layers_lie_above_each_other", layers_lie_above_each_other),
    (
        "a_killed_shim_leaves_its_state",
        a_killed_shim_leaves_its_state,
    ),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("shim") => meshgate_agent::shim::main(&args[2..]),
        Some("payload") => payload(&args[2..]),
        Some("agent") => agent(&args[2]),
        filter => run_tests(
            filter
                .filter(|word| !word.starts_with('-'))
                .unwrap_or_default(),
        ),
    }
}

fn run_tests(filter: &str) -> ExitCode {
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests make containers and need root"
    );
    let mut failed = Vec::new();
    for (name, test) in TESTS.iter().filter(|(name, _)| name.contains(filter)) {
        let result = catch_unwind(AssertUnwindSafe(test));
        println!(
            "test {name} ... {}",
            if result.is_ok() { "ok" } else { "FAILED" }
        );
        if result.is_err() {
            failed.push(*name);
        }
    }
    match failed.as_slice() {
        [] => ExitCode::SUCCESS,
        failed => {
            println!("failed: {failed:?}");
            ExitCode::FAILURE
        }
    }
}

/// What runs in a container.
fn payload(args: &[String]) -> ExitCode {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["say", out, err, code] => {
            println!("{out}");
            eprintln!("{err}");
            ExitCode::from(code.parse::<u8>().expect("a code"))
        }
        // The first process of its namespace is only asked to end if it listens.
        ["until-term"] => {
            let mut set = SigSet::empty();
            set.add(Signal::SIGTERM);
            set.thread_block().expect("blocked");
            println!("waiting");
            set.wait().expect("a signal");
            println!("asked to end");
            ExitCode::from(7)
        }
        ["facts"] => {
            let status = fs::read_to_string("/proc/self/status").expect("a status");
            let field = |name: &str| {
                let line = status
                    .lines()
                    .find(|line| line.starts_with(name))
                    .expect("a field");
                line.split_whitespace().nth(1).expect("a value").to_owned()
            };
            println!(
                "pid={} blocked={} caps={}",
                std::process::id(),
                field("SigBlk:"),
                field("CapEff:")
            );
            println!("env={:?}", std::env::var("GREETING"));
            println!(
                "host={:?}",
                fs::read_to_string("/proc/sys/kernel/hostname")
                    .expect("a name")
                    .trim()
            );
            println!(
                "processes={}",
                fs::read_dir("/proc")
                    .expect("/proc")
                    .flatten()
                    .filter(|e| e.file_name().to_string_lossy().parse::<u32>().is_ok())
                    .count()
            );
            ExitCode::SUCCESS
        }
        ["read", paths @ ..] => {
            for path in paths {
                println!(
                    "{path}={:?}",
                    fs::read_to_string(path).map_err(|error| error.kind())
                );
            }
            ExitCode::SUCCESS
        }
        ["eat"] => {
            let mut eaten = Vec::new();
            loop {
                eaten.push(vec![1_u8; 1 << 20]);
            }
        }
        other => panic!("unknown payload {other:?}"),
    }
}

/// Starts the shim and waits to be killed.
fn agent(dir: &str) -> ExitCode {
    let mut shim = spawn_shim(Path::new(dir));
    let report = first_line(&mut shim);
    println!("{report}");
    std::io::stdout().flush().expect("written");
    std::thread::park();
    ExitCode::SUCCESS
}

/// A container to be made in a folder of its own.
struct Bundle {
    root: tempfile::TempDir,
    cgroup: String,
}

impl Bundle {
    fn new(args: &[&str], change: impl FnOnce(&mut Value)) -> Bundle {
        let root = tempfile::tempdir().expect("a folder");
        let bundle = Bundle {
            cgroup: format!(
                "/meshgate-test-{}/c",
                root.path().file_name().expect("a name").to_string_lossy()
            ),
            root,
        };
        let base = bundle.path("layers/base");
        for folder in ["proc", "sys", "dev", "etc"] {
            fs::create_dir_all(base.join(folder)).expect("a folder");
        }
        let own = std::env::current_exe().expect("a path");
        let target = base.join("payload");
        if fs::hard_link(&own, &target).is_err() {
            fs::copy(&own, &target).expect("copied");
        }
        fs::write(base.join("etc/base"), "base").expect("written");
        let top = bundle.path("layers/top/etc");
        fs::create_dir_all(&top).expect("a folder");
        fs::write(top.join("top"), "top").expect("written");
        fs::create_dir(bundle.path("c")).expect("a folder");
        let shim = json!({
            "id": "c", "layers_dir": bundle.path("layers"), "layers": ["base", "top"],
            "writable": bundle.path("fs"), "log": bundle.path("logs/0.log"),
            "stop_signal": Signal::SIGTERM as i32, "cgroup": bundle.cgroup, "stdin": false,
        });
        fs::write(bundle.path("c/shim.json"), shim.to_string()).expect("written");
        let mut spec = bundle.spec(args);
        change(&mut spec);
        fs::write(bundle.path("c/config.json"), spec.to_string()).expect("written");
        bundle
    }

    fn spec(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = ["/payload", "payload"]
            .iter()
            .chain(args)
            .copied()
            .collect();
        let caps = ["CAP_KILL", "CAP_CHOWN"];
        json!({
            "ociVersion": "1.2.0",
            "process": {
                "terminal": false, "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": args,
                "env": ["PATH=/", "GREETING=hello"],
                "capabilities": {"bounding": caps, "effective": caps, "permitted": caps, "inheritable": [], "ambient": []},
            },
            "root": {"path": "rootfs"},
            "hostname": "inside",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            ],
            "linux": {
                "cgroupsPath": self.cgroup,
                "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}],
            },
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Starts it; the report must be good.
    fn start(&self) -> Shim {
        let mut child = spawn_shim(&self.path("c"));
        let report: Value = serde_json::from_str(&first_line(&mut child)).expect("a report");
        let pid = report["Started"]["pid"]
            .as_i64()
            .unwrap_or_else(|| panic!("{report}"));
        Shim {
            pid: i32::try_from(pid).expect("a pid"),
            child,
        }
    }

    fn exit(&self) -> Value {
        let text = fs::read(self.path("c/exit.json")).expect("an exit status");
        serde_json::from_slice(&text).expect("an exit status")
    }

    /// The log without times.
    fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("logs/0.log")).expect("a log");
        text.lines()
            .map(|line| line.split_once(' ').expect("a time").1.to_owned())
            .collect()
    }

    fn run(&self) -> Value {
        self.start().ended();
        self.exit()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // The shim removes the container's group, the agent its parent; here that is us.
        let parent = self.cgroup.trim_start_matches('/').trim_end_matches("/c");
        let roots = fs::read_dir("/sys/fs/cgroup")
            .expect("control groups")
            .flatten()
            .map(|entry| entry.path());
        for root in roots.chain([PathBuf::from("/sys/fs/cgroup")]) {
            assert!(
                !root.join(parent).join("c").exists(),
                "a control group stayed in {}",
                root.display()
            );
            let _ = fs::remove_dir(root.join(parent));
        }
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        assert!(
            !mounts.contains(&*self.root.path().to_string_lossy()),
            "a mount stayed"
        );
    }
}

struct Shim {
    child: Child,
    pid: i32,
}

impl Shim {
    fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")),
            signal,
        )
        .expect("sent");
    }

    fn ended(mut self) {
        wait_for_process(i32::try_from(self.child.id()).expect("a pid"));
        self.child.wait().expect("waited");
    }
}

fn spawn_shim(dir: &Path) -> Child {
    Command::new("/proc/self/exe")
        .args(["shim", "run"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started")
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("a line");
    line
}

fn wait_for_process(pid: i32) {
    let Ok(process) = pidfd_open(
        rustix::process::Pid::from_raw(pid).expect("a pid"),
        PidfdFlags::empty(),
    ) else {
        return;
    };
    let timeout = PollTimeout::try_from(DEADLINE).expect("fits");
    let mut wait = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    assert_eq!(
        poll(&mut wait, timeout),
        Ok(1),
        "process {pid} did not end in time"
    );
}

/// Waits until the log has a line; woken by changes of its folder.
fn wait_for_line(log: &Path, wanted: &str) {
    use rustix::fs::inotify;
    let queue = inotify::init(inotify::CreateFlags::CLOEXEC).expect("inotify");
    inotify::add_watch(
        &queue,
        log.parent().expect("a folder"),
        inotify::WatchFlags::MODIFY,
    )
    .expect("watched");
    let until = Instant::now() + DEADLINE;
    while !fs::read_to_string(log).is_ok_and(|text| text.contains(wanted)) {
        let left =
            PollTimeout::try_from(until.saturating_duration_since(Instant::now())).expect("fits");
        let mut wait = [PollFd::new(queue.as_fd(), PollFlags::POLLIN)];
        assert_eq!(
            poll(&mut wait, left),
            Ok(1),
            "{wanted:?} did not appear in time"
        );
        let mut events = [0; 4096];
        let _ = fs::File::from(queue.try_clone().expect("cloned")).read(&mut events);
    }
}

fn output_and_exit_code_are_kept() {
    let bundle = Bundle::new(&["say", "to out", "to err", "3"], |_| {});
    let exit = bundle.run();
    assert_eq!(exit["code"], 3);
    assert_eq!(exit["oom_killed"], false);
    let mut log = bundle.log();
    log.sort();
    assert_eq!(log, ["stderr F to err", "stdout F to out"]);
}

fn stop_and_kill_reach_the_container() {
    for (signal, code, last) in [
        (Signal::SIGTERM, 7, "stdout F asked to end"),
        (Signal::SIGUSR1, 137, "stdout F waiting"),
    ] {
        let bundle = Bundle::new(&["until-term"], |_| {});
        let shim = bundle.start();
        wait_for_line(&bundle.path("logs/0.log"), "waiting");
        shim.signal(signal);
        shim.ended();
        assert_eq!(bundle.exit()["code"], code);
        assert_eq!(bundle.log().last().map(String::as_str), Some(last));
    }
}

fn a_container_outlives_its_agent() {
    let bundle = Bundle::new(&["until-term"], |_| {});
    let mut agent = Command::new("/proc/self/exe")
        .arg("agent")
        .arg(bundle.path("c"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let report: Value = serde_json::from_str(&first_line(&mut agent)).expect("a report");
    agent.kill().expect("killed");
    agent.wait().expect("waited");
    // What a new agent reads is what the old one was told.
    let state: Value =
        serde_json::from_slice(&fs::read(bundle.path("c/state.json")).expect("a state"))
            .expect("a state");
    assert_eq!(state, report["Started"]);
    wait_for_line(&bundle.path("logs/0.log"), "waiting");
    let shim = i32::try_from(state["shim_pid"].as_i64().expect("a pid")).expect("a pid");
    kill(Pid::from_raw(shim), Signal::SIGTERM).expect("it lives");
    wait_for_process(shim);
    assert_eq!(bundle.exit()["code"], 7);
    assert_eq!(
        bundle.log().last().map(String::as_str),
        Some("stdout F asked to end")
    );
}

fn a_container_is_alone() {
    // Whoever starts us may have blocked signals; the container must not inherit that.
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.thread_block().expect("blocked");
    let bundle = Bundle::new(&["facts"], |_| {});
    let exit = bundle.run();
    set.thread_unblock().expect("unblocked");
    assert_eq!(exit["code"], 0, "{:?}", bundle.log());
    assert_eq!(
        bundle.log(),
        [
            "stdout F pid=1 blocked=0000000000000000 caps=0000000000000021",
            "stdout F env=Ok(\"hello\")",
            "stdout F host=\"inside\"",
            "stdout F processes=1",
        ]
    );
}

fn what_cannot_start_says_why() {
    let check = |change: fn(&mut Value), why: &str| {
        let bundle = Bundle::new(&[], change);
        let mut child = spawn_shim(&bundle.path("c"));
        let report: Value = serde_json::from_str(&first_line(&mut child)).expect("a report");
        child.wait().expect("waited");
        let text = report["Failed"]
            .as_str()
            .unwrap_or_else(|| panic!("{report}"))
            .to_owned();
        assert!(text.contains(why), "{text}");
        assert!(!bundle.path("c/exit.json").exists());
    };
    check(
        |spec| spec["process"]["args"] = json!(["/none"]),
        "'/none' not found",
    );
    check(
        |spec| spec["process"]["args"] = json!(["/etc/base"]),
        "/etc/base",
    );
    check(
        |spec| spec["root"] = json!({"path": "nowhere"}),
        "No such file",
    );
    check(
        |spec| {
            spec["mounts"][1] = json!({"destination": "/x", "type": "bind", "source": "/does/not/exist", "options": ["bind"]});
        },
        "",
    );
}

fn memory_is_limited() {
    let bundle = Bundle::new(&["eat"], |spec| {
        spec["linux"]["resources"] = json!({"memory": {"limit": 32 << 20, "swap": 32 << 20}});
    });
    let exit = bundle.run();
    assert_eq!(
        (&exit["code"], &exit["oom_killed"]),
        (&json!(137), &json!(true))
    );
}

fn commands_run_inside() {
    let bundle = Bundle::new(&["until-term"], |_| {});
    let shim = bundle.start();
    let exec = |timeout_ms: &str, args: &[&str]| {
        let output = Command::new("/proc/self/exe")
            .args(["shim", "exec"])
            .arg(bundle.path("c"))
            .args([timeout_ms, "/payload", "payload"])
            .args(args)
            .output()
            .expect("run");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    assert_eq!(
        exec("10000", &["say", "hi", "", "5"]),
        (Some(5), "hi\n".to_owned())
    );
    let (code, out) = exec("10000", &["facts"]);
    assert_eq!(code, Some(0));
    assert!(
        out.contains("host=\"inside\"") && out.contains("processes=2"),
        "{out}"
    );
    assert_eq!(exec("200", &["until-term"]).0, Some(124));
    assert!(
        Path::new(&format!("/proc/{}", shim.pid)).exists(),
        "the container goes on"
    );
    shim.signal(Signal::SIGTERM);
    shim.ended();
    assert_eq!(bundle.exit()["code"], 7);
}

fn layers_lie_above_each_other() {
    let bundle = Bundle::new(&["read", "/etc/base", "/etc/top", "/etc/none"], |_| {});
    assert_eq!(bundle.run()["code"], 0);
    assert_eq!(
        bundle.log(),
        [
            "stdout F /etc/base=Ok(\"base\")",
            "stdout F /etc/top=Ok(\"top\")",
            "stdout F /etc/none=Err(NotFound)",
        ]
    );
}

fn a_killed_shim_leaves_its_state() {
    let bundle = Bundle::new(&["until-term"], |_| {});
    let shim = bundle.start();
    let container = shim.pid;
    shim.signal(Signal::SIGKILL);
    shim.ended();
    assert!(!bundle.path("c/exit.json").exists());
    let state: Value =
        serde_json::from_slice(&fs::read(bundle.path("c/state.json")).expect("a state"))
            .expect("a state");
    assert_eq!(state["pid"], container);
    // What the agent does when it finds that.
    kill(Pid::from_raw(container), Signal::SIGKILL).expect("it lived on");
    wait_for_process(container);
    for root in fs::read_dir("/sys/fs/cgroup")
        .expect("control groups")
        .flatten()
    {
        let _ = fs::remove_dir(root.path().join(bundle.cgroup.trim_start_matches('/')));
    }
}
