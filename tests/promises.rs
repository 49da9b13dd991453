//! What the engine promises around an edit: who waits for whom, what may change, and what a recipe
//! says of what made it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use semblance::job::{Cancel, Control, Phase, Progress};
use semblance::layer::{
    AlphaState, ChannelOrder, ColorSpace, Format, LayerView, LayerViewMut, MaskSamples, MaskView,
    Rect, SampleType,
};
use semblance::{Code, Edit, Engine, EngineOptions, FreeText, ModelChoice, Recipe, Stamp};
use semblance_kernels::{Cpu, CpuPath};

const WIDTH: u32 = 160;
const HEIGHT: u32 = 120;
const RECT: Rect = Rect {
    x: 0,
    y: 0,
    width: WIDTH,
    height: HEIGHT,
};
const RGB8: Format = Format {
    samples: SampleType::U8,
    order: ChannelOrder::Rgb,
    alpha: AlphaState::None,
};
const STRIDE: i64 = 3 * WIDTH as i64;
/// Longer than any step here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny")
}

fn options(folder: &Path) -> EngineOptions {
    EngineOptions {
        model: ModelChoice::Folder(folder.into()),
        threads: NonZeroUsize::new(1),
        ..EngineOptions::default()
    }
}

/// A copy of the tiny model, to be damaged.
fn copy_of_tiny() -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let target = to.join(path.file_name().unwrap());
            match path.is_dir() {
                true => copy(&path, &target),
                false => drop(std::fs::copy(&path, &target).unwrap()),
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(&tiny(), folder.path());
    folder
}

fn picture() -> Vec<u8> {
    let pixel = |i: u32| {
        let (x, y, c) = (i / 3 % WIDTH, i / 3 / WIDTH, i % 3);
        (128.0 + 110.0 * (x as f32 * 0.07 + y as f32 * 0.11 + c as f32).sin()) as u8
    };
    (0..3 * WIDTH * HEIGHT).map(pixel).collect()
}

fn view(data: &[u8]) -> LayerView<'_> {
    LayerView::new(data, 0, STRIDE, RECT, RGB8, ColorSpace::Srgb).unwrap()
}

fn rendered(edit: &Edit, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0; data.len()];
    let mut dst = LayerViewMut::new(&mut out, 0, STRIDE, RECT, RGB8, ColorSpace::Srgb).unwrap();
    edit.render(&view(data), None, &mut dst).unwrap();
    out
}

fn recipe(name: &str) -> Recipe {
    Recipe {
        steps: Some(4),
        ..Recipe::of(name, 1.0)
    }
}

fn edit(engine: &Engine, recipe: &Recipe) -> Edit {
    let request = engine.read(&view(&picture()), None, recipe).unwrap();
    engine.run(&request, &Control::default()).unwrap()
}

fn report(edit: &Edit) -> serde_json::Value {
    serde_json::from_str(&edit.report()).unwrap()
}

fn warnings(edit: &Edit) -> String {
    report(edit)["warnings"].to_string()
}

/// An attribute file for the models named.
fn attribute(folder: &Path, models: &str, extra: &str) -> String {
    let path = folder.join("mine.toml");
    let text = format!(
        "schema = 1\nname = \"mine\"\nmodels = [\"{models}\"]\nlicence = \"CC0-1.0\"\n\
         [text]\nneutral = \"a photo of {{scene}}\"\nstyled = \"a photo of {{scene}}, at night\"\n{extra}\n"
    );
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn reading_and_rendering_do_not_wait_for_a_run_of_an_engine_with_one_thread() {
    let engine = Engine::new(options(&tiny())).unwrap();
    let data = picture();
    let done = edit(&engine, &recipe("fog"));
    let (held, is_held) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(Some(released));
    let control = Control::new(Cancel::new(), move |progress: Progress| {
        if progress.phase == Phase::Edit
            && let Some(released) = released.lock().unwrap().take()
        {
            held.send(()).unwrap();
            let _ = released.recv_timeout(2 * PATIENCE);
        }
    });
    std::thread::scope(|scope| {
        let request = engine.read(&view(&data), None, &recipe("night")).unwrap();
        let (engine, data, done) = (&engine, &data, &done);
        let run = scope.spawn(move || engine.run(&request, &control));
        is_held.recv_timeout(PATIENCE).unwrap();
        let (finish, finished) = mpsc::channel();
        scope.spawn(move || {
            engine.read(&view(data), None, &recipe("snow")).unwrap();
            rendered(done, data);
            finish.send(()).unwrap();
        });
        let in_time = finished.recv_timeout(PATIENCE);
        release.send(()).unwrap();
        assert!(in_time.is_ok(), "read or render waited for the run");
        assert!(run.join().unwrap().is_ok());
    });
}

#[test]
fn an_edit_read_under_a_mask_changes_nothing_outside_its_extent_when_rendered_without() {
    let engine = Engine::new(options(&tiny())).unwrap();
    let data = picture();
    let part = Rect {
        x: 30,
        y: 20,
        width: 80,
        height: 60,
    };
    let selected = vec![255; 80 * 60];
    let mask = MaskView::new(&selected, 0, 80, part, MaskSamples::U8).unwrap();
    // In words, because the catalogue's attributes are tuned to the embedded model.
    let strong = Recipe {
        text: Some(FreeText {
            from: "a photo".into(),
            to: "a photo, at night".into(),
            strength: 2.0,
        }),
        ..Recipe::default()
    };
    let request = engine.read(&view(&data), Some(&mask), &strong).unwrap();
    let edit = engine.run(&request, &Control::default()).unwrap();
    assert_eq!(edit.extent(), part);
    let out = rendered(&edit, &data);
    assert!(out != data, "nothing changed at all");
    for (i, (new, old)) in out.chunks(3).zip(data.chunks(3)).enumerate() {
        let (x, y) = (i as i64 % i64::from(WIDTH), i as i64 / i64::from(WIDTH));
        let inside = (30..110).contains(&x) && (20..80).contains(&y);
        assert!(inside || new == old, "({x}, {y}) changed");
    }
}

#[test]
fn an_attribute_of_another_model_is_refused_without_reading_the_weights() {
    let (model, folder) = (copy_of_tiny(), tempfile::tempdir().unwrap());
    let (data, weights) = (picture(), "unet/diffusion_pytorch_model.safetensors");
    let other = attribute(folder.path(), "another-model", "");
    let engine = Engine::new(options(model.path())).unwrap();
    std::fs::remove_file(model.path().join(weights)).unwrap();
    let error = engine
        .read(&view(&data), None, &recipe(&other))
        .unwrap_err();
    assert_eq!(error.code(), Code::AttributeNotForModel, "{error}");
}

#[test]
fn a_hash_that_was_found_out_is_not_found_out_again() {
    let (model, folder) = (copy_of_tiny(), tempfile::tempdir().unwrap());
    let (data, weights) = (picture(), "unet/diffusion_pytorch_model.safetensors");
    let by_hash = attribute(folder.path(), "0123456789ab", "");
    let engine = Engine::new(options(model.path())).unwrap();
    let code = || {
        let error = engine.read(&view(&data), None, &recipe(&by_hash));
        error.unwrap_err().code()
    };
    assert_eq!(code(), Code::AttributeNotForModel);
    std::fs::remove_file(model.path().join(weights)).unwrap();
    assert_eq!(code(), Code::AttributeNotForModel);
}

#[test]
fn a_model_that_claims_an_absurd_picture_size_is_refused() {
    let model = copy_of_tiny();
    let path = model.path().join("unet/config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["sample_size"] = 4096.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let error = Engine::new(options(model.path())).unwrap_err();
    assert_eq!(error.code(), Code::InvalidModel);
    assert!(error.message().contains("sample_size = 4096"), "{error}");
}

#[test]
fn a_recipe_made_on_another_cpu_path_is_warned_of_and_one_made_here_is_not() {
    let engine = Engine::new(options(&tiny())).unwrap();
    let mut complete = edit(&engine, &recipe("fog")).recipe().clone();
    let again = warnings(&edit(&engine, &complete));
    assert!(!again.contains("the recipe was made"), "{again}");
    complete.stamp.as_mut().unwrap().cpu_path = "native-9".into();
    let other = warnings(&edit(&engine, &complete));
    assert!(other.contains("on the CPU path native-9"), "{other}");
}

#[test]
fn the_stamp_holds_the_attributes_hashes_and_a_changed_attribute_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let name = attribute(folder.path(), "mini", "");
    let engine = Engine::new(options(&tiny())).unwrap();
    let mut two = recipe("fog");
    two.attributes.extend(recipe(&name).attributes);
    let first = edit(&engine, &two);
    let complete = Recipe::from_json(&first.recipe().to_json().unwrap()).unwrap();
    assert_eq!(&complete, first.recipe());
    let stamp: &Stamp = complete.stamp.as_ref().unwrap();
    let text = std::fs::read(&name).unwrap();
    assert_eq!(stamp.attributes.len(), 2);
    assert_eq!(
        stamp.attributes[1],
        blake3::hash(&text).to_hex().to_string()
    );
    let same = warnings(&edit(&engine, &complete));
    assert!(!same.contains("has changed"), "{same}");
    attribute(folder.path(), "mini", "[edit]\nscale = 0.5");
    let changed = warnings(&edit(&engine, &complete));
    assert!(
        changed.contains("mine is new or has changed") && !changed.contains("fog is"),
        "{changed}"
    );
}

#[test]
fn a_memory_limit_counts_loaded_weights_and_bounds_what_is_kept() {
    let forecast = |engine: &Engine| {
        let edit = edit(engine, &recipe("fog"));
        report(&edit)["forecast_bytes"].as_u64().unwrap()
    };
    let free = Engine::new(options(&tiny())).unwrap();
    let (cold, warm) = (forecast(&free), forecast(&free));
    assert!(warm < cold, "{warm} {cold}");
    let bound = Engine::new(EngineOptions {
        memory_limit: Some(cold),
        ..options(&tiny())
    });
    let bound = bound.unwrap();
    for seed in 0..3 {
        assert_eq!(forecast(&bound), cold, "{seed}");
    }
    let tight = Engine::new(EngineOptions {
        memory_limit: Some(cold - 1),
        ..options(&tiny())
    });
    let tight = tight.unwrap();
    tight.load(&Control::default()).unwrap();
    let error = tight
        .read(&view(&picture()), None, &recipe("fog"))
        .unwrap_err();
    assert_eq!(error.code(), Code::OutOfMemory, "{error}");
    let describe: serde_json::Value = serde_json::from_str(&bound.describe().unwrap()).unwrap();
    let kept = describe["memory"]["cached"].as_u64().unwrap();
    assert!(kept <= cold / 4, "{kept}");
}

/// What becomes of an engine where the environment says `variable = value`: made in a child, which runs the
/// test `name` again; nothing in the child itself.
fn engine_where(name: &str, variable: &str, value: &str) -> Option<String> {
    if std::env::var_os("SEMBLANCE_TEST_CHILD").is_some() {
        match Engine::new(options(&tiny())) {
            Ok(engine) => println!("made={}", engine.describe().unwrap()),
            Err(error) => println!("refused={:?} {error}; {}", error.code(), error.hint()),
        }
        return None;
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "--exact", name])
        .env("SEMBLANCE_TEST_CHILD", "1")
        .env(variable, value)
        .output()
        .unwrap();
    Some(String::from_utf8(child.stdout).unwrap())
}

#[test]
fn a_device_asked_for_is_honoured_or_refused_with_how_to_build_it() {
    let name = "a_device_asked_for_is_honoured_or_refused_with_how_to_build_it";
    for (device, served, feature) in [
        ("", true, ""),
        ("cpu", true, ""),
        ("cuda:1", cfg!(feature = "cuda"), "--features cuda"),
        ("metal", cfg!(feature = "metal"), "--features metal"),
    ] {
        let Some(made) = engine_where(name, "SEMBLANCE_DEVICE", device) else {
            return;
        };
        let refused = made.contains("refused=InvalidParameter SEMBLANCE_DEVICE = ");
        match (served, feature) {
            (true, "") => assert!(made.contains(r#""cpu_path":"native-"#), "{made}"),
            (true, _) => assert!(refused || made.contains(r#""cpu_path":"candle-"#), "{made}"),
            (false, how) => assert!(refused && made.contains(how), "{device}: {made}"),
        }
    }
    let refused = engine_where(name, "SEMBLANCE_DEVICE", "abacus").unwrap();
    let what = "refused=InvalidParameter SEMBLANCE_DEVICE = abacus: must be cpu, cuda, ";
    assert!(refused.contains(what), "{refused}");
}

#[test]
fn a_cpu_path_asked_for_is_honoured_or_refused() {
    let name = "a_cpu_path_asked_for_is_honoured_or_refused";
    let with = |path: &str| engine_where(name, "SEMBLANCE_CPU", path);
    for (path, taken) in [
        ("portable", r#""cpu_path":"native-portable""#),
        ("auto", r#""cpu_path":"native-"#),
        ("", r#""cpu_path":"native-"#),
    ] {
        let Some(made) = with(path) else {
            return;
        };
        assert!(made.contains(taken), "{path}: {made}");
    }
    for path in CpuPath::ALL {
        let said = with(path.name()).unwrap();
        let told = match Cpu::new(path) {
            Ok(cpu) => format!(r#""cpu_path":"native-{cpu}""#),
            Err(error) => format!("refused=InvalidParameter {error}"),
        };
        assert!(said.contains(&told), "{path}: {said}");
    }
    // On every CPU the first of these that it has.
    let path = (CpuPath::ALL.iter().rev()).find_map(|path| Cpu::new(*path).ok());
    let fallen = with("amx,avx512bf16,avx512,avx2,portable").unwrap();
    assert!(
        fallen.contains(&format!(r#""cpu_path":"native-{}""#, path.unwrap())),
        "{fallen}"
    );
    let refused = with("sse9").unwrap();
    assert!(
        refused.contains("refused=InvalidParameter") && refused.contains("SEMBLANCE_CPU = sse9"),
        "{refused}"
    );
}

#[test]
fn a_cpu_path_that_an_option_asks_for_is_taken_or_refused() {
    let engine = |cpu: &str| {
        Engine::new(EngineOptions {
            cpu: Some(cpu.into()),
            ..options(&tiny())
        })
    };
    let path = engine("portable").unwrap().describe().unwrap();
    assert!(path.contains(r#""cpu_path":"native-portable""#), "{path}");
    let error = engine("amx,mmx").unwrap_err();
    assert_eq!(error.code(), Code::InvalidParameter);
    assert_eq!(error.parameter(), "cpu");
    let text = error.to_string();
    assert!(
        text.starts_with("cpu = amx,mmx: this CPU can take portable"),
        "{text}"
    );
}

#[cfg(feature = "embedded-model")]
#[test]
fn the_embedded_model_says_which_of_its_whole_words_it_never_learned() {
    use semblance::model::Pipeline;
    use semblance::weights::ModelSource;

    let source = ModelSource::Embedded(semblance_model_mini::FILES);
    let pipeline = Pipeline::load(&source, &Cancel::new()).unwrap();
    let unknown = |text: &str| pipeline.unknown_words(text).unwrap();
    assert_eq!(unknown("a photo of a lake at dusk, in fog"), ["dusk"]);
    assert_eq!(
        unknown("Mist over a xylophone"),
        ["mist", "over", "xylophone"]
    );
    for learned in ["a mountain lake, at sunset", "in winter, with snow"] {
        assert!(unknown(learned).is_empty(), "{learned}");
    }
}
