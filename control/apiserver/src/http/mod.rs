//! The HTTP side: paths, queries, media types, bodies, answers.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod gzip;
pub(crate) mod media;
pub(crate) mod options;
pub(crate) mod path;
pub(crate) mod query;
