//! Container images made on the spot: nothing can be pulled.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::run;

/// An OCI archive named `name` whose only file is the binary under test, started with `arguments`.
pub fn oci_archive(folder: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let layout = folder.join(format!("layout-{}", name.replace([':', '/'], "-")));
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("a folder");
    let root = folder.join("root");
    std::fs::create_dir_all(&root).expect("a folder");
    std::fs::copy(crate::meshgate(), root.join("app")).expect("the binary can be copied");
    let layer = tar(&root, &folder.join("layer.tar"));
    let layer = blob(&blobs, &std::fs::read(layer).expect("the layer"));
    let config = blob(
        &blobs,
        &serde_json::to_vec(&json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Entrypoint": ["/app"], "Cmd": arguments},
            "rootfs": {"type": "layers", "diff_ids": [layer.0]},
        }))
        .expect("JSON"),
    );
    let manifest = blob(
        &blobs,
        &serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        }))
        .expect("JSON"),
    );
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["annotations"] =
        json!({"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    std::fs::write(layout.join("index.json"), index.to_string()).expect("the index");
    std::fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .expect("the layout");
    tar(
        &layout,
        &folder.join(format!("{}.tar", name.replace([':', '/'], "-"))),
    )
}

fn tar(folder: &Path, to: &Path) -> PathBuf {
    let output = run(Command::new("tar")
        .arg("-C")
        .arg(folder)
        .arg("-cf")
        .arg(to)
        .arg("."));
    assert!(output.status.success(), "{}", crate::text(&output));
    to.to_owned()
}

/// Writes a blob; its digest and size.
fn blob(blobs: &Path, bytes: &[u8]) -> (String, usize) {
    let file = blobs.join("new");
    std::fs::write(&file, bytes).expect("a blob");
    let output = run(Command::new("sha256sum").arg(&file));
    let hex: String = String::from_utf8_lossy(&output.stdout)
        .chars()
        .take(64)
        .collect();
    std::fs::rename(&file, blobs.join(&hex)).expect("a blob");
    (format!("sha256:{hex}"), bytes.len())
}

fn descriptor(media_type: &str, (digest, size): &(String, usize)) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": size})
}
