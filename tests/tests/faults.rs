//! Components are killed under load: traffic goes on, they come back, no object is lost.

use std::process::Command;
use std::time::Duration;

use meshgate_tests::load::{Load, Plan, failures};
use meshgate_tests::{Cluster, run, text, until};

/// Requests that may fail while the edge itself is dead: those it had in hand, one a connection.
const IN_HAND: usize = 8;
/// The shop has one frontend: without its sidecar it is not reached until there is a new one.
const UNTIL_HEALED: usize = usize::MAX;

fn kill(pid: i32) {
    let output = run(Command::new("kill").args(["-9", &pid.to_string()]));
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn killed_components_heal() {
    let cluster = Cluster::start(&["--demo"]);
    let c = &cluster;
    let plan = Plan {
        address: c.http().to_owned(),
        host: "shop.localhost".to_owned(),
        path: "/".to_owned(),
        rate: 50,
        connections: 4,
    };
    for (component, allowed) in [
        ("control", 0),
        ("agent", 0),
        ("edge", IN_HAND),
        ("sidecar/shop/frontend", UNTIL_HEALED),
    ] {
        let objects = c
            .kubectl(&["get", "all", "-A", "-o", "name"])
            .lines()
            .count();
        let load = Load::start(&plan);
        let pid = c.pid(component);
        let killed = load.elapsed();
        kill(pid);
        until("its successor", || {
            let output = run(c.meshgate("status").args(["-o", "json"]));
            let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
            let components = status["components"].as_array()?;
            let found = components
                .iter()
                .find(|p| p["name"].as_str().is_some_and(|n| n.starts_with(component)))?;
            (found["pid"].as_i64()? != i64::from(pid) && found["healthy"] == true).then_some(())
        });
        let healed = load.elapsed() - killed;
        let traffic = load.elapsed();
        until("traffic after that", || {
            (load.elapsed() > traffic + Duration::from_secs(1)).then_some(())
        });
        let answers = load.stop();
        let failed = failures(&answers);
        println!(
            "kill -9 {component}: {} of {} requests failed, healed after {healed:?}",
            failed.len(),
            answers.len()
        );
        let late = failed
            .iter()
            .filter(|a| a.at > killed + Duration::from_secs(5))
            .count();
        assert_eq!(late, 0, "{component}: requests fail after 5 s: {failed:?}");
        assert!(failed.len() <= allowed, "{component}: {failed:?}");
        assert_eq!(
            c.kubectl(&["get", "all", "-A", "-o", "name"])
                .lines()
                .count(),
            objects,
            "no object is lost"
        );
    }
}

#[test]
fn a_crash_of_everything_is_survived() {
    let cluster = Cluster::start(&["--demo"]);
    let state = std::fs::read_to_string(cluster.data_dir().join("state.json")).expect("state.json");
    let state: serde_json::Value = serde_json::from_str(&state).expect("JSON");
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]);
    kill(i32::try_from(state["keeper_pid"].as_i64().expect("a process id")).expect("a process id"));
    until("everything to end", || {
        let output = run(&mut cluster.meshgate("status"));
        (!output.status.success()).then_some(())
    });
    let output = cluster.up(&[]);
    assert!(
        output.status.success(),
        "{}\n{}",
        text(&output),
        cluster.logs()
    );
    let cluster = cluster.started();
    assert_eq!(
        cluster.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]),
        "b"
    );
    until("the shop to answer again", || {
        (cluster.get("shop.localhost", "/").0 == 200).then_some(())
    });
}

#[test]
fn without_root_it_works_or_says_why() {
    if !nix_is_root() {
        panic!("this test changes to another user and needs root");
    }
    let home = tempfile::Builder::new()
        .prefix("meshgate-user-")
        .tempdir()
        .expect("a folder");
    let binary = home.path().join("meshgate");
    meshgate_tests::copy_program(&meshgate_tests::meshgate(), &binary);
    let folder = home.path().display().to_string();
    assert!(
        run(Command::new("chmod").args(["-R", "a+rx"]).arg(home.path()))
            .status
            .success()
    );
    assert!(
        run(Command::new("chown")
            .args(["-R", "65534:65534"])
            .arg(home.path()))
        .status
        .success()
    );
    let as_user = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "env",
            &format!("HOME={folder}"),
        ]);
        command.arg(&binary).args(arguments).current_dir(&folder);
        run(&mut command)
    };
    let name = format!("user-{}", std::process::id());
    let up = as_user(&[
        "up",
        "--detach",
        "--name",
        &name,
        "--http",
        "127.0.0.1:0",
        "--https",
        "127.0.0.1:0",
        "--api",
        "127.0.0.1:0",
    ]);
    if up.status.success() {
        let kubeconfig = format!("{folder}/.local/share/meshgate/{name}/kubeconfig");
        let pods =
            run(Command::new("kubectl").args(["--kubeconfig", &kubeconfig, "get", "pods", "-A"]));
        assert!(text(&pods).contains("Running"), "{}", text(&pods));
        let down = as_user(&["down", "--name", &name]);
        assert!(down.status.success(), "{}", text(&down));
    } else {
        let said = text(&up);
        assert!(
            said.contains("root") && said.contains("sysctl"),
            "the reason and the remedy: {said}"
        );
    }
}

fn nix_is_root() -> bool {
    text(&run(Command::new("id").arg("-u"))).trim() == "0"
}
