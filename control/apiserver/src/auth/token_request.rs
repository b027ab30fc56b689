//! `serviceaccounts/NAME/token`: new tokens, for who may have them (KEP-1205).

use jiff::{SignedDuration, Timestamp};
use meshgate_schema::{Failure, FieldError};
use serde_json::{Value, json};

use super::live::Live;
use super::token::Bound;
use super::{Auth, ISSUER, SERVICE_ACCOUNT_PREFIX, User, node};

/// Shortest life of a token that may be asked for.
const LIFE_S_MIN: i64 = 600;
/// Longest: as in Kubernetes, where the field is an unsigned 32-bit number of seconds.
const LIFE_S_MAX: i64 = 1 << 32;
const LIFE_S_DEFAULT: i64 = 3600;
/// Audiences of one token; each is compared with each that is accepted.
const AUDIENCES_MAX: usize = 32;

impl Auth {
    /// `serviceaccounts/NAME/token`: a new token for an account, from a TokenRequest.
    pub(crate) fn create_token(
        &self,
        user: &User,
        namespace: &str,
        service_account: &str,
        body: Value,
        now: Timestamp,
    ) -> Result<Value, Failure> {
        let wanted = Wanted::of(&body, service_account)?;
        let (account, bound, bound_node) = {
            let state = self.read();
            let live = &state.live;
            let found = live.account(namespace, service_account);
            let found =
                found.ok_or_else(|| Failure::not_found("", "serviceaccounts", service_account))?;
            let account = Bound {
                name: service_account.to_owned(),
                uid: found.uid.to_string(),
            };
            if let Some(node) = node::name_of(user) {
                wanted.permit_node(node, namespace, service_account, live)?;
            }
            let bound = wanted.bind(namespace, service_account, live)?;
            let bound_node = wanted.node_of_pod(namespace, live);
            (account, bound, bound_node)
        };
        let mut objects = json!({
            "namespace": namespace,
            "serviceaccount": account.to_json(),
        });
        if let Some((kind, object)) = bound {
            objects[kind] = object.to_json();
        }
        if let Some(node) = bound_node {
            objects["node"] = node.to_json();
        }
        let now_s = now.as_second();
        let expires_s = now_s.saturating_add(wanted.life_s);
        let claims = json!({
            "iss": ISSUER,
            "sub": format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{service_account}"),
            "aud": wanted.audiences,
            "jti": uuid::Uuid::new_v4().to_string(),
            "iat": now_s,
            "nbf": now_s,
            "exp": expires_s,
            "kubernetes.io": objects,
        });
        let token = self.key.sign(&claims);
        let token = token.ok_or_else(|| Failure::internal("cannot sign a token"))?;
        Ok(wanted.answer(body, namespace, service_account, token, now))
    }
}

/// A TokenRequest, checked.
struct Wanted {
    audiences: Vec<String>,
    life_s: i64,
    object: Option<WantedObject>,
}

struct WantedObject {
    kind: &'static str,
    name: String,
    uid: String,
}

impl Wanted {
    fn of(body: &Value, service_account: &str) -> Result<Self, Failure> {
        let invalid = |field: &str, value: &Value, detail: &str| {
            let error = FieldError::invalid(field, value.clone(), detail);
            Failure::invalid(
                "authentication.k8s.io",
                "TokenRequest",
                service_account,
                &[error],
            )
        };
        let spec = &body["spec"];
        let audiences = spec["audiences"].as_array().into_iter().flatten();
        let mut audiences: Vec<String> = audiences
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if audiences.len() > AUDIENCES_MAX {
            return Err(invalid(
                "spec.audiences",
                &spec["audiences"],
                "too many audiences",
            ));
        }
        if audiences.is_empty() {
            audiences.push(ISSUER.to_owned());
        }
        let seconds = &spec["expirationSeconds"];
        let life_s = match seconds {
            Value::Null => LIFE_S_DEFAULT,
            seconds => seconds.as_i64().unwrap_or(0),
        };
        if life_s < LIFE_S_MIN {
            let detail = "may not specify a duration less than 10 minutes";
            return Err(invalid("spec.expirationSeconds", seconds, detail));
        }
        if life_s > LIFE_S_MAX {
            let detail = "may not specify a duration larger than 2^32 seconds";
            return Err(invalid("spec.expirationSeconds", seconds, detail));
        }
        let reference = &spec["boundObjectRef"];
        let object = match reference {
            Value::Null => None,
            reference => Some(WantedObject {
                kind: match (reference["kind"].as_str(), reference["apiVersion"].as_str()) {
                    (Some("Pod"), Some("v1")) => "pod",
                    (Some("Secret"), Some("v1")) => "secret",
                    (Some("Node"), Some("v1")) => "node",
                    _ => {
                        return Err(Failure::bad_request(
                            "cannot bind token to this kind of object: Pod, Secret or Node of v1",
                        ));
                    }
                },
                name: reference["name"].as_str().unwrap_or_default().to_owned(),
                uid: reference["uid"].as_str().unwrap_or_default().to_owned(),
            }),
        };
        Ok(Self {
            audiences,
            life_s,
            object,
        })
    }

    /// The live object that the token is bound to.
    fn bind(
        &self,
        namespace: &str,
        service_account: &str,
        live: &Live,
    ) -> Result<Option<(&'static str, Bound)>, Failure> {
        let Some(WantedObject { kind, name, uid }) = &self.object else {
            return Ok(None);
        };
        let (resource, found) = match *kind {
            "pod" => {
                let pod = live.pod(namespace, name);
                if pod.is_some_and(|pod| *pod.service_account != *service_account) {
                    return Err(Failure::bad_request(format!(
                        "cannot bind token for serviceaccount {service_account:?} to pod running \
                         with different serviceaccount name."
                    )));
                }
                ("pods", pod.map(|pod| &pod.life))
            }
            "secret" => ("secrets", live.secret(namespace, name)),
            _ => ("nodes", live.node(name)),
        };
        let found = found.ok_or_else(|| Failure::not_found("", resource, name))?;
        let found = &*found.uid;
        if !uid.is_empty() && uid != found {
            let message = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record \
                 ({found}). The object might have been deleted and then recreated"
            );
            return Err(Failure::conflict("", resource, name, &message));
        }
        let bound = Bound {
            name: name.clone(),
            uid: found.to_owned(),
        };
        Ok(Some((kind, bound)))
    }

    /// The node of the pod that the token is bound to: the token says where it may come from.
    fn node_of_pod(&self, namespace: &str, live: &Live) -> Option<Bound> {
        let object = self.object.as_ref().filter(|object| object.kind == "pod")?;
        let node = &live.pod(namespace, &object.name)?.node;
        Some(Bound {
            name: node.to_string(),
            uid: live.node(node)?.uid.to_string(),
        })
    }

    /// Nodes get tokens only for pods that run on them, and only for audiences that those pods ask for.
    fn permit_node(
        &self,
        node: &str,
        namespace: &str,
        service_account: &str,
        live: &Live,
    ) -> Result<(), Failure> {
        let refused = |why: &str| {
            let message = format!("node {node:?} cannot request this token: {why}");
            Err(Failure::forbidden(
                "",
                "serviceaccounts",
                service_account,
                &message,
            ))
        };
        let Some(object) = self.object.as_ref().filter(|object| object.kind == "pod") else {
            return refused("it must be bound to a pod");
        };
        let Some(pod) = live.pod(namespace, &object.name) else {
            return Err(Failure::not_found("", "pods", &object.name));
        };
        if *pod.node != *node {
            return refused("the pod is bound to another node");
        }
        let wants =
            |audience: &String| audience == ISSUER || pod.audiences.contains(audience.as_str());
        if !self.audiences.iter().all(wants) {
            return refused("the pod does not ask for this audience");
        }
        Ok(())
    }

    /// The TokenRequest as it was asked, completed.
    fn answer(
        &self,
        body: Value,
        namespace: &str,
        service_account: &str,
        token: String,
        now: Timestamp,
    ) -> Value {
        let life = SignedDuration::from_secs(self.life_s);
        let expires = now.saturating_add(life).unwrap_or(now);
        let mut spec = json!({
            "audiences": self.audiences,
            "expirationSeconds": self.life_s,
        });
        spec["boundObjectRef"] = body["spec"]["boundObjectRef"].clone();
        json!({
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": service_account,
                "namespace": namespace,
                "creationTimestamp": meshgate_schema::time::rfc3339(now),
            },
            "spec": spec,
            "status": {"token": token, "expirationTimestamp": meshgate_schema::time::rfc3339(expires)},
        })
    }
}
