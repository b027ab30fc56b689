//! The shim: parent of one container. It owns the container's log and exit status and outlives the agent.

use std::process::ExitCode;

/// Entry point of the hidden subcommand `meshgate shim`; `args` are those after it. Must run before any thread starts.
pub fn main(args: &[String]) -> ExitCode {
    let _ = args;
    ExitCode::FAILURE
}
