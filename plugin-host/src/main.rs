//! The command `semblance`; everything is in the library of this crate, where tests reach it.

fn main() -> std::process::ExitCode {
    semblance_host::cli::main()
}
