//! Pictures, engines and recipes for these tests. Not for: anything that one file alone needs.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use semblance::job::Control;
use semblance::layer::{
    AlphaState, ChannelOrder, ColorSpace, Format, LayerView, LayerViewMut, Rect, SampleType,
};
use semblance::{Edit, Engine, EngineOptions, ModelChoice, Recipe, Result, Slider, Tally};

pub const RGBA8: Format = Format {
    samples: SampleType::U8,
    order: ChannelOrder::Rgba,
    alpha: AlphaState::Straight,
};

pub fn tiny() -> ModelChoice {
    ModelChoice::Folder(PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/tiny"
    )))
}

pub fn fixture(name: &str) -> Engine {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/parity/");
    engine_with(EngineOptions {
        model: ModelChoice::Folder(format!("{folder}{name}").into()),
        ..EngineOptions::default()
    })
}

pub fn engine() -> Engine {
    engine_with(EngineOptions {
        model: tiny(),
        threads: NonZeroUsize::new(2),
        ..EngineOptions::default()
    })
}

pub fn engine_with(options: EngineOptions) -> Engine {
    Engine::new(options).unwrap()
}

/// A layer's bytes, which a failing test does not print.
#[derive(Clone, PartialEq)]
pub struct Bytes(pub Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} bytes, sum {}",
            self.0.len(),
            self.0.iter().map(|b| u64::from(*b)).sum::<u64>()
        )
    }
}

/// A layer's bytes and what they mean.
#[derive(Clone)]
pub struct Picture {
    pub data: Bytes,
    pub width: u32,
    pub height: u32,
    pub format: Format,
}

pub fn sample_bytes(samples: SampleType) -> usize {
    match samples {
        SampleType::U8 => 1,
        SampleType::U16 | SampleType::F16 => 2,
        SampleType::F32 => 4,
    }
}

pub fn channels(order: ChannelOrder) -> usize {
    match order {
        ChannelOrder::Gray => 1,
        ChannelOrder::GrayAlpha => 2,
        ChannelOrder::Rgb => 3,
        _ => 4,
    }
}

impl Picture {
    /// Waves of colour, with alpha from 0 to full where there is alpha.
    pub fn new(width: u32, height: u32, format: Format) -> Self {
        let n = channels(format.order);
        let mut data = Vec::new();
        for y in 0..height {
            for x in 0..width {
                for c in 0..n {
                    let wave = (x as f32 * 0.07 + y as f32 * 0.11 + c as f32 * 1.3).sin();
                    let v = 0.5 + 0.45 * wave;
                    match format.samples {
                        SampleType::U8 => data.push((v * 255.0) as u8),
                        SampleType::U16 => {
                            data.extend(((v * 65535.0) as u16).to_ne_bytes());
                        }
                        SampleType::F16 => data.extend(half::f16::from_f32(v).to_ne_bytes()),
                        SampleType::F32 => data.extend(v.to_ne_bytes()),
                    }
                }
            }
        }
        Picture {
            data: Bytes(data),
            width,
            height,
            format,
        }
    }

    pub fn stride(&self) -> i64 {
        let pixel = channels(self.format.order) * sample_bytes(self.format.samples);
        i64::from(self.width) * pixel as i64
    }

    pub fn rect(&self) -> Rect {
        Rect {
            x: 0,
            y: 0,
            width: self.width,
            height: self.height,
        }
    }

    pub fn view(&self) -> LayerView<'_> {
        let color = ColorSpace::Srgb;
        LayerView::new(
            &self.data.0,
            0,
            self.stride(),
            self.rect(),
            self.format,
            color,
        )
        .unwrap()
    }

    pub fn rendered(&self, edit: &Edit) -> (Bytes, Tally) {
        let mut out = vec![0; self.data.0.len()];
        let (stride, rect, format) = (self.stride(), self.rect(), self.format);
        let mut dst =
            LayerViewMut::new(&mut out, 0, stride, rect, format, ColorSpace::Srgb).unwrap();
        let tally = edit.render(&self.view(), None, &mut dst).unwrap();
        (Bytes(out), tally)
    }
}

pub fn edit(engine: &Engine, picture: &Picture, recipe: &Recipe) -> Result<Edit> {
    let request = engine.read(&picture.view(), None, recipe)?;
    engine.run(&request, &Control::default())
}

/// Few steps: quick, and nothing here depends on their number. A catalogue name stands for its copy
/// in tests/fixtures/attributes, which acts from the first step on and is never tuned.
pub fn recipe(sliders: &[(&str, f32)]) -> Recipe {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/attributes");
    let attributes = sliders.iter().map(|(name, strength)| {
        let copy = folder.join(format!("{name}.toml"));
        Slider {
            name: match copy.exists() {
                true => copy.to_string_lossy().into_owned(),
                false => (*name).to_owned(),
            },
            strength: *strength,
        }
    });
    Recipe {
        attributes: attributes.collect(),
        steps: Some(4),
        ..Recipe::default()
    }
}

pub fn report(edit: &Edit) -> serde_json::Value {
    serde_json::from_str(&edit.report()).unwrap()
}

pub fn bytes(engine: &Engine, picture: &Picture, recipe: &Recipe) -> Bytes {
    picture.rendered(&edit(engine, picture, recipe).unwrap()).0
}

/// An attribute file for any model of the mini family.
pub fn attribute(folder: &Path, name: &str, extra: &str) -> PathBuf {
    let path = folder.join(format!("{name}.toml"));
    let text = format!(
        "schema = 1\nname = \"{name}\"\nmodels = [\"mini\"]\nlicence = \"CC0-1.0\"\n\
         [text]\nneutral = \"a photo of {{scene}}\"\nstyled = \"a photo of {{scene}}, at night\"\n{extra}\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}
