//! The path of a field, as users write it: `spec.containers[0].ports[1].name`, `metadata.annotations[a/b]`.

use std::fmt;

/// The path of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path(String);

impl Path {
    /// The object itself.
    pub(crate) fn root() -> Path {
        Path(String::new())
    }

    pub(crate) fn new(path: impl Into<String>) -> Path {
        Path(path.into())
    }

    /// A field of the object here; may have dots itself.
    pub(crate) fn child(&self, name: &str) -> Path {
        if self.0.is_empty() {
            Path(name.to_owned())
        } else {
            Path(format!("{}.{name}", self.0))
        }
    }

    /// An item of the list here.
    pub(crate) fn index(&self, index: usize) -> Path {
        Path(format!("{}[{index}]", self.0))
    }

    /// An entry of the map here.
    pub(crate) fn key(&self, key: &str) -> Path {
        Path(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}
