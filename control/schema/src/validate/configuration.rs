//! ConfigMaps and Secrets.

use serde_json::Value;

use crate::path::Path;
use crate::value::{at, bool_at, map_at};
use crate::{FieldError, names};

use super::checks;

/// All values together, in bytes: what fits into one object comfortably.
const DATA_BYTES_MAX: usize = 1024 * 1024;
const IMMUTABLE: &str = "field is immutable when `immutable` is set";

pub(super) fn validate_config_map(config_map: &Value, errors: &mut Vec<FieldError>) {
    let mut bytes = 0;
    for bag in ["data", "binaryData"] {
        for (key, value) in map_at(config_map, bag) {
            let path = Path::new(bag).key(key);
            checks::problems(&path, key, names::config_key(key), errors);
            let text = value.as_str().unwrap_or("");
            bytes += if bag == "data" {
                text.len()
            } else {
                decoded_len(text)
            };
        }
    }
    for (key, _) in map_at(config_map, "data") {
        if config_map
            .get("binaryData")
            .and_then(|bag| bag.get(key))
            .is_some()
        {
            let detail = "duplicate of key present in binaryData";
            errors.push(FieldError::invalid(Path::new("data").key(key), key, detail));
        }
    }
    if bytes > DATA_BYTES_MAX {
        // The real server names no field here.
        errors.push(FieldError::too_long("[]", DATA_BYTES_MAX));
    }
}

/// Bytes that a base64 text stands for.
fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

pub(super) fn validate_secret(secret: &Value, errors: &mut Vec<FieldError>) {
    let mut bytes = 0;
    let path = Path::new("data");
    for (key, value) in map_at(secret, "data") {
        checks::problems(&path.key(key), key, names::config_key(key), errors);
        bytes += decoded_len(value.as_str().unwrap_or(""));
    }
    if bytes > DATA_BYTES_MAX {
        errors.push(FieldError::too_long("data", DATA_BYTES_MAX));
    }
    let has = |key: &str| secret.get("data").and_then(|data| data.get(key)).is_some();
    let mut need = |key: &str| {
        if !has(key) {
            errors.push(FieldError::required(path.key(key), ""));
        }
    };
    match secret.get("type").and_then(Value::as_str).unwrap_or("") {
        "kubernetes.io/tls" => {
            need("tls.crt");
            need("tls.key");
        }
        "kubernetes.io/dockercfg" => need(".dockercfg"),
        "kubernetes.io/dockerconfigjson" => need(".dockerconfigjson"),
        "kubernetes.io/ssh-auth" => need("ssh-privatekey"),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            need("username");
            need("password");
        }
        "kubernetes.io/service-account-token" => {
            let name = "kubernetes.io/service-account.name";
            let annotation =
                secret.pointer("/metadata/annotations/kubernetes.io~1service-account.name");
            if annotation.and_then(Value::as_str).unwrap_or("").is_empty() {
                errors.push(FieldError::required(
                    Path::new("metadata.annotations").key(name),
                    "",
                ));
            }
        }
        _ => {}
    }
}

/// Immutable ones stay as they are, and immutable; a Secret keeps its type in any case.
pub(super) fn validate_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if old.get("type").is_some() {
        checks::immutable(new, old, "type", errors);
    }
    if !bool_at(old, "immutable") {
        return;
    }
    if !bool_at(new, "immutable") {
        errors.push(FieldError::forbidden("immutable", IMMUTABLE));
    }
    for bag in ["data", "binaryData"] {
        if at(new, bag) != at(old, bag) {
            errors.push(FieldError::forbidden(bag, IMMUTABLE));
        }
    }
}
