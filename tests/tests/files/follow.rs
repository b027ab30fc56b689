//! Changes of the files are followed.

use meshgate_tests::files::{Edge, Site, application, route, secret, service, tls_route};
use meshgate_tests::load::{Answer, Load, Plan, failures};
use meshgate_tests::{curl, tls, until};

#[test]
fn files_are_served_and_followed() {
    let site = Site::default();
    let (one, two) = (application("one"), application("two"));
    site.write(
        "services.yaml",
        &(service("one", one) + &service("two", two)),
    );
    site.write("routes.yaml", &route("web", "web.test", "one"));
    let edge = site.serve();
    edge.answers("web.test", 200, "one");
    let (status, _) = curl(&[&format!("http://{}/readyz", edge.ready)]);
    assert_eq!(status, 200);

    // Replaced, written in place, a folder of its own that comes with a file and goes.
    site.write("routes.yaml", &route("web", "web.test", "two"));
    edge.answers("web.test", 200, "two");
    std::fs::write(
        site.folder().join("routes.yaml"),
        route("web", "web.test", "one"),
    )
    .expect("a file");
    edge.answers("web.test", 200, "one");
    let (below, aside) = (site.folder().join("below"), site.scratch().join("aside"));
    std::fs::create_dir(&aside).expect("a folder");
    std::fs::write(aside.join("more.yaml"), route("more", "more.test", "two")).expect("a file");
    std::fs::rename(&aside, &below).expect("a folder");
    edge.answers("more.test", 200, "two");
    std::fs::remove_dir_all(&below).expect("a folder");
    until("more.test is gone", || {
        (edge.get("more.test", "/").0 == 404).then_some(())
    });

    a_broken_file_changes_nothing(&site, &edge);
    a_certificate_is_found_by_name(&site, &edge);
    a_limit_counts(&site, &edge);
    edge.end();
}

fn a_broken_file_changes_nothing(site: &Site, edge: &Edge) {
    let broken = route("web", "web.test", "two").replace("pathType: Prefix", "pathType: Postfix");
    site.write("routes.yaml", &broken);
    site.write("new.yaml", &route("new", "new.test", "two"));
    let wanted = "routes.yaml:3: document 1: Ingress default/web: spec.rules[0].http.paths[0].pathType: Unsupported value: \"Postfix\"";
    edge.log.until(wanted, 1);
    edge.log
        .until("configuration refused; the last good one stays", 1);
    edge.answers("web.test", 200, "one");
    assert_eq!(edge.get("new.test", "/").0, 404, "the whole set waits");
    assert!(edge.counts("meshgate_configuration_stale 1"));
    site.write("routes.yaml", &route("web", "web.test", "one"));
    edge.answers("new.test", 200, "two");
    until("the metrics say so", || {
        edge.counts("meshgate_configuration_stale 0").then_some(())
    });
}

fn a_certificate_is_found_by_name(site: &Site, edge: &Edge) {
    let hosts = ["a.test", "b.test"];
    let (serials, secrets): (Vec<_>, Vec<_>) =
        hosts.into_iter().map(|host| secret(site, host)).unzip();
    site.write("secrets.yaml", &secrets.join("---\n"));
    site.write(
        "tls.yaml",
        &hosts.map(|host| tls_route(host, "one")).concat(),
    );
    let https = edge.https.to_string();
    for (host, serial) in hosts.into_iter().zip(&serials) {
        until("its certificate", || {
            (tls::served_serial(&https, host).as_ref() == Some(serial)).then_some(())
        });
    }
    let (serial, new) = secret(site, "a.test");
    site.write("secrets.yaml", &[new, secrets[1].clone()].join("---\n"));
    until("the new certificate", || {
        (tls::served_serial(&https, "a.test").as_ref() == Some(&serial)).then_some(())
    });
    assert_eq!(
        tls::served_serial(&https, "b.test").as_ref(),
        Some(&serials[1])
    );
}

/// A global limit is exact: this is the only replica.
fn a_limit_counts(site: &Site, edge: &Edge) {
    site.write(
        "limited.yaml",
        &(route("limited", "limited.test", "one")
            + "
---
apiVersion: meshgate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: limited}
spec:
  targetRefs: [{group: networking.k8s.io, kind: Ingress, name: limited}]
  limits: [{name: hourly, requests: 3, per: 1h, scope: Global}]
"),
    );
    let statuses: Vec<u16> = until("the limited route", || {
        let first = edge.get("limited.test", "/").0;
        (first == 200).then(|| (0..3).map(|_| edge.get("limited.test", "/").0).collect())
    });
    assert_eq!(statuses, [200, 200, 429]);
}

#[test]
fn a_volume_of_kubernetes_is_swapped_at_once() {
    let site = Site::default();
    let (one, two) = (application("one"), application("two"));
    let version = |name: &str, content: String| {
        std::fs::create_dir(site.folder().join(name)).expect("a folder");
        std::fs::write(site.folder().join(name).join("all.yaml"), content).expect("a file");
    };
    let link = |target: &str, name: &str| {
        let (path, beside) = (site.folder().join(name), site.folder().join("..data_tmp"));
        std::os::unix::fs::symlink(target, &beside).expect("a link");
        std::fs::rename(beside, path).expect("a link in its place");
    };
    version(
        "..1",
        service("one", one) + &route("web", "web.test", "one"),
    );
    link("..1", "..data");
    std::os::unix::fs::symlink("..data/all.yaml", site.folder().join("all.yaml")).expect("a link");
    let edge = site.serve();
    edge.answers("web.test", 200, "one");
    version(
        "..2",
        service("two", two) + &route("web", "web.test", "two"),
    );
    link("..2", "..data");
    edge.answers("web.test", 200, "two");
    std::fs::remove_dir_all(site.folder().join("..1")).expect("a folder");
    edge.answers("web.test", 200, "two");
    edge.end();
}

#[test]
fn reloads_fail_no_request() {
    let site = Site::default();
    let (one, two) = (application("one"), application("two"));
    let services = [service("one", one), service("two", two)];
    site.write(
        "web.yaml",
        &(services[0].clone() + &route("web", "web.test", "one")),
    );
    let edge = site.serve();
    edge.answers("web.test", 200, "one");
    let load = Load::start(&Plan {
        address: edge.http.to_string(),
        host: "web.test".to_owned(),
        path: "/".to_owned(),
        rate: 500,
        connections: 8,
    });
    // Each one brings a service, moves the route to it, and takes the other service away; written in place.
    for change in 1..=50 {
        let name = ["one", "two"][change % 2];
        let all = services[change % 2].clone() + &route("web", "web.test", name);
        std::fs::write(site.folder().join("web.yaml"), all).expect("a file");
        edge.log.until("configuration enforced", change);
    }
    let answers = load.stop();
    assert!(answers.len() > 500, "{} answers", answers.len());
    assert_eq!(failures(&answers), Vec::<&Answer>::new());
    edge.end();
}
