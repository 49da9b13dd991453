//! Packed weights on disk: what a backend made of a model's numbers, so that the next start only reads.
//!
//! For: [`Packs`], a folder that is keyed, bounded and disposable, and [`Pack`], one model's file in it.
//! Not for: what packed numbers mean (`nn`). A missing, cut, damaged or foreign file, a folder that cannot
//! be written and a full disk cost time and nothing else: but for cancelling, nothing fails here.
//!
//! A file is keyed by the model's hash and by what the backend says its packing depends on. To hash
//! gigabytes at every start would cost more than to read them packed, so a hash is remembered for as long
//! as the model's files keep their names, lengths and times. To check gigabytes costs as much, so what was
//! checked is noted until the machine starts anew (`seen`).

mod file;
mod folder;
mod known;
mod seen;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use self::file::{Found, Writer};
use super::Layout;
use crate::error::Result;
use crate::job::Cancel;
use crate::nn::{Ops, Packed};

/// The environment variable that names the folder, or is `off`.
pub const VARIABLE: &str = "SEMBLANCE_PACKED";

/// Bytes of weights from which a file is worth it: smaller models are packed in less than a tenth of a
/// second.
const WORTH: u64 = 64 << 20;

/// Bytes that all files may have together. Stops: a folder that grows with every model that is tried.
const MOST: u64 = 16 << 30;

/// The folder of packed weights, or none.
#[derive(Clone, Debug, Default)]
pub struct Packs {
    folder: Option<PathBuf>,
    worth: u64,
    most: u64,
}

/// What became of a model's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Not asked for, or the model is too small.
    No,
    /// The weights came out of it.
    Read,
    /// It was made.
    Made,
    /// It could not be made, and why.
    Failed(String),
}

impl Kept {
    /// In words, for reports.
    pub fn words(&self) -> String {
        match self {
            Kept::No => "not kept".into(),
            Kept::Read => "read".into(),
            Kept::Made => "made".into(),
            Kept::Failed(why) => format!("not made: {why}"),
        }
    }
}

impl Packs {
    /// No folder: weights are packed at every start.
    pub fn off() -> Packs {
        Packs::default()
    }

    /// The folder `folder`, made when it is first written to.
    pub fn at(folder: impl Into<PathBuf>) -> Packs {
        Packs {
            folder: Some(folder.into()),
            worth: WORTH,
            most: MOST,
        }
    }

    /// What a host wishes (an empty path: none is kept), or else what [`VARIABLE`] says, or else
    /// `semblance/packed` in the user's cache folder.
    pub fn chosen(wish: Option<&Path>) -> Packs {
        let asked = match wish {
            Some(folder) => Some(folder.as_os_str().to_owned()),
            None => std::env::var_os(VARIABLE).filter(|name| !name.is_empty()),
        };
        match asked {
            Some(name) if name.is_empty() || (wish.is_none() && name == "off") => Packs::off(),
            Some(name) => Packs::at(name),
            None => folder::usual().map_or_else(Packs::off, Packs::at),
        }
    }

    /// The same with other bounds: files for models of `worth` bytes or more, `most` bytes in all.
    pub fn bounded(self, worth: u64, most: u64) -> Packs {
        Packs {
            worth,
            most,
            ..self
        }
    }

    /// Where files are kept, if they are.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.folder.as_deref().map_or(0, folder::bytes)
    }

    fn folder_for(&self, layout: &Layout, weight_bytes: u64) -> Option<&Path> {
        let large = weight_bytes >= self.worth && !layout.source().is_embedded();
        self.folder.as_deref().filter(|_| large)
    }

    /// [`Layout::hash`], remembered where the model is large.
    pub fn hash(&self, layout: &Layout, weight_bytes: u64, cancel: &Cancel) -> Result<String> {
        match self.folder_for(layout, weight_bytes) {
            Some(folder) => known::hash(folder, layout, cancel),
            None => layout.hash(cancel),
        }
    }

    /// The file of the model whose hash is `hash` as `ops` packs it: to be read where it is there and
    /// whole, or else to be made.
    ///
    /// Errors when cancelled.
    pub(crate) fn open(
        &self,
        layout: &Layout,
        weight_bytes: u64,
        hash: &str,
        ops: &impl Ops,
        cancel: &Cancel,
    ) -> Result<Pack> {
        let folder = self.folder_for(layout, weight_bytes);
        let Some((folder, packing)) = folder.and_then(|folder| Some((folder, ops.packing()?)))
        else {
            return Ok(Pack(State::Off));
        };
        let key = blake3::hash(format!("{hash} {packing}").as_bytes()).to_hex();
        let path = folder.join(format!("{key}.{}", folder::PACK));
        match file::read(&path, &key, cancel)? {
            Found::Layers(layers) => {
                return Ok(Pack(State::Read {
                    layers,
                    path,
                    misfit: AtomicBool::new(false),
                }));
            }
            // Whoever may not remove it may not replace it either, and goes on without.
            Found::Damaged => folder::remove(&path),
            Found::Nothing => {}
        }
        let state = match folder::make_room(folder, weight_bytes, self.most)
            .and_then(|()| Writer::new(folder, &path, &key))
        {
            Ok(writer) => State::Write {
                writer: Mutex::new(Ok(writer)),
                most: self.most,
            },
            Err(e) => State::Failed(e.to_string()),
        };
        Ok(Pack(state))
    }
}

/// One model's file, while the model is being made.
pub(crate) struct Pack(State);

enum State {
    Off,
    Read {
        layers: HashMap<String, Vec<Packed>>,
        path: PathBuf,
        /// Whether it lacked something, or had it in a form that did not fit.
        misfit: AtomicBool,
    },
    Write {
        writer: Mutex<std::io::Result<Writer>>,
        most: u64,
    },
    Failed(String),
}

impl Pack {
    /// What `make` puts together from the parts that are kept as `name`; `None` where there are none or
    /// it cannot.
    pub fn take<T>(&self, name: &str, make: impl FnOnce(Vec<Packed>) -> Option<T>) -> Option<T> {
        let State::Read { layers, misfit, .. } = &self.0 else {
            return None;
        };
        let made = layers.get(name).cloned().and_then(make);
        if made.is_none() {
            misfit.store(true, Ordering::Relaxed);
        }
        made
    }

    /// Keeps `parts` as `name`, where the file is being made.
    pub fn keep(&self, name: &str, parts: impl FnOnce() -> Vec<Packed>) {
        let State::Write { writer, .. } = &self.0 else {
            return;
        };
        let mut writer = writer.lock();
        let result = match &mut *writer {
            Ok(open) => open.put(name, &parts()),
            Err(_) => return,
        };
        if let Err(e) = result {
            // The half file goes with its writer: a full disk is full no longer than this.
            *writer = Err(e);
        }
    }

    /// The model is made, from files that are still as they were when `unchanged`: the file takes its
    /// name, or goes where it cannot.
    pub fn finish(self, unchanged: bool) -> Kept {
        match self.0 {
            State::Off => Kept::No,
            State::Failed(why) => Kept::Failed(why),
            State::Read { path, misfit, .. } => {
                if misfit.into_inner() {
                    folder::remove(&path);
                }
                Kept::Read
            }
            State::Write { writer, most } => {
                if !unchanged {
                    return Kept::Failed("the model's files changed while they were read".into());
                }
                match writer.into_inner().and_then(Writer::finish) {
                    Ok(path) => {
                        folder::tidy(&path, most);
                        Kept::Made
                    }
                    Err(e) => Kept::Failed(e.to_string()),
                }
            }
        }
    }
}
