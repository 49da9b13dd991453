//! Output names made from input names.
//!
//! `{stem}`, `{ext}`, `{name}`, `{dir}` and `{number}` are filled in; `{{` and `}}` are braces. Not for:
//! inputs, which the shell expands.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use crate::failure::{Failure, Result};

/// Where each input goes. A name without a placeholder does for one input; a folder (there, or
/// with a `/` at its end) takes files of the inputs' names.
///
/// Errors when two inputs would go to one output, or a placeholder is unknown.
pub fn outputs(inputs: &[PathBuf], output: &Path) -> Result<Vec<PathBuf>> {
    let Some(pattern) = output.to_str() else {
        return match inputs {
            [_] => Ok(vec![output.to_owned()]),
            _ => Err(Failure::usage("the output's name is not UTF-8")),
        };
    };
    let folder = pattern.ends_with('/') || output.is_dir();
    let pattern = if folder {
        format!("{}/{{name}}", pattern.trim_end_matches('/'))
    } else {
        pattern.to_owned()
    };
    let mut names = Vec::with_capacity(inputs.len());
    let mut taken: HashMap<PathBuf, &Path> = HashMap::new();
    for (at, input) in inputs.iter().enumerate() {
        let name = PathBuf::from(expand(&pattern, input, at + 1)?);
        if let Some(other) = taken.insert(place(&name), input) {
            let failure = Failure::usage(format!(
                "{} and {} would both be written to {}",
                other.display(),
                input.display(),
                name.display()
            ));
            return Err(failure.hint("use a pattern, as in -o 'out/{stem}-edited.{ext}'"));
        }
        names.push(name);
    }
    Ok(names)
}

/// The pattern with `input`'s parts in it.
fn expand(pattern: &str, input: &Path, number: usize) -> Result<String> {
    let part = |part: Option<&OsStr>| {
        part.map(|part| part.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let mut name = String::new();
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, after) = rest.split_at(at);
        name.push_str(before);
        if let Some(after) = after.strip_prefix("{{") {
            name.push('{');
            rest = after;
        } else if let Some(after) = after.strip_prefix("}}") {
            name.push('}');
            rest = after;
        } else if let Some((key, after)) = after
            .strip_prefix('{')
            .and_then(|after| after.split_once('}'))
        {
            match key {
                "stem" => name.push_str(&part(input.file_stem())),
                "ext" => name.push_str(&part(input.extension())),
                "name" => name.push_str(&part(input.file_name())),
                "dir" => match part(input.parent().map(Path::as_os_str)).as_str() {
                    "" => name.push('.'),
                    folder => name.push_str(folder),
                },
                "number" => name.push_str(&number.to_string()),
                _ => {
                    return Err(
                        Failure::usage(format!("{{{key}}} in the output's name")).hint(
                            "{stem}, {ext}, {name}, {dir} and {number} are known; write {{ for a brace",
                        ),
                    );
                }
            }
            rest = after;
        } else {
            return Err(
                Failure::usage(format!("{pattern}: a brace without its other"))
                    .hint("write {{ for a brace"),
            );
        }
    }
    name.push_str(rest);
    Ok(name)
}

/// Refuses an output that would replace a file which is read: any input, or one of `others` (mask,
/// recipe). With `force` only what would be replaced before its turn to be read: a later input.
pub fn protect(
    inputs: &[PathBuf],
    outputs: &[PathBuf],
    others: &[Option<&Path>],
    force: bool,
) -> Result<()> {
    // The last place in the line counts where an input is named twice.
    let turns: HashMap<PathBuf, usize> = inputs
        .iter()
        .enumerate()
        .map(|(turn, input)| (place(input), turn))
        .collect();
    let others: Vec<PathBuf> = others.iter().flatten().map(|path| place(path)).collect();
    for (turn, output) in outputs.iter().enumerate() {
        let at = place(output);
        let refused = |what: &str| Failure::usage(format!("{}: {what}", output.display()));
        match turns.get(&at) {
            Some(later) if *later > turn => {
                return Err(refused("this output is a later input").hint("choose another name"));
            }
            Some(_) if !force => {
                return Err(
                    refused("this output is an input").hint("choose another name, or say --force")
                );
            }
            _ => {}
        }
        if others.contains(&at) && !force {
            return Err(refused("this output is the mask or the recipe")
                .hint("choose another name, or say --force"));
        }
    }
    Ok(())
}

/// Where a file is or would be made: one path for all of its spellings.
fn place(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for folder in path.ancestors() {
        if let (Ok(mut found), Ok(rest)) = (folder.canonicalize(), path.strip_prefix(folder)) {
            for part in rest.components() {
                match part {
                    Component::ParentDir => {
                        found.pop();
                    }
                    Component::CurDir => {}
                    part => found.push(part),
                }
            }
            return found;
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(pattern: &str) -> Result<String> {
        outputs(&[PathBuf::from("in/a.b.png")], Path::new(pattern))
            .map(|names| names[0].to_str().unwrap().to_owned())
    }

    #[test]
    fn placeholders_are_filled_in() {
        assert_eq!(one("out/{stem}-dusk.{ext}").unwrap(), "out/a.b-dusk.png");
        assert_eq!(one("{dir}/{number}-{name}").unwrap(), "in/1-a.b.png");
        assert_eq!(one("{{{number}}}.png").unwrap(), "{1}.png");
        assert_eq!(one("plain.png").unwrap(), "plain.png");
        assert_eq!(one("folder/").unwrap(), "folder/a.b.png");
    }

    #[test]
    fn unknown_placeholders_and_lone_braces_are_refused() {
        for pattern in ["{stm}.png", "{.png", "}.png", "{}.png"] {
            assert!(one(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn two_inputs_never_go_to_one_output() {
        let inputs = [PathBuf::from("a/x.png"), PathBuf::from("b/x.png")];
        assert!(outputs(&inputs, Path::new("out/{stem}.png")).is_err());
        assert!(outputs(&inputs, Path::new("out.png")).is_err());
        assert!(outputs(&inputs, Path::new("{dir}/{stem}-2.png")).is_ok());
    }

    #[test]
    fn two_spellings_of_one_output_collide() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (one, other) in [("x.png", "./x.png"), ("new/x.png", "new/../new/x.png")] {
            assert_eq!(place(&at(one)), place(&at(other)), "{one} {other}");
        }
        assert_ne!(place(&at("x.png")), place(&at("new/x.png")));
        let inputs = [PathBuf::from("a/x.png"), PathBuf::from("./a/x.png")];
        assert!(outputs(&inputs, Path::new("{dir}/{stem}-2.png")).is_err());
    }

    #[test]
    fn no_file_that_is_read_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, b"kept").unwrap();
            path
        };
        let inputs = [at("i2.png"), at("i3.png")];
        let (mask, recipe) = (at("m.png"), at("r.png"));
        let others = [Some(mask.as_path()), Some(recipe.as_path())];
        let check = |names: [&str; 2], force| {
            let outputs = names.map(|name| folder.path().join(name));
            protect(&inputs, &outputs, &others, force).is_ok()
        };
        for force in [false, true] {
            assert!(check(["i1.png", "new/i2.png"], force));
            assert!(!check(["i3.png", "o.png"], force), "a later input");
            assert_eq!(check(["i2.png", "i3.png"], force), force, "themselves");
            assert_eq!(check(["i1.png", "i2.png"], force), force, "an earlier one");
            assert_eq!(check(["m.png", "o.png"], force), force, "the mask");
            assert_eq!(check(["o.png", "./r.png"], force), force, "the recipe");
        }
    }

    #[test]
    fn a_hidden_file_and_a_name_without_extension_expand() {
        let inputs = [PathBuf::from(".hidden"), PathBuf::from("plain")];
        let names = outputs(&inputs, Path::new("o/{stem}.{ext}")).unwrap();
        assert_eq!(
            names,
            [PathBuf::from("o/.hidden."), PathBuf::from("o/plain.")]
        );
    }
}
