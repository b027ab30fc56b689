//! The shim: parent of one container. It makes the container, owns its log and exit status, and outlives the agent.
//!
//! ```text
//! agent ──spawn──► shim run DIR ──clone──► container (own PID and mount namespace)
//!          ◄─one line: pid or error──
//! agent ──SIGTERM / SIGUSR1──► passed on as stop signal / SIGKILL: the shim is the parent, so the pid is never another's
//! ```
//! Everything lasting goes through files in DIR (module `files`); a new agent needs nothing else. No threads, no runtime:
//! cloning into namespaces wants a single thread, and there is one shim for each container.

mod console;
mod exec;
pub(crate) mod files;
mod log;
mod oom;
mod rootfs;
mod supervise;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::stat::{Mode, umask};

use crate::sys::{BrokenPipe, on_broken_pipe};
use files::{Report, ShimConfig, State};

pub(crate) use exec::EXEC_TIMED_OUT;
pub(crate) use log::rotated as log_files;
pub(crate) use rootfs::in_user_namespace;

/// Why a container was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    #[error("{step}")]
    Step {
        step: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot make the container: {0}")]
    Container(String),
}

impl ShimError {
    fn at(step: &'static str) -> impl FnOnce(std::io::Error) -> ShimError {
        move |source| ShimError::Step { step, source }
    }
}

/// Entry point of the hidden subcommand `meshgate shim`; `args` are those after it. Must run before any thread starts.
///
/// `run DIR` makes the container described in DIR and stays its parent; `exec DIR TIMEOUT_MS COMMAND…` runs a command
/// in it.
pub fn main(args: &[String]) -> ExitCode {
    // The runtime's own log lines would end up in the container's: they come from its process before it is one.
    let _silent = tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::default());
    // Blocked signals are inherited from whoever started the agent, down to the container's program.
    if nix::sys::signal::SigSet::empty().thread_set_mask().is_err() {
        return ExitCode::FAILURE;
    }
    match args {
        [verb, dir] if verb == "run" => run(Path::new(dir)),
        [verb, dir, timeout_ms, command @ ..] if verb == "exec" && !command.is_empty() => {
            match timeout_ms.parse() {
                Ok(timeout_ms) => exec::exec(Path::new(dir), timeout_ms, command),
                Err(_) => usage(),
            }
        }
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    // Not for people: the agent calls it.
    let _ = writeln!(
        std::io::stderr(),
        "usage: meshgate shim run DIR | exec DIR TIMEOUT_MS COMMAND..."
    );
    ExitCode::from(2)
}

fn run(dir: &Path) -> ExitCode {
    let (config, mut container, console) = match make(dir) {
        Ok(made) => made,
        Err(error) => {
            report(&Report::Failed(describe(&error)));
            return ExitCode::FAILURE;
        }
    };
    match begin(dir, &mut container) {
        Ok(state) => {
            report(&Report::Started(state.clone()));
            detach_from_agent();
            supervise::until_exit(dir, &config, container, console, &state);
            ExitCode::SUCCESS
        }
        Err(error) => {
            report(&Report::Failed(describe(&error)));
            // Removes process, control group and state; the report is what counts.
            let _ = container.delete(true);
            ExitCode::FAILURE
        }
    }
}

type Made = (ShimConfig, Container, console::Console);

fn make(dir: &Path) -> Result<Made, ShimError> {
    let config = ShimConfig::read(dir).map_err(ShimError::at("reading what to run"))?;
    // So that an agent that starts now knows of us.
    State::starting()
        .and_then(|state| state.write(dir))
        .map_err(ShimError::at("writing the state"))?;
    umask(Mode::from_bits_truncate(0o022));
    rootfs::mount(dir, &config).map_err(ShimError::at("mounting the root file system"))?;
    let console = console::Console::open(&config).map_err(ShimError::at("opening the log"))?;
    let (console, ends) = console;
    inherit(Inherited::ByPrograms)?;
    let container = build(dir, &config, ends);
    inherit(Inherited::FromAgent)?;
    Ok((config, container?, console))
}

/// What processes take over from the one that makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inherited {
    /// As programs expect to find it.
    ByPrograms,
    /// As this binary lives.
    FromAgent,
}

/// Sets what a container's first process will take over: what a broken pipe does, and whether memory comes in huge
/// pages (off for our own processes, where they cost more than they give).
fn inherit(what: Inherited) -> Result<(), ShimError> {
    let pipe = match what {
        Inherited::ByPrograms => BrokenPipe::Ends,
        Inherited::FromAgent => BrokenPipe::IsAnError,
    };
    on_broken_pipe(pipe).map_err(ShimError::at("setting SIGPIPE"))?;
    nix::sys::prctl::set_thp_disable(what == Inherited::FromAgent)
        .map_err(|error| ShimError::at("setting huge pages")(error.into()))
}

fn build(
    dir: &Path,
    config: &ShimConfig,
    ends: console::ContainerEnds,
) -> Result<Container, ShimError> {
    let failed =
        |error: libcontainer::error::LibcontainerError| ShimError::Container(chain(&error));
    let mut builder = ContainerBuilder::new(config.id.clone(), SyscallType::default())
        .with_root_path(dir.join(files::OCI_STATE))
        .map_err(failed)?
        .with_stdout(ends.stdout)
        .with_stderr(ends.stderr);
    if let Some(stdin) = ends.stdin {
        builder = builder.with_stdin(stdin);
    }
    builder
        .as_init(dir)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(failed)
}

/// Lets the prepared process become the container's program.
fn begin(dir: &Path, container: &mut Container) -> Result<State, ShimError> {
    let pid = container
        .pid()
        .ok_or_else(|| ShimError::Container("it has no process".to_owned()))?;
    supervise::block_signals().map_err(ShimError::at("blocking signals"))?;
    let state = State::starting()
        .map(|state| state.running(pid.as_raw()))
        .map_err(ShimError::at("reading the time"))?;
    state
        .write(dir)
        .map_err(ShimError::at("writing the state"))?;
    container
        .start()
        .map_err(|error| ShimError::Container(chain(&error)))?;
    Ok(state)
}

/// One line for the agent that waits; one that has died does not matter.
fn report(report: &Report) {
    let line = serde_json::to_string(report).unwrap_or_default();
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Closes the pipe to the agent by putting nothing in its place.
fn detach_from_agent() {
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(&null);
    }
}

fn describe(error: &ShimError) -> String {
    chain(error)
}

/// An error with its causes, each said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut link = error.source();
    while let Some(error) = link {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        link = error.source();
    }
    text
}
