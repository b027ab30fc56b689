//! Scale: the replicas of an object, without the rest of it.

use meshgate_schema::{Decoded, Failure, FieldValidation, Media, PatchType, apply_json_patch};
use serde_json::Value;

use crate::http::options::WriteOptions;
use crate::objects::{meta, read};
use crate::server::{Call, Reply};
use crate::write::change::{Part, change, patch_type};

/// GET.
pub(crate) fn get(call: &Call) -> Result<Reply, Failure> {
    let entry = call
        .server
        .store
        .find(&call.key(&call.path.name))
        .ok_or_else(|| call.not_found())?;
    Ok(Reply::ok(scale_of(call, &read(&call.kind, &entry)?)?))
}

/// PUT.
pub(crate) async fn update(call: &Call, body: &[u8], media: Media) -> Result<Reply, Failure> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let scale = decode(call, body, media, options.validation)?;
    let name = meta(&scale, "name");
    if !name.is_empty() && name != call.path.name {
        return Err(Failure::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.path.name
        )));
    }
    let edit = |old: &Value| with_scale(call, old, &scale);
    answer(
        call,
        change(call, Part::Main, options.dry_run, &edit).await?,
    )
}

/// PATCH.
pub(crate) async fn patch(call: &Call, patch: &[u8], content_type: &str) -> Result<Reply, Failure> {
    let patch_type = patch_type(content_type)?;
    let options = WriteOptions::parse(&call.query, "PatchOptions")?;
    let patch: Value = serde_json::from_slice(patch)
        .map_err(|error| Failure::bad_request(format!("error decoding patch: {error}")))?;
    let edit = |old: &Value| {
        let mut scale = scale_of(call, old)?;
        match patch_type {
            // A Scale has no lists, so a strategic merge is a plain one.
            PatchType::Merge | PatchType::Strategic => json_patch::merge(&mut scale, &patch),
            PatchType::Json => apply_json_patch(&mut scale, &patch)
                .map_err(|error| Failure::new(422, "Invalid", error.to_string()))?,
        }
        let scale = decode(
            call,
            scale.to_string().as_bytes(),
            Media::Json,
            options.validation,
        )?;
        with_scale(call, old, &scale)
    };
    answer(
        call,
        change(call, Part::Main, options.dry_run, &edit).await?,
    )
}

fn decode(
    call: &Call,
    body: &[u8],
    media: Media,
    validation: FieldValidation,
) -> Result<Value, Failure> {
    Ok(call
        .registry
        .decode_any("autoscaling", "v1", "Scale", body, media, validation)?
        .object)
}

fn scale_of(call: &Call, object: &Value) -> Result<Value, Failure> {
    call.kind
        .scale_of(object)
        .ok_or_else(Failure::no_such_resource)
}

fn with_scale(call: &Call, old: &Value, scale: &Value) -> Result<Decoded, Failure> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let error = meshgate_schema::FieldError::invalid(
            "spec.replicas",
            replicas,
            "must be greater than or equal to 0",
        );
        return Err(Failure::invalid(
            "autoscaling",
            "Scale",
            &call.path.name,
            &[error],
        ));
    }
    let mut object = call
        .kind
        .with_scale(old, scale)
        .ok_or_else(Failure::no_such_resource)?;
    // The Scale's resource version is the object's.
    for field in ["resourceVersion", "uid"] {
        let claimed = meta(scale, field);
        if !claimed.is_empty() {
            object["metadata"][field] = claimed.into();
        }
    }
    Ok(Decoded {
        object,
        warnings: Vec::new(),
    })
}

fn answer(call: &Call, reply: Reply) -> Result<Reply, Failure> {
    match reply {
        Reply::Object {
            object, warnings, ..
        } => Ok(Reply::Object {
            code: 200,
            object: scale_of(call, &object)?,
            warnings,
        }),
        other => Ok(other),
    }
}
