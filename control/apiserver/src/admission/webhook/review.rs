//! The AdmissionReview: question and answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meshgate_schema::{Failure, apply_json_patch};
use serde_json::{Map, Value, json};

use crate::admission::Operation;
use crate::auth::User;
use crate::objects::meta;
use crate::server::Call;

const VERSION: &str = "admission.k8s.io/v1";

/// A question, with what its answer is checked against and applied to.
pub(super) struct Request {
    pub(super) review: Value,
    uid: String,
}

/// What a webhook said.
pub(super) struct Answer {
    /// The object after its patch; `None` without one.
    pub(super) patched: Option<Value>,
    pub(super) warnings: Vec<String>,
    /// The `status` of a refusal.
    pub(super) refusal: Option<Value>,
}

pub(super) fn request(
    call: &Call,
    operation: Operation,
    object: &Value,
    old: Option<&Value>,
    dry_run: bool,
) -> Request {
    let uid = uuid::Uuid::new_v4().to_string();
    let kind = json!({"group": call.kind.group(), "version": call.kind.version(), "kind": call.kind.kind()});
    let resource = json!({"group": call.kind.group(), "version": call.kind.version(), "resource": call.kind.plural()});
    let name = match call.path.name.as_str() {
        "" => meta(
            if object.is_null() {
                old.unwrap_or(object)
            } else {
                object
            },
            "name",
        ),
        name => name,
    };
    let mut request = Map::new();
    let mut put = |field: &str, value: Value| request.insert(field.to_owned(), value);
    put("uid", uid.clone().into());
    put("kind", kind.clone());
    put("resource", resource.clone());
    put("requestKind", kind);
    put("requestResource", resource);
    if !call.path.subresource.is_empty() {
        put("subResource", call.path.subresource.clone().into());
        put("requestSubResource", call.path.subresource.clone().into());
    }
    if !name.is_empty() {
        put("name", name.into());
    }
    if !call.path.namespace.is_empty() {
        put("namespace", call.path.namespace.clone().into());
    }
    put("operation", operation.word().into());
    put("userInfo", user_info(&call.user));
    put("object", object.clone());
    put("oldObject", old.cloned().unwrap_or_default());
    put("dryRun", dry_run.into());
    put("options", options(operation, dry_run));
    Request {
        review: json!({"kind": "AdmissionReview", "apiVersion": VERSION, "request": request}),
        uid,
    }
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.clone().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn options(operation: Operation, dry_run: bool) -> Value {
    let kind = match operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if dry_run {
        options["dryRun"] = json!(["All"]);
    }
    options
}

/// Reads an answer strictly: a webhook that answers something else has failed.
pub(super) fn answer(request: &Request, body: &[u8]) -> Result<Answer, String> {
    let review: Value =
        serde_json::from_slice(body).map_err(|error| format!("its answer is no JSON: {error}"))?;
    if review["kind"] != "AdmissionReview" || review["apiVersion"] != VERSION {
        return Err(format!(
            "expected webhook response of {VERSION}, Kind=AdmissionReview, got {}, Kind={}",
            review["apiVersion"].as_str().unwrap_or_default(),
            review["kind"].as_str().unwrap_or_default()
        ));
    }
    let response = review
        .get("response")
        .filter(|response| response.is_object())
        .ok_or("webhook response was absent")?;
    if response["uid"] != request.uid.as_str() {
        return Err(format!(
            "expected response.uid {:?}, got {}",
            request.uid, response["uid"]
        ));
    }
    let warnings = response["warnings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let mut answer = Answer {
        patched: None,
        warnings: warnings.map(str::to_owned).collect(),
        refusal: None,
    };
    if response["allowed"] != true {
        answer.refusal = Some(response["status"].clone());
        return Ok(answer);
    }
    let object = &request.review["request"]["object"];
    let patch = response["patch"].as_str().filter(|patch| !patch.is_empty());
    // There is nothing to patch in a deletion.
    if let Some(patch) = patch.filter(|_| !object.is_null()) {
        if response["patchType"] != "JSONPatch" {
            return Err(format!(
                "response.patchType {} is not JSONPatch",
                response["patchType"]
            ));
        }
        answer.patched = Some(apply(object, patch)?);
    }
    Ok(answer)
}

fn apply(object: &Value, patch: &str) -> Result<Value, String> {
    let patch = STANDARD
        .decode(patch)
        .map_err(|error| format!("response.patch is no base64: {error}"))?;
    let patch: Value = serde_json::from_slice(&patch)
        .map_err(|error| format!("response.patch is no JSON patch: {error}"))?;
    let mut patched = object.clone();
    apply_json_patch(&mut patched, &patch)
        .map_err(|error| format!("response.patch does not apply: {error}"))?;
    Ok(patched)
}

/// A webhook's "no" as the client's answer.
pub(super) fn refused(webhook: &str, status: &Value) -> Failure {
    let because = [&status["message"], &status["reason"]]
        .into_iter()
        .filter_map(Value::as_str)
        .find(|text| !text.is_empty());
    let message = match because {
        Some(because) => format!("admission webhook {webhook:?} denied the request: {because}"),
        None => format!("admission webhook {webhook:?} denied the request without explanation"),
    };
    let code = status["code"]
        .as_u64()
        .and_then(|code| u16::try_from(code).ok());
    let code = code.filter(|code| (400..600).contains(code)).unwrap_or(403);
    let mut failure = Failure::new(code, reason(code), message);
    failure.details = status
        .get("details")
        .filter(|details| details.is_object())
        .cloned();
    failure
}

fn reason(code: u16) -> &'static str {
    match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        _ => "",
    }
}
