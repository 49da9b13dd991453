//! `semblance install`: puts the plug-in where an editor looks for it, and takes it away again.
//!
//! For: the editors of one user, several side by side. Not for: installing editors, or this program.
//! The library is copied beside the plug-in's files, so that neither a moved build folder nor a
//! sandbox (Flatpak, Snap) separates the two; so is this program where the plug-in starts it. GIMP 2.10's
//! plug-in is a program, which [`gimp2`] compiles.

use super::args::{Editor, Install};
use super::editors::{self, Place};
use super::{gimp2, sandbox, say};
use crate::document::atomic;
use crate::failure::{Failure, Result};
use crate::library::{Library, file_name};

/// `semblance install`.
pub(super) fn run(args: &Install) -> Result<()> {
    let editor = args.editor;
    let places = match &args.user_dir {
        Some(folder) => vec![Place::named(editor, folder)],
        None => {
            let mut places = editors::found();
            places.retain(|place| place.editor == editor && place.supported());
            places
        }
    };
    if places.is_empty() {
        return Err(editor.missing());
    }
    for place in &places {
        let done = if args.uninstall {
            remove(place)
        } else {
            put(place)
        };
        match done {
            // The folder of an old GIMP, which many keep beside that of a GIMP 3, must not spoil all.
            Err(failure) if place.is_gimp2() && places.len() > 1 => {
                say(&format!("left out {}: {failure}", place.folder.display()));
            }
            done => done?,
        }
    }
    if !args.uninstall {
        if args.user_dir.is_none() {
            tell_of_sandboxes(editor);
        }
        say(editor.to_click());
    }
    Ok(())
}

/// Says which models a Flatpak or a Snap of this editor can use.
fn tell_of_sandboxes(editor: Editor) {
    let folders = sandbox::model_folders(None);
    for one in sandbox::found(editor) {
        say(&format!(
            "{}. The embedded model needs none of them.",
            one.told()
        ));
        for (folder, remedy) in one.unseen(&folders) {
            say(&format!("  not in {}: {remedy}", folder.display()));
        }
    }
}

fn put(place: &Place) -> Result<()> {
    // Loaded, so that a damaged library is told now and not in the editor.
    let library = Library::find()?;
    let bytes = std::fs::read(library.path())
        .map_err(|error| Failure::unreadable(library.path(), &error))?;
    let files: Vec<(&str, Vec<u8>)> = if place.is_gimp2() {
        say("compiling the plug-in of GIMP 2.10");
        vec![(gimp2::MAIN, gimp2::compile()?)]
    } else {
        let files = place.editor.files().iter();
        files
            .map(|(name, text)| (*name, text.as_bytes().to_owned()))
            .collect()
    };
    // Last the file by which the editor finds the plug-in: half of one is none.
    atomic::write(&place.home().join(file_name()), &bytes, super::stopped)?;
    let child = place.editor.starts_a_child();
    if child {
        let path = place.home().join(command_name());
        atomic::write(&path, &this_program()?, super::stopped)?;
        make_executable(&path)?;
    }
    for (name, contents) in files.iter().rev() {
        let path = place.folder.join(name);
        atomic::write(&path, contents, super::stopped)?;
        if place.is_gimp2() || contents.starts_with(b"#!") {
            make_executable(&path)?;
        }
    }
    say(&format!(
        "installed in {} ({} files, library {})",
        place.home().display(),
        files.len() + 1 + usize::from(child),
        library.version()
    ));
    if !place.packing.is_empty() {
        say(&format!(
            "  that editor is a {}; this was not tried with one",
            place.packing
        ));
    }
    Ok(())
}

/// What this program is called beside a plug-in.
fn command_name() -> String {
    format!("semblance{}", std::env::consts::EXE_SUFFIX)
}

/// This program's file.
fn this_program() -> Result<Vec<u8>> {
    let unknown = |error: std::io::Error| {
        Failure::library(format!("this program's own file is not known: {error}"))
    };
    let path = std::env::current_exe().map_err(unknown)?;
    std::fs::read(&path).map_err(|error| Failure::unreadable(&path, &error))
}

/// Lets the file be started; elsewhere than on Unix every file may be.
fn make_executable(path: &std::path::Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
            .map_err(|error| Failure::unwritable(path, &error))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Removes our files, and the folder if nobody put anything else there.
fn remove(place: &Place) -> Result<()> {
    let home = place.home();
    if !place.has_it() {
        say(&format!("nothing to remove in {}", home.display()));
        return Ok(());
    }
    let ours = place.editor.files().iter();
    let ours = ours.map(|(name, _)| place.folder.join(name));
    let built = [
        place.folder.join(gimp2::MAIN),
        home.join(file_name()),
        home.join(command_name()),
    ];
    for path in ours.chain(built) {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::unwritable(&path, &error));
            }
            _ => {}
        }
    }
    // Python's own; may be absent.
    let _ = std::fs::remove_dir_all(home.join("__pycache__"));
    let kept = std::fs::remove_dir(&home).is_err();
    say(&format!(
        "removed from {}{}",
        home.display(),
        if kept {
            "; other files there were kept"
        } else {
            ""
        }
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removing_keeps_what_is_not_ours() {
        for editor in [Editor::Gimp, Editor::Krita] {
            let root = tempfile::tempdir().unwrap();
            let place = Place::named(editor, &root.path().join("3.0"));
            let home = place.home();
            std::fs::create_dir_all(home.join("__pycache__")).unwrap();
            let main = place.folder.join(editor.files()[0].0);
            for path in [
                main.clone(),
                home.join("semblance.py"),
                home.join("mine.txt"),
            ] {
                std::fs::write(path, "x").unwrap();
            }
            remove(&place).unwrap();
            let left: Vec<_> = std::fs::read_dir(&home).unwrap().flatten().collect();
            assert_eq!(left.len(), 1);
            assert_eq!(left[0].file_name(), "mine.txt");
            std::fs::remove_file(home.join("mine.txt")).unwrap();
            std::fs::write(main, "x").unwrap();
            remove(&place).unwrap();
            assert!(!home.exists());
        }
    }
}
