//! The node agent: runs the pods that the API assigns to this node, as the kubelet does on a real cluster.
//!
//! It is a plain API client. Containers are children of small shim processes ([`shim`]) that survive the agent: a new
//! agent finds them by their state files and takes them up, nothing restarts. Everything waits on events (watches,
//! pidfds, inotify, timers that were set for a reason); nothing polls.

mod cgroup;
mod container;
pub mod images;
pub mod net;
mod node;
mod paths;
mod pod;
mod probe;
mod run;
mod server;
pub mod shim;
mod sources;
mod sys;
mod volume;

pub use run::{AgentError, Options, run};
