//! Who sends a request: its connection's certificate, else its bearer token, else nobody; then whom it impersonates.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::user::{service_account_groups, service_account_of};
use super::{ANONYMOUS, Attributes, Auth, Denied, ISSUER, UNAUTHENTICATED, User, certificate};

/// Browsers cannot set headers on WebSockets: the token travels as a protocol with this prefix.
const WEBSOCKET_BEARER: &str = "base64url.bearer.authorization.k8s.io.";
/// Groups and extras that one request may impersonate; each costs an authorization.
const IMPERSONATED_MAX: usize = 64;

/// What of a request tells who sent it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub path: &'a str,
    pub headers: &'a HeaderMap,
    /// The connection's client certificates, verified in the handshake; leaf first.
    pub peer: Option<&'a [CertificateDer<'a>]>,
}

impl Auth {
    /// The user of a request, after impersonation.
    pub(crate) fn authenticate(
        &self,
        request: &Request<'_>,
        now: Timestamp,
    ) -> Result<User, Denied> {
        let user = self.sender(request, now)?;
        match impersonated(request.headers)? {
            None => Ok(user),
            Some(wanted) => self.impersonate(&user, wanted),
        }
    }

    fn sender(&self, request: &Request<'_>, now: Timestamp) -> Result<User, Denied> {
        if let Some(leaf) = request.peer.and_then(<[_]>::first) {
            return certificate::user(leaf, now)
                .map_err(|why| Denied::Unauthorized(why.to_owned()));
        }
        if let Some(token) = bearer(request.headers)? {
            return self
                .token_user(&token, &[ISSUER.to_owned()], now)
                .map(|(user, _)| user)
                .map_err(|why| Denied::Unauthorized(why.to_string()));
        }
        if is_health(request.path) {
            return Ok(User::anonymous());
        }
        Err(Denied::Unauthorized("no credentials".to_owned()))
    }

    fn impersonate(&self, user: &User, mut wanted: User) -> Result<User, Denied> {
        let may = |group, resource, subresource: &str, namespace: &str, name: &str| {
            self.authorize(
                user,
                &Attributes::Resource {
                    verb: "impersonate",
                    group,
                    resource,
                    subresource,
                    namespace,
                    name,
                },
            )
        };
        let account = service_account_of(&wanted.name);
        match account {
            Some((namespace, name)) => may("", "serviceaccounts", "", namespace, name)?,
            None => may("", "users", "", "", &wanted.name)?,
        }
        let default_groups = account.map(|(namespace, _)| service_account_groups(namespace));
        for group in &wanted.groups {
            may("", "groups", "", "", group)?;
        }
        if !wanted.uid.is_empty() {
            may("authentication.k8s.io", "uids", "", "", &wanted.uid)?;
        }
        for (key, values) in &wanted.extra {
            for value in values {
                may("authentication.k8s.io", "userextras", key, "", value)?;
            }
        }
        if wanted.groups.is_empty() {
            wanted.groups = default_groups.unwrap_or_default();
        }
        if wanted.name == ANONYMOUS {
            if !wanted.in_group(UNAUTHENTICATED) {
                wanted.groups.push(UNAUTHENTICATED.to_owned());
            }
            return Ok(wanted);
        }
        Ok(wanted.authenticated())
    }
}

/// Paths that anybody may ask: probes have no credentials.
fn is_health(path: &str) -> bool {
    let mut segments = path.trim_start_matches('/').split('/');
    matches!(segments.next(), Some("livez" | "readyz" | "healthz"))
}

/// The bearer token of a request. A header that is there but is no bearer token counts as bad credentials.
fn bearer(headers: &HeaderMap) -> Result<Option<String>, Denied> {
    let bad = |why: &str| Denied::Unauthorized(why.to_owned());
    let mut values = headers.get_all(AUTHORIZATION).iter();
    if let Some(value) = values.next() {
        if values.next().is_some() {
            return Err(bad("more than one Authorization header"));
        }
        let value = value
            .to_str()
            .map_err(|_| bad("the Authorization header is not text"))?;
        let (scheme, token) = value.trim().split_once(' ').unwrap_or((value, ""));
        let token = token.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
            return Err(bad("the Authorization header holds no bearer token"));
        }
        return Ok(Some(token.to_owned()));
    }
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let mut protocols = protocols.filter_map(|value| value.to_str().ok());
    let encoded = protocols.find_map(|list| {
        let mut protocols = list.split(',').map(str::trim);
        protocols.find_map(|protocol| protocol.strip_prefix(WEBSOCKET_BEARER))
    });
    let Some(encoded) = encoded else {
        return Ok(None);
    };
    let token = URL_SAFE_NO_PAD.decode(encoded).ok();
    let token = token.and_then(|token| String::from_utf8(token).ok());
    token
        .map(Some)
        .ok_or_else(|| bad("the WebSocket protocol holds no bearer token"))
}

/// Whom the `Impersonate-*` headers name, if there are any.
fn impersonated(headers: &HeaderMap) -> Result<Option<User>, Denied> {
    let refused = |why: &str| Denied::Forbidden(format!("impersonation: {why}"));
    let text = |value: &http::HeaderValue| {
        let text = value.to_str().map(str::to_owned);
        text.map_err(|_| refused("a header is not text"))
    };
    let mut user = User::default();
    let mut count = 0;
    for (name, value) in headers {
        let Some(part) = name.as_str().strip_prefix("impersonate-") else {
            continue;
        };
        count += 1;
        match part {
            "user" if user.name.is_empty() => user.name = text(value)?,
            "user" => return Err(refused("more than one user")),
            "uid" => user.uid = text(value)?,
            "group" => user.groups.push(text(value)?),
            _ => {
                let key = part.strip_prefix("extra-");
                let key = key.ok_or_else(|| refused("an unknown header"))?;
                let values = user.extra.entry(unescape(key)).or_default();
                values.push(text(value)?);
            }
        }
    }
    match (count, user.name.is_empty()) {
        (0, _) => Ok(None),
        (_, true) => Err(refused("a user must be named")),
        (IMPERSONATED_MAX.., _) => Err(refused("too many headers")),
        _ => Ok(Some(user)),
    }
}

/// Keys of extras are percent-encoded in header names; what is not valid stays as it is.
fn unescape(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let decoded = tail
            .get(..2)
            .filter(|_| byte == b'%')
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match decoded {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &tail[2..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}
