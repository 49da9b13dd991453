//! Packed weights on disk: the same bits as packed anew, and whatever happens to the files costs time
//! and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use semblance::job::Cancel;
use semblance::model::Pipeline;
use semblance::nn::native::Native;
use semblance::weights::{Kept, ModelSource, Packs};
use semblance::{Code, Latent};
use semblance_kernels::{Cpu, CpuPath};

/// A folder with a copy of the tiny model and a place for packed weights.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let tiny = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
        copy(&tiny, &folder.path().join("model"));
        Place(folder)
    }

    fn model(&self) -> PathBuf {
        self.0.path().join("model")
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("packed")
    }

    /// A folder for models of any size.
    fn packs(&self) -> Packs {
        Packs::at(self.folder()).bounded(0, 1 << 30)
    }

    fn files(&self, kind: &str) -> Vec<PathBuf> {
        files(&self.folder(), kind)
    }

    fn load(&self) -> Arc<Pipeline> {
        load(&self.model(), &self.packs())
    }
}

fn files(folder: &Path, kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == kind))
        .collect()
}

fn load(model: &Path, packs: &Packs) -> Arc<Pipeline> {
    load_on(Native::detect().unwrap(), model, packs)
}

fn load_on(native: Native, model: &Path, packs: &Packs) -> Arc<Pipeline> {
    let source = ModelSource::Directory(model.into());
    Pipeline::load_kept(native, &source, packs, &Cancel::new()).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
            age(&to, Duration::from_secs(3600));
        }
    }
}

/// Puts `bytes` in the place of the file `path`, where anybody or nobody may write to them.
fn put(path: &Path, bytes: &[u8], writable: bool) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
    let mut access = fs::metadata(path).unwrap().permissions();
    access.set_readonly(!writable);
    fs::set_permissions(path, access).unwrap();
}

/// Makes `path` look as if it had been written so long ago.
fn age(path: &Path, age: Duration) {
    // To read: a packed file may be written to by nobody, and its times may still be set.
    let file = fs::File::open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

/// What every network of the model says to something.
fn answers(p: &Pipeline) -> Vec<u32> {
    let run = Cancel::new();
    let side = p.outline().native_size() / p.vae_factor();
    let latent = Latent {
        data: (0..side * side * p.latent_channels())
            .map(|i| (i as f32 * 0.7).sin())
            .collect(),
        channels: p.latent_channels(),
        height: side,
        width: side,
    };
    let text = p.encode_text("a photo of the lake", &run).unwrap();
    let context = p.context(&text).unwrap();
    let predicted = p.unet(&[(&latent, 500.0, &context)], &run).unwrap();
    let picture = p.vae_decode(&latent, &run).unwrap();
    let all = text.data.iter().chain(&predicted[0].data).chain(&picture);
    all.map(|x| x.to_bits()).collect()
}

#[test]
fn weights_read_packed_give_the_same_bits_as_weights_packed_anew_on_every_path() {
    for path in CpuPath::ALL {
        let Ok(cpu) = Cpu::new(path) else {
            println!("skipped: no {path} here");
            continue;
        };
        let place = Place::new();
        let native = || Native::new(cpu);
        let plain = load_on(native(), &place.model(), &Packs::off());
        assert_eq!(plain.kept(), &Kept::No);
        let want = (answers(&plain), plain.model_hash().to_owned());
        drop(plain);
        for kept in [Kept::Made, Kept::Read] {
            let model = load_on(native(), &place.model(), &place.packs());
            assert_eq!(model.kept(), &kept, "{path}");
            let found = (answers(&model), model.model_hash().to_owned());
            assert!(found == want, "{kept:?} on {path}");
        }
        assert_eq!(place.files("pack").len(), 1);
        assert!(place.files("part").is_empty());
    }
}

#[test]
fn every_path_has_a_file_of_its_own() {
    let place = Place::new();
    let paths = CpuPath::ALL.into_iter().filter_map(|p| Cpu::new(p).ok());
    let mut count = 0;
    for cpu in paths {
        let model = load_on(Native::new(cpu), &place.model(), &place.packs());
        assert_eq!(model.kept(), &Kept::Made);
        count += 1;
    }
    assert_eq!(place.files("pack").len(), count);
}

#[test]
fn a_damaged_cut_or_foreign_file_is_ignored_and_made_again() {
    let place = Place::new();
    let first = place.load();
    let want = answers(&first);
    drop(first);
    let path = place.files("pack").pop().unwrap();
    let whole = fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let end = whole.len();
    // Another model's file under this name.
    let other = {
        let place = Place::new();
        let config = place.model().join("scheduler/scheduler_config.json");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text + "\n").unwrap();
        drop(place.load());
        fs::read(place.files("pack").pop().unwrap()).unwrap()
    };
    // A header that promises more than there is.
    let mut boastful = whole.clone();
    boastful[16..24].copy_from_slice(&(u64::MAX - 7).to_le_bytes());
    let mut long = whole.clone();
    long.push(0);
    let damaged = [
        ("empty", vec![]),
        ("cut in its header", whole[..40].to_vec()),
        ("cut in its numbers", whole[..end / 2].to_vec()),
        ("cut by a byte", whole[..end - 1].to_vec()),
        ("longer by a byte", long),
        ("with other magic", flipped(3)),
        ("with another place of its index", flipped(17)),
        ("with another length of its index", flipped(25)),
        ("with another hash of its index", flipped(40)),
        ("with another first number", flipped(64)),
        ("with another number", flipped(end / 3)),
        ("with another index", flipped(end - 20)),
        ("boastful", boastful),
        ("of zeros", vec![0; end]),
        ("a text", b"not packed at all".repeat(100)),
        ("another model's", other),
    ];
    // One that may be written to is read, the others are mapped.
    for ((what, bytes), writable) in damaged.iter().flat_map(|d| [(d, true), (d, false)]) {
        assert_ne!(bytes, &whole, "{what}");
        put(&path, bytes, writable);
        let again = place.load();
        assert_eq!(again.kept(), &Kept::Made, "a file {what}, {writable}");
        assert!(answers(&again) == want, "a file {what}, {writable}");
        drop(again);
        assert!(
            fs::read(&path).unwrap() == whole,
            "a file {what}, {writable}"
        );
    }
    assert_eq!(place.load().kept(), &Kept::Read);
}

/// Whether this process has the file `path` mapped.
#[cfg(target_os = "linux")]
fn is_mapped(path: &Path) -> bool {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.contains(path.to_str().unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_nobody_may_write_to_is_mapped_and_outlives_its_name() {
    let place = Place::new();
    let first = place.load();
    let want = answers(&first);
    drop(first);
    let path = place.files("pack").pop().unwrap();
    let access = fs::metadata(&path).unwrap().permissions();
    assert!(access.readonly());
    assert!(!is_mapped(&path));
    let again = place.load();
    assert_eq!(again.kept(), &Kept::Read);
    assert!(is_mapped(&path));
    // As another process does that makes room, or makes it anew.
    fs::remove_file(&path).unwrap();
    assert!(answers(&again) == want);
    drop(again);
    assert!(!is_mapped(&path));
    drop(place.load());
    let bytes = fs::read(&path).unwrap();
    put(&path, &bytes, true);
    let again = place.load();
    assert_eq!(again.kept(), &Kept::Read);
    assert!(!is_mapped(&path));
    assert!(answers(&again) == want);
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_is_noted_when_it_was_checked_and_its_note_is_believed_while_it_stays() {
    let place = Place::new();
    let first = place.load();
    let want = answers(&first);
    drop(first);
    let read = |kept: Kept| {
        let model = place.load();
        assert_eq!(model.kept(), &kept);
        assert!(answers(&model) == want);
    };
    // At once it is too young.
    read(Kept::Read);
    assert!(place.files("seen").is_empty());
    let settle = || std::thread::sleep(Duration::from_millis(2050));
    settle();
    read(Kept::Read);
    let note = place.files("seen").pop().unwrap();
    let text = fs::read(&note).unwrap();
    age(&note, Duration::from_secs(3600));
    read(Kept::Read);
    let used = fs::metadata(&note).unwrap().modified().unwrap();
    assert!(used.elapsed().unwrap() < Duration::from_secs(1800));
    for damaged in [&b"something else"[..], &[b'0'; 64]] {
        fs::write(&note, damaged).unwrap();
        read(Kept::Read);
        assert_eq!(fs::read(&note).unwrap(), text);
    }
    // The file that takes its place is another, whose note goes with it.
    let path = place.files("pack").pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[70] ^= 1;
    put(&path, &bytes, false);
    settle();
    read(Kept::Made);
    assert!(place.files("seen").is_empty());
    settle();
    read(Kept::Read);
    assert_ne!(fs::read(&note).unwrap(), text);
    // Who makes another file removes notes on none.
    fs::remove_file(path).unwrap();
    let other = Place::new();
    let config = other.model().join("scheduler/scheduler_config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text + "\n").unwrap();
    assert_eq!(load(&other.model(), &place.packs()).kept(), &Kept::Made);
    assert!(!note.exists());
}

#[test]
fn a_folder_in_place_of_the_file_costs_nothing_but_time() {
    let place = Place::new();
    drop(place.load());
    let path = place.files("pack").pop().unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let model = place.load();
    assert!(
        matches!(model.kept(), Kept::Failed(_)),
        "{:?}",
        model.kept()
    );
    assert!(place.files("part").is_empty());
}

#[test]
fn a_folder_that_cannot_be_made_costs_nothing_but_time() {
    let place = Place::new();
    let want = answers(&load(&place.model(), &Packs::off()));
    let file = place.0.path().join("file");
    fs::write(&file, "in the way").unwrap();
    for folder in [file.join("packed"), file, "/proc/semblance".into()] {
        let packs = Packs::at(&folder).bounded(0, 1 << 30);
        let model = load(&place.model(), &packs);
        let Kept::Failed(why) = model.kept() else {
            panic!("{}: {:?}", folder.display(), model.kept());
        };
        assert!(!why.is_empty());
        assert!(answers(&model) == want);
    }
}

#[test]
fn a_model_that_changed_is_packed_anew_and_a_known_hash_is_not_believed() {
    let place = Place::new();
    let first = place.load().model_hash().to_owned();
    assert_eq!(place.files("known").len(), 1);
    let config = place.model().join("scheduler/scheduler_config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text + "\n").unwrap();
    age(&config, Duration::from_secs(60));
    let second = place.load();
    assert_ne!(second.model_hash(), first);
    assert_eq!(second.kept(), &Kept::Made);
    assert_eq!(
        (place.files("pack").len(), place.files("known").len()),
        (2, 2)
    );
}

#[test]
fn a_damaged_memory_of_a_hash_is_not_believed() {
    let place = Place::new();
    let want = place.load().model_hash().to_owned();
    let path = place.files("known").pop().unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    let swapped = whole.replacen(
        &whole[..2],
        if whole.starts_with("00") { "11" } else { "00" },
        1,
    );
    for text in [
        swapped,
        whole[1..].to_owned(),
        String::new(),
        "x".repeat(128),
    ] {
        fs::write(&path, text).unwrap();
        assert_eq!(place.load().model_hash(), want);
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
    }
}

#[test]
fn a_file_that_was_just_written_is_hashed_again() {
    let place = Place::new();
    let config = place.model().join("scheduler/scheduler_config.json");
    age(&config, Duration::ZERO);
    drop(place.load());
    assert!(place.files("known").is_empty());
    assert_eq!(place.load().kept(), &Kept::Read);
}

#[test]
fn the_oldest_files_go_when_there_are_too_many_bytes_and_others_files_stay() {
    let place = Place::new();
    drop(place.load());
    let size = fs::metadata(place.files("pack").pop().unwrap())
        .unwrap()
        .len();
    let foreign = ["notes.pack", "holiday.jpg", "making-up.txt"];
    for name in foreign {
        fs::write(place.folder().join(name), vec![1; 4096]).unwrap();
    }
    let left = place.folder().join("making-Ab12Cd.part");
    fs::write(&left, "half").unwrap();
    age(&left, Duration::from_secs(2 * 24 * 3600));
    // Room for two and a half.
    let packs = Packs::at(place.folder()).bounded(0, size * 5 / 2);
    let config = place.model().join("scheduler/scheduler_config.json");
    let packed = || {
        let mut files = place.files("pack");
        files.retain(|path| !path.ends_with("notes.pack"));
        files
    };
    let mut made = packed();
    for i in 0..4 {
        for path in packed() {
            let used = fs::metadata(&path).unwrap().modified().unwrap();
            let passed = SystemTime::now().duration_since(used).unwrap_or_default();
            age(&path, passed + Duration::from_secs(100));
        }
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text + "\n").unwrap();
        assert_eq!(load(&place.model(), &packs).kept(), &Kept::Made, "{i}");
        let new: Vec<_> = (packed().into_iter())
            .filter(|path| !made.contains(path))
            .collect();
        assert_eq!(new.len(), 1);
        made.extend(new);
    }
    let there: Vec<bool> = made.iter().map(|path| path.exists()).collect();
    assert_eq!(there, [false, false, false, true, true]);
    for name in foreign {
        assert!(place.folder().join(name).exists(), "{name}");
    }
    assert!(!left.exists());
}

#[test]
fn a_model_larger_than_the_bound_is_not_kept() {
    let place = Place::new();
    let model = load(&place.model(), &Packs::at(place.folder()).bounded(0, 1000));
    assert!(
        matches!(model.kept(), Kept::Failed(_)),
        "{:?}",
        model.kept()
    );
    assert!(place.files("pack").is_empty());
}

#[test]
fn small_models_are_not_kept() {
    let place = Place::new();
    let model = load(&place.model(), &Packs::at(place.folder()));
    assert_eq!(model.kept(), &Kept::No);
    assert!(!place.folder().exists());
}

#[test]
fn a_cancelled_load_leaves_no_file() {
    let place = Place::new();
    let cancel = Cancel::new();
    cancel.cancel();
    let source = ModelSource::Directory(place.model());
    for made in [false, true] {
        let native = Native::detect().unwrap();
        let error = Pipeline::load_kept(native, &source, &place.packs(), &cancel).unwrap_err();
        assert_eq!(error.code(), Code::Cancelled);
        assert!(place.files("part").is_empty());
        assert_eq!(place.files("pack").len(), usize::from(made));
        drop(place.load());
    }
}

#[test]
fn processes_that_pack_the_same_model_at_once_do_not_disturb_each_other() {
    // Copies, because a process loads one and the same model once.
    let places: Vec<Place> = (0..4).map(|_| Place::new()).collect();
    let packs = places[0].packs();
    for round in 0..5 {
        let answers = std::thread::scope(|scope| {
            let load = |place: &Place| {
                let model = load(&place.model(), &packs);
                assert!(matches!(model.kept(), Kept::Made | Kept::Read));
                answers(&model)
            };
            let running: Vec<_> = (places.iter())
                .map(|place| scope.spawn(move || load(place)))
                .collect();
            let answers = running.into_iter().map(|thread| thread.join().unwrap());
            answers.collect::<Vec<_>>()
        });
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{round}");
        assert_eq!(places[0].files("pack").len(), 1);
        assert!(places[0].files("part").is_empty());
        fs::remove_file(places[0].files("pack").pop().unwrap()).unwrap();
    }
}
