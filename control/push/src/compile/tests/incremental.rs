//! After any sequence of changes, the incremental result equals a compilation from scratch.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::LazyLock,
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{CLASS, World, certificates::pair, objects};
use crate::compile::Unit;
use crate::objects::{Change, Kind, Name, Object};

const STEPS: usize = 400;

/// Made by openssl; its key is forgotten.
const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIBezCCASGgAwIBAgIUeBzPA4iCt8YN2JmfE3P8W8YzQmcwCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHY2EudGVzdDAgFw0yNjExMjIwNTU0MzZaGA8yMTI2MTAyOTA1
NTQzNlowEjEQMA4GA1UEAwwHY2EudGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABD3jZRdg4Sz1Odi7R/tYmZipI6VF8AxMfJkhfQ+e3Fk+grlheWoZq0AyeJrR
yA2k+osrqlxRKitB2AehycLdwu+jUzBRMB0GA1UdDgQWBBS0L0EU/V0eUlEUM5X0
a0y7ig++wzAfBgNVHSMEGDAWgBS0L0EU/V0eUlEUM5X0a0y7ig++wzAPBgNVHRMB
Af8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIAjujDr/l46hRYtOw6qWsVtrBn0O
g+UyReX+cnvHvyDOAiEAge3Su/1KWwvFbyDZEgtZ36b7Lx/b6Vz6/4lQuWycG0A=
-----END CERTIFICATE-----
";

static PAIRS: LazyLock<[(String, String); 2]> = LazyLock::new(|| [pair(), pair()]);

/// One random object, from a space so small that objects meet.
fn object(rng: &mut StdRng) -> String {
    let n = |rng: &mut StdRng, max: u32| rng.random_range(0..max);
    // Of a ConfigMap or a Secret: something else may mean the one of the other kind.
    let holder = |rng: &mut StdRng| ["x0", "x1"][n(rng, 2) as usize];
    let age = n(rng, 4);
    // An object that is made anew has another UID; endpoints know pods by theirs.
    let meta = |kind: &str, name: String| {
        let uid = if kind == "Pod" {
            "uid".into()
        } else {
            format!("u{age}")
        };
        format!(
            "kind: {kind}\nmetadata: {{name: {name}, uid: {uid}, creationTimestamp: '2026-01-01T00:00:0{age}Z'"
        )
    };
    match n(rng, 11) {
        0 => {
            let ports: String = (80..80 + n(rng, 3))
                .map(|port| format!("{{name: p{port}, port: {port}}},"))
                .collect();
            let kind = if n(rng, 6) == 0 {
                "type: ExternalName, "
            } else {
                ""
            };
            format!(
                "{}{}}}\nspec: {{{kind}clusterIP: 10.96.0.{}, selector: {{app: a{}}}, ports: [{ports}]}}",
                meta("Service", format!("s{}", n(rng, 3))),
                ["", ", annotations: {meshgate.dev/opaque-ports: '80'}"][n(rng, 2) as usize],
                n(rng, 3),
                n(rng, 2)
            )
        }
        1 => format!(
            "{}, labels: {{kubernetes.io/service-name: s{}}}}}\naddressType: IPv4\nports: [{{name: p80, port: 8080}}, {{name: p81, port: 8081}}]\nendpoints: [{{addresses: [10.244.0.{}], conditions: {{ready: {}}}, targetRef: {{kind: Pod, name: pod{}, uid: uid}}}}]",
            meta("EndpointSlice", format!("e{}", n(rng, 3))),
            n(rng, 3),
            n(rng, 3),
            n(rng, 2) == 0,
            n(rng, 3)
        ),
        2 => format!(
            "{}, labels: {{app: a{}}}{}}}\nspec: {{serviceAccountName: sa{}, containers: []}}\nstatus: {{podIP: 10.244.0.{}}}",
            meta("Pod", format!("pod{}", n(rng, 3))),
            n(rng, 2),
            [
                "",
                ", annotations: {meshgate.dev/sidecar: '1'}",
                ", annotations: {meshgate.dev/sidecar: '1', meshgate.dev/skip-inbound-ports: '8080'}",
                ", annotations: {meshgate.dev/sidecar: '1', meshgate.dev/opaque-ports: '8081'}",
            ][n(rng, 4) as usize],
            n(rng, 2),
            n(rng, 3)
        ),
        3 | 4 => {
            let backend = |rng: &mut StdRng| {
                format!(
                    "{{service: {{name: s{}, port: {{number: {}}}}}}}",
                    n(rng, 3),
                    80 + n(rng, 2)
                )
            };
            let path = |rng: &mut StdRng| {
                let kind = ["Prefix", "Exact"][n(rng, 2) as usize];
                format!(
                    "{{path: {}, pathType: {kind}, backend: {}}},",
                    ["/", "/x", "/x/y"][n(rng, 3) as usize],
                    backend(rng)
                )
            };
            let rules: String = (0..n(rng, 3))
                .map(|_| {
                    let paths: String = (0..n(rng, 3)).map(|_| path(rng)).collect();
                    format!(
                        "{{host: {}, http: {{paths: [{paths}]}}}},",
                        ["a.test", "'*.a.test'", "''"][n(rng, 3) as usize]
                    )
                })
                .collect();
            let default = if n(rng, 4) == 0 {
                format!("defaultBackend: {}, ", backend(rng))
            } else {
                String::new()
            };
            let class = [
                "",
                "ingressClassName: meshgate, ",
                "ingressClassName: other, ",
            ][n(rng, 3) as usize];
            let tls = [
                "",
                "tls: [{secretName: x0, hosts: [a.test]}], ",
                "tls: [{secretName: x1}], ",
            ][n(rng, 3) as usize];
            format!(
                "{}}}\nspec: {{{class}{default}{tls}rules: [{rules}]}}",
                meta("Ingress", format!("i{}", n(rng, 3)))
            )
        }
        5 => format!(
            "{}}}\nspec: {{controller: {}}}",
            meta("IngressClass", "other".into()),
            ["meshgate.dev/ingress", "x"][n(rng, 2) as usize]
        ),
        6 => format!(
            "{}}}\nspec: {{targetRefs: [{{group: networking.k8s.io, kind: Ingress, name: i{}}}], limits: [{{name: all, requests: {}}}]}}",
            meta("RateLimitPolicy", format!("r{}", n(rng, 2))),
            n(rng, 3),
            1 + n(rng, 3)
        ),
        7 => format!(
            "{}}}\nspec: {{targetRefs: [{{kind: Service, name: s{}{}}}], retries: {{attempts: {}}}{}{}}}",
            meta("BackendPolicy", format!("b{}", n(rng, 2))),
            n(rng, 3),
            ["", ", sectionName: p81"][n(rng, 2) as usize],
            n(rng, 3),
            ["", ", proxyProtocol: V2"][n(rng, 2) as usize],
            match n(rng, 3) {
                0 => String::new(),
                kind => format!(
                    ", tls: {{hostname: a.test, caRefs: [{{kind: {}, name: {}}}]}}",
                    ["ConfigMap", "Secret"][kind as usize - 1],
                    holder(rng)
                ),
            }
        ),
        8 => format!(
            "{}}}\ndata: {{ca.crt: \"{}\"}}",
            meta("ConfigMap", holder(rng).into()),
            [AUTHORITY, ""][n(rng, 2) as usize].replace('\n', "\\n")
        ),
        9 => {
            let lines = |text: &str| text.replace('\n', "\\n");
            let authority = match n(rng, 3) {
                0 => String::new(),
                kind => format!(
                    ", ca.crt: \"{}\"",
                    lines(["", AUTHORITY][kind as usize - 1])
                ),
            };
            // Always valid: of an invalid one what came before would stay, which is not from scratch.
            let (certificate, key) = &PAIRS[n(rng, 2) as usize];
            format!(
                "{}}}\ndata: {{tls.crt: \"{}\", tls.key: \"{}\"{authority}}}",
                meta("Secret", holder(rng).into()),
                lines(certificate),
                lines(key),
            )
        }
        _ => {
            let target = [
                "targetRefs: [{kind: Namespace, name: shop}]",
                "targetRefs: [{kind: Service, name: s1}]",
                "selector: {matchLabels: {app: a0}}",
                "targetRefs: [{group: networking.k8s.io, kind: Ingress, name: i0}]",
                "targetRefs: [{group: networking.k8s.io, kind: Ingress, name: i1}, {kind: Service, name: s0}]",
            ];
            let opinion = [
                String::new(),
                ", authentication: {basic: {}}".into(),
                format!(", rules: [{{from: [{{namespaces: [n{}]}}]}}]", n(rng, 2)),
            ];
            format!(
                "{}}}\nspec: {{{}, mtls: {}{}}}",
                meta("AccessPolicy", format!("x{}", n(rng, 3))),
                target[n(rng, 5) as usize],
                ["Strict", "Permissive"][n(rng, 2) as usize],
                opinion[n(rng, 3) as usize],
            )
        }
    }
}

fn kind(object: &Object) -> Kind {
    match object {
        Object::Service(_) => Kind::Service,
        Object::EndpointSlice(_) => Kind::EndpointSlice,
        Object::Pod(_) => Kind::Pod,
        Object::Ingress(_) => Kind::Ingress,
        Object::IngressClass(_) => Kind::IngressClass,
        Object::Secret(_) => Kind::Secret,
        Object::ConfigMap(_) => Kind::ConfigMap,
        Object::RateLimitPolicy(_) => Kind::RateLimitPolicy,
        Object::BackendPolicy(_) => Kind::BackendPolicy,
        Object::AccessPolicy(_) => Kind::AccessPolicy,
    }
}

#[track_caller]
fn same<K: Ord + Debug, V: PartialEq + Debug>(
    left: &BTreeMap<K, V>,
    right: &BTreeMap<K, V>,
    at: &str,
) {
    for key in left.keys().chain(right.keys()) {
        assert_eq!(left.get(key), right.get(key), "{key:?}, {at}");
    }
}

/// Takes changes, and then as the watches by name do: what is wanted from now on is read, once.
fn take(world: &mut World, changes: Vec<Change>, present: &BTreeMap<(Kind, Name), Object>) {
    let watched = |world: &World| -> BTreeSet<(Kind, Name)> {
        let secrets = world.secrets.keys().map(|name| (Kind::Secret, name));
        let maps = world.config_maps.keys().map(|name| (Kind::ConfigMap, name));
        let all = secrets.chain(maps);
        all.map(|(kind, name)| (kind, name.clone())).collect()
    };
    let before = watched(world);
    world.changes(changes);
    let read = |(kind, name): &(Kind, Name)| match present.get(&(*kind, name.clone())) {
        Some(object) => Change::Apply(name.clone(), Box::new(object.clone())),
        None => Change::Delete(*kind, name.clone()),
    };
    let wanted = watched(world);
    let changes = wanted.difference(&before).map(read).collect();
    world.changes(changes);
}

fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::new();
    let mut present: BTreeMap<(Kind, Name), Object> = BTreeMap::new();
    for step in 0..STEPS {
        let mut batch = Vec::new();
        for _ in 0..rng.random_range(1..8) {
            if rng.random_range(0..4) == 0 && !present.is_empty() {
                let at = rng.random_range(0..present.len());
                let key = present.keys().nth(at).cloned().expect("an index of it");
                present.remove(&key);
                batch.push(Change::Delete(key.0, key.1));
                continue;
            }
            let yaml = if step == 0 {
                CLASS.to_owned()
            } else {
                object(&mut rng)
            };
            for change in objects(&yaml) {
                match &change {
                    Change::Apply(name, object) => {
                        present.insert((kind(object), name.clone()), (**object).clone());
                    }
                    Change::Delete(kind, name) => drop(present.remove(&(*kind, name.clone()))),
                    Change::Listed(..) | Change::Unreadable(..) => {}
                }
                batch.push(change);
            }
        }
        take(&mut world, batch, &present);
        let mut scratch = World::new();
        let all = present
            .iter()
            .map(|((_, name), object)| Change::Apply(name.clone(), Box::new(object.clone())));
        take(&mut scratch, all.collect(), &present);
        let at = format!("seed {seed}, step {step}");
        same(&world.resources, &scratch.resources, &at);
        same(&world.pods, &scratch.pods, &at);
        same(&world.reports, &scratch.reports, &at);
        same(&world.secrets, &scratch.secrets, &at);
        same(&world.config_maps, &scratch.config_maps, &at);
    }
}

#[test]
fn incremental_equals_from_scratch() {
    for seed in 0..8 {
        run(seed);
    }
}

/// A change compiles what depends on it, however much else there is.
#[test]
fn unrelated_routes_are_not_compiled() {
    let mut world =
        World::of("kind: Service\nmetadata: {name: web}\nspec: {ports: [{name: p, port: 80}]}");
    let ingress = |name: usize| {
        format!(
            "kind: Ingress\nmetadata: {{name: i{name}}}\nspec: {{rules: [{{host: h{name}.test, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: s{name}, port: {{number: 80}}}}}}}}]}}}}]}}"
        )
    };
    for name in 0..200 {
        world.apply(&ingress(name));
    }
    let service = "kind: Service\nmetadata: {name: s7}\nspec: {ports: [{port: 80}]}";
    world.compiler.absorb(objects(service));
    let update = world.compiler.compile();
    // The Service and the one host that names it.
    assert_eq!(update.resources.len(), 2);
    assert_eq!(update.reports.len(), 1);
    world.compiler.absorb(objects(service));
    let update = world.compiler.compile();
    assert!(update.resources.is_empty(), "nothing changed");
}

/// Pods start, become ready and get addresses all the time; policies know them by labels.
#[test]
fn a_pod_is_news_to_the_policies_that_select_it() {
    let pod = |label: &str, address: u8| {
        format!(
            "kind: Pod\nmetadata: {{name: web, labels: {{app: {label}}}, annotations: {{meshgate.dev/sidecar: '1'}}}}\nspec: {{containers: []}}\nstatus: {{podIP: 10.244.0.{address}}}"
        )
    };
    let policy = |label: &str| {
        format!(
            "---\nkind: AccessPolicy\nmetadata: {{name: {label}}}\nspec: {{mtls: Strict, selector: {{matchLabels: {{app: {label}}}}}}}\n"
        )
    };
    let policies = ["a", "b", "c"].map(policy).concat();
    let mut world = World::of(&format!("{}\n{policies}", pod("a", 1)));
    let mut check = |pod: &str, expected: &[&str]| {
        world.compiler.absorb(objects(pod));
        let reports = world.compiler.dirty.iter().filter_map(|unit| match unit {
            Unit::Report(subject) => Some(&*subject.name.name),
            _ => None,
        });
        assert_eq!(reports.collect::<Vec<_>>(), expected, "{pod}");
        world.compiler.compile();
    };
    check(&pod("a", 2), &[]);
    check(&pod("b", 2), &["a", "b"]);
}
