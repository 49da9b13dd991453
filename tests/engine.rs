//! The engine from layer to layer, on the tiny random pipeline: what an edit promises whatever the
//! model's quality.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::num::NonZeroUsize;
use std::path::PathBuf;

use semblance::job::Control;
use semblance::layer::{
    AlphaState, ChannelOrder, ColorSpace, Format, LayerView, LayerViewMut, Rect, SampleType,
};
use semblance::{Edit, Engine, EngineOptions, ModelChoice, Recipe, Result, Slider, Tally};

const RGBA8: Format = Format {
    samples: SampleType::U8,
    order: ChannelOrder::Rgba,
    alpha: AlphaState::Straight,
};

fn tiny() -> ModelChoice {
    ModelChoice::Folder(PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/tiny"
    )))
}

fn engine() -> Engine {
    engine_with(EngineOptions {
        model: tiny(),
        threads: NonZeroUsize::new(2),
        ..EngineOptions::default()
    })
}

fn engine_with(options: EngineOptions) -> Engine {
    Engine::new(options).unwrap()
}

/// A layer's bytes and what they mean.
#[derive(Clone)]
struct Picture {
    data: Vec<u8>,
    width: u32,
    height: u32,
    format: Format,
}

fn sample_bytes(samples: SampleType) -> usize {
    match samples {
        SampleType::U8 => 1,
        SampleType::U16 | SampleType::F16 => 2,
        SampleType::F32 => 4,
    }
}

fn channels(order: ChannelOrder) -> usize {
    match order {
        ChannelOrder::Gray => 1,
        ChannelOrder::GrayAlpha => 2,
        ChannelOrder::Rgb => 3,
        _ => 4,
    }
}

impl Picture {
    /// Waves of colour, with alpha from 0 to full where there is alpha.
    fn new(width: u32, height: u32, format: Format) -> Self {
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
            data,
            width,
            height,
            format,
        }
    }

    fn stride(&self) -> i64 {
        let pixel = channels(self.format.order) * sample_bytes(self.format.samples);
        i64::from(self.width) * pixel as i64
    }

    fn rect(&self) -> Rect {
        Rect {
            x: 0,
            y: 0,
            width: self.width,
            height: self.height,
        }
    }

    fn view(&self) -> LayerView<'_> {
        let color = ColorSpace::Srgb;
        LayerView::new(
            &self.data,
            0,
            self.stride(),
            self.rect(),
            self.format,
            color,
        )
        .unwrap()
    }

    fn rendered(&self, edit: &Edit) -> (Vec<u8>, Tally) {
        let mut out = vec![0; self.data.len()];
        let (stride, rect, format) = (self.stride(), self.rect(), self.format);
        let mut dst =
            LayerViewMut::new(&mut out, 0, stride, rect, format, ColorSpace::Srgb).unwrap();
        let tally = edit.render(&self.view(), None, &mut dst).unwrap();
        (out, tally)
    }
}

fn edit(engine: &Engine, picture: &Picture, recipe: &Recipe) -> Result<Edit> {
    let request = engine.read(&picture.view(), None, recipe)?;
    engine.run(&request, &Control::default())
}

/// Few steps: quick, and nothing here depends on their number.
fn recipe(sliders: &[(&str, f32)]) -> Recipe {
    let attributes = sliders.iter().map(|(name, strength)| Slider {
        name: (*name).into(),
        strength: *strength,
    });
    Recipe {
        attributes: attributes.collect(),
        steps: Some(4),
        ..Recipe::default()
    }
}

#[test]
fn an_edit_changes_the_picture_and_reports_what_it_did() {
    let picture = Picture::new(200, 150, RGBA8);
    let edit = edit(&engine(), &picture, &recipe(&[("sunset", 1.0)])).unwrap();
    let (out, tally) = picture.rendered(&edit);
    assert!(tally.changed > 0, "{tally:?}");
    assert_ne!(out, picture.data);
    let report: serde_json::Value = serde_json::from_str(&edit.report()).unwrap();
    assert_eq!(report["steps"], 4, "{report}");
    assert_eq!(report["predictions"], 8, "{report}");
    assert!(report["known_db"].is_number(), "{report}");
    assert_eq!(report["model"]["hash"].as_str().unwrap().len(), 64);
    let stamp = edit.recipe().stamp.as_ref().unwrap();
    assert_eq!(stamp.model_hash, report["model"]["hash"]);
}
