//! Compiles the protos in pure Rust: no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/push.proto"], ["proto"])?;
    let mut prost = tonic_prost_build::Config::new();
    prost.enable_type_names();
    tonic_prost_build::configure()
        .skip_debug([".meshgate.push.v1alpha1.Certificate"])
        .compile_fds_with_config(descriptors, prost)?;
    Ok(())
}
