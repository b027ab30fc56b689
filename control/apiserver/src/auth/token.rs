//! Service-account tokens: signed by us, bound to live objects, gone with them (KEP-1205).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use meshgate_schema::{Failure, FieldError};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::live::Live;
use super::user::service_account_groups;
use super::{Auth, ISSUER, SERVICE_ACCOUNT_PREFIX, User, node};

/// Shortest life of a token that may be asked for.
const LIFE_S_MIN: i64 = 600;
/// Longest: as in Kubernetes, where the field is an unsigned 32-bit number of seconds.
const LIFE_S_MAX: i64 = 1 << 32;
const LIFE_S_DEFAULT: i64 = 3600;
/// Tokens whose signatures are remembered; checking one costs 50 µs or more, and clients send the same with every request.
const VERIFIED_MAX: usize = 4096;
/// Audiences of one token; each is compared with each that is accepted.
const AUDIENCES_MAX: usize = 32;

/// What a verified token says.
#[derive(Clone, Debug)]
struct Claims {
    audiences: Vec<String>,
    not_before_s: i64,
    expires_s: i64,
    id: String,
    namespace: String,
    account: Bound,
    pod: Option<Bound>,
    secret: Option<Bound>,
    node: Option<Bound>,
}

/// An object that a token lives and dies with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bound {
    name: String,
    uid: String,
}

/// Tokens whose signature was found good, by digest. Time, audience and live objects are checked each time.
#[derive(Default)]
pub(super) struct Verified(Mutex<HashMap<[u8; 32], Claims>>);

impl Auth {
    /// The user of a token, and which of `accepted` audiences it is for.
    pub(super) fn token_user(
        &self,
        token: &str,
        accepted: &[String],
        now: Timestamp,
    ) -> Result<(User, Vec<String>), Invalid> {
        let claims = self.claims(token)?;
        let now_s = now.as_second();
        if claims.expires_s <= now_s {
            return Err(Invalid::Expired);
        }
        if now_s < claims.not_before_s {
            return Err(Invalid::NotYet);
        }
        let audiences: Vec<String> = accepted
            .iter()
            .filter(|audience| claims.audiences.contains(audience))
            .cloned()
            .collect();
        if audiences.is_empty() {
            return Err(Invalid::Audience);
        }
        claims.check_live(&self.read().live)?;
        Ok((claims.user(), audiences))
    }

    fn claims(&self, token: &str) -> Result<Claims, Invalid> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let verified = &self.verified.0;
        let remembered = verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(claims) = remembered.get(&digest) {
            return Ok(claims.clone());
        }
        drop(remembered);
        let claims = self.key.verify(token).map_err(Invalid::Unverified)?;
        let claims = Claims::of(&claims).ok_or(Invalid::Claims)?;
        let mut remembered = verified.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= VERIFIED_MAX {
            remembered.clear();
        }
        remembered.insert(digest, claims.clone());
        Ok(claims)
    }

    /// `serviceaccounts/NAME/token`: a new token for an account, from a TokenRequest.
    pub fn create_token(
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
            let uid = live
                .account_uid(namespace, service_account)
                .ok_or_else(|| Failure::not_found("", "serviceaccounts", service_account))?;
            let account = Bound {
                name: service_account.to_owned(),
                uid: uid.to_owned(),
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
                ("pods", pod.map(|pod| &*pod.uid))
            }
            "secret" => ("secrets", live.secret_uid(namespace, name)),
            _ => ("nodes", live.node_uid(name)),
        };
        let found = found.ok_or_else(|| Failure::not_found("", resource, name))?;
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
            uid: live.node_uid(node)?.to_owned(),
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

impl Claims {
    /// `None` when a claim that ours always have is missing or of another type, or the issuer is another.
    fn of(claims: &Value) -> Option<Self> {
        if claims["iss"].as_str()? != ISSUER {
            return None;
        }
        let audiences = match &claims["aud"] {
            Value::String(one) => vec![one.clone()],
            Value::Array(several) => several
                .iter()
                .map(|one| one.as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
            _ => return None,
        };
        let objects = &claims["kubernetes.io"];
        let namespace = objects["namespace"].as_str()?.to_owned();
        let account = Bound::of(&objects["serviceaccount"])?;
        let subject = format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{}", account.name);
        if claims["sub"].as_str()? != subject {
            return None;
        }
        let bound = |kind: &str| match &objects[kind] {
            Value::Null => Some(None),
            object => Bound::of(object).map(Some),
        };
        Some(Self {
            audiences,
            not_before_s: claims["nbf"].as_i64()?,
            expires_s: claims["exp"].as_i64()?,
            id: claims["jti"].as_str().unwrap_or_default().to_owned(),
            account,
            pod: bound("pod")?,
            secret: bound("secret")?,
            node: bound("node")?,
            namespace,
        })
    }

    /// Everything that the token is bound to must still be there, and be the same.
    fn check_live(&self, live: &Live) -> Result<(), Invalid> {
        let namespace = &self.namespace;
        let uid = live.account_uid(namespace, &self.account.name);
        if uid != Some(&self.account.uid) {
            return Err(Invalid::Gone("service account"));
        }
        if let Some(pod) = &self.pod {
            let found = live.pod(namespace, &pod.name);
            if found.is_none_or(|found| *found.uid != *pod.uid) {
                return Err(Invalid::Gone("pod"));
            }
        }
        if let Some(secret) = &self.secret
            && live.secret_uid(namespace, &secret.name) != Some(&secret.uid)
        {
            return Err(Invalid::Gone("secret"));
        }
        // A pod's token also names its node, for information; only a token bound to a node dies with it.
        if let (Some(node), None) = (&self.node, &self.pod)
            && live.node_uid(&node.name) != Some(&node.uid)
        {
            return Err(Invalid::Gone("node"));
        }
        Ok(())
    }

    fn user(&self) -> User {
        let (namespace, account) = (&self.namespace, &self.account);
        let mut user = User {
            name: format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{}", account.name),
            uid: account.uid.clone(),
            groups: service_account_groups(namespace),
            ..User::default()
        };
        let mut extra = |key: &str, value: &str| {
            let key = format!("authentication.kubernetes.io/{key}");
            user.extra.insert(key, vec![value.to_owned()]);
        };
        if !self.id.is_empty() {
            extra("credential-id", &format!("JTI={}", self.id));
        }
        if let Some(pod) = &self.pod {
            extra("pod-name", &pod.name);
            extra("pod-uid", &pod.uid);
        }
        if let Some(node) = &self.node {
            extra("node-name", &node.name);
            extra("node-uid", &node.uid);
        }
        user.authenticated()
    }
}

impl Bound {
    fn of(object: &Value) -> Option<Self> {
        Some(Self {
            name: object["name"].as_str()?.to_owned(),
            uid: object["uid"].as_str()?.to_owned(),
        })
    }

    fn to_json(&self) -> Value {
        json!({"name": self.name, "uid": self.uid})
    }
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Invalid {
    #[error("invalid bearer token: {0}")]
    Unverified(super::jwt::Unverified),
    #[error("invalid bearer token: not a service-account token of this cluster")]
    Claims,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token's {0} no longer exists")]
    Gone(&'static str),
}
