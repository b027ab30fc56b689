//! Rules that demand more than a path, as the control plane pushes them, asked over HTTP/1 and HTTP/2.

use std::sync::Arc;

use http::Request;
use meshgate_api::push as wire;
use meshgate_proxy::push::convert;
use meshgate_proxy::{Policy, Protocol, Rule, Service, ServiceSpec, Services, Snapshot};
use meshgate_routing::route::{HostRules, RouteTable};

use crate::kit::{Origin, Proxy, endpoint, field, ok, service, status_of};
use crate::ways::ask_http2;

/// Rules of `a.test`, and what each of them answers.
fn rules() -> Vec<(wire::Rule, &'static str)> {
    use wire::path_match::Kind;
    let rule = |kind: Kind, path: &str| wire::Rule {
        path: Some(wire::PathMatch {
            kind: kind.into(),
            value: path.to_owned(),
        }),
        ..wire::Rule::default()
    };
    let fields = |fields: &[(&str, &str, bool)]| {
        let field = |&(name, value, regex): &(&str, &str, bool)| wire::FieldMatch {
            name: name.to_owned(),
            value: value.to_owned(),
            regex,
        };
        fields.iter().map(field).collect::<Vec<_>>()
    };
    let api = rule(Kind::Prefix, "/api");
    vec![
        (api.clone(), "api"),
        (
            wire::Rule {
                method: "POST".to_owned(),
                ..api.clone()
            },
            "post",
        ),
        (
            wire::Rule {
                headers: fields(&[("X-Plan", "gold", false)]),
                ..api.clone()
            },
            "gold",
        ),
        (
            wire::Rule {
                headers: fields(&[("x-list", "a, b.*", true), ("Host", "a.test", false)]),
                ..api.clone()
            },
            "list",
        ),
        (
            wire::Rule {
                query: fields(&[("q", "a b", false), ("page", "[0-9]+", true)]),
                ..api
            },
            "page",
        ),
        (
            wire::Rule {
                method: "DELETE".to_owned(),
                ..rule(Kind::Exact, "/api/x")
            },
            "delete",
        ),
        (
            wire::Rule {
                method: "GET".to_owned(),
                ..rule(Kind::Regex, "/v[0-9]+/items")
            },
            "items",
        ),
    ]
}

struct Site {
    proxy: Proxy,
    _origins: Vec<Origin>,
}

impl Site {
    async fn start() -> Self {
        let (mut origins, mut services, mut pushed) = (Vec::new(), Vec::new(), Vec::new());
        let any = wire::Rule {
            path: Some(wire::PathMatch::default()),
            ..wire::Rule::default()
        };
        let any = (any, "any");
        for (rule, name) in rules().into_iter().chain([any]) {
            let origin = Origin::start(ok(name)).await;
            let spec = ServiceSpec {
                name: name.into(),
                protocol: Protocol::Auto,
                addresses: vec![],
                endpoints: vec![endpoint(origin.address, name)],
                policy: Policy::default(),
            };
            services.push(Arc::new(Service::new(spec, None)));
            origins.push(origin);
            pushed.push(wire::Rule {
                service: name.to_owned(),
                ..rule
            });
        }
        let proxy = Proxy::edge(service(&[], Policy::default()));
        // Any host has one for paths that the host has no rule for.
        let any = pushed.split_off(pushed.len() - 1);
        proxy.engine.swap(Snapshot {
            routes: RouteTable::new([host("a.test", pushed), host("*", any)]),
            services: Services::new(services, false),
            ..Snapshot::default()
        });
        Self {
            proxy,
            _origins: origins,
        }
    }

    /// `METHOD target field=value …`; who answers, over both versions.
    async fn check(&self, request: &str, expected: &str) {
        let mut words = request.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let fields: Vec<(&str, &str)> = words.map(|word| word.split_once('=').unwrap()).collect();
        let shown = self.over_http1(method, target, &fields).await;
        assert_eq!(shown, expected, "{request} over HTTP/1");
        let shown = self.over_http2(method, target, &fields).await;
        assert_eq!(shown, expected, "{request} over HTTP/2");
    }

    async fn over_http1(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> String {
        let fields: String = fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{fields}\r\n"
        );
        let answer = self.proxy.raw(&request).await;
        match status_of(&answer) {
            200 => answer.rsplit("\r\n").next().unwrap_or_default().to_owned(),
            _ => field(&answer, "meshgate-reason").unwrap().to_owned(),
        }
    }

    async fn over_http2(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> String {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://a.test{target}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let answer = ask_http2(self.proxy.address(), request, &[], None).await;
        let answer = answer.unwrap();
        match answer.status {
            200 => answer.body.unwrap().0,
            _ => {
                let reason = &answer.fields["meshgate-reason"];
                reason.to_str().unwrap().to_owned()
            }
        }
    }
}

fn host(
    name: &str,
    rules: Vec<wire::Rule>,
) -> (meshgate_routing::route::HostName, Arc<HostRules<Rule>>) {
    let host = convert::edge_host(wire::EdgeHost {
        host: name.to_owned(),
        rules,
        ..wire::EdgeHost::default()
    })
    .unwrap();
    let rules = host.rules.into_iter().map(|rule| {
        let compiled = Rule {
            target: rule.target,
            origin: rule.origin,
            index: rule.index,
            limits: Vec::new(),
            access: None,
        };
        (rule.matches, compiled)
    });
    (host.host, Arc::new(HostRules::new(rules)))
}

#[tokio::test]
async fn a_request_goes_where_all_that_a_rule_demands_is_met() {
    let site = Site::start().await;
    site.check("GET /api/x", "api").await;
    site.check("POST /api/x?q=a%20b&page=1 x-plan=gold", "post")
        .await;
    site.check("PUT /api x-plan=gold", "gold").await;
    site.check("PUT /api x-plan=silver", "api").await;
    site.check("PUT /api x-list=a x-list=b2", "list").await;
    site.check("PUT /api x-list=b2 x-list=a", "api").await;
    site.check("PUT /api x-plan=gold x-list=a x-list=b", "list")
        .await;
    site.check("GET /api/y?page=12&%71=a%20b&page=x", "page")
        .await;
    site.check("GET /api/y?page=x&q=a%20b&page=12", "api").await;
    site.check("DELETE /api/x", "delete").await;
    site.check("DELETE /api/x/", "api").await;
    site.check("GET /v12/items?x=1", "items").await;
    site.check("GET /v12/items/1", "any").await;
    site.check(
        "PUT /v12/items",
        "no-route; path \"/v12/items\" with this method, these header fields and this query",
    )
    .await;
}
