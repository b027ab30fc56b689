//! Creation.

use jiff::Timestamp;
use meshgate_schema::{Failure, FieldError, Media};
use meshgate_store::Expect;
use rand::Rng as _;
use serde_json::Value;

use super::{admit, metadata};
use crate::admission::{self, Operation, webhook};
use crate::custom;
use crate::http::options::WriteOptions;
use crate::objects::{self, encode, meta, metadata_mut, set_resource_version};
use crate::server::{Call, Reply};
use crate::services::Reservation;

/// Names tried for a `generateName` before its creation fails: five random characters rarely collide.
const NAME_TRIES_MAX: usize = 8;
/// The letters of generated names: no vowels, so no words.
const NAME_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// POST.
pub(crate) async fn create(call: &Call, body: &[u8], media: Media) -> Result<Reply, Failure> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let decoded = call
        .kind
        .decode(&call.registry, body, media, options.validation)?;
    create_object(call, decoded.object, decoded.warnings, options.dry_run).await
}

/// Creates a decoded object.
pub(crate) async fn create_object(
    call: &Call,
    mut object: Value,
    mut warnings: Vec<String>,
    dry_run: bool,
) -> Result<Reply, Failure> {
    if call.kind.is_custom() && call.server.live.is_going(&call.kind) {
        return Err(Failure {
            message: "create not allowed while custom resource definition is terminating".into(),
            ..Failure::method_not_allowed()
        });
    }
    metadata::place(&call.kind, &call.path.namespace, &mut object)?;
    if !matches!(meta(&object, "resourceVersion"), "" | "0") {
        return Err(Failure::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    call.kind.default(&mut object);
    admission::mutate(
        call,
        Operation::Create,
        &mut object,
        None,
        dry_run,
        &mut warnings,
    )
    .await?;
    metadata::begin(&call.kind, &mut object, Timestamp::now());
    call.kind.prepare_create(&mut object);
    let given = meta(&object, "name").to_owned();
    let base = meta(&object, "generateName").to_owned();
    let tries = if given.is_empty() && !base.is_empty() {
        NAME_TRIES_MAX
    } else {
        1
    };
    warnings.extend(call.kind.object_warnings(&object));
    for left in (0..tries).rev() {
        let name = if given.is_empty() && !base.is_empty() {
            generate(&base)
        } else {
            given.clone()
        };
        if !name.is_empty() {
            metadata_mut(&mut object).insert("name".into(), name.clone().into());
        }
        let _held = complete(call, &mut object)?;
        admit(call, "create", &name, None, Some(&object))?;
        match store(call, &name, &object, dry_run).await? {
            Stored::Yes(object) => {
                return Ok(Reply::Object {
                    code: 201,
                    object,
                    warnings,
                });
            }
            Stored::Taken { .. } if left > 0 => {}
            Stored::Taken { terminating } => return Err(taken(call, &name, terminating)),
        }
    }
    Err(Failure::internal("no name was tried"))
}

/// The last steps that may fail on the object itself: what only the server knows, then validation.
fn complete(call: &Call, object: &mut Value) -> Result<Option<Reservation>, Failure> {
    let name = meta(object, "name").to_owned();
    let invalid =
        |errors: &[_]| Failure::invalid(call.kind.group(), call.kind.kind(), &name, errors);
    let held = if is_service(call) {
        let errors = call.kind.validate_create(object);
        if !errors.is_empty() {
            return Err(invalid(&errors));
        }
        Some(
            call.server
                .live
                .addresses
                .assign(object, None)
                .map_err(|errors| invalid(&errors))?,
        )
    } else {
        None
    };
    if custom::is_definition(&call.kind) {
        custom::complete(&call.server.live, object, Timestamp::now());
    }
    let mut errors = call.kind.validate_create(object);
    errors.extend(unsupported(call, object));
    if errors.is_empty() {
        Ok(held)
    } else {
        Err(invalid(&errors))
    }
}

/// What Kubernetes would take and this server cannot do.
pub(crate) fn unsupported(call: &Call, object: &Value) -> Vec<FieldError> {
    if call.kind.plural() == "mutatingwebhookconfigurations" && !call.kind.is_custom() {
        webhook::unsupported(object)
    } else {
        Vec::new()
    }
}

/// Whether the call is about a Service itself, not its status.
pub(crate) fn is_service(call: &Call) -> bool {
    call.kind.group().is_empty()
        && call.kind.plural() == "services"
        && call.path.subresource.is_empty()
}

enum Stored {
    /// With its resource version, unless the run was dry.
    Yes(Value),
    /// Another object has the name.
    Taken { terminating: bool },
}

async fn store(call: &Call, name: &str, object: &Value, dry_run: bool) -> Result<Stored, Failure> {
    let key = call.key(name);
    let is_terminating = |entry: &meshgate_store::Entry| {
        objects::decode(entry).is_ok_and(|object| metadata::is_terminating(&object))
    };
    if dry_run {
        return Ok(match call.server.store.find(&key) {
            Some(entry) => Stored::Taken {
                terminating: is_terminating(&entry),
            },
            None => Stored::Yes(object.clone()),
        });
    }
    let stored = call.kind.to_storage(object.clone());
    match call
        .server
        .write(&key, Expect::Absent, Some(encode(&stored)))
        .await?
    {
        Ok(revision) => {
            let mut object = object.clone();
            set_resource_version(&mut object, revision);
            Ok(Stored::Yes(object))
        }
        Err(current) => Ok(Stored::Taken {
            terminating: current.is_some_and(|entry| is_terminating(&entry)),
        }),
    }
}

fn taken(call: &Call, name: &str, terminating: bool) -> Failure {
    let mut failure = Failure::already_exists(call.kind.group(), call.kind.plural(), name);
    if terminating {
        failure.message = format!("object is being deleted: {}", failure.message);
    }
    failure
}

fn generate(base: &str) -> String {
    let mut rng = rand::rng();
    let letters = (0..5).map(|_| char::from(NAME_LETTERS[rng.random_range(0..NAME_LETTERS.len())]));
    meshgate_schema::names::generate(base, &letters.collect::<String>())
}
