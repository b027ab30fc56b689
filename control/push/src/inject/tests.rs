//! Golden manifests: `golden/NAME.yaml` becomes `golden/NAME.injected.yaml`. `UPDATE=1` writes what comes out.

use std::path::Path;

use serde_json::json;

use super::{InjectOptions, Outcome, Reason, inject_manifest, inject_pod};

fn golden(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/inject/golden");
    let read = |file: String| std::fs::read_to_string(folder.join(file)).unwrap_or_default();
    let input = read(format!("{name}.yaml"));
    let (output, notes) = inject_manifest(&input, &InjectOptions::default()).expect("a manifest");
    let notes: String = notes
        .iter()
        .map(|note| match note.left {
            Some(reason) => format!("# {}: no sidecar: {reason}\n", note.object),
            None => format!("# {}: injected\n", note.object),
        })
        .collect();
    let shown = format!("{notes}{output}");
    let file = format!("{name}.injected.yaml");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(folder.join(&file), &shown).expect("written");
    }
    assert_eq!(shown, read(file), "UPDATE=1 writes what comes out");
    // What the injector made, it leaves alone.
    let (again, _) = inject_manifest(&output, &InjectOptions::default()).expect("a manifest");
    assert_eq!(again, output);
}

#[test]
fn a_deployment_among_other_documents() {
    golden("deployment");
}

#[test]
fn a_pod_with_annotations() {
    golden("pod");
}

#[test]
fn a_list_and_a_cron_job() {
    golden("list");
}

#[track_caller]
fn check(yaml: &str, namespace_opted_in: bool, expected: &str) {
    let pod: serde_json::Value = serde_norway::from_str(yaml).expect("valid YAML");
    let shown = match inject_pod(&pod, namespace_opted_in, &InjectOptions::default()) {
        Ok(Outcome::Inject(_)) => "injected".to_owned(),
        Ok(Outcome::Leave(reason)) => format!("left: {reason}"),
        Err(refusal) => format!("refused: {refusal}"),
    };
    assert_eq!(shown, expected);
}

#[test]
fn who_gets_one() {
    let asks = "metadata: {labels: {meshgate.dev/inject: 'true'}}\nspec: {containers: []}";
    check("spec: {containers: []}", true, "injected");
    check(
        "spec: {containers: []}",
        false,
        &format!("left: {}", Reason::NotAsked),
    );
    check(asks, false, "injected");
    check(
        &asks.replace("true", "false"),
        true,
        "left: its label meshgate.dev/inject says so",
    );
    check(
        &asks.replace("true", "yes"),
        true,
        "refused: label meshgate.dev/inject is \"yes\": write \"true\" or \"false\"",
    );
    check(
        "spec: {hostNetwork: true, containers: []}",
        true,
        "left: the pod uses the host's network",
    );
    check(
        "spec: {initContainers: [{name: meshgate-sidecar}]}",
        true,
        "left: it has one already",
    );
    check("spec: 7", true, "refused: /spec is no object");
    check(
        "spec: {initContainers: {}}",
        true,
        "refused: /spec/initContainers is no list",
    );
}

#[test]
fn annotations_that_say_nothing_sensible_are_refused() {
    let pod = |annotation: &str| {
        format!("metadata: {{annotations: {{{annotation}}}}}\nspec: {{containers: []}}")
    };
    check(
        &pod("meshgate.dev/skip-inbound-ports: '22,http'"),
        true,
        "refused: annotation meshgate.dev/skip-inbound-ports: \"http\" is neither a port nor a range of ports",
    );
    let memory = pod("meshgate.dev/proxy-memory: lots");
    let pod: serde_json::Value = serde_norway::from_str(&memory).expect("valid YAML");
    let refusal = inject_pod(&pod, true, &InjectOptions::default())
        .expect_err("no quantity")
        .to_string();
    assert!(
        refusal.starts_with("annotation meshgate.dev/proxy-memory: \"lots\" is not a quantity"),
        "{refusal}"
    );
}

#[test]
fn the_patch_only_adds() {
    let pod = json!({ "spec": { "containers": [{ "name": "app" }], "initContainers": [{ "name": "first" }] } });
    let outcome = inject_pod(&pod, true, &InjectOptions::default()).expect("injected");
    let Outcome::Inject(patch) = outcome else {
        panic!("left alone");
    };
    let patch = serde_json::to_value(&patch).expect("JSON");
    let operations = patch.as_array().expect("a list");
    assert!(
        operations.iter().all(|operation| operation["op"] == "add"),
        "{patch}"
    );
    let paths: Vec<_> = operations
        .iter()
        .map(|operation| operation["path"].as_str().expect("a path"))
        .collect();
    let expected = [
        "/metadata",
        "/metadata/annotations",
        "/metadata/annotations/meshgate.dev~1sidecar",
        "/spec/initContainers/0",
        "/spec/volumes",
        "/spec/volumes/-",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn what_is_no_manifest_says_where() {
    let error = inject_manifest("kind: Pod\nspec: {}\n---\n{", &InjectOptions::default())
        .expect_err("not YAML");
    assert_eq!(error.to_string(), "document 2 is not valid YAML");
    let pod = "kind: Pod\nmetadata: {name: a, labels: {meshgate.dev/inject: maybe}}\nspec: {}\n";
    let error = inject_manifest(pod, &InjectOptions::default()).expect_err("refused");
    assert_eq!(error.to_string(), "document 1, Pod/a");
}

#[test]
fn spans_are_told_under_the_applications_name() {
    let options = InjectOptions {
        trace: vec!["--otlp-endpoint=http://collector:4317/".into()],
        ..InjectOptions::default()
    };
    let check = |labels: serde_json::Value, options: &InjectOptions, expected: [bool; 2]| {
        let pod = json!({ "metadata": { "labels": labels }, "spec": { "containers": [] } });
        let Ok(Outcome::Inject(patch)) = inject_pod(&pod, true, options) else {
            panic!("not injected")
        };
        let patch = serde_json::to_string(&patch).expect("a patch is JSON");
        let name = r#"{"name":"OTEL_SERVICE_NAME","value":"catalog"}"#;
        let found = ["\"--otlp-endpoint=http://collector:4317/\"", name];
        assert_eq!(found.map(|text| patch.contains(text)), expected, "{patch}");
    };
    check(json!({ "app": "catalog" }), &options, [true, true]);
    let both = json!({ "app": "x", "app.kubernetes.io/name": "catalog" });
    check(both, &options, [true, true]);
    check(json!({}), &options, [true, false]);
    check(
        json!({ "app": "catalog" }),
        &InjectOptions::default(),
        [false, false],
    );
}
