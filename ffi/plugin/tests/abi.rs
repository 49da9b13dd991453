//! The built library, seen from outside: by C, C++ and Python.
//!
//! For: what `semblance.h` promises. Not for: the engine's pictures. Needs `cargo build --release`
//! before (a test cannot ask cargo for a cdylib), a C and a C++ compiler, `nm` and `python3`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::{env, fs};

static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
});

/// The library: `SEMBLANCE_LIBRARY`, or what `cargo build` left beside this test.
static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = env::var_os("SEMBLANCE_LIBRARY").map_or_else(
        || {
            env::current_exe()
                .unwrap()
                .parent()
                .unwrap()
                .join("../libsemblance.so")
        },
        PathBuf::from,
    );
    path.canonicalize()
        .unwrap_or_else(|e| panic!("{}: {e}: run cargo build --release first", path.display()))
});

/// The harness of the checks, compiled once.
static ABI: LazyLock<PathBuf> = LazyLock::new(|| {
    let files = ["abi.cpp", "abi_boundary.cpp", "abi_jobs.cpp"];
    let files = files.map(|file| format!("ffi/plugin/tests/c/{file}"));
    compile_cpp(&files.each_ref().map(String::as_str), "abi")
});

fn model() -> PathBuf {
    ROOT.join("tests/fixtures/tiny")
}

fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output
}

fn compile(compiler: &str, standard: &str, sources: &[&str], name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // The library by its path: no directory has to be searched when the program runs.
    run(Command::new(compiler)
        .args([
            standard,
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            "-pthread",
            "-I",
        ])
        .arg(ROOT.join("include"))
        .args(sources.iter().map(|source| ROOT.join(source)))
        .arg(&*LIBRARY)
        .arg(format!(
            "-Wl,-rpath,{}",
            LIBRARY.parent().unwrap().display()
        ))
        .args(["-ldl", "-o"])
        .arg(&program));
    program
}

fn compile_c(source: &str, name: &str) -> PathBuf {
    compile(
        &env::var("CC").unwrap_or("cc".into()),
        "-std=c99",
        &[source],
        name,
    )
}

fn compile_cpp(sources: &[&str], name: &str) -> PathBuf {
    compile(
        &env::var("CXX").unwrap_or("c++".into()),
        "-std=c++17",
        sources,
        name,
    )
}

/// Runs one check of `c/abi_*.cpp` in a process of its own; the library must leave stdout alone.
fn check(name: &str) {
    let output = run(Command::new(&*ABI).arg(&*LIBRARY).arg(model()).arg(name));
    assert!(
        output.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

macro_rules! checks {
    ($($sentence:ident: $check:literal,)*) => { $(#[test] fn $sentence() { check($check) })* };
}

checks! {
    a_version_that_is_not_served_gets_no_table_and_asking_starts_no_thread: "version",
    null_is_refused_by_name_and_given_back_without_harm: "null_arguments",
    errors_are_cut_between_characters_and_never_leave_their_struct: "errors_are_bounded",
    structs_of_a_later_host_are_read_and_of_a_broken_one_refused: "struct_sizes",
    garbage_pixels_are_refused: "garbage_pixels",
    garbage_masks_are_refused_and_nothing_is_written: "garbage_masks",
    garbage_texts_are_refused: "garbage_texts",
    in_place_apart_and_bottom_up_give_the_same_bytes: "edit_in_place_and_apart",
    buffers_that_overlap_are_refused_before_the_work: "overlap_is_refused",
    a_callback_goes_on_with_one_constant_only_on_the_calling_thread: "callbacks",
    a_preview_shows_the_result_at_any_size: "previews_show_the_result",
    a_cancel_while_a_large_layer_is_read_leaves_it_as_it_was: "a_large_layer_is_cancelled",
    a_newer_preview_supersedes_the_older_ones: "previews_supersede",
    a_second_final_job_is_refused_or_waits_and_any_thread_cancels: "busy_and_cancel",
    destroying_a_busy_engine_cancels_and_joins: "destroy_while_busy",
    eight_threads_may_ask_while_a_job_runs: "queries_from_eight_threads",
    loading_is_a_call_or_a_job_and_the_log_tells: "load_and_log",
    twenty_cycles_leave_memory_and_threads_flat: "cycles_stay_flat",
    a_forked_child_gets_an_answer_instead_of_a_hang: "forked_child_is_told",
    the_hosts_floating_point_mode_changes_no_byte_and_is_kept: "floating_point_mode_is_kept",
    the_cpp_header_owns_and_throws: "cpp_header",
}

#[test]
fn the_library_exports_one_symbol() {
    let output = run(Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(&*LIBRARY));
    let text = String::from_utf8(output.stdout).unwrap();
    let names: Vec<_> = text
        .lines()
        .filter_map(|l| l.split_whitespace().nth(2))
        .collect();
    assert_eq!(names, ["semblance_get_api"]);
}

#[test]
fn the_layout_is_the_one_that_hosts_were_compiled_with() {
    let golden = fs::read_to_string(ROOT.join("ffi/plugin/tests/c/layout.txt")).unwrap();
    let c = run(&mut Command::new(compile_c(
        "ffi/plugin/tests/c/layout.c",
        "layout",
    )));
    assert_eq!(String::from_utf8(c.stdout).unwrap(), golden);
    let python = run(Command::new("python3")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONPATH", ROOT.join("examples/python"))
        .arg(ROOT.join("ffi/plugin/tests/c/layout.py")));
    assert_eq!(String::from_utf8(python.stdout).unwrap(), golden);
}

const RECIPE: &str = r#"{"semblance": 1, "steps": 3, "text":
    {"from": "a photo of hills", "to": "a photo of hills, at night", "strength": 1}}"#;

/// A gradient as PPM, and where its edit goes.
fn picture(name: &str) -> (PathBuf, PathBuf) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (width, height) = (90, 150);
    let mut ppm = format!("P6\n{width} {height}\n255\n").into_bytes();
    for i in 0..width * height {
        let (x, y) = (i % width, i / width);
        ppm.extend([x * 255 / width, y * 255 / height, 128].map(|v| v as u8));
    }
    let paths = (
        folder.join(format!("{name}.ppm")),
        folder.join(format!("{name}-out.ppm")),
    );
    fs::write(&paths.0, ppm).unwrap();
    paths
}

/// Runs an example and returns the picture that it wrote.
fn example(name: &str, command: &mut Command) -> Vec<u8> {
    let (input, output) = picture(name);
    run(command.arg(&input).arg(&output).args([RECIPE]).arg(model()));
    let (before, after) = (fs::read(input).unwrap(), fs::read(output).unwrap());
    assert_eq!(before.len(), after.len());
    assert_ne!(before, after, "nothing changed");
    after
}

#[test]
fn the_examples_in_c_cpp_and_python_write_the_same_picture() {
    let c = compile_c("examples/c/edit.c", "edit-c");
    let cpp = compile_cpp(&["examples/cpp/edit.cpp"], "edit-cpp");
    let by_c = example("c", &mut Command::new(c));
    assert_eq!(by_c, example("cpp", &mut Command::new(cpp)));
    let script = ROOT.join("examples/python/edit.py");
    let mut python = Command::new("python3");
    python
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SEMBLANCE_LIBRARY", &*LIBRARY)
        .arg(script);
    assert_eq!(by_c, example("python", &mut python));
}

#[test]
fn the_examples_say_how_they_are_used_and_what_went_wrong() {
    let c = compile_c("examples/c/edit.c", "usage-c");
    let usage = Command::new(&c).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&usage.stderr).contains("usage:"));
    let (input, output) = picture("usage");
    let wrong = Command::new(&c)
        .arg(input)
        .arg(output)
        .arg("{")
        .arg(model())
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("invalid_recipe"));
}
