//! The user's first minute, and what is left of it.

use std::process::{Command, Stdio};

use meshgate_tests::{Cluster, curl, image, meshgate, run, text, tls, until};

/// Processes whose command line names this cluster's folder.
fn processes(cluster: &Cluster) -> Vec<String> {
    let dir = cluster.data_dir().display().to_string();
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&dir))
        .collect()
}

fn host_state() -> String {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let links = std::fs::read_dir("/sys/class/net")
        .expect("links")
        .flatten()
        .map(|e| e.file_name());
    let mut links: Vec<_> = links.collect();
    links.sort();
    let rules = text(&run(Command::new("nft").args(["list", "tables"])));
    format!(
        "{} mounts, links {links:?}, rules {rules:?}",
        mounts.lines().count()
    )
}

fn cgroups(cluster: &Cluster) -> Vec<String> {
    let output = run(Command::new("find").args([
        "/sys/fs/cgroup",
        "-type",
        "d",
        "-name",
        &format!("meshgate-{}-*", cluster.name()),
    ]));
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn up_with_the_demo_then_down_leaves_nothing() {
    let before = host_state();
    let cluster = Cluster::start(&["--demo"]);
    let (status, body) = cluster.get("shop.localhost", "/");
    assert_eq!(status, 200, "{body}");
    let served = until("the shop's certificate", || {
        tls::served_serial(cluster.https(), "shop.localhost")
    });
    assert!(served.contains("serial"), "{served}");
    let pods = cluster.kubectl(&["get", "pods", "-A"]);
    assert!(pods.contains("frontend") && pods.contains("edge"), "{pods}");
    assert_eq!(
        host_state(),
        before,
        "the host's mounts, links and rules are untouched while it runs"
    );
    let http = cluster.http().to_owned();
    let output = run(&mut cluster.meshgate("down"));
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(processes(&cluster), Vec::<String>::new());
    assert_eq!(cgroups(&cluster), Vec::<String>::new());
    assert_eq!(host_state(), before);
    assert_eq!(
        curl(&[format!("http://{http}/")]).0,
        0,
        "nobody listens any more"
    );
    // The data stays, and so do the objects.
    let output = cluster.up(&[]);
    assert!(
        output.status.success(),
        "{}\n{}",
        text(&output),
        cluster.logs()
    );
    let cluster = cluster.started();
    until("the shop to answer again", || {
        (cluster.get("shop.localhost", "/").0 == 200).then_some(())
    });
}

#[test]
fn interrupted_in_the_foreground_it_leaves_nothing() {
    let cluster = Cluster::prepare();
    let mut command = cluster.meshgate("up");
    command.args([
        "--http",
        "127.0.0.1:0",
        "--https",
        "127.0.0.1:0",
        "--api",
        "127.0.0.1:0",
    ]);
    let mut up = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("up starts");
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(up.stdout.take().expect("a pipe")));
    let ready = lines
        .by_ref()
        .map_while(Result::ok)
        .find(|line| line.contains("export KUBECONFIG="));
    assert!(
        ready.is_some(),
        "up ended before it was ready\n{}",
        cluster.logs()
    );
    let output = run(Command::new("kill").args(["-INT", &up.id().to_string()]));
    assert!(output.status.success());
    assert!(up.wait().expect("up ends").success());
    assert_eq!(processes(&cluster), Vec::<String>::new());
    assert_eq!(cgroups(&cluster), Vec::<String>::new());
}

#[test]
fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let cluster = Cluster::prepare();
    let output =
        run(cluster
            .meshgate("up")
            .args(["--detach", "--api", "127.0.0.1:0", "--http", &address]));
    assert!(!output.status.success());
    let said = text(&output);
    assert!(said.contains(&address) && said.contains("--http"), "{said}");
}

#[test]
fn a_data_directory_has_one_owner() {
    let cluster = Cluster::start(&["--nodes", "0"]);
    let second =
        run(cluster
            .meshgate("up")
            .args(["--detach", "--nodes", "0", "--api", "127.0.0.1:0"]));
    assert!(!second.status.success());
    assert!(text(&second).contains("in use"), "{}", text(&second));
    assert_eq!(
        cluster
            .kubectl(&["get", "ns", "default", "-o", "name"])
            .trim(),
        "namespace/default"
    );
}

#[test]
fn a_damaged_store_is_named() {
    let cluster = Cluster::start(&["--nodes", "0"]);
    let output = run(&mut cluster.meshgate("down"));
    assert!(output.status.success(), "{}", text(&output));
    std::fs::write(cluster.data_dir().join("store.redb"), "not a store").expect("the file is ours");
    let output = cluster.up(&["--nodes", "0"]);
    assert!(!output.status.success());
    let said = text(&output);
    assert!(said.contains("store.redb"), "{said}");
}

#[test]
fn images_belong_to_a_cluster_that_there_is() {
    let cluster = Cluster::prepare();
    let archive = image::oci_archive(cluster.scratch(), "example.test/early:1", &["echo"]);
    let load = || run(cluster.meshgate("image load").arg(&archive));
    let list = || run(&mut cluster.meshgate("image list"));
    for output in [load(), list()] {
        assert!(!output.status.success());
        let said = text(&output);
        let wanted = [
            format!("no cluster {:?}", cluster.name()),
            format!("{} does not exist", cluster.data_dir().display()),
            format!("meshgate up --name {}", cluster.name()),
        ];
        for wanted in wanted {
            assert!(said.contains(&wanted), "no {wanted:?} in {said}");
        }
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert!(!cluster.data_dir().exists(), "nothing was made");
    // Its folder is there and nobody has started it yet.
    std::fs::create_dir(cluster.data_dir()).expect("a folder");
    let output = load();
    assert!(output.status.success(), "{}", text(&output));
    let said = text(&list());
    assert!(said.contains("example.test/early:1"), "{said}");
}

#[test]
fn help_version_and_completion() {
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["up", "--help"],
        &["completion", "bash"],
    ] {
        let output = run(Command::new(meshgate()).args(arguments));
        assert!(
            output.status.success() && !output.stdout.is_empty(),
            "{arguments:?}: {}",
            text(&output)
        );
    }
    let output = run(Command::new(meshgate()).arg("upp"));
    assert!(!output.status.success());
    assert!(
        text(&output).contains("up"),
        "a similar command is suggested: {}",
        text(&output)
    );
}
