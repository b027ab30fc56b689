//! An edge is replaced by another process, and nobody who connects notices.
//!
//! The new process asks the old one for its sockets, over a unix socket: `take-over 2`, answered by `sockets` with a
//! name for each descriptor (`http`, `https`, `ready`, `metrics`, `control`); which listener one belongs to, its address
//! tells. A listener of several sockets has them all handed over, for connections wait in each. What one message does not
//! hold comes in others before, that begin with `more` and are answered `next`. Both processes hold the sockets then. The
//! new one opens what it listens at besides, gives up what it does not listen at any more, and, when it accepts, says
//! `serving`, and `control` where it keeps the control socket; the old one says `done`, stops accepting and drains. Whatever
//! fails before that, the old one goes on as if nothing had been. A connection that neither has accepted waits in a queue
//! that outlives the old process.
//!
//! The unix socket is the one of `--control-socket`, itself among the sockets handed over; or, when SIGUSR2 made the old
//! process start the new one, one end of a pair.

mod control;
mod line;
mod predecessor;
mod successor;

use std::time::Duration;

pub(super) use control::ControlSocket;
pub(super) use predecessor::Predecessor;
pub(super) use successor::{Program, Succession};

/// What the new process says first; the number rises when the conversation changes.
const TAKE_OVER: &str = "take-over 2";
const SOCKETS: &str = "sockets";
/// Instead of it, where others follow when `next` is said.
const MORE: &str = "more";
const NEXT: &str = "next";
const SERVING: &str = "serving";
const DONE: &str = "done";
const ERROR: &str = "error:";
/// The name of the control socket among those handed over.
const CONTROL: &str = "control";

/// The answers that need no work. Longer means that nobody is there.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Reading and enforcing the configuration, which takes less than a second.
const START_MAX: Duration = Duration::from_secs(60);
