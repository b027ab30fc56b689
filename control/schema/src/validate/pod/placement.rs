//! Where a pod may run: node selector, affinity, tolerations, spread.

use serde_json::Value;

use crate::path::Path;
use crate::value::{at, int_at, list_at, text_at};
use crate::{FieldError, names};

use super::super::checks;

const NODE_OPERATORS: &[&str] = &["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn validate(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    checks::labels(spec, "nodeSelector", &path.child("nodeSelector"), errors);
    validate_node_affinity(spec, &path.child("affinity.nodeAffinity"), errors);
    for kind in ["podAffinity", "podAntiAffinity"] {
        validate_pod_affinity(spec, kind, &path.child("affinity").child(kind), errors);
    }
    for (index, toleration) in list_at(spec, "tolerations").iter().enumerate() {
        validate_toleration(toleration, &path.child("tolerations").index(index), errors);
    }
    let mut spread: Vec<(&str, &str)> = Vec::new();
    for (index, constraint) in list_at(spec, "topologySpreadConstraints")
        .iter()
        .enumerate()
    {
        validate_spread(
            constraint,
            &path.child("topologySpreadConstraints").index(index),
            errors,
        );
        let pair = (
            text_at(constraint, "topologyKey"),
            text_at(constraint, "whenUnsatisfiable"),
        );
        if spread.contains(&pair) {
            let path = path.child("topologySpreadConstraints").index(index);
            let field = path.child("{topologyKey, whenUnsatisfiable}");
            errors.push(FieldError::duplicate(
                field,
                format!("{{{}, {}}}", pair.0, pair.1),
            ));
        }
        spread.push(pair);
    }
}

fn validate_node_affinity(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let Some(affinity) = at(spec, "affinity.nodeAffinity") else {
        return;
    };
    if let Some(required) = at(affinity, REQUIRED) {
        let path = path.child(REQUIRED).child("nodeSelectorTerms");
        let terms = list_at(required, "nodeSelectorTerms");
        if terms.is_empty() {
            errors.push(FieldError::required(
                &path,
                "must have at least one node selector term",
            ));
        }
        for (index, term) in terms.iter().enumerate() {
            validate_node_term(term, &path.index(index), errors);
        }
    }
    for (index, preferred) in list_at(affinity, PREFERRED).iter().enumerate() {
        let path = path.child(PREFERRED).index(index);
        validate_weight(preferred, &path, errors);
        if let Some(term) = at(preferred, "preference") {
            validate_node_term(term, &path.child("preference"), errors);
        }
    }
}

fn validate_weight(preferred: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let weight = int_at(preferred, "weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(
            path.child("weight"),
            weight,
            "must be in the range 1-100",
        ));
    }
}

fn validate_node_term(term: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for list in ["matchExpressions", "matchFields"] {
        for (index, one) in list_at(term, list).iter().enumerate() {
            let path = path.child(list).index(index);
            let operator = text_at(one, "operator");
            let values = list_at(one, "values");
            let wrong_count = match operator {
                "In" | "NotIn" if values.is_empty() => Some(FieldError::required(
                    path.child("values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                )),
                "Exists" | "DoesNotExist" if !values.is_empty() => Some(FieldError::forbidden(
                    path.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                )),
                "Gt" | "Lt" if values.len() != 1 => Some(FieldError::required(
                    path.child("values"),
                    "must be specified single value when `operator` is 'Lt' or 'Gt'",
                )),
                known if NODE_OPERATORS.contains(&known) => None,
                other => Some(FieldError::invalid(
                    path.child("operator"),
                    other,
                    "not a valid selector operator",
                )),
            };
            errors.extend(wrong_count);
            let key = text_at(one, "key");
            if list == "matchExpressions" {
                checks::problems(&path.child("key"), key, names::qualified_name(key), errors);
            }
        }
    }
}

fn validate_pod_affinity(spec: &Value, kind: &str, path: &Path, errors: &mut Vec<FieldError>) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let Some(affinity) = at(spec, &format!("affinity.{kind}")) else {
        return;
    };
    for (index, term) in list_at(affinity, REQUIRED).iter().enumerate() {
        validate_pod_term(term, &path.child(REQUIRED).index(index), errors);
    }
    for (index, preferred) in list_at(affinity, PREFERRED).iter().enumerate() {
        let path = path.child(PREFERRED).index(index);
        validate_weight(preferred, &path, errors);
        if let Some(term) = at(preferred, "podAffinityTerm") {
            validate_pod_term(term, &path.child("podAffinityTerm"), errors);
        }
    }
}

fn validate_pod_term(term: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let key = text_at(term, "topologyKey");
    if key.is_empty() {
        errors.push(FieldError::required(
            path.child("topologyKey"),
            "can not be empty",
        ));
    }
    checks::problems(
        &path.child("topologyKey"),
        key,
        names::qualified_name(key),
        errors,
    );
    for selector in ["labelSelector", "namespaceSelector"] {
        if let Some(found) = at(term, selector) {
            checks::label_selector(found, &path.child(selector), errors);
        }
    }
}

fn validate_toleration(toleration: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let word = |key: &str| text_at(toleration, key);
    let (key, operator, value, effect) =
        (word("key"), word("operator"), word("value"), word("effect"));
    if !key.is_empty() {
        checks::problems(&path.child("key"), key, names::qualified_name(key), errors);
    }
    if key.is_empty() && operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::invalid(
            path.child("operator"),
            operator,
            detail,
        ));
    }
    if int_at(toleration, "tolerationSeconds").is_some() && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(FieldError::invalid(path.child("effect"), effect, detail));
    }
    match operator {
        "" | "Equal" => checks::problems(
            &path.child("operator"),
            value,
            names::label_value(value),
            errors,
        ),
        "Exists" if !value.is_empty() => {
            let detail = "value must be empty when `operator` is 'Exists'";
            errors.push(FieldError::invalid(
                path.child("operator"),
                toleration.clone(),
                detail,
            ));
        }
        "Exists" => {}
        other => errors.push(FieldError::not_supported(
            path.child("operator"),
            other,
            &["Equal", "Exists"],
        )),
    }
    checks::one_of(&path.child("effect"), effect, EFFECTS, false, errors);
}

fn validate_spread(constraint: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let skew = int_at(constraint, "maxSkew").unwrap_or(0);
    if skew <= 0 {
        errors.push(FieldError::invalid(
            path.child("maxSkew"),
            skew,
            "must be greater than zero",
        ));
    }
    if text_at(constraint, "topologyKey").is_empty() {
        errors.push(FieldError::required(
            path.child("topologyKey"),
            "can not be empty",
        ));
    }
    let action = text_at(constraint, "whenUnsatisfiable");
    let allowed = &["DoNotSchedule", "ScheduleAnyway"];
    if !allowed.contains(&action) {
        errors.push(FieldError::not_supported(
            path.child("whenUnsatisfiable"),
            action,
            allowed,
        ));
    }
    if let Some(selector) = at(constraint, "labelSelector") {
        checks::label_selector(selector, &path.child("labelSelector"), errors);
    }
}
