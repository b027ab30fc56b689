//! Where something is written, and what is wrong with it: the words of every message about files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::Position;

/// Where an object is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Arc<Path>,
    pub(super) at: Position,
    /// Of a List, from 1.
    pub(super) item: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, number } = self.at;
        write!(f, "{}:{line}: document {number}", self.file.display())?;
        match self.item {
            Some(item) => write!(f, ", item {item}"),
            None => Ok(()),
        }
    }
}

/// One thing that is wrong, or that should be known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fault {
    /// For the order in which faults are told.
    file: PathBuf,
    line: usize,
    text: String,
}

impl Fault {
    /// About an object.
    pub(super) fn of(place: &Place, subject: impl fmt::Display, what: impl fmt::Display) -> Self {
        Self {
            file: place.file.to_path_buf(),
            line: place.at.line,
            text: format!("{place}: {subject}: {what}"),
        }
    }

    /// About a document that is no object.
    pub(super) fn document(place: &Place, what: impl fmt::Display) -> Self {
        Self {
            file: place.file.to_path_buf(),
            line: place.at.line,
            text: format!("{place}: {what}"),
        }
    }

    /// About a whole file.
    pub(super) fn file(file: &Path, what: impl fmt::Display) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            text: format!("{}: {what}", file.display()),
        }
    }

    /// About nothing that is written in one place.
    pub(super) fn general(what: impl fmt::Display) -> Self {
        Self {
            file: PathBuf::new(),
            line: 0,
            text: what.to_string(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
