//! Which rule a request belongs to.

mod conditions;
mod host;
mod path;
mod path_match;
mod pattern;
mod query;
mod rules;
mod table;
#[cfg(test)]
mod text;

pub use conditions::{
    ConditionProblem, Conditions, HeaderMatch, QueryMatch, RequestMatch, RouteRequest, ValueMatch,
};
pub use host::{HostName, HostProblem};
pub use path::{BadPath, normalise};
pub use path_match::{PathKind, PathMatch, PathProblem};
pub use pattern::{Pattern, PatternProblem};
pub use query::parameter;
pub use rules::{HostRules, Missed};
pub use table::{Found, NoRoute, Precision, RouteTable};
