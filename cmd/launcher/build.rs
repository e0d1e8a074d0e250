//! Links the executable without a C library: `src/start.rs` has the entry point, and there is nothing to relocate.

fn main() {
    for arg in ["-nostartfiles", "-static", "-no-pie"] {
        println!("cargo:rustc-link-arg-bins={arg}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
