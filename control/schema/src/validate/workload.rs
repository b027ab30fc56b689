//! Deployments and ReplicaSets.

use serde_json::{Value, json};

use crate::path::Path;
use crate::value::{at, int_at, text_at};
use crate::{FieldError, LabelSelector};

use super::{checks, metadata, pod};

pub(super) fn validate_deployment(object: &Value, errors: &mut Vec<FieldError>) {
    validate_replicas(object, errors);
    validate_strategy(object, errors);
    checks::not_negative(object, "spec.revisionHistoryLimit", errors);
    checks::not_negative(object, "spec.progressDeadlineSeconds", errors);
    if let Some(deadline) = int_at(object, "spec.progressDeadlineSeconds")
        && deadline <= int_at(object, "spec.minReadySeconds").unwrap_or(0)
    {
        errors.push(FieldError::invalid(
            "spec.progressDeadlineSeconds",
            deadline,
            "must be greater than minReadySeconds",
        ));
    }
}

pub(super) fn validate_replica_set(object: &Value, errors: &mut Vec<FieldError>) {
    validate_replicas(object, errors);
}

pub(super) fn validate_status(object: &Value, errors: &mut Vec<FieldError>) {
    for key in [
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
    ] {
        checks::not_negative(object, &format!("status.{key}"), errors);
    }
}

/// What both have: a number of pods, how to find them, and how to make them.
fn validate_replicas(object: &Value, errors: &mut Vec<FieldError>) {
    checks::not_negative(object, "spec.replicas", errors);
    checks::not_negative(object, "spec.minReadySeconds", errors);
    let path = Path::new("spec.selector");
    let Some(selector) = at(object, "spec.selector") else {
        errors.push(FieldError::required(&path, ""));
        mismatch(object, errors);
        return validate_template(object, errors);
    };
    let errors_before = errors.len();
    checks::label_selector(selector, &path, errors);
    let malformed = errors.len() > errors_before;
    match LabelSelector::from_json(selector) {
        _ if malformed => {
            let detail = "invalid label selector";
            errors.push(FieldError::invalid(&path, selector.clone(), detail));
        }
        Ok(parsed) if parsed.is_empty() => {
            let detail = "empty selector is invalid for deployment";
            errors.push(FieldError::invalid(&path, selector.clone(), detail));
        }
        Ok(parsed) => {
            let template = at(object, "spec.template").unwrap_or(&Value::Null);
            if !parsed.matches(template) {
                mismatch(object, errors);
            }
        }
        Err(_) => errors.push(FieldError::invalid(
            &path,
            selector.clone(),
            "invalid label selector",
        )),
    }
    validate_template(object, errors);
}

fn mismatch(object: &Value, errors: &mut Vec<FieldError>) {
    const LABELS: &str = "spec.template.metadata.labels";
    let labels = at(object, LABELS).cloned().unwrap_or_default();
    let detail = "`selector` does not match template `labels`";
    errors.push(FieldError::invalid(LABELS, labels, detail));
}

fn validate_template(object: &Value, errors: &mut Vec<FieldError>) {
    let Some(template) = at(object, "spec.template") else {
        return;
    };
    let path = Path::new("spec.template");
    if let Some(found) = template.get("metadata") {
        metadata::validate_template(found, &path, errors);
    }
    let spec_path = path.child("spec");
    if let Some(spec) = template.get("spec") {
        pod::validate_spec(spec, &spec_path, errors);
    }
    if at(template, "spec.ephemeralContainers").is_some() {
        let detail = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(
            spec_path.child("ephemeralContainers"),
            detail,
        ));
    }
    let restart_policy = text_at(template, "spec.restartPolicy");
    if !matches!(restart_policy, "Always" | "") {
        let path = spec_path.child("restartPolicy");
        errors.push(FieldError::not_supported(path, restart_policy, &["Always"]));
    }
    if at(template, "spec.activeDeadlineSeconds").is_some() {
        let detail = "activeDeadlineSeconds in ReplicaSet is not Supported";
        errors.push(FieldError::forbidden(
            spec_path.child("activeDeadlineSeconds"),
            detail,
        ));
    }
}

fn validate_strategy(object: &Value, errors: &mut Vec<FieldError>) {
    let path = Path::new("spec.strategy");
    let Some(strategy) = at(object, "spec.strategy") else {
        return;
    };
    let rolling = at(strategy, "rollingUpdate");
    match (text_at(strategy, "type"), rolling) {
        ("Recreate", Some(_)) => errors.push(FieldError::forbidden(
            path.child("rollingUpdate"),
            "may not be specified when strategy `type` is 'Recreate'",
        )),
        ("Recreate", None) | ("RollingUpdate", None) => {}
        ("RollingUpdate", Some(rolling)) => {
            validate_rolling_update(rolling, &path.child("rollingUpdate"), errors);
        }
        (_, _) => errors.push(FieldError::not_supported(
            path,
            strategy.clone(),
            &["Recreate", "RollingUpdate"],
        )),
    }
}

fn validate_rolling_update(rolling: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let mut amounts = [0; 2];
    for (amount, key) in amounts.iter_mut().zip(["maxUnavailable", "maxSurge"]) {
        let value = rolling.get(key).cloned().unwrap_or(json!(0));
        match number_or_percent(&value) {
            Ok(number) => *amount = number,
            Err(detail) => {
                errors.push(FieldError::invalid(path.child(key), value, detail));
                *amount = 1;
            }
        }
    }
    let shown = rolling.get("maxUnavailable").cloned().unwrap_or_default();
    let unavailable_path = path.child("maxUnavailable");
    if amounts == [0, 0] {
        let detail = "may not be 0 when `maxSurge` is 0";
        errors.push(FieldError::invalid(
            &unavailable_path,
            shown.clone(),
            detail,
        ));
    }
    if shown.is_string() && amounts[0] > 100 {
        errors.push(FieldError::invalid(
            unavailable_path,
            shown,
            "must not be greater than 100%",
        ));
    }
}

/// A number of pods, or a part of them.
fn number_or_percent(value: &Value) -> Result<i64, &'static str> {
    match value {
        Value::String(text) => text
            .strip_suffix('%')
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .ok_or("a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"),
        number => match number.as_i64() {
            Some(number) if number >= 0 => Ok(number),
            _ => Err("must be greater than or equal to 0"),
        },
    }
}
