//! What Kubernetes 1.36 knows about its kinds, as pure functions over JSON values.
//!
//! A [`Registry`] is an immutable snapshot of everything served; a [`Kind`] is one resource in one group version and
//! carries the life of a write: decode strictly, apply a patch, default, prepare, validate. Discovery, OpenAPI,
//! tables, selectors and the protobuf form come from the same facts. There is no clock, no randomness and no I/O here.

pub mod custom;
mod decode;
mod defaults;
mod failure;
mod field_error;
pub mod names;
mod openapi;
mod patch;
mod path;
mod protobuf;
pub mod quantity;
mod registry;
mod scale;
mod selector;
mod storage;
mod strategy;
mod table;
pub mod time;
mod types;
mod validate;
mod value;

pub use custom as crd;
pub use decode::{Decoded, FieldValidation, Media};
pub use failure::Failure;
pub use field_error::{FieldError, FieldErrorKind};
pub use patch::{PatchProblem, PatchType, apply_json_patch};
pub use registry::{
    Aggregated, AggregatedVersion, DiscoveryScope, Kind, Registry, ScalePaths, Subresource,
};
pub use selector::{FieldSelector, LabelSelector};
pub use table::{IncludeObject, TableOptions};
