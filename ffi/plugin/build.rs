//! Linker flags of the shared library.

fn main() {
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if os == "linux" || os.ends_with("bsd") {
        for flag in [
            // Only what this crate itself exports, not what the libraries in it would (cxx: 174).
            "-Wl,--exclude-libs,ALL",
            // Thread pools live as long as the process: unmapping the code under them would crash.
            "-Wl,-z,nodelete",
            "-Wl,-soname,libsemblance.so",
        ] {
            println!("cargo:rustc-cdylib-link-arg={flag}");
        }
    }
    println!("cargo:rerun-if-changed=build.rs");
}
