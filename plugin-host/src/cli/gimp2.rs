//! GIMP 2.10's plug-in, which is C: compiled on the user's machine from the source inside this program.
//!
//! For: `install`. Not for: finding folders, writing into them. GIMP 2.10 runs Python 2 or none, and a
//! program must fit the machine's GTK; what compiling needs is one package away wherever that GIMP is.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Output};

use crate::failure::{Failure, Result};

/// The program that GIMP starts; its folder has the same name.
const PROGRAM: &str = if cfg!(windows) {
    "semblance-edit.exe"
} else {
    "semblance-edit"
};

/// The same, as a path in GIMP's folder of the user.
pub(super) const MAIN: &str = if cfg!(windows) {
    "plug-ins/semblance-edit/semblance-edit.exe"
} else {
    "plug-ins/semblance-edit/semblance-edit"
};

/// What pkg-config is asked for.
const PACKAGES: [&str; 3] = ["gimpui-2.0", "gmodule-2.0", "json-glib-1.0"];

/// The plug-in's source.
const SOURCE: [(&str, &str); 11] = [
    (
        "semblance-edit.c",
        include_str!("../../editors/gimp2/semblance-edit.c"),
    ),
    ("dialog.c", include_str!("../../editors/gimp2/dialog.c")),
    ("controls.c", include_str!("../../editors/gimp2/controls.c")),
    ("preview.c", include_str!("../../editors/gimp2/preview.c")),
    ("layers.c", include_str!("../../editors/gimp2/layers.c")),
    ("words.c", include_str!("../../editors/gimp2/words.c")),
    ("work.c", include_str!("../../editors/gimp2/work.c")),
    ("gimp2.h", include_str!("../../editors/gimp2/gimp2.h")),
    ("controls.h", include_str!("../../editors/gimp2/controls.h")),
    ("preview.h", include_str!("../../editors/gimp2/preview.h")),
    (
        "semblance.h",
        include_str!("../../../include/semblance/semblance.h"),
    ),
];

/// Whether this folder of a user's is a GIMP 2.10's; it is named like the version.
pub(super) fn serves(folder: &Path) -> bool {
    folder.file_name().is_some_and(|name| name == "2.10")
}

/// Compiles the plug-in; the program's bytes.
pub(super) fn compile() -> Result<Vec<u8>> {
    let mut ask = Command::new(tool("PKG_CONFIG", "pkg-config"));
    let flags = finished(ask.args(["--cflags", "--libs"]).args(PACKAGES))?;
    let flags = String::from_utf8_lossy(&flags.stdout);
    let folder =
        tempfile::tempdir().map_err(|error| Failure::unwritable(&std::env::temp_dir(), &error))?;
    let mut cc = Command::new(tool("CC", "cc"));
    cc.current_dir(folder.path())
        .args(["-std=gnu11", "-O2", "-w", "-o", PROGRAM]);
    for (name, text) in SOURCE {
        let path = folder.path().join(name);
        std::fs::write(&path, text).map_err(|error| Failure::unwritable(&path, &error))?;
        if name.ends_with(".c") {
            cc.arg(name);
        }
    }
    finished(cc.args(flags.split_whitespace()).arg("-lm"))?;
    let made = folder.path().join(PROGRAM);
    std::fs::read(&made).map_err(|error| Failure::unreadable(&made, &error))
}

fn tool(variable: &str, otherwise: &str) -> OsString {
    std::env::var_os(variable)
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| otherwise.into())
}

/// What a command said that ended well.
fn finished(command: &mut Command) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let why = match command.output() {
        Ok(output) if output.status.success() => return Ok(output),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
            let first = lines.iter().find(|line| line.contains("error"));
            first
                .or(lines.first())
                .map_or(String::new(), |line| (*line).to_owned())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "is not there".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Failure::usage(format!(
        "the plug-in of GIMP 2.10 is compiled on this machine, which failed: {name}: {why}"
    ))
    .hint(
        "install a C compiler and GIMP's headers (Debian, Ubuntu: sudo apt-get install gcc pkg-config \
         libgimp2.0-dev; Fedora: sudo dnf install gcc gimp-devel), then try again",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_header_of_ours_that_the_source_includes_is_there() {
        let mut found = 0;
        for (file, text) in SOURCE {
            let included = text
                .lines()
                .filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"'));
            for header in included {
                found += 1;
                let there = SOURCE.iter().any(|(name, _)| *name == header);
                assert!(there, "{file}: {header}");
            }
        }
        assert!(found >= 10);
    }

    #[test]
    fn a_tool_that_fails_is_named_with_what_to_install() {
        let failure = finished(&mut Command::new("no-such-compiler")).unwrap_err();
        assert!(
            failure.message.contains("no-such-compiler: is not there"),
            "{failure}"
        );
        assert!(failure.hint.contains("libgimp2.0-dev"), "{failure}");
    }
}
