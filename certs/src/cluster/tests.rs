//! The PKI on disk: complete, kept, renewed, and loud when damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use jiff::SignedDuration;

use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn options() -> ClusterPkiOptions {
    ClusterPkiOptions {
        api_addresses: vec!["192.0.2.7".parse().unwrap()],
        api_names: vec!["api.example".to_owned()],
        api_url_host: "https://127.0.0.1:6443".to_owned(),
        api_url_inside: "https://10.88.0.1:6443".to_owned(),
        cluster_name: "test".to_owned(),
        nodes: vec![("node-0".to_owned(), "10.88.0.10".parse().unwrap())],
    }
}

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

/// Every file below `dir`, by path, with its content.
fn snapshot(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else {
            files.push((path.clone(), fs::read_to_string(&path).unwrap()));
        }
    }
    files.sort();
    files
}

fn changed(before: &[(PathBuf, String)], after: &[(PathBuf, String)], dir: &Path) -> Vec<String> {
    let differs = |file: &&(PathBuf, String)| !before.contains(file);
    let name =
        |(path, _): &(PathBuf, String)| path.strip_prefix(dir).unwrap().display().to_string();
    after.iter().filter(differs).map(name).collect()
}

#[test]
fn the_second_start_changes_nothing_and_open_finds_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let first = ClusterPki::ensure_at(dir.path(), &options(), now()).unwrap();
    let files = snapshot(dir.path());
    let second = ClusterPki::ensure_at(dir.path(), &options(), now() + days(200)).unwrap();
    assert_eq!(snapshot(dir.path()), files);
    assert_eq!(first, second);
    assert_eq!(ClusterPki::open(dir.path()).unwrap(), first);
    assert_eq!(first.node("node-0").unwrap().name, "node-0");
    for (path, _) in files {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    let subjects: Vec<String> = first
        .certificates()
        .into_iter()
        .map(|(_, e)| e.subject)
        .collect();
    assert_eq!(subjects.len(), 5, "{subjects:?}");
    let (cert, key) = first.api_server.read().unwrap();
    assert!(crate::credential::Credential::from_pem(&cert, &key).is_ok());
}

#[test]
fn the_api_server_answers_to_its_usual_and_given_names() {
    let dir = tempfile::tempdir().unwrap();
    let pki = ClusterPki::ensure_at(dir.path(), &options(), now()).unwrap();
    let (cert, _) = pki.api_server.read().unwrap();
    let roots = crate::trust::TrustBundle::from_pem(pki.ca_pem()).unwrap();
    use rustls_pki_types::pem::PemObject as _;
    let leaf = rustls_pki_types::CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
        roots.roots.clone(),
        std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
    )
    .build()
    .unwrap();
    let at =
        rustls_pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
    let check = |name: &'static str, good: bool| {
        use rustls::client::danger::ServerCertVerifier as _;
        let name = rustls_pki_types::ServerName::try_from(name).unwrap();
        let answer = verifier.verify_server_cert(&leaf, &[], &name, &[], at);
        assert_eq!(answer.is_ok(), good, "{name:?}: {answer:?}");
    };
    for name in [
        "kubernetes",
        "kubernetes.default.svc",
        "localhost",
        "127.0.0.1",
        "::1",
        "10.96.0.1",
        "10.88.0.1",
        "192.0.2.7",
        "api.example",
    ] {
        check(name, true);
    }
    check("example.org", false);
    check("192.0.2.8", false);
}

#[test]
fn what_nears_its_end_or_no_longer_fits_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let ensure = |options: &ClusterPkiOptions, at: Timestamp| {
        let before = snapshot(dir.path());
        ClusterPki::ensure_at(dir.path(), options, at).unwrap();
        changed(&before, &snapshot(dir.path()), dir.path())
    };
    assert_eq!(ensure(&options(), now()).len(), 3 + 2 * (3 + 1 + 4 + 2) + 6);
    let late = ensure(&options(), now() + days(300));
    assert!(late.contains(&"pki/api-server.crt".to_owned()), "{late:?}");
    assert!(late.contains(&"kubeconfig".to_owned()), "{late:?}");
    assert!(
        !late
            .iter()
            .any(|name| name.starts_with("pki/ca.") || name == "pki/sa.key"),
        "{late:?}"
    );

    let mut moved = options();
    moved.nodes[0].1 = "10.88.0.99".parse().unwrap();
    assert_eq!(
        ensure(&moved, now() + days(301)),
        ["pki/nodes/node-0.crt", "pki/nodes/node-0.key"]
    );
    moved.api_url_host = "https://127.0.0.1:7443".to_owned();
    assert_eq!(ensure(&moved, now() + days(302)), ["kubeconfig"]);
    moved
        .nodes
        .push(("node-1".to_owned(), "10.88.0.11".parse().unwrap()));
    assert_eq!(ensure(&moved, now() + days(303)).len(), 5);
    fs::remove_file(dir.path().join("pki/push.key")).unwrap();
    assert_eq!(
        ensure(&moved, now() + days(304)),
        ["pki/push.crt", "pki/push.key"]
    );
    // A crash between creating and filling a file leaves it empty.
    fs::write(dir.path().join("pki/push.crt"), "").unwrap();
    assert_eq!(
        ensure(&moved, now() + days(305)),
        ["pki/push.crt", "pki/push.key"]
    );
}

#[test]
fn damage_is_an_error_with_a_remedy() {
    let check = |damage: &dyn Fn(&Path), expected: &str| {
        let dir = tempfile::tempdir().unwrap();
        ClusterPki::ensure_at(dir.path(), &options(), now()).unwrap();
        damage(&dir.path().join("pki"));
        let before = snapshot(dir.path());
        let error = ClusterPki::ensure_at(dir.path(), &options(), now()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(snapshot(dir.path()), before, "nothing is overwritten");
    };
    let garbage =
        |name: &'static str| move |pki: &Path| fs::write(pki.join(name), "garbage").unwrap();
    check(
        &garbage("api-server.crt"),
        "api-server.crt is damaged (not PEM); delete it",
    );
    check(&garbage("api-server.key"), "delete it");
    check(&garbage("sa.key"), "delete it");
    check(&garbage("ca.crt"), "start over with --fresh");
    check(&garbage("ca.key"), "start over with --fresh");
    check(
        &|pki: &Path| fs::remove_file(pki.join("ca.key")).unwrap(),
        "ca.key is damaged or lost",
    );
    check(
        &|pki: &Path| fs::rename(pki.join("sa.key"), pki.join("ca.key")).unwrap(),
        "belong",
    );
}

#[test]
fn a_ca_that_lost_its_certificate_is_made_whole_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    ClusterPki::ensure_at(dir.path(), &options(), now()).unwrap();
    let leaf = fs::read(dir.path().join("pki/push.crt")).unwrap();
    fs::remove_file(dir.path().join("pki/ca.crt")).unwrap();
    ClusterPki::ensure_at(dir.path(), &options(), now()).unwrap();
    assert_eq!(fs::read(dir.path().join("pki/push.crt")).unwrap(), leaf);
}

#[test]
fn an_expired_ca_is_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    ClusterPki::ensure_at(dir.path(), &options(), now()).unwrap();
    let error = ClusterPki::ensure_at(dir.path(), &options(), now() + days(3660)).unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
}
