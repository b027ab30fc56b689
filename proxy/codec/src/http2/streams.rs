//! What is known by a stream's number.

use std::collections::HashMap;

use super::error::StreamId;

/// Something of each open stream of a connection. The hash may be a fast one: whoever chooses the numbers can open only so
/// many at once.
pub type Streams<T> = HashMap<StreamId, T, foldhash::fast::RandomState>;
