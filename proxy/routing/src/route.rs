//! Which rule a request belongs to.

mod host;
mod path;
mod rules;
mod table;

pub use host::{HostName, HostProblem};
pub use path::{BadPath, normalise};
pub use rules::{HostRules, PathKind, PathMatch, PathProblem};
pub use table::{NoRoute, RouteTable};
