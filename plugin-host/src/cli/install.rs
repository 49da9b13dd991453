//! `semblance install`: puts the plug-in where an editor looks for it, and takes it away again.
//!
//! For: the editors of one user, several side by side. Not for: installing editors, or this program.
//! The plug-in's Python files are inside this program; the library is copied beside them, so that
//! neither a moved build folder nor a sandbox (Flatpak, Snap) separates the two.

use std::path::{Path, PathBuf};

use super::args::{Editor, Install};
use super::say;
use crate::document::atomic;
use crate::failure::{Failure, Result};
use crate::library::{Library, file_name};

/// The plug-in's folder and main file; GIMP wants both to have one name.
const NAME: &str = "semblance-edit";

/// The files of GIMP's plug-in; the first is the one that GIMP starts.
const GIMP: [(&str, &str); 7] = [
    (
        "semblance-edit.py",
        include_str!("../../editors/gimp3/semblance-edit.py"),
    ),
    (
        "semblance_layers.py",
        include_str!("../../editors/gimp3/semblance_layers.py"),
    ),
    (
        "semblance_dialog.py",
        include_str!("../../editors/gimp3/semblance_dialog.py"),
    ),
    (
        "semblance_preview.py",
        include_str!("../../editors/gimp3/semblance_preview.py"),
    ),
    (
        "semblance_work.py",
        include_str!("../../editors/python/semblance_work.py"),
    ),
    (
        "semblance_words.py",
        include_str!("../../editors/python/semblance_words.py"),
    ),
    (
        "semblance.py",
        include_str!("../../../examples/python/semblance.py"),
    ),
];

/// A folder in which a GIMP keeps one user's things.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The folder; its name is the version.
    folder: PathBuf,
    /// How that GIMP was packed: "", "Flatpak" or "Snap".
    packing: &'static str,
}

impl Place {
    fn plug_in(&self) -> PathBuf {
        self.folder.join("plug-ins").join(NAME)
    }

    /// In a few words, for `doctor`.
    pub(super) fn told(&self) -> String {
        let version = self.folder.file_name().unwrap_or_default();
        let packing = match self.packing {
            "" => String::new(),
            packing => format!(" ({packing})"),
        };
        let has = if self.plug_in().join(GIMP[0].0).is_file() {
            "has Semblance"
        } else if self.supported() {
            "without Semblance: semblance install gimp"
        } else {
            "not served: GIMP 3 is needed"
        };
        format!("GIMP {}{packing}: {has}", version.to_string_lossy())
    }

    fn supported(&self) -> bool {
        let name = self.folder.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with("3.")
    }
}

/// `semblance install`.
pub(super) fn run(args: &Install) -> Result<()> {
    let Editor::Gimp = args.editor;
    let places = match &args.user_dir {
        Some(folder) => vec![Place {
            folder: folder.clone(),
            packing: "",
        }],
        None => gimps().into_iter().filter(Place::supported).collect(),
    };
    if places.is_empty() {
        return Err(
            Failure::usage("no folder of a GIMP 3 was found").hint(format!(
                "start GIMP 3 once, or name its folder (Edit ▸ Preferences ▸ Folders): \
             semblance install gimp --user-dir {}",
                "~/.config/GIMP/3.0"
            )),
        );
    }
    for place in &places {
        if args.uninstall {
            remove(place)?;
        } else {
            put(place)?;
        }
    }
    if !args.uninstall {
        say("Start GIMP again, open a picture, and click Filters ▸ Semblance ▸ Edit Attribute…");
    }
    Ok(())
}

fn put(place: &Place) -> Result<()> {
    let folder = place.plug_in();
    // Loaded, so that a damaged library is told now and not in GIMP.
    let library = Library::find()?;
    let bytes = std::fs::read(library.path())
        .map_err(|error| Failure::unreadable(library.path(), &error))?;
    // Last the file that GIMP starts: half a plug-in is none.
    atomic::write(&folder.join(file_name()), &bytes, super::stopped)?;
    for (name, text) in GIMP.iter().rev() {
        let path = folder.join(name);
        atomic::write(&path, text.as_bytes(), super::stopped)?;
        #[cfg(unix)]
        if *name == GIMP[0].0 {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
                .map_err(|error| Failure::unwritable(&path, &error))?;
        }
    }
    say(&format!(
        "installed in {} ({} files, library {})",
        folder.display(),
        GIMP.len() + 1,
        library.version()
    ));
    if !place.packing.is_empty() {
        say(&format!(
            "  that GIMP is a {0}; this was not tried with one. Models in folders that the {0} may \
             not read cannot be used; the embedded one can.",
            place.packing
        ));
    }
    Ok(())
}

/// Removes our files, and the folder if nobody put anything else there.
fn remove(place: &Place) -> Result<()> {
    let folder = place.plug_in();
    if !folder.join(GIMP[0].0).is_file() {
        say(&format!("nothing to remove in {}", folder.display()));
        return Ok(());
    }
    let ours = GIMP.iter().map(|(name, _)| (*name).to_owned());
    for name in ours.chain([file_name()]) {
        let path = folder.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::unwritable(&path, &error));
            }
            _ => {}
        }
    }
    // Python's own; may be absent.
    let _ = std::fs::remove_dir_all(folder.join("__pycache__"));
    let kept = std::fs::remove_dir(&folder).is_err();
    say(&format!(
        "removed from {}{}",
        folder.display(),
        if kept {
            "; other files there were kept"
        } else {
            ""
        }
    ));
    Ok(())
}

/// The folders of every GIMP of this user, oldest version first.
pub(super) fn gimps() -> Vec<Place> {
    let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = path("GIMP3_DIRECTORY") {
        return vec![Place {
            folder: folder.into(),
            packing: "",
        }];
    }
    let Some(home) = std::env::home_dir() else {
        return Vec::new();
    };
    let config = path("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
    let mut places = Vec::new();
    for (root, packing) in [
        (config, ""),
        (home.join("Library/Application Support"), ""),
        (path("APPDATA").map(PathBuf::from).unwrap_or_default(), ""),
        (home.join(".var/app/org.gimp.GIMP/config"), "Flatpak"),
        (home.join("snap/gimp/current/.config"), "Snap"),
    ] {
        if root.is_absolute() {
            places.extend(versions(&root.join("GIMP"), packing));
        }
    }
    places
}

/// The folders in `root` that are named like a version.
fn versions(root: &Path, packing: &'static str) -> Vec<Place> {
    let Ok(entries) = std::fs::read_dir(root) else {
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            path.is_dir() && name.starts_with(|c: char| c.is_ascii_digit())
        })
        .collect();
    folders.sort();
    folders
        .into_iter()
        .map(|folder| Place { folder, packing })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_versions_are_found_and_only_gimp_3_is_served() {
        let root = tempfile::tempdir().unwrap();
        for name in ["3.0", "2.10", "notes"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        let found = versions(root.path(), "Snap");
        let told: Vec<String> = found.iter().map(Place::told).collect();
        assert_eq!(
            told,
            [
                "GIMP 2.10 (Snap): not served: GIMP 3 is needed",
                "GIMP 3.0 (Snap): without Semblance: semblance install gimp",
            ]
        );
    }

    #[test]
    fn removing_keeps_what_is_not_ours() {
        let root = tempfile::tempdir().unwrap();
        let place = Place {
            folder: root.path().join("3.0"),
            packing: "",
        };
        let folder = place.plug_in();
        std::fs::create_dir_all(folder.join("__pycache__")).unwrap();
        for name in [GIMP[0].0, "semblance.py", "mine.txt"] {
            std::fs::write(folder.join(name), "x").unwrap();
        }
        remove(&place).unwrap();
        let left: Vec<_> = std::fs::read_dir(&folder).unwrap().flatten().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].file_name(), "mine.txt");
        std::fs::remove_file(folder.join("mine.txt")).unwrap();
        std::fs::write(folder.join(GIMP[0].0), "x").unwrap();
        remove(&place).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn every_module_that_the_plug_in_imports_is_installed() {
        let imported = |line: &str| {
            let mut words = line.split_whitespace();
            let imports = matches!(words.next(), Some("import" | "from"));
            let module = words.next().filter(|name| name.starts_with("semblance"));
            module.filter(|_| imports).map(|name| format!("{name}.py"))
        };
        let mut found = 0;
        for (file, text) in GIMP {
            for module in text.lines().filter_map(imported) {
                found += 1;
                let there = GIMP.iter().any(|(name, _)| *name == module);
                assert!(there, "{file}: {module}");
            }
        }
        assert!(found > 6);
    }
}
