//! The edge without a cluster: `meshgate ingress --from`. Nothing here needs root.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use meshgate_tests::load::{Life, Load, Plan, Protocol, Way, failures};
use meshgate_tests::{curl, run, text, tls, until};
use tempfile::TempDir;

/// A folder of manifests, and the edges that serve it.
struct Site {
    dir: TempDir,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("meshgate-files-").tempdir();
        let site = Self {
            dir: dir.expect("a temporary folder"),
        };
        std::fs::create_dir(site.folder()).expect("a folder");
        site
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("conf")
    }

    /// Writes a file as an editor does: beside it, then in its place.
    fn write(&self, name: &str, content: &str) {
        let (path, beside) = (self.folder().join(name), self.dir.path().join("beside"));
        std::fs::write(&beside, content).expect("a file");
        std::fs::rename(beside, path).expect("a file in its place");
    }

    fn check(&self) -> Output {
        let mut command = Command::new(meshgate_tests::meshgate());
        run(command
            .args(["ingress", "--check", "--from"])
            .arg(self.folder()))
    }

    /// What `--check` says, without the path of the folder.
    fn checked(&self) -> (bool, String) {
        let output = self.check();
        let folder = format!("{}/", self.folder().display());
        (output.status.success(), text(&output).replace(&folder, ""))
    }

    /// The control socket.
    fn control(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    /// How an edge with free ports is started.
    fn arguments(&self) -> Vec<OsString> {
        let fixed = "ingress --access-log off --workers 2 --http 127.0.0.1:0 --https 127.0.0.1:0 \
                     --ready 127.0.0.1:0 --metrics 127.0.0.1:0 --from";
        let words = fixed.split_whitespace().map(OsString::from);
        let paths = [
            self.folder().into(),
            "--control-socket".into(),
            self.control().into(),
        ];
        words.chain(paths).collect()
    }

    /// An edge with free ports that serves the folder.
    fn serve(&self) -> Edge {
        Edge::start(&self.arguments())
    }
}

/// A running edge and what it logs.
struct Edge {
    child: Child,
    log: Log,
    http: SocketAddr,
    https: SocketAddr,
    ready: SocketAddr,
    metrics: SocketAddr,
}

/// What a process wrote to standard error; read by a thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    fn follow(from: impl Read + Send + 'static) -> Self {
        let log = Self::default();
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let mut text = lines.0.lock().unwrap_or_else(PoisonError::into_inner);
                *text += &line;
                text.push('\n');
            }
        });
        log
    }

    fn text(&self) -> String {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn count(&self, wanted: &str) -> usize {
        self.text().matches(wanted).count()
    }

    /// Waits for the nth line with `wanted`.
    fn until(&self, wanted: &str, times: usize) {
        until(wanted, || (self.count(wanted) >= times).then_some(()));
    }

    /// Process ids of those that it started to take over.
    fn started(&self) -> Vec<String> {
        let text = self.text();
        let lines = text
            .lines()
            .filter(|line| line.contains("started the process that takes over"));
        lines
            .filter_map(|line| line.split_once("pid=")?.1.split_whitespace().next())
            .map(str::to_owned)
            .collect()
    }

    /// The address that a listener got.
    fn address(&self, listener: &str) -> SocketAddr {
        let wanted = format!("listener=\"{listener}\"");
        until(&wanted, || {
            let text = self.text();
            let line = text.lines().find(|line| line.contains(&wanted))?;
            let at = line.split_once("at=")?.1.split_whitespace().next()?;
            at.parse().ok()
        })
    }
}

impl Edge {
    fn start(arguments: &[OsString]) -> Self {
        Self::of(&meshgate_tests::meshgate(), arguments)
    }

    fn of(program: &Path, arguments: &[OsString]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the edge starts");
        let log = Log::follow(child.stderr.take().expect("a pipe"));
        let edge = Self {
            http: log.address("http"),
            https: log.address("https"),
            ready: log.address("ready"),
            metrics: log.address("metrics"),
            child,
            log,
        };
        edge.log.until(" serving", 1);
        edge
    }

    /// Status and body of `GET path` for a host.
    fn get(&self, host: &str, path: &str) -> (u16, String) {
        curl(&[
            "-H",
            &format!("Host: {host}"),
            &format!("http://{}{path}", self.http),
        ])
    }

    /// Whether the metrics have this line.
    fn counts(&self, line: &str) -> bool {
        let (_, text) = curl(&[&format!("http://{}/metrics", self.metrics)]);
        text.lines().any(|other| other == line)
    }

    /// Waits until a host is answered so.
    fn answers(&self, host: &str, status: u16, body: &str) {
        let what = format!("{host} answers {status} {body:?}");
        until(&what, || {
            (self.get(host, "/") == (status, body.to_owned())).then_some(())
        });
    }

    fn end(mut self) {
        signal(self.child.id(), "TERM");
        let ended = self.child.wait().expect("it was started");
        assert!(ended.success(), "{ended}\n{}", self.log.text());
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _unread = std::io::stderr().write_all(self.log.text().as_bytes());
        }
        // Has ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.log.started().into_iter().for_each(|pid| {
                let _gone = run(Command::new("kill").arg(pid));
            });
        }
    }
}

fn signal(pid: u32, name: &str) {
    let output = run(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]));
    assert!(output.status.success(), "{}", text(&output));
}

/// An application that answers with its name until the test ends.
fn application(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                for line in BufReader::new(&stream).lines().map_while(Result::ok) {
                    if !line.is_empty() {
                        continue;
                    }
                    let length = name.len();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}");
                    if (&stream).write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A Service whose one endpoint is an application of the same name.
fn service(name: &str, endpoint: SocketAddr) -> String {
    format!(
        "
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{port: {}}}]
endpoints: [{{addresses: [\"{}\"]}}]
",
        endpoint.port(),
        endpoint.ip()
    )
}

/// An Ingress that sends all of a host to a Service.
fn route(name: &str, host: &str, service: &str) -> String {
    format!(
        "
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}}}
spec:
  rules:
  - host: {host}
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}]}}
"
    )
}

/// `files` in, what `--check` says out.
#[track_caller]
fn check(files: &[(&str, &str)], success: bool, expected: &str) {
    let site = Site::new();
    for (name, content) in files {
        site.write(name, content);
    }
    assert_eq!(site.checked(), (success, expected.to_owned()));
}

#[test]
fn check_says_everything_and_fails_for_errors_only() {
    let shop = service("web", "127.0.0.1:1".parse().expect("an address"));
    let web = route("web", "web.test", "web");
    check(
        &[("a.yaml", &shop), ("b.yml", &web), ("notes.txt", "{")],
        true,
        "2 files: 1 EndpointSlice, 1 Ingress, 1 Service\n",
    );
    check(
        &[
            ("a.yaml", &web),
            (
                "b.yaml",
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n",
            ),
        ],
        true,
        "2 files: 1 Ingress; left aside: 1 Deployment; 1 warning\n\
         warning: a.yaml:3: document 1: Ingress default/web: ServiceNotFound: service default/web does not exist\n",
    );
    check(
        &[
            (
                "a.yaml",
                &(shop.clone() + &web.replace("path: /,", "path: x,")),
            ),
            ("b.yaml", "kind: ["),
            (
                "c.json",
                "{\"kind\": \"Secret\", \"apiVersion\": \"v1\", \"metadata\": {\"name\": \"s\"}, \"dta\": {}}",
            ),
        ],
        false,
        "error: a.yaml:16: document 3: Ingress default/web: spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path\n\
         error: b.yaml:1: document 1: did not find expected node content at line 2 column 1, while parsing a flow node\n\
         error: c.json:1: document 1: Secret default/s: unknown field \"dta\"\n\
         meshgate: 3 errors\n",
    );
    check(&[], true, "0 files: nothing\n");
}

#[test]
fn errors_at_the_start_end_it() {
    let site = Site::new();
    site.write("a.yaml", "kind: [");
    let mut command = Command::new(meshgate_tests::meshgate());
    command
        .args(["ingress", "--http", "127.0.0.1:0", "--from"])
        .arg(site.folder());
    let output = run(&mut command);
    assert!(!output.status.success());
    let said = text(&output);
    assert!(
        said.contains("a.yaml:1: document 1: did not find"),
        "{said}"
    );
    assert!(
        said.ends_with("meshgate: the configuration has 1 error\n"),
        "{said}"
    );
}

#[test]
fn files_are_served_and_followed() {
    let site = Site::new();
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
    let (below, aside) = (site.folder().join("below"), site.dir.path().join("aside"));
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

/// A new certificate for a host in a Secret `tls-HOST`: its serial number and the manifest.
fn secret(site: &Site, host: &str) -> (String, String) {
    let (cert, key) = tls::self_signed(site.dir.path(), host);
    let indented = |path: &Path| {
        let text = std::fs::read_to_string(path).expect("PEM");
        let lines = text.lines().map(|line| format!("    {line}\n"));
        lines.collect::<String>()
    };
    let manifest = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: tls-{host}}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        indented(&cert),
        indented(&key)
    );
    (tls::serial(&cert), manifest)
}

/// A route with the certificate of [`secret`].
fn tls_route(host: &str, service: &str) -> String {
    let tls = format!("spec:\n  tls: [{{hosts: [{host}], secretName: tls-{host}}}]\n");
    route(host, host, service).replace("spec:\n", &tls)
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
    let site = Site::new();
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
    let site = Site::new();
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
    assert_eq!(
        failures(&answers),
        Vec::<&meshgate_tests::load::Answer>::new()
    );
    edge.end();
}

/// Waits until an edge has drained and ended, as it should.
fn has_ended(edge: &mut Edge) {
    let status = until("the former process ends", || {
        edge.child.try_wait().expect("it was started")
    });
    assert!(status.success(), "{status}\n{}", edge.log.text());
}

#[test]
fn take_overs_fail_no_request() {
    let site = Site::new();
    let (_, secret) = secret(&site, "web.test");
    let service = service("one", application("one"));
    site.write(
        "web.yaml",
        &[service, tls_route("web.test", "one"), secret].join("\n---\n"),
    );
    let mut edge = site.serve();
    edge.answers("web.test", 200, "one");
    let (http, ready) = (edge.http, edge.ready);
    let load = |address: SocketAddr, path: &str, protocols: &[Protocol]| {
        let plan = Plan {
            address: address.to_string(),
            host: "web.test".to_owned(),
            path: path.to_owned(),
            rate: 200,
            connections: 8,
        };
        let lives = [Life::Kept, Life::Fresh];
        let ways = protocols
            .iter()
            .flat_map(|protocol| lives.map(|life| Way(*protocol, life)));
        Load::mixed(&plan, &ways.collect::<Vec<_>>())
    };
    let clear = load(http, "/", &[Protocol::Http1]);
    let secure = load(edge.https, "/", &[Protocol::Https1, Protocol::Https2]);
    let probes = load(ready, "/readyz", &[Protocol::Http1]);
    // More workers than sockets that are handed over, and fewer: none of the sockets may be left alone.
    for workers in ["3", "1", "2"] {
        let before = [clear.asked(), secure.asked()];
        let mut taking_over = [site.arguments(), vec!["--take-over".into()]].concat();
        let given = taking_over.iter().position(|word| word == "--workers");
        taking_over[given.expect("it is said") + 1] = workers.into();
        let next = Edge::start(&taking_over);
        next.log.until("took over", 1);
        assert_eq!((next.http, next.ready), (http, ready));
        let mut former = std::mem::replace(&mut edge, next);
        has_ended(&mut former);
        // Enough that all connections have asked the new process.
        until("more requests", || {
            let more = [clear.asked() - before[0], secure.asked() - before[1]];
            (more.into_iter().min() > Some(100)).then_some(())
        });
    }
    let answers = [clear.stop(), secure.stop(), probes.stop()].concat();
    assert_eq!(
        failures(&answers),
        Vec::<&meshgate_tests::load::Answer>::new()
    );
    edge.end();
    assert!(
        !site.control().exists(),
        "the last one takes its socket with it"
    );
}

#[test]
fn a_process_replaces_itself_by_the_program_that_is_there_now() {
    let site = Site::new();
    let one = application("one");
    site.write(
        "web.yaml",
        &(service("one", one) + &route("web", "web.test", "one")),
    );
    let program = site.dir.path().join("meshgate");
    let install = |from: &Path| {
        let beside = site.dir.path().join("new");
        meshgate_tests::copy_program(from, &beside);
        std::fs::rename(beside, &program).expect("a program in its place");
    };
    install(&meshgate_tests::meshgate());
    let mut edge = Edge::of(&program, &site.arguments());
    edge.answers("web.test", 200, "one");

    // What cannot be run, what ends at once, files with an error: it goes on.
    let script = site.dir.path().join("script");
    std::fs::write(&script, "#!/bin/sh\nexit 7\n").expect("a script");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&script, executable).expect("a script that runs");
    install(&script);
    let failed = "the take-over failed; this process goes on";
    signal(edge.child.id(), "USR2");
    edge.log.until(failed, 1);
    edge.log.until("the new process ended: exit status: 7", 1);
    install(&meshgate_tests::meshgate());
    site.write("broken.yaml", "kind: [");
    edge.log.until("configuration refused", 1);
    signal(edge.child.id(), "USR2");
    edge.log.until(failed, 2);
    edge.log.until("the configuration has 1 error", 1);
    edge.answers("web.test", 200, "one");
    std::fs::remove_file(site.folder().join("broken.yaml")).expect("a file");

    signal(edge.child.id(), "USR2");
    edge.log.until("took over; the former process drains", 1);
    has_ended(&mut edge);
    edge.answers("web.test", 200, "one");
    // The new process is nobody's child here: another take-over makes it end.
    let next = Edge::start(&[site.arguments(), vec!["--take-over".into()]].concat());
    next.log.until("took over", 1);
    next.answers("web.test", 200, "one");
    edge.log.until("another process serves now", 2);
    next.end();
}

#[test]
fn a_take_over_that_cannot_be_is_refused() {
    let site = Site::new();
    let taking_over = [site.arguments(), vec!["--take-over".into()]].concat();
    let start = |arguments: &[OsString]| {
        let output = run(Command::new(meshgate_tests::meshgate()).args(arguments));
        assert!(!output.status.success());
        text(&output)
    };
    let said = start(&taking_over);
    assert!(said.contains("no running edge answers at "), "{said}");
    let edge = site.serve();
    let said = start(&site.arguments());
    assert!(said.contains("another edge is served with "), "{said}");
    // Who says nonsense, or nothing more, changes nothing.
    let mut stranger = UnixStream::connect(site.control()).expect("the control socket");
    stranger.write_all(b"hello\n").expect("it listens");
    let mut answer = String::new();
    stranger.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("error: \"hello\" was said"), "{answer}");
    let mut quitter = UnixStream::connect(site.control()).expect("the control socket");
    quitter.write_all(b"take-over 2\n").expect("it listens");
    drop(quitter);
    edge.log.until("this process goes on", 2);
    assert_eq!(edge.get("web.test", "/").0, 404);
    edge.end();
}
