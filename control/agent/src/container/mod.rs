//! Containers as the agent sees them: started through a shim, found again by files, watched by descriptors.

mod running;
pub(crate) mod spec;

pub(crate) use running::{Adopted, Running, adopt, start, start_exec};
