//! Roles and their bindings.

use serde_json::Value;

use crate::path::Path;
use crate::value::{at, list_at, text_at};
use crate::{FieldError, names};

use super::checks;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn validate_role(role: &Value, namespaced: bool, errors: &mut Vec<FieldError>) {
    for (index, rule) in list_at(role, "rules").iter().enumerate() {
        validate_rule(rule, namespaced, &Path::new("rules").index(index), errors);
    }
    let Some(aggregation) = at(role, "aggregationRule") else {
        return;
    };
    let path = Path::new("aggregationRule.clusterRoleSelectors");
    let selectors = list_at(aggregation, "clusterRoleSelectors");
    if selectors.is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.push(FieldError::required(&path, detail));
    }
    for (index, selector) in selectors.iter().enumerate() {
        let errors_before = errors.len();
        checks::label_selector(selector, &path.index(index), errors);
        if errors.len() > errors_before {
            let detail = "invalid label selector.";
            errors.push(FieldError::invalid(path.index(index), Value::Null, detail));
        }
    }
}

fn validate_rule(rule: &Value, namespaced: bool, path: &Path, errors: &mut Vec<FieldError>) {
    if list_at(rule, "verbs").is_empty() {
        let detail = "verbs must contain at least one value";
        errors.push(FieldError::required(path.child("verbs"), detail));
    }
    let urls = list_at(rule, "nonResourceURLs");
    let (groups, resources) = (list_at(rule, "apiGroups"), list_at(rule, "resources"));
    if !urls.is_empty() {
        let detail = if namespaced {
            "namespaced rules cannot apply to non-resource URLs"
        } else if !groups.is_empty() || !resources.is_empty() {
            "rules cannot apply to both regular resources and non-resource URLs"
        } else {
            return;
        };
        errors.push(FieldError::invalid(
            path.child("nonResourceURLs"),
            urls.to_vec(),
            detail,
        ));
        return;
    }
    if groups.is_empty() {
        let detail = "resource rules must supply at least one api group";
        errors.push(FieldError::required(path.child("apiGroups"), detail));
    }
    if resources.is_empty() {
        let detail = "resource rules must supply at least one resource";
        errors.push(FieldError::required(path.child("resources"), detail));
    }
}

pub(super) fn validate_binding(binding: &Value, namespaced: bool, errors: &mut Vec<FieldError>) {
    let path = Path::new("roleRef");
    let group = text_at(binding, "roleRef.apiGroup");
    if group != GROUP {
        errors.push(FieldError::not_supported(
            path.child("apiGroup"),
            group,
            &[GROUP],
        ));
    }
    let allowed: &[&str] = if namespaced {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    let kind = text_at(binding, "roleRef.kind");
    if !allowed.contains(&kind) {
        errors.push(FieldError::not_supported(path.child("kind"), kind, allowed));
    }
    let name = text_at(binding, "roleRef.name");
    checks::required_form(&path.child("name"), name, names::path_segment, errors);
    for (index, subject) in list_at(binding, "subjects").iter().enumerate() {
        validate_subject(
            subject,
            namespaced,
            &Path::new("subjects").index(index),
            errors,
        );
    }
}

fn validate_subject(subject: &Value, namespaced: bool, path: &Path, errors: &mut Vec<FieldError>) {
    let (name, group) = (text_at(subject, "name"), text_at(subject, "apiGroup"));
    if name.is_empty() {
        errors.push(FieldError::required(path.child("name"), ""));
    }
    match text_at(subject, "kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                checks::problems(
                    &path.child("name"),
                    name,
                    names::dns1123_subdomain(name),
                    errors,
                );
            }
            if !group.is_empty() {
                errors.push(FieldError::not_supported(
                    path.child("apiGroup"),
                    group,
                    &[""],
                ));
            }
            if !namespaced && text_at(subject, "namespace").is_empty() {
                errors.push(FieldError::required(path.child("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.push(FieldError::not_supported(
                    path.child("apiGroup"),
                    group,
                    &[GROUP],
                ));
            }
        }
        other => {
            let allowed = &["ServiceAccount", "User", "Group"];
            errors.push(FieldError::not_supported(
                path.child("kind"),
                other,
                allowed,
            ));
        }
    }
}

pub(super) fn validate_binding_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if at(new, "roleRef") != at(old, "roleRef") {
        let shown = at(new, "roleRef").cloned().unwrap_or_default();
        errors.push(FieldError::invalid(
            "roleRef",
            shown,
            "cannot change roleRef",
        ));
    }
}
