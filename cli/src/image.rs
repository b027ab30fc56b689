//! `meshgate image`: the store that a cluster's nodes share. Works with and without a running cluster.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use meshgate_agent::images::{ImageStore, ImageSummary};

use crate::args::{ClusterArgs, ImageCommand, Output};
use crate::cluster::Cluster;

pub(crate) fn run(command: &ImageCommand) -> anyhow::Result<ExitCode> {
    match command {
        ImageCommand::Load { cluster, files } => {
            let store = open(cluster)?;
            for file in files {
                let loaded = store
                    .load(file)
                    .with_context(|| format!("cannot load {}", file.display()))?;
                for image in loaded {
                    say(&format!("loaded {} {}", image.name, image.digest))?;
                }
            }
        }
        ImageCommand::List { cluster, output } => {
            let images = open(cluster)?.list().context("cannot list the images")?;
            say(&match output {
                Output::Text => table(&images),
                Output::Json => {
                    serde_json::to_string_pretty(&images.iter().map(json).collect::<Vec<_>>())?
                }
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn open(cluster: &ClusterArgs) -> anyhow::Result<ImageStore> {
    let cluster = Cluster::find(cluster)?;
    cluster.must_exist()?;
    ImageStore::open(&cluster.path("images")).context("the image store")
}

fn table(images: &[ImageSummary]) -> String {
    let mut text = format!("{:<50}  {:<19}  {:>10}", "NAME", "DIGEST", "SIZE");
    for image in images {
        let digest: String = image.digest.chars().take(19).collect();
        text += &format!(
            "\n{:<50}  {digest:<19}  {:>7} kB",
            image.name,
            image.size / 1000
        );
    }
    text
}

fn json(image: &ImageSummary) -> serde_json::Value {
    serde_json::json!({"name": image.name, "digest": image.digest, "size": image.size})
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot write")
}
