//! How many connections are taken.

use meshgate_tests::files::{Site, application, secret, service, tls_route};
use meshgate_tests::siege::{Attack, Force, Siege, Target};
use meshgate_tests::until;

#[test]
fn as_many_as_the_arguments_say() {
    let host = "web.test";
    let site = Site::default();
    let (_, secret) = secret(&site, host);
    site.write("secret.yaml", &secret);
    site.write(
        "web.yaml",
        &(service("one", application("one")) + &tls_route(host, "one")),
    );
    let edge = site.serve_with(&["--connections", "3", "--connections-per-client", "2"]);
    edge.answers(host, 200, "one");
    let target = Target {
        http: edge.http,
        https: edge.https,
        host: host.to_owned(),
        large: "/".to_owned(),
    };
    let refused = |why: &str| edge.counted("meshgate_connections_refused", why);
    let stand = |siege: &Siege, kind, count, why: &str| {
        until(&format!("{kind}: {count} stand"), || {
            (siege.tally(kind).standing == count && refused(why) > 0.0).then_some(())
        });
    };
    let one = Siege::lay(&target, &Force::from([(Attack::OneAddress, 4)]));
    stand(&one, Attack::OneAddress, 2, "connections-per-client");
    // HTTP has one place left, whoever comes; HTTPS has three of its own.
    let many = Siege::lay(&target, &Force::from([(Attack::Idle, 4)]));
    stand(&many, Attack::Idle, 3, "reason=\"connections\"");
    many.lift();
    one.lift();
    edge.answers(host, 200, "one");
    edge.end();
}
