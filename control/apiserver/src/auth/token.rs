//! Service-account tokens: signed by us, bound to live objects, gone with them (KEP-1205).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::live::{Life, Live};
use super::user::service_account_groups;
use super::{Auth, ISSUER, SERVICE_ACCOUNT_PREFIX, User};

/// Tokens whose signatures are remembered; checking one costs 50 µs or more, and clients send the same with every request.
const VERIFIED_MAX: usize = 4096;
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
pub(super) struct Bound {
    pub(super) name: String,
    pub(super) uid: String,
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
        claims.check_live(&self.read().live, now)?;
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
    fn check_live(&self, live: &Live, now: Timestamp) -> Result<(), Invalid> {
        let namespace = &self.namespace;
        let check = |kind: &'static str, bound: &Bound, found: Option<&Life>| {
            if found.is_some_and(|life| life.is(&bound.uid, now)) {
                Ok(())
            } else {
                Err(Invalid::Gone(kind))
            }
        };
        let account = &self.account;
        check(
            "service account",
            account,
            live.account(namespace, &account.name),
        )?;
        if let Some(secret) = &self.secret {
            check("secret", secret, live.secret(namespace, &secret.name))?;
        }
        match (&self.pod, &self.node) {
            // A pod's token also names its node, for information; only a token bound to a node dies with it.
            (Some(pod), _) => {
                let found = live.pod(namespace, &pod.name);
                check("pod", pod, found.map(|found| &found.life))
            }
            (None, Some(node)) => check("node", node, live.node(&node.name)),
            (None, None) => Ok(()),
        }
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

    pub(super) fn to_json(&self) -> Value {
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
