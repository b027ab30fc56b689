//! Update and patch: one optimistic loop around "old object in, new object out".

use jiff::Timestamp;
use meshgate_schema::{Decoded, Failure, Media, PatchType};
use meshgate_store::{Entry, Expect};
use serde_json::Value;

use super::create::{create_object, is_service, unsupported};
use super::{admit, metadata};
use crate::admission::{self, Operation};
use crate::custom;
use crate::http::options::WriteOptions;
use crate::objects::{encode, meta, metadata_mut, read, set_resource_version};
use crate::server::{Call, Reply, attributes};

/// Attempts of a change that does not name a revision, before the client is told of the conflict.
const ATTEMPTS_MAX: usize = 10;
const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// Which part of an object a change may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but what only `/status` may write.
    Main,
    /// Status only.
    Status,
    /// What a subresource's own rules say (binding, finalize): neither is reset.
    Special,
}

/// From the stored object to the wanted one; called again when another writer was faster.
pub(crate) type Edit<'a> = &'a (dyn Fn(&Value) -> Result<Decoded, Failure> + Send + Sync);

/// PUT.
pub(crate) async fn update(
    call: &Call,
    body: &[u8],
    media: Media,
    part: Part,
) -> Result<Reply, Failure> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let mut decoded = call
        .kind
        .decode(&call.registry, body, media, options.validation)?;
    check_name(call, &decoded.object)?;
    metadata::place(&call.kind, &call.path.namespace, &mut decoded.object)?;
    let claimed = metadata::claimed_revision(&decoded.object)?;
    let exists = call.server.store.find(&call.key(&call.path.name)).is_some();
    if !exists && call.kind.allows_create_on_update() && part == Part::Main && claimed.is_none() {
        // The right to update was checked; this creates.
        let attributes = attributes(&call.path, "create");
        let allowed = call.server.live.auth.authorize(&call.user, &attributes);
        allowed.map_err(|denied| call.denied(&denied))?;
        return create_object(call, decoded.object, decoded.warnings, options.dry_run).await;
    }
    if exists && claimed.is_none() && !call.kind.allows_unconditional_update() {
        return Err(metadata::revision_required(&call.kind, &call.path.name));
    }
    change(call, part, options.dry_run, &|_| Ok(decoded.clone())).await
}

fn check_name(call: &Call, object: &Value) -> Result<(), Failure> {
    let url = &call.path.name;
    match meta(object, "name") {
        "" => Err(Failure::bad_request(format!(
            "the name of the object ({url} based on URL) was undeterminable: name must be provided"
        ))),
        name if name != url => Err(Failure::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({url})"
        ))),
        _ => Ok(()),
    }
}

/// PATCH.
pub(crate) async fn patch(
    call: &Call,
    patch: &[u8],
    content_type: &str,
    part: Part,
) -> Result<Reply, Failure> {
    let patch_type = patch_type(content_type)?;
    let options = WriteOptions::parse(&call.query, "PatchOptions")?;
    let edit = |old: &Value| {
        let decoded =
            call.kind
                .patch(&call.registry, patch_type, old, patch, options.validation)?;
        check_patched(call, &decoded.object)?;
        Ok(decoded)
    };
    change(call, part, options.dry_run, &edit).await
}

fn check_patched(call: &Call, object: &Value) -> Result<(), Failure> {
    let namespace = meta(object, "namespace");
    if call.kind.namespaced() && !namespace.is_empty() && namespace != call.path.namespace {
        return Err(Failure::bad_request(
            "the namespace of the object does not match the namespace on the request",
        ));
    }
    check_name(call, object)
}

pub(crate) fn patch_type(content_type: &str) -> Result<PatchType, Failure> {
    match content_type {
        "application/json-patch+json" => Ok(PatchType::Json),
        "application/merge-patch+json" => Ok(PatchType::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchType::Strategic),
        other => Err(Failure::unsupported_media_type(format!(
            "the body of the request was in an unknown format ({other:?}) - accepted media types include: \
             application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json"
        ))),
    }
}

/// Changes the call's object.
pub(crate) async fn change(
    call: &Call,
    part: Part,
    dry_run: bool,
    edit: Edit<'_>,
) -> Result<Reply, Failure> {
    let key = call.key(&call.path.name);
    for _ in 0..ATTEMPTS_MAX {
        let entry = call
            .server
            .store
            .find(&key)
            .ok_or_else(|| call.not_found())?;
        let old = read(&call.kind, &entry)?;
        let decoded = edit(&old)?;
        // `None`: another writer came first. Who named a revision learns of it in the next attempt; a patch and an
        // unconditional update apply to whatever is stored.
        if let Some(reply) = attempt(call, part, dry_run, &entry, &old, decoded).await? {
            return Ok(reply);
        }
    }
    Err(call.conflict(MODIFIED))
}

/// One attempt; `None`: the stored object changed meanwhile.
async fn attempt(
    call: &Call,
    part: Part,
    dry_run: bool,
    entry: &Entry,
    old: &Value,
    decoded: Decoded,
) -> Result<Option<Reply>, Failure> {
    let Decoded {
        object: mut new,
        mut warnings,
    } = decoded;
    if metadata::claimed_revision(&new)?.is_some_and(|claimed| claimed != entry.modified) {
        return Err(call.conflict(MODIFIED));
    }
    check_uid(call, &new, old)?;
    metadata::keep(&mut new, old);
    call.kind.default(&mut new);
    admission::mutate(
        call,
        Operation::Update,
        &mut new,
        Some(old),
        dry_run,
        &mut warnings,
    )
    .await?;
    metadata::keep(&mut new, old);
    match part {
        Part::Main => call.kind.prepare_update(&mut new, old),
        Part::Status => call.kind.prepare_status_update(&mut new, old),
        Part::Special => {}
    }
    let name = call.path.name.as_str();
    let invalid =
        |errors: &[_]| Failure::invalid(call.kind.group(), call.kind.kind(), name, errors);
    let _held = if is_service(call) {
        let held = call.server.live.addresses.assign(&mut new, Some(old));
        Some(held.map_err(|errors| invalid(&errors))?)
    } else {
        None
    };
    if custom::is_definition(&call.kind) {
        custom::complete(&call.server.live, &mut new, Timestamp::now());
    }
    set_resource_version(&mut new, entry.modified);
    if part != Part::Status && call.kind.generation_changes(&new, old) {
        metadata::next_generation(&mut new);
    }
    let mut errors = match part {
        Part::Main => call.kind.validate_update(&new, old),
        Part::Status => call.kind.validate_status_update(&new, old),
        Part::Special => Vec::new(),
    };
    errors.extend(unsupported(call, &new));
    if !errors.is_empty() {
        return Err(invalid(&errors));
    }
    admit(call, "update", name, Some(old), Some(&new))?;
    if part == Part::Main {
        warnings.extend(call.kind.object_warnings(&new));
    }
    save(call, dry_run, entry, old, new, warnings).await
}

fn check_uid(call: &Call, new: &Value, old: &Value) -> Result<(), Failure> {
    let (wanted, stored) = (meta(new, "uid"), meta(old, "uid"));
    if wanted.is_empty() || wanted == stored {
        return Ok(());
    }
    Err(call.conflict(&format!(
        "Precondition failed: UID in precondition: {wanted}, UID in object meta: {stored}"
    )))
}

async fn save(
    call: &Call,
    dry_run: bool,
    entry: &Entry,
    old: &Value,
    mut new: Value,
    warnings: Vec<String>,
) -> Result<Option<Reply>, Failure> {
    let ends = may_go(&new);
    if dry_run || (new == *old && !ends) {
        return Ok(Some(Reply::Object {
            code: 200,
            object: new,
            warnings,
        }));
    }
    // The last finalizer of an object whose deletion had begun is gone: so is the object.
    let value = (!ends).then(|| encode(&call.kind.to_storage(new.clone())));
    match call
        .server
        .write(&entry.key, Expect::Unchanged(entry.modified), value)
        .await?
    {
        Ok(revision) => {
            set_resource_version(&mut new, revision);
            Ok(Some(Reply::Object {
                code: 200,
                object: new,
                warnings,
            }))
        }
        Err(_) => Ok(None),
    }
}

/// Whether nothing holds an object any more whose deletion was begun.
pub(crate) fn may_go(object: &Value) -> bool {
    let finalizing_namespace = object["kind"] == "Namespace"
        && object["spec"]["finalizers"]
            .as_array()
            .is_some_and(|list| !list.is_empty());
    metadata::is_terminating(object)
        && metadata::finalizers(object).is_empty()
        && object["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0)
            == 0
        && !finalizing_namespace
}

/// The edit of a subresource that carries another kind: it changes the stored object itself.
pub(crate) fn edited(
    old: &Value,
    edit: impl FnOnce(&mut Value) -> Result<(), Failure>,
) -> Result<Decoded, Failure> {
    let mut object = old.clone();
    edit(&mut object)?;
    metadata_mut(&mut object);
    Ok(Decoded {
        object,
        warnings: Vec::new(),
    })
}
