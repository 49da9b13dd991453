//! What an editor in a sandbox (Flatpak, Snap) sees of the disk, and so which folders of models it can use.
//!
//! For: `doctor` and `install`. Not for: asking flatpak or snapd, which need not be there: their files are
//! read. The rules are those of flatpak-metadata(5) and flatpak-override(1), and of Snap's interface `home`.

use std::path::{Path, PathBuf};

use super::args::Editor;
use super::editors::folder_in;

/// Folders of the system that Flatpak shows to nobody who merely asked for `host`.
const RESERVED: [&str; 17] = [
    "app", "bin", "boot", "dev", "efi", "etc", "lib", "lib32", "lib64", "proc", "root", "run",
    "sbin", "sys", "tmp", "usr", "var",
];

/// An editor in a sandbox.
pub(super) struct Sandbox {
    editor: Editor,
    /// "Flatpak" or "Snap".
    packing: &'static str,
    /// What the packing calls the editor.
    app: &'static str,
    /// Of those that hold for a folder the deepest counts; of equals the last.
    rules: Vec<Rule>,
    /// Where what begins with a dot is hidden, unless it is a rule's own.
    dots_hidden_in: Option<PathBuf>,
    /// Whether the sandbox's permissions were found.
    is_known: bool,
}

/// A folder that is shown or hidden with all that is in it.
struct Rule {
    folder: PathBuf,
    shown: bool,
}

impl Sandbox {
    /// The editor and how it was packed.
    pub(super) fn name(&self) -> String {
        let editor = match self.editor {
            Editor::Gimp => "GIMP",
            Editor::Krita => "Krita",
        };
        format!("{editor} ({})", self.packing)
    }

    /// Whether the editor can read what is in this folder.
    fn sees(&self, folder: &Path) -> bool {
        let folder = real(folder);
        let rules = self.rules.iter();
        let deepest = rules
            .filter(|rule| folder.starts_with(&rule.folder))
            .max_by_key(|rule| rule.folder.components().count());
        let Some(rule) = deepest else { return false };
        let dotted = self.dots_hidden_in.as_ref().is_some_and(|home| {
            rule.folder == *home
                && folder
                    .strip_prefix(home)
                    .is_ok_and(|rest| rest.to_string_lossy().starts_with('.'))
        });
        rule.shown && !dotted
    }

    /// Those of `folders` that the editor cannot read, each with what helps.
    pub(super) fn unseen<'a>(&self, folders: &'a [PathBuf]) -> Vec<(&'a Path, String)> {
        let unseen = folders.iter().filter(|folder| !self.sees(folder));
        unseen
            .map(|folder| (folder.as_path(), self.remedy(folder)))
            .collect()
    }

    /// Where models can lie for this editor, in words.
    pub(super) fn told(&self) -> String {
        let name = self.name();
        if !self.is_known {
            return format!(
                "{name}: what it may see is not on record (flatpak info --show-permissions {})",
                self.app
            );
        }
        let list = |shown: bool| {
            let rules = self.rules.iter().filter(|rule| rule.shown == shown);
            let folders: Vec<String> = rules
                .map(|rule| rule.folder.display().to_string())
                .collect();
            folders.join(", ")
        };
        if self.dots_hidden_in.is_some() {
            return format!(
                "{name} sees models in {}, but in no folder there that begins with a dot",
                list(true)
            );
        }
        let root = Path::new("/");
        let all = self.rules.iter().any(|rule| rule.folder == root);
        let shown = if all {
            "every folder but the system's own (/tmp, /usr, /var …)".to_owned()
        } else {
            list(true)
        };
        format!("{name} sees models in {shown}")
    }

    /// What makes a folder that is not seen one that is.
    fn remedy(&self, folder: &Path) -> String {
        let removable = ["/media", "/mnt", "/run/media"];
        if self.dots_hidden_in.is_none() {
            let grant = format!("--filesystem={}:ro", folder.display());
            format!("flatpak override --user {} {}", quoted(&grant), self.app)
        } else if removable.iter().any(|start| folder.starts_with(start)) {
            format!(
                "sudo snap connect {}:removable-media, if that was not done",
                self.app
            )
        } else {
            "copy the model into your home, into no folder that begins with a dot".to_owned()
        }
    }
}

/// The sandboxes of this editor on this machine: Flatpak's, then Snap's.
pub(super) fn found(editor: Editor) -> Vec<Sandbox> {
    let roots = Roots::of_user();
    let both = [flatpak(editor, &roots), snap(editor, &roots)];
    both.into_iter().flatten().collect()
}

/// Folders in which there are models: the one that was named, and Hugging Face's cache if there are any.
pub(super) fn model_folders(named: Option<&Path>) -> Vec<PathBuf> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut folders: Vec<PathBuf> = named.map(absolute).into_iter().collect();
    let hub = folder_in("HF_HUB_CACHE")
        .or_else(|| Some(folder_in("HF_HOME")?.join("hub")))
        .unwrap_or_else(|| Roots::of_user().cache.join("huggingface/hub"));
    let models = std::fs::read_dir(&hub).into_iter().flatten().flatten();
    if models
        .map(|entry| entry.file_name())
        .any(|name| name.to_string_lossy().starts_with("models--"))
    {
        folders.push(hub);
    }
    folders
}

/// The folders that permissions are relative to.
struct Roots {
    home: PathBuf,
    config: PathBuf,
    data: PathBuf,
    cache: PathBuf,
    runtime: Option<PathBuf>,
    /// Flatpak's installations of the user and of the system.
    user: PathBuf,
    system: PathBuf,
}

impl Roots {
    fn of_user() -> Self {
        let home = std::env::home_dir().unwrap_or_default();
        let config = folder_in("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
        let data = folder_in("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share"));
        let cache = folder_in("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
        Self {
            user: folder_in("FLATPAK_USER_DIR").unwrap_or_else(|| data.join("flatpak")),
            system: folder_in("FLATPAK_SYSTEM_DIR")
                .unwrap_or_else(|| PathBuf::from("/var/lib/flatpak")),
            runtime: folder_in("XDG_RUNTIME_DIR"),
            home,
            config,
            data,
            cache,
        }
    }

    /// The folder that Flatpak means by a name such as `~/models` or `xdg-documents/models`.
    fn folder(&self, name: &str) -> Option<PathBuf> {
        let (first, rest) = name.split_once('/').unwrap_or((name, ""));
        let base = match first {
            "" => PathBuf::from("/"),
            "~" => self.home.clone(),
            "xdg-config" => self.config.clone(),
            "xdg-data" => self.data.clone(),
            "xdg-cache" => self.cache.clone(),
            "xdg-run" => self.runtime.clone()?,
            _ => self.user_folder(first.strip_prefix("xdg-")?)?,
        };
        Some(if rest.is_empty() {
            base
        } else {
            base.join(rest)
        })
    }

    /// A folder of user-dirs.dirs: `XDG_DOWNLOAD_DIR="$HOME/Downloads"` for "download".
    fn user_folder(&self, name: &str) -> Option<PathBuf> {
        let key = format!("XDG_{}_DIR", name.replace('-', "").to_uppercase());
        let text = std::fs::read_to_string(self.config.join("user-dirs.dirs")).ok()?;
        let value = text.lines().find_map(|line| {
            let (found, value) = line.trim().split_once('=')?;
            (found.trim() == key).then(|| value.trim().trim_matches('"').to_owned())
        })?;
        Some(match value.strip_prefix("$HOME") {
            Some(rest) => self.home.join(rest.trim_start_matches('/')),
            None => PathBuf::from(value),
        })
    }
}

fn flatpak(editor: Editor, roots: &Roots) -> Option<Sandbox> {
    let app = match editor {
        Editor::Gimp => "org.gimp.GIMP",
        Editor::Krita => "org.kde.krita",
    };
    let read = |path: PathBuf| std::fs::read_to_string(path).ok();
    let metadata = |root: &Path| read(root.join("app").join(app).join("current/active/metadata"));
    let overrides = |root: &Path| {
        let names = ["global", app];
        names.map(|name| read(root.join("overrides").join(name)))
    };
    // The user's installation goes before the system's, whose overrides count for what it installed.
    let mut texts = vec![metadata(&roots.user)];
    if texts == [None] {
        texts = vec![metadata(&roots.system)];
        texts.extend(overrides(&roots.system));
    }
    let is_known = texts.first().is_some_and(Option::is_some);
    let own = roots.home.join(".var/app").join(app);
    if !is_known && !own.is_dir() {
        return None;
    }
    texts.extend(overrides(&roots.user));
    let mut grants = Vec::new();
    for text in texts.iter().flatten() {
        for entry in filesystems(text) {
            grant(&mut grants, entry);
        }
    }
    Some(Sandbox {
        editor,
        packing: "Flatpak",
        app,
        rules: rules(&grants, roots, &own),
        dots_hidden_in: None,
        is_known,
    })
}

/// The entries of `filesystems` in a metadata or override file.
fn filesystems(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut group = "";
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            group = line;
        } else if let Some((key, value)) = line.split_once('=')
            && group == "[Context]"
            && key.trim() == "filesystems"
        {
            let entries = value.split(';').map(str::trim);
            found.extend(entries.filter(|entry| !entry.is_empty()));
        }
    }
    found
}

/// Adds an entry (`host`, `~/models:ro`, `!home`, `!host:reset`) in the place of an earlier one of its name.
fn grant<'a>(grants: &mut Vec<(&'a str, bool)>, entry: &'a str) {
    let (name, shown) = match entry.strip_prefix('!') {
        Some(name) => (name, false),
        None => (entry, true),
    };
    let (name, mode) = match name.rsplit_once(':') {
        Some((name, mode @ ("ro" | "rw" | "create" | "reset"))) => (name, mode),
        _ => (name, ""),
    };
    if name == "host" && mode == "reset" {
        grants.clear();
    }
    grants.retain(|(known, _)| *known != name);
    grants.push((name, shown));
}

fn rules(grants: &[(&str, bool)], roots: &Roots, own: &Path) -> Vec<Rule> {
    let rule = |folder: &Path, shown| Rule {
        folder: real(folder),
        shown,
    };
    let granted = |name| grants.contains(&(name, true));
    let mut rules = Vec::new();
    if granted("host") {
        rules.push(rule(Path::new("/"), true));
        let hidden = RESERVED.iter().map(|name| Path::new("/").join(name));
        rules.extend(hidden.map(|folder| rule(&folder, false)));
        rules.push(rule(Path::new("/run/media"), true));
    }
    if granted("host") || granted("home") || granted("~") {
        rules.push(rule(&roots.home, true));
    }
    // Hidden from all but those who ask for them by name.
    for folder in [own.parent().unwrap_or(own), roots.user.as_path()] {
        rules.push(rule(folder, false));
    }
    for (name, shown) in grants {
        // What is asked for as `host-os` or `host-etc` is shown elsewhere, under /run/host.
        if let Some(folder) = roots.folder(name)
            && *name != "~"
        {
            rules.push(rule(&folder, *shown));
        }
    }
    rules.push(rule(own, true));
    rules
}

/// A Snap, whose editor has a folder of its own as soon as it was started once.
fn snap(editor: Editor, roots: &Roots) -> Option<Sandbox> {
    let app = match editor {
        Editor::Gimp => "gimp",
        Editor::Krita => "krita",
    };
    let all = roots.home.join("snap");
    let own = all.join(app);
    let rule = |folder: &Path, shown| Rule {
        folder: real(folder),
        shown,
    };
    own.join("current").is_dir().then(|| Sandbox {
        editor,
        packing: "Snap",
        app,
        rules: vec![rule(&roots.home, true), rule(&all, false), rule(&own, true)],
        dots_hidden_in: Some(real(&roots.home)),
        is_known: true,
    })
}

/// The folder itself, where the path goes through links.
fn real(folder: &Path) -> PathBuf {
    std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned())
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_=/:.,+@%".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A home with these permissions of a Flatpak GIMP and, of the user, these overrides.
    fn gimp(home: &Path, permissions: &str, overrides: &str) -> Sandbox {
        let roots = Roots {
            home: home.to_owned(),
            config: home.join(".config"),
            data: home.join(".local/share"),
            cache: home.join(".cache"),
            runtime: None,
            user: home.join(".local/share/flatpak"),
            system: home.join("system"),
        };
        let app = roots.system.join("app/org.gimp.GIMP/current/active");
        let own = roots.user.join("overrides");
        std::fs::create_dir_all(&app).unwrap();
        std::fs::create_dir_all(&own).unwrap();
        let text = |entries| format!("[Application]\nname=x\n\n[Context]\nfilesystems={entries}\n");
        std::fs::write(app.join("metadata"), text(permissions)).unwrap();
        std::fs::write(own.join("org.gimp.GIMP"), text(overrides)).unwrap();
        flatpak(Editor::Gimp, &roots).unwrap()
    }

    #[test]
    fn a_flatpak_sees_what_its_permissions_and_the_users_overrides_say() {
        let folder = tempfile::tempdir().unwrap();
        let home = std::fs::canonicalize(folder.path()).unwrap();
        std::fs::create_dir_all(home.join(".config")).unwrap();
        std::fs::write(
            home.join(".config/user-dirs.dirs"),
            "# made by xdg-user-dirs\nXDG_DOWNLOAD_DIR=\"$HOME/Got\"\n",
        )
        .unwrap();
        let models = home.join("models");
        let cases = [
            // Permissions, overrides, folder, whether it is seen.
            ("host;/tmp;xdg-run/gvfs;", "", models.clone(), true),
            ("host", "", PathBuf::from("/srv/models"), true),
            ("host", "", PathBuf::from("/run/media/disk"), true),
            ("host", "", PathBuf::from("/usr/share/models"), false),
            ("host", "", PathBuf::from("/var/models"), false),
            (
                "host",
                "/var/models:ro",
                PathBuf::from("/var/models/x"),
                true,
            ),
            ("host", "!host", models.clone(), false),
            ("host;~/models", "!host:reset", models.clone(), false),
            ("host;home", "!host", models.clone(), true),
            ("home", "", PathBuf::from("/srv/models"), false),
            ("home:ro", "!~/models", models.clone(), false),
            ("home", "!~/models;~/models/one", models.join("one"), true),
            ("~/models", "", models.join("deep/er"), true),
            ("~/models", "", home.join("models2"), false),
            ("xdg-download", "", home.join("Got/model"), true),
            ("xdg-music", "", home.join("Got/model"), false),
            (
                "xdg-cache/huggingface",
                "",
                home.join(".cache/huggingface/hub"),
                true,
            ),
            ("", "", home.join(".var/app/org.gimp.GIMP/data/model"), true),
            (
                "home",
                "",
                home.join(".var/app/org.kde.krita/data/model"),
                false,
            ),
            ("host-os;host-etc", "", PathBuf::from("/etc/models"), false),
        ];
        for (permissions, overrides, path, seen) in cases {
            let sandbox = gimp(&home, permissions, overrides);
            assert_eq!(
                sandbox.sees(&path),
                seen,
                "{permissions} + {overrides}: {}",
                path.display()
            );
        }
    }

    #[test]
    fn a_flatpak_is_told_with_the_line_that_shows_it_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let home = std::fs::canonicalize(folder.path()).unwrap();
        let sandbox = gimp(&home, "host", "");
        assert!(sandbox.told().contains("every folder but the system's own"));
        assert_eq!(
            sandbox.remedy(Path::new("/tmp/my models")),
            "flatpak override --user '--filesystem=/tmp/my models:ro' org.gimp.GIMP"
        );
        let narrow = gimp(&home, "~/models", "").told();
        assert!(
            narrow.contains(&home.join("models").display().to_string()),
            "{narrow}"
        );
    }

    #[test]
    fn the_systems_overrides_count_only_for_what_it_installed() {
        let folder = tempfile::tempdir().unwrap();
        let home = std::fs::canonicalize(folder.path()).unwrap();
        let models = home.join("models");
        gimp(&home, "", "");
        let system = home.join("system/overrides");
        std::fs::create_dir_all(&system).unwrap();
        std::fs::write(system.join("global"), "[Context]\nfilesystems=home\n").unwrap();
        assert!(gimp(&home, "", "").sees(&models));
        let own = home.join(".local/share/flatpak/app/org.gimp.GIMP/current/active");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join("metadata"), "[Context]\nfilesystems=/srv\n").unwrap();
        assert!(!gimp(&home, "", "").sees(&models));
    }

    #[test]
    fn only_what_a_file_says_of_the_context_s_filesystems_counts() {
        let text = "[Application]\nfilesystems=no\n[Context]\nshared=ipc;\n filesystems = a; b:ro ;;\n\
                    [Session Bus Policy]\nfilesystems=no\n";
        assert_eq!(filesystems(text), ["a", "b:ro"]);
    }
}
