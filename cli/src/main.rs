//! The one binary. This crate reads arguments and joins parts; what they do is in the libraries.

mod allocator;
mod apply;
mod args;
mod client;
mod cluster;
mod control;
mod down;
mod echo;
mod from;
mod image;
mod inject;
mod keeper;
mod node;
mod proxies;
mod resident;
mod runtime;
mod status;
mod supervisor;
mod up;

use std::io::Write;
use std::process::ExitCode;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};

fn main() -> ExitCode {
    // The allocator asks for huge pages: every touched corner of the heap would count for 2 MiB, ten times what a small
    // component uses. Failing costs memory, nothing else. Inherited: the shim takes it back for the pods' processes.
    let _ = nix::sys::prctl::set_thp_disable(true);
    // Keeper and supervisor take signals in hand and block them; who they start must hear them again.
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    let cli = Cli::parse();
    log(&cli.command);
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        tracing::debug!("a crypto provider was installed before");
    }
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            let _gone = writeln!(std::io::stderr(), "meshgate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(args) => up::run(&args),
        Command::Down(args) => down::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Echo(args) => echo::run(args),
        Command::Control(args) => control::run(args),
        Command::Keeper(args) => keeper::run(&args.spec),
        Command::Supervisor(args) => supervisor::run(&args.spec),
        Command::Completion { shell } => {
            let mut out = std::io::stdout();
            clap_complete::generate(shell, &mut Cli::command(), "meshgate", &mut out);
            Ok(ExitCode::SUCCESS)
        }
        Command::Image(args) => image::run(&args.command),
        Command::Node(args) => node::run(&args),
        Command::Ingress(args) => proxies::ingress(&args),
        Command::Sidecar(args) => proxies::sidecar(&args),
        Command::Shim { args } => Ok(meshgate_agent::shim::main(&args)),
        Command::Inject(args) => inject::run(&args.file),
    }
}

/// Components log to standard error, INFO and above unless RUST_LOG says otherwise; commands for people only warn.
fn log(command: &Command) {
    let level = match command {
        Command::Up(_)
        | Command::Down(_)
        | Command::Status(_)
        | Command::Image(_)
        | Command::Inject(_)
        | Command::Echo(_) => "warn",
        _ => "info",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}
