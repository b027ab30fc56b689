//! The options of writes and deletions, from query and body.

use jiff::Timestamp;
use meshgate_schema::{Failure, FieldError, FieldValidation, Media, Registry};
use meshgate_store::Revision;
use serde_json::Value;

use super::query::Query;

/// Characters of a field manager's name.
const MANAGER_CHARACTERS_MAX: usize = 128;
const META: &str = "meta.k8s.io";

/// Options of a create, update or patch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) validation: FieldValidation,
}

impl WriteOptions {
    /// `kind`: CreateOptions, UpdateOptions or PatchOptions, which failures name.
    pub(crate) fn parse(query: &Query, kind: &str) -> Result<WriteOptions, Failure> {
        let mut errors = Vec::new();
        let dry_run = dry_run(query.all("dryRun"), &mut errors);
        if let Some(manager) = query.find("fieldManager") {
            errors.extend(check_manager(manager));
        }
        let validation = query.find("fieldValidation").unwrap_or_default();
        let known = ["", "Ignore", "Strict", "Warn"];
        if !known.contains(&validation) {
            errors.push(FieldError::not_supported(
                "fieldValidation",
                validation,
                &known,
            ));
        }
        if !errors.is_empty() {
            return Err(Failure::invalid(META, kind, "", &errors));
        }
        Ok(WriteOptions {
            dry_run,
            validation: FieldValidation::parse(Some(validation))?,
        })
    }
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) -> bool {
    let values: Vec<&str> = values.filter(|value| !value.is_empty()).collect();
    if values.iter().any(|value| *value != "All") {
        errors.push(FieldError::not_supported(
            "dryRun",
            values.clone(),
            &["All"],
        ));
    }
    !values.is_empty()
}

fn check_manager(manager: &str) -> Option<FieldError> {
    if manager.len() > MANAGER_CHARACTERS_MAX {
        return Some(FieldError::too_long("fieldManager", MANAGER_CHARACTERS_MAX));
    }
    let (at, bad) = manager.chars().enumerate().find(|(_, c)| c.is_control())?;
    let detail = format!(
        "invalid character U+{:04X} (at position {at})",
        u32::from(bad)
    );
    Some(FieldError::invalid("fieldManager", manager, detail))
}

/// What becomes of the objects that the deleted one owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// The garbage collector deletes them afterwards.
    Background,
    /// They go first; the owner waits with the finalizer `foregroundDeletion`.
    Foreground,
    /// They stay, without their owner reference; the owner waits with the finalizer `orphan`.
    Orphan,
}

/// Options of a deletion.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) dry_run: bool,
    pub(crate) grace_period_s: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<Revision>,
}

impl DeleteOptions {
    /// Body and query may both carry options; the body's win, as in Kubernetes.
    pub(crate) fn parse(
        query: &Query,
        body: &[u8],
        media: Media,
        registry: &Registry,
    ) -> Result<DeleteOptions, Failure> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return DeleteOptions::from_query(query);
        }
        let decoded = registry.decode_any(
            "",
            "v1",
            "DeleteOptions",
            body,
            media,
            FieldValidation::Ignore,
        )?;
        DeleteOptions::from_body(&decoded.object)
    }

    fn from_query(query: &Query) -> Result<DeleteOptions, Failure> {
        let mut errors = Vec::new();
        let grace = query.find("gracePeriodSeconds").map(|text| {
            text.parse::<i64>().map_err(|_| {
                Failure::bad_request(format!(
                    "gracePeriodSeconds must be a whole number, not {text:?}"
                ))
            })
        });
        let orphan = query
            .find("orphanDependents")
            .map(|text| text == "true" || text == "1");
        let options = DeleteOptions {
            dry_run: dry_run(query.all("dryRun"), &mut errors),
            grace_period_s: grace.transpose()?,
            propagation: propagation(query.find("propagationPolicy"), orphan, &mut errors),
            uid: query.find("preconditions.uid").map(str::to_owned),
            resource_version: None,
        };
        options.checked(errors)
    }

    fn from_body(body: &Value) -> Result<DeleteOptions, Failure> {
        let mut errors = Vec::new();
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let preconditions = body.get("preconditions");
        let precondition = |field: &str| text(preconditions.and_then(|values| values.get(field)));
        let dry = body.get("dryRun").and_then(Value::as_array);
        let resource_version = precondition("resourceVersion").map(|version| {
            version.parse().map_err(|_| {
                Failure::bad_request(format!(
                    "invalid resource version {version:?} in preconditions"
                ))
            })
        });
        let options = DeleteOptions {
            dry_run: dry_run(
                dry.into_iter().flatten().filter_map(Value::as_str),
                &mut errors,
            ),
            grace_period_s: body.get("gracePeriodSeconds").and_then(Value::as_i64),
            propagation: propagation(
                body.get("propagationPolicy").and_then(Value::as_str),
                body.get("orphanDependents").and_then(Value::as_bool),
                &mut errors,
            ),
            uid: precondition("uid"),
            resource_version: resource_version.transpose()?,
        };
        options.checked(errors)
    }

    fn checked(self, errors: Vec<FieldError>) -> Result<DeleteOptions, Failure> {
        if errors.is_empty() {
            Ok(self)
        } else {
            Err(Failure::invalid(META, "DeleteOptions", "", &errors))
        }
    }
}

fn propagation(
    policy: Option<&str>,
    orphan: Option<bool>,
    errors: &mut Vec<FieldError>,
) -> Option<Propagation> {
    match (policy.filter(|policy| !policy.is_empty()), orphan) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::invalid(
                "propagationPolicy",
                policy.unwrap_or_default(),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
            None
        }
        (Some("Background"), None) | (None, Some(false)) => Some(Propagation::Background),
        (Some("Foreground"), None) => Some(Propagation::Foreground),
        (Some("Orphan"), None) | (None, Some(true)) => Some(Propagation::Orphan),
        (Some(other), None) => {
            errors.push(FieldError::not_supported(
                "propagationPolicy",
                other,
                &["Foreground", "Background", "Orphan"],
            ));
            None
        }
        (None, None) => None,
    }
}

/// How a LIST or WATCH reads: from `metav1.ListOptions`.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListOptions {
    pub(crate) limit: Option<usize>,
    pub(crate) continue_token: Option<String>,
    pub(crate) version: Version,
    pub(crate) version_match: VersionMatch,
    pub(crate) timeout_s: Option<u64>,
    pub(crate) bookmarks: bool,
    pub(crate) initial_events: Option<bool>,
}

/// The parameter `resourceVersion`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Version {
    /// The latest state.
    #[default]
    Latest,
    /// `0`: any state will do.
    Any,
    /// This one, in the sense of [`VersionMatch`].
    At(Revision),
}

/// The parameter `resourceVersionMatch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum VersionMatch {
    #[default]
    Unset,
    Exact,
    NotOlderThan,
}

impl ListOptions {
    pub(crate) fn parse(query: &Query, watch: bool) -> Result<ListOptions, Failure> {
        let number = |name: &str| -> Result<Option<u64>, Failure> {
            let bad =
                |text| Failure::bad_request(format!("{name} must be a whole number, not {text:?}"));
            query
                .find(name)
                .map(|text| text.parse().map_err(|_| bad(text)))
                .transpose()
        };
        let version = match query.find("resourceVersion") {
            None => Version::Latest,
            Some("0") => Version::Any,
            Some(text) => Version::At(text.parse().map_err(|_| {
                Failure::bad_request(format!(
                    "Invalid value: {text:?}: resourceVersion must be a whole number"
                ))
            })?),
        };
        let mut options = ListOptions {
            limit: number("limit")?
                .filter(|limit| *limit > 0)
                .and_then(|limit| usize::try_from(limit).ok()),
            continue_token: query.find("continue").map(str::to_owned),
            version,
            version_match: VersionMatch::Unset,
            timeout_s: number("timeoutSeconds")?.filter(|seconds| *seconds > 0),
            bookmarks: query.is_set("allowWatchBookmarks"),
            initial_events: query
                .find("sendInitialEvents")
                .map(|_| query.is_set("sendInitialEvents")),
        };
        options.version_match = options.check_match(query.find("resourceVersionMatch"), watch)?;
        Ok(options)
    }

    /// The rules of `ValidateListOptions`.
    fn check_match(&self, text: Option<&str>, watch: bool) -> Result<VersionMatch, Failure> {
        let invalid = |error: FieldError| Failure::invalid(META, "ListOptions", "", &[error]);
        let forbidden =
            |field: &str, detail: &str| Err(invalid(FieldError::forbidden(field, detail)));
        let field = "resourceVersionMatch";
        if watch {
            return match (self.initial_events, text) {
                (Some(_), Some("NotOlderThan")) => Ok(VersionMatch::NotOlderThan),
                (Some(_), Some(other)) => Err(invalid(FieldError::not_supported(
                    field,
                    other,
                    &["NotOlderThan"],
                ))),
                (Some(_), None) => forbidden(
                    field,
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ),
                (None, Some(_)) => forbidden(
                    field,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ),
                (None, None) => Ok(VersionMatch::Unset),
            };
        }
        if self.initial_events.is_some() {
            return forbidden(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            );
        }
        let matching = match text {
            None => return Ok(VersionMatch::Unset),
            Some("Exact") => VersionMatch::Exact,
            Some("NotOlderThan") => VersionMatch::NotOlderThan,
            Some(other) => {
                return Err(invalid(FieldError::not_supported(
                    field,
                    other,
                    &["Exact", "NotOlderThan"],
                )));
            }
        };
        match (self.version, matching) {
            (Version::Latest, _) => forbidden(
                field,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (Version::Any, VersionMatch::Exact) => forbidden(
                field,
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            _ if self.continue_token.is_some() => forbidden(
                field,
                "resourceVersionMatch is forbidden when continue is provided",
            ),
            _ => Ok(matching),
        }
    }
}

/// RFC 3339 of a moment, in seconds.
pub(crate) fn seconds(now: Timestamp) -> String {
    meshgate_schema::time::rfc3339(now)
}
