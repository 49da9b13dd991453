//! Compiles the bridge and the function table.

fn main() {
    cxx_build::CFG.include_prefix = "semblance-ffi";
    cxx_build::bridge("src/bridge.rs")
        .file("cpp/table.cpp")
        .include("../include")
        .define("SEMBLANCE_BUILD", None)
        .std("c++17")
        .flag_if_supported("-fvisibility=hidden")
        .flag_if_supported("-Wall")
        .flag_if_supported("-Wextra")
        .compile("semblance-table");
    for path in [
        "src/bridge.rs",
        "cpp/table.cpp",
        "cpp/table.h",
        "../include/semblance/semblance.h",
    ] {
        println!("cargo:rerun-if-changed={path}");
    }
}
