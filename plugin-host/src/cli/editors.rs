//! The editors that have a plug-in: its files, and the folders in which each editor keeps a user's things.
//!
//! For: `install` and `doctor`. Not for: writing files. The plug-ins' Python files are inside this
//! program.

use std::path::{Path, PathBuf};

use super::args::Editor;
use super::gimp2;
use crate::failure::Failure;

/// A path in the editor's folder and the text that belongs there.
pub(super) type File = (&'static str, &'static str);

/// The files of GIMP's plug-in; the first is the one that GIMP starts. Its folder and its main file
/// must have one name.
const GIMP: [File; 10] = [
    (
        "plug-ins/semblance-edit/semblance-edit.py",
        include_str!("../../editors/gimp3/semblance-edit.py"),
    ),
    (
        "plug-ins/semblance-edit/semblance_layers.py",
        include_str!("../../editors/gimp3/semblance_layers.py"),
    ),
    (
        "plug-ins/semblance-edit/semblance_dialog.py",
        include_str!("../../editors/gimp3/semblance_dialog.py"),
    ),
    (
        "plug-ins/semblance-edit/semblance_preview.py",
        include_str!("../../editors/gimp3/semblance_preview.py"),
    ),
    (
        "plug-ins/semblance-edit/semblance_work.py",
        include_str!("../../editors/python/semblance_work.py"),
    ),
    (
        "plug-ins/semblance-edit/semblance_controls.py",
        include_str!("../../editors/python/semblance_controls.py"),
    ),
    (
        "plug-ins/semblance-edit/semblance_words.py",
        include_str!("../../editors/python/semblance_words.py"),
    ),
    (
        "plug-ins/semblance-edit/semblance_view.py",
        include_str!("../../editors/python/semblance_view.py"),
    ),
    (
        "plug-ins/semblance-edit/semblance_pixels.py",
        include_str!("../../editors/python/semblance_pixels.py"),
    ),
    (
        "plug-ins/semblance-edit/semblance.py",
        include_str!("../../../examples/python/semblance.py"),
    ),
];

/// The files of Krita's extension; Krita finds it by the first.
const KRITA: [File; 15] = [
    (
        "pykrita/semblance_krita.desktop",
        include_str!("../../editors/krita/semblance_krita.desktop"),
    ),
    (
        "actions/semblance_krita.action",
        include_str!("../../editors/krita/semblance_krita.action"),
    ),
    (
        "pykrita/semblance_krita/__init__.py",
        include_str!("../../editors/krita/__init__.py"),
    ),
    (
        "pykrita/semblance_krita/manual.html",
        include_str!("../../editors/krita/manual.html"),
    ),
    (
        "pykrita/semblance_krita/semblance_extension.py",
        include_str!("../../editors/krita/semblance_extension.py"),
    ),
    (
        "pykrita/semblance_krita/semblance_nodes.py",
        include_str!("../../editors/krita/semblance_nodes.py"),
    ),
    (
        "pykrita/semblance_krita/semblance_child.py",
        include_str!("../../editors/krita/semblance_child.py"),
    ),
    (
        "pykrita/semblance_krita/semblance_window.py",
        include_str!("../../editors/krita/semblance_window.py"),
    ),
    (
        "pykrita/semblance_krita/semblance_preview.py",
        include_str!("../../editors/krita/semblance_preview.py"),
    ),
    (
        "pykrita/semblance_krita/semblance_work.py",
        include_str!("../../editors/python/semblance_work.py"),
    ),
    (
        "pykrita/semblance_krita/semblance_controls.py",
        include_str!("../../editors/python/semblance_controls.py"),
    ),
    (
        "pykrita/semblance_krita/semblance_words.py",
        include_str!("../../editors/python/semblance_words.py"),
    ),
    (
        "pykrita/semblance_krita/semblance_view.py",
        include_str!("../../editors/python/semblance_view.py"),
    ),
    (
        "pykrita/semblance_krita/semblance_pixels.py",
        include_str!("../../editors/python/semblance_pixels.py"),
    ),
    (
        "pykrita/semblance_krita/semblance.py",
        include_str!("../../../examples/python/semblance.py"),
    ),
];

impl Editor {
    /// The plug-in's files, first the one by which the editor finds it.
    pub(super) fn files(self) -> &'static [File] {
        match self {
            Editor::Gimp => &GIMP,
            Editor::Krita => &KRITA,
        }
    }

    /// The plug-in's own folder, where the library lies too.
    pub(super) fn home(self) -> &'static str {
        match self {
            Editor::Gimp => "plug-ins/semblance-edit",
            Editor::Krita => "pykrita/semblance_krita",
        }
    }

    /// Whether the plug-in runs models in a child process, and so needs this program beside it.
    pub(super) fn starts_a_child(self) -> bool {
        self == Editor::Krita
    }

    /// What to do once the plug-in is in place.
    pub(super) fn to_click(self) -> &'static str {
        match self {
            Editor::Gimp => {
                "Start GIMP again, open a picture, and click Filters ▸ Semblance ▸ Edit Attribute…"
            }
            Editor::Krita => {
                "Start Krita again, tick Settings ▸ Configure Krita… ▸ Python Plugin Manager ▸ \
                 Semblance, start Krita once more, open a picture, and click \
                 Filter ▸ Semblance ▸ Edit Attribute…"
            }
        }
    }

    /// That no folder was found, and what to do.
    pub(super) fn missing(self) -> Failure {
        match self {
            Editor::Gimp => Failure::usage("no folder of a GIMP 3 or 2.10 was found").hint(
                "start GIMP once, or name its folder (Edit ▸ Preferences ▸ Folders): \
                 semblance install gimp --user-dir ~/.config/GIMP/3.0",
            ),
            Editor::Krita => Failure::usage("no folder of a Krita was found").hint(
                "start Krita once, or name its folder (Settings ▸ Manage Resources… ▸ Open Resource \
                 Folder): semblance install krita --user-dir ~/.local/share/krita",
            ),
        }
    }
}

/// A folder in which an editor keeps one user's things.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Whose.
    pub(super) editor: Editor,
    /// The folder; GIMP's is named like its version.
    pub(super) folder: PathBuf,
    /// How that editor was packed: "", "Flatpak" or "Snap".
    pub(super) packing: &'static str,
}

impl Place {
    /// The folder that the user named.
    pub(super) fn named(editor: Editor, folder: &Path) -> Self {
        Self {
            editor,
            folder: folder.to_owned(),
            packing: "",
        }
    }

    /// The plug-in's own folder.
    pub(super) fn home(&self) -> PathBuf {
        self.folder.join(self.editor.home())
    }

    /// Whether the plug-in is there.
    pub(super) fn has_it(&self) -> bool {
        let main = if self.is_gimp2() {
            Some(gimp2::MAIN)
        } else {
            self.editor.files().first().map(|(name, _)| *name)
        };
        main.is_some_and(|name| self.folder.join(name).is_file())
    }

    /// Whether it is a GIMP 2.10's.
    pub(super) fn is_gimp2(&self) -> bool {
        self.editor == Editor::Gimp && gimp2::serves(&self.folder)
    }

    /// Whether this version has a plug-in. What is compiled here does not run inside a package's own system.
    pub(super) fn supported(&self) -> bool {
        let name = self.folder.file_name().unwrap_or_default();
        self.editor != Editor::Gimp
            || name.to_string_lossy().starts_with("3.")
            || (self.is_gimp2() && self.packing.is_empty())
    }

    /// In a few words, for `doctor`.
    pub(super) fn told(&self) -> String {
        let version = self.folder.file_name().unwrap_or_default();
        let name = match self.editor {
            Editor::Gimp => format!("GIMP {}", version.to_string_lossy()),
            Editor::Krita => "Krita".to_owned(),
        };
        let packing = match self.packing {
            "" => String::new(),
            packing => format!(" ({packing})"),
        };
        let has = match (self.has_it(), self.supported(), self.editor) {
            (true, ..) => "has Semblance",
            (false, true, Editor::Gimp) => "without Semblance: semblance install gimp",
            (false, true, Editor::Krita) => "without Semblance: semblance install krita",
            (false, false, _) => "not served: GIMP 3 is, and GIMP 2.10 outside Flatpak and Snap",
        };
        format!("{name}{packing}: {has}")
    }
}

/// The folders of every editor of this user: GIMPs, oldest version first, then Kritas.
pub(super) fn found() -> Vec<Place> {
    let home = std::env::home_dir().unwrap_or_default();
    let mac = home.join("Library/Application Support");
    let windows = folder_in("APPDATA").unwrap_or_default();
    let mut places = Vec::new();
    if let Some(folder) = folder_in("GIMP3_DIRECTORY") {
        places.push(Place::named(Editor::Gimp, &folder));
    } else {
        let config = folder_in("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
        for (root, packing) in [
            (config, ""),
            (mac.clone(), ""),
            (windows.clone(), ""),
            (home.join(".var/app/org.gimp.GIMP/config"), "Flatpak"),
            (home.join("snap/gimp/current/.config"), "Snap"),
        ] {
            places.extend(versions(&root.join("GIMP"), packing));
        }
    }
    let data = folder_in("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share"));
    for (root, packing) in [
        (data, ""),
        (mac, ""),
        (windows, ""),
        (home.join(".var/app/org.kde.krita/data"), "Flatpak"),
        (home.join("snap/krita/current/.local/share"), "Snap"),
    ] {
        let folder = root.join("krita");
        if folder.is_dir() {
            places.push(Place {
                editor: Editor::Krita,
                folder,
                packing,
            });
        }
    }
    // Without a home or one of the variables a root is relative: nobody's folder.
    places.retain(|place| place.folder.is_absolute());
    places
}

/// The folder that a variable of the environment names, if it says anything.
pub(super) fn folder_in(variable: &str) -> Option<PathBuf> {
    let value = std::env::var_os(variable).filter(|value| !value.is_empty());
    value.map(PathBuf::from)
}

/// GIMP's folders in `root`: those that are named like a version.
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
    let place = |folder| Place {
        editor: Editor::Gimp,
        folder,
        packing,
    };
    folders.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_versions_are_found_and_told_whether_they_are_served() {
        let root = tempfile::tempdir().unwrap();
        for name in ["3.0", "2.10", "2.8", "notes"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        let found = versions(root.path(), "Snap");
        let told: Vec<String> = found.iter().map(Place::told).collect();
        assert_eq!(
            told,
            [
                "GIMP 2.10 (Snap): not served: GIMP 3 is, and GIMP 2.10 outside Flatpak and Snap",
                "GIMP 2.8 (Snap): not served: GIMP 3 is, and GIMP 2.10 outside Flatpak and Snap",
                "GIMP 3.0 (Snap): without Semblance: semblance install gimp",
            ]
        );
        let old = versions(root.path(), "").swap_remove(0);
        assert_eq!(
            old.told(),
            "GIMP 2.10: without Semblance: semblance install gimp"
        );
    }

    #[test]
    fn every_module_that_a_plug_in_imports_is_installed_beside_it() {
        let imported = |line: &str| {
            let mut words = line.split_whitespace();
            let imports = matches!(words.next(), Some("import" | "from"));
            let module = words.next().filter(|name| name.starts_with("semblance"));
            module.filter(|_| imports).map(|name| format!("{name}.py"))
        };
        for editor in [Editor::Gimp, Editor::Krita] {
            let mut found = 0;
            for (file, text) in editor.files() {
                for module in text.lines().filter_map(imported) {
                    found += 1;
                    let wanted = format!("{}/{module}", editor.home());
                    let there = editor.files().iter().any(|(name, _)| *name == wanted);
                    assert!(there, "{file}: {module}");
                }
            }
            assert!(found > 6);
        }
    }
}
