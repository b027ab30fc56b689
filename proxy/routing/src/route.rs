//! Which rule a request belongs to.

mod host;
mod path;
mod path_match;
mod rules;
mod table;

pub use host::{HostName, HostProblem};
pub use path::{BadPath, normalise};
pub use path_match::{PathKind, PathMatch, PathProblem};
pub use rules::HostRules;
pub use table::{NoRoute, RouteTable};
