//! Prints Meshgate's own objects, for a cluster that has none of them:
//! `cargo run -p meshgate-push --example manifests -- CA_FILE | kubectl apply -f -`.

use std::io::Write;

use meshgate_push::{ManifestOptions, manifests};

fn main() -> std::io::Result<()> {
    let cluster_ca_pem = match std::env::args().nth(1) {
        Some(file) => std::fs::read_to_string(file)?,
        None => String::new(),
    };
    let text = manifests(&ManifestOptions {
        cluster_ca_pem,
        ..ManifestOptions::default()
    });
    std::io::stdout().write_all(text.as_bytes())
}
