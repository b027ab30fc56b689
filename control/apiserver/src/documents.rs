//! Everything that is not an object: health, discovery, OpenAPI, version, metrics, keys of tokens.

use http::header::{
    ACCEPT, CACHE_CONTROL, ETAG, EXPIRES, HeaderValue, IF_NONE_MATCH, LOCATION, VARY,
};
use http::{HeaderMap, Method, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use meshgate_schema::{AggregatedVersion, DiscoveryScope, Failure, Registry};
use serde_json::{Value, json};

use crate::health;
use crate::http::answer;
use crate::http::body::{Body, whole};
use crate::http::media::{self, Discovery, Format};
use crate::http::query::Query;
use crate::metrics::Now;
use crate::objects::prefix;
use crate::server::Server;

/// The Kubernetes API that is served; clients compare it with their own version.
const KUBERNETES_MINOR: &str = "36";
/// What clients ask for; answered under [`OPENAPI_V2_PROTOBUF_SENT`], as Kubernetes does: `@` is no token character.
const OPENAPI_V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const OPENAPI_V2_PROTOBUF_SENT: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// A document under its hash never changes.
const OPENAPI_LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);
const AGGREGATED_V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Answers the path of a document.
pub(crate) fn answer(
    server: &Server,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    query: &Query,
) -> Response<Body> {
    if let Some(response) = health::answer(server, path, query) {
        return response;
    }
    let registry = server.live.registry();
    let format = match media::negotiate(headers, query.find("pretty"), true) {
        Ok(format) => Format {
            shape: media::Shape::Whole,
            ..format
        },
        Err(_) => Format::JSON,
    };
    let page = Page {
        server,
        registry: &registry,
        headers,
        query,
        format,
    };
    if *method != Method::GET && *method != Method::HEAD {
        return page.failure(&Failure::method_not_allowed());
    }
    page.answer(path)
}

/// A request for a document.
struct Page<'a> {
    server: &'a Server,
    registry: &'a Registry,
    headers: &'a HeaderMap,
    query: &'a Query,
    format: Format,
}

impl Page<'_> {
    fn answer(&self, path: &str) -> Response<Body> {
        let trimmed = path
            .strip_suffix('/')
            .filter(|rest| !rest.is_empty())
            .unwrap_or(path);
        let parts: Vec<&str> = trimmed.split('/').skip(1).collect();
        match parts.as_slice() {
            [""] => self.value(&self.paths()),
            ["version"] => self.value(&version()),
            ["metrics"] => self.metrics(),
            ["api"] => self.discovery(DiscoveryScope::Core),
            ["apis"] => self.discovery(DiscoveryScope::Groups),
            ["api", version] => {
                self.or_missing(self.registry.resource_list("", version), "", version)
            }
            ["apis", group] => self.or_missing(self.registry.group_document(group), group, ""),
            ["apis", group, version] => {
                self.or_missing(self.registry.resource_list(group, version), group, version)
            }
            ["openapi", "v2"] => self.openapi_v2(),
            ["openapi", "v3"] => self.value(&self.registry.openapi_v3_index()),
            ["openapi", "v3", rest @ ..] => self.openapi_v3(&rest.join("/")),
            [".well-known", "openid-configuration"] => {
                self.value(&self.server.live.auth.openid_configuration())
            }
            ["openid", "v1", "jwks"] => {
                let keys = answer::json(&self.server.live.auth.jwks(), false);
                answer::bytes(200, "application/jwk-set+json", keys)
            }
            _ => answer::no_such_page(),
        }
    }

    fn value(&self, value: &Value) -> Response<Body> {
        answer::value(200, self.format, self.registry, value)
    }

    fn failure(&self, failure: &Failure) -> Response<Body> {
        answer::failure(self.format, self.registry, failure)
    }

    fn or_missing(&self, value: Option<Value>, group: &str, version: &str) -> Response<Body> {
        match value {
            Some(value) => self.value(&value),
            None if is_nowhere(self.registry, group, version) => answer::no_such_page(),
            None => self.failure(&Failure::no_such_resource()),
        }
    }

    fn discovery(&self, scope: DiscoveryScope) -> Response<Body> {
        if media::discovery(self.headers) == Discovery::Legacy {
            return varying(match scope {
                DiscoveryScope::Core => self.value(
                    &self
                        .registry
                        .api_versions(&self.server.advertise.to_string()),
                ),
                DiscoveryScope::Groups => self.value(&self.registry.group_list()),
            });
        }
        let aggregated = self.registry.aggregated(scope, AggregatedVersion::V2);
        let tag = format!("\"{}\"", aggregated.etag);
        let known = self
            .headers
            .get(IF_NONE_MATCH)
            .is_some_and(|known| known.as_bytes() == tag.as_bytes());
        let mut response = if known {
            empty(StatusCode::NOT_MODIFIED)
        } else {
            answer::bytes(
                200,
                AGGREGATED_V2,
                answer::json(&aggregated.document, false),
            )
        };
        tagged(&mut response, &tag);
        varying(response)
    }

    fn openapi_v2(&self) -> Response<Body> {
        if media::prefers(self.headers, OPENAPI_V2_PROTOBUF) {
            return answer::bytes(
                200,
                OPENAPI_V2_PROTOBUF_SENT,
                self.registry.openapi_v2_protobuf(),
            );
        }
        let body = self.registry.openapi_v2();
        let tag = format!("\"{:016X}\"", fingerprint(&body));
        let mut response = answer::bytes(200, "application/json", body);
        tagged(&mut response, &tag);
        response
    }

    fn openapi_v3(&self, path: &str) -> Response<Body> {
        let Some(hash) = self.registry.openapi_v3_hash(path) else {
            return empty(StatusCode::NOT_FOUND);
        };
        let wanted = self.query.find("hash");
        if wanted.is_some_and(|wanted| wanted != hash) {
            let mut response = empty(StatusCode::MOVED_PERMANENTLY);
            if let Ok(location) = HeaderValue::try_from(format!("/openapi/v3/{path}?hash={hash}")) {
                response.headers_mut().insert(LOCATION, location);
            }
            return response;
        }
        let tag = format!("\"{hash}\"");
        if self
            .headers
            .get(IF_NONE_MATCH)
            .is_some_and(|known| known.as_bytes() == tag.as_bytes())
        {
            let mut response = empty(StatusCode::NOT_MODIFIED);
            tagged(&mut response, &tag);
            return response;
        }
        match self.registry.openapi_v3(path) {
            Some(body) => {
                let mut response = answer::bytes(200, "application/json", body);
                tagged(&mut response, &tag);
                if wanted.is_some() {
                    response
                        .headers_mut()
                        .insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
                    let end = Timestamp::now()
                        .saturating_add(OPENAPI_LIFE)
                        .unwrap_or(Timestamp::MAX);
                    if let Ok(end) =
                        HeaderValue::try_from(end.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
                    {
                        response.headers_mut().insert(EXPIRES, end);
                    }
                }
                response
            }
            None => empty(StatusCode::NOT_FOUND),
        }
    }

    fn metrics(&self) -> Response<Body> {
        let kinds = self.registry.kinds().filter(|kind| !kind.is_virtual());
        let mut objects: Vec<(String, String, usize)> = kinds
            .map(|kind| {
                let (group, resource) = kind.storage_resource();
                (
                    group.to_owned(),
                    resource.to_owned(),
                    self.server.store.count(&prefix(kind, "")),
                )
            })
            .collect();
        objects.sort();
        objects.dedup();
        let now = Now {
            in_flight: self.server.gate.in_flight(),
            objects,
        };
        answer::bytes(
            200,
            "text/plain; version=0.0.4; charset=utf-8",
            self.server.metrics.encode(&now),
        )
    }

    fn paths(&self) -> Value {
        let mut paths = vec![
            "/.well-known/openid-configuration".to_owned(),
            "/api".into(),
            "/api/v1".into(),
            "/apis".into(),
            "/apis/".into(),
        ];
        for kind in self
            .registry
            .kinds()
            .filter(|kind| !kind.group().is_empty())
        {
            paths.push(format!("/apis/{}", kind.group()));
            paths.push(format!("/apis/{}/{}", kind.group(), kind.version()));
        }
        let health = ["", "/etcd", "/ping"];
        for root in ["/healthz", "/livez", "/readyz"] {
            paths.extend(health.iter().map(|check| format!("{root}{check}")));
        }
        for path in [
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            "/openapi/v3/",
            "/openid/v1/jwks",
            "/readyz/shutdown",
            "/version",
        ] {
            paths.push(path.into());
        }
        paths.sort();
        paths.dedup();
        json!({"paths": paths})
    }
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": KUBERNETES_MINOR,
        "emulationMajor": "1",
        "emulationMinor": KUBERNETES_MINOR,
        "gitVersion": format!("v1.{KUBERNETES_MINOR}.0+meshgate.{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    })
}

/// The architecture by the name that Kubernetes uses.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn tagged(response: &mut Response<Body>, tag: &str) {
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(ETAG, tag);
    }
}

fn varying(mut response: Response<Body>) -> Response<Body> {
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_name(ACCEPT));
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(whole(Vec::new()));
    *response.status_mut() = status;
    response
}

/// Whether nobody has ever heard of a group version. Kubernetes answers such a path with a plain page, and an
/// unknown version or resource of a group of its own with a Status.
pub(crate) fn is_nowhere(registry: &Registry, group: &str, version: &str) -> bool {
    let own = registry
        .kinds()
        .any(|kind| kind.group() == group && !kind.is_custom());
    !own && !registry.has_version(group, version)
}

/// Tells contents apart; not for security.
fn fingerprint(body: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hasher as _};
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    hasher.finish()
}
