//! The reviews: what clients ask about authentication and authorization. Nothing of them is stored.

use jiff::Timestamp;
use meshgate_schema::{Failure, FieldError};
use serde_json::{Map, Value, json};

use super::rbac::Rule;
use super::{Attributes, Auth, Decision, ISSUER, MASTERS, User, node};

/// Kinds of reviews.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Review {
    Token,
    SelfSubject,
    SubjectAccess,
    LocalSubjectAccess,
    SelfSubjectAccess,
    SelfSubjectRules,
}

impl Review {
    /// The review that is created at this resource.
    pub(crate) fn of(group: &str, resource: &str) -> Option<Self> {
        match (group, resource) {
            ("authentication.k8s.io", "tokenreviews") => Some(Self::Token),
            ("authentication.k8s.io", "selfsubjectreviews") => Some(Self::SelfSubject),
            ("authorization.k8s.io", "subjectaccessreviews") => Some(Self::SubjectAccess),
            ("authorization.k8s.io", "localsubjectaccessreviews") => Some(Self::LocalSubjectAccess),
            ("authorization.k8s.io", "selfsubjectaccessreviews") => Some(Self::SelfSubjectAccess),
            ("authorization.k8s.io", "selfsubjectrulesreviews") => Some(Self::SelfSubjectRules),
            _ => None,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Token => "TokenReview",
            Self::SelfSubject => "SelfSubjectReview",
            Self::SubjectAccess => "SubjectAccessReview",
            Self::LocalSubjectAccess => "LocalSubjectAccessReview",
            Self::SelfSubjectAccess => "SelfSubjectAccessReview",
            Self::SelfSubjectRules => "SelfSubjectRulesReview",
        }
    }

    fn group(self) -> &'static str {
        match self {
            Self::Token | Self::SelfSubject => "authentication.k8s.io",
            _ => "authorization.k8s.io",
        }
    }

    fn refuse(self, field: &str, value: &Value, detail: &str) -> Failure {
        let error = FieldError::invalid(field, value.clone(), detail);
        Failure::invalid(self.group(), self.kind(), "", &[error])
    }
}

impl Auth {
    /// Answers a review; `user` is who asks, authorized to create it.
    pub(crate) fn create_review(
        &self,
        review: Review,
        user: &User,
        namespace: &str,
        body: Value,
        now: Timestamp,
    ) -> Result<Value, Failure> {
        let spec = &body["spec"];
        let status = match review {
            Review::Token => self.review_token(spec, now)?,
            Review::SelfSubject => json!({"userInfo": user.to_json()}),
            Review::SelfSubjectRules => self.review_rules(user, spec)?,
            Review::SelfSubjectAccess => self.review_access(review, user, spec)?,
            Review::SubjectAccess => self.review_access(review, &subject(review, spec)?, spec)?,
            Review::LocalSubjectAccess => {
                if spec["resourceAttributes"]["namespace"].as_str() != Some(namespace) {
                    return Err(Failure::bad_request(format!(
                        "spec.resourceAttributes.namespace must match namespace: {namespace}"
                    )));
                }
                self.review_access(review, &subject(review, spec)?, spec)?
            }
        };
        Ok(answer(review, body, status))
    }

    fn review_token(&self, spec: &Value, now: Timestamp) -> Result<Value, Failure> {
        let token = spec["token"].as_str().unwrap_or_default();
        if token.is_empty() {
            return Err(Failure::bad_request(
                "token is required for TokenReview in authentication",
            ));
        }
        let mut accepted = texts(&spec["audiences"]);
        if accepted.is_empty() {
            accepted.push(ISSUER.to_owned());
        }
        Ok(match self.token_user(token, &accepted, now) {
            Ok((user, audiences)) => json!({
                "authenticated": true,
                "user": user.to_json(),
                "audiences": audiences,
            }),
            Err(why) => json!({"user": {}, "error": why.to_string()}),
        })
    }

    fn review_access(&self, review: Review, user: &User, spec: &Value) -> Result<Value, Failure> {
        let resource = spec.get("resourceAttributes").filter(|a| !a.is_null());
        let path = spec.get("nonResourceAttributes").filter(|a| !a.is_null());
        let text = |of: &'_ Value, field: &str| of[field].as_str().unwrap_or_default().to_owned();
        let (verb, group, name, namespace, kind, subresource);
        let what = match (resource, path) {
            (Some(of), None) => {
                verb = text(of, "verb");
                group = text(of, "group");
                name = text(of, "name");
                namespace = text(of, "namespace");
                kind = text(of, "resource");
                subresource = text(of, "subresource");
                Attributes::Resource {
                    verb: &verb,
                    group: &group,
                    resource: &kind,
                    subresource: &subresource,
                    namespace: &namespace,
                    name: &name,
                }
            }
            (None, Some(of)) => {
                verb = text(of, "verb");
                name = text(of, "path");
                Attributes::NonResource {
                    verb: &verb,
                    path: &name,
                }
            }
            _ => {
                let detail =
                    "exactly one of nonResourceAttributes or resourceAttributes must be specified";
                let found = resource.unwrap_or(&Value::Null);
                return Err(review.refuse("spec.resourceAttributes", found, detail));
            }
        };
        Ok(match self.read().decide(user, &what) {
            Decision::Allowed(reason) => json!({"allowed": true, "reason": reason}),
            Decision::NoOpinion(reason) if reason.is_empty() => json!({"allowed": false}),
            Decision::NoOpinion(reason) => json!({"allowed": false, "reason": reason}),
        })
    }

    fn review_rules(&self, user: &User, spec: &Value) -> Result<Value, Failure> {
        let namespace = spec["namespace"].as_str().unwrap_or_default();
        if namespace.is_empty() {
            return Err(Failure::bad_request("no namespace on request"));
        }
        let state = self.read();
        let mut rules = state.rbac.rules_for(user, namespace);
        if user.in_group(MASTERS) {
            rules.extend(Rule::everything());
        }
        let is_node = node::name_of(user).is_some();
        if is_node {
            rules.extend(state.node_rules.iter().cloned());
        }
        drop(state);
        let mut seen: Vec<Rule> = Vec::with_capacity(rules.len());
        for rule in rules {
            if !seen.contains(&rule) {
                seen.push(rule);
            }
        }
        let (resources, urls): (Vec<&Rule>, Vec<&Rule>) =
            seen.iter().partition(|rule| rule.is_for_resources());
        let list = |rules: Vec<&Rule>| rules.into_iter().map(Rule::to_json).collect::<Vec<_>>();
        let mut status = json!({
            "resourceRules": list(resources),
            "nonResourceRules": list(urls),
            "incomplete": is_node,
        });
        if is_node {
            status["evaluationError"] = json!("what a node may do also depends on its pods");
        }
        Ok(status)
    }

    /// The keys that service-account tokens are verified with (RFC 7517), for `/openid/v1/jwks`.
    pub(crate) fn jwks(&self) -> Value {
        self.key.key_set()
    }

    /// OpenID Connect discovery, for `/.well-known/openid-configuration`.
    pub(crate) fn openid_configuration(&self) -> Value {
        json!({
            "issuer": ISSUER,
            "jwks_uri": format!("{ISSUER}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self.key.algorithm()],
        })
    }
}

/// The user that a SubjectAccessReview asks about.
fn subject(review: Review, spec: &Value) -> Result<User, Failure> {
    let user = User {
        name: spec["user"].as_str().unwrap_or_default().to_owned(),
        uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
        groups: texts(&spec["groups"]),
        extra: spec["extra"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, values)| (key.clone(), texts(values)))
            .collect(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        let detail = "at least one of user or group must be specified";
        return Err(review.refuse("spec.user", &spec["user"], detail));
    }
    Ok(user)
}

fn texts(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The review as it was asked, with its status.
fn answer(review: Review, body: Value, status: Value) -> Value {
    let mut answer = Map::new();
    let version = format!("{}/v1", review.group());
    answer.insert("kind".to_owned(), json!(review.kind()));
    answer.insert("apiVersion".to_owned(), json!(version));
    let (mut metadata, mut spec) = (json!({}), json!({}));
    if let Value::Object(mut body) = body {
        metadata = body.remove("metadata").unwrap_or(metadata);
        spec = body.remove("spec").unwrap_or(spec);
    }
    if let Value::Object(metadata) = &mut metadata {
        metadata.entry("creationTimestamp").or_insert(Value::Null);
    }
    answer.insert("metadata".to_owned(), metadata);
    if review != Review::SelfSubject {
        answer.insert("spec".to_owned(), spec);
    }
    answer.insert("status".to_owned(), status);
    Value::Object(answer)
}
