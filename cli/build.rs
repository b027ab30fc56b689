//! Links the release binary small: what a component keeps resident is mostly its program.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |key: &str, wanted: &str| std::env::var(key).is_ok_and(|value| value == wanted);
    // Here the toolchain links with its own LLD; other targets have the system's linker, which may know neither option.
    let lld = is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_OS", "linux");
    if lld && is("CARGO_CFG_TARGET_ENV", "gnu") && is("PROFILE", "release") {
        // Functions with the same code become one; relocations take bits instead of 24 bytes each.
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
