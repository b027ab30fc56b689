//! Places pods on nodes: a pure [`place()`], and a thin loop that watches, binds and explains.
//!
//! Invariants: only [`place()`] decides, from a [`Cluster`] that the watches keep current; the loop in `run` never
//! looks at a pod's wishes. A pod that cannot be placed costs nothing until something changes that may let it in.
//! Deliberately absent: preemption, volume binding, scheduling gates' removal, sampling of nodes.

mod affinity;
mod cluster;
mod filter;
mod neighbours;
mod place;
mod pod;
mod resources;
mod run;
mod score;
mod spread;
pub mod wire;

pub use affinity::{BadNodeTerm, NodeAffinity};
pub use cluster::{Cluster, Node, NodeFacts};
pub use filter::Refusal;
pub use neighbours::{BadNeighbourTerm, Neighbours};
pub use place::{Placement, Strategy, Unplaced, place};
pub use pod::{BadPod, BadSelector, HostPort, Pod};
pub use resources::Resources;
pub use run::{run, run_with};
pub use spread::{BadConstraint, Constraint};
