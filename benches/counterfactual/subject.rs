//! The engine under test, through its public API.

use std::path::PathBuf;

use crate::Options;
use crate::metrics::Picture;
use semblance::job::Control;
use semblance::layer::{
    AlphaState, ChannelOrder, ColorSpace, Format, LayerView, LayerViewMut, Rect, SampleType,
};
use semblance::{Edit, Engine, EngineOptions, ModelChoice, Recipe};
use semblance_atelier::Attribute;

/// An engine and the fields that every recipe shares.
pub struct Subject {
    engine: Engine,
    attributes: Option<PathBuf>,
    fields: serde_json::Map<String, serde_json::Value>,
}

const RGB8: Format = Format {
    samples: SampleType::U8,
    order: ChannelOrder::Rgb,
    alpha: AlphaState::None,
};

impl Subject {
    pub fn new(options: &Options) -> Self {
        let model = match &options.model {
            Some(folder) => ModelChoice::Folder(folder.clone()),
            None => ModelChoice::Embedded,
        };
        let text = options.recipe.as_deref().unwrap_or("{}");
        let mut fields: serde_json::Map<_, _> =
            serde_json::from_str(text).expect("--recipe is a JSON object");
        fields.insert("semblance".into(), 1.into());
        if let Some(steps) = options.steps {
            fields.insert("steps".into(), steps.into());
        }
        let engine = Engine::new(EngineOptions {
            model,
            ..Default::default()
        })
        .unwrap();
        Subject {
            engine,
            attributes: options.attributes.clone(),
            fields,
        }
    }

    fn run(&self, picture: &Picture, attribute: Attribute, strength: f32, shortcut: bool) -> Edit {
        let mut fields = self.fields.clone();
        let name = match &self.attributes {
            Some(folder) => folder
                .join(format!("{attribute}.toml"))
                .display()
                .to_string(),
            None => attribute.to_string(),
        };
        fields.insert(
            "attributes".into(),
            serde_json::json!([{ "name": name, "strength": strength }]),
        );
        if !shortcut {
            fields.insert("identity_shortcut".into(), "off".into());
        }
        let recipe = Recipe::from_json(&serde_json::Value::Object(fields).to_string()).unwrap();
        let rect = Rect {
            x: 0,
            y: 0,
            width: picture.width,
            height: picture.height,
        };
        let stride = i64::from(picture.width) * 3;
        let layer = LayerView::new(&picture.rgb, 0, stride, rect, RGB8, ColorSpace::Srgb).unwrap();
        let request = self.engine.read(&layer, None, &recipe).unwrap();
        self.engine.run(&request, &Control::default()).unwrap()
    }

    fn rendered(&self, picture: &Picture, edit: &Edit) -> Picture {
        let mut out = picture.clone();
        let rect = Rect {
            x: 0,
            y: 0,
            width: picture.width,
            height: picture.height,
        };
        let stride = i64::from(picture.width) * 3;
        let mut view =
            LayerViewMut::new(&mut out.rgb, 0, stride, rect, RGB8, ColorSpace::Srgb).unwrap();
        edit.render_in_place(&mut view, None).unwrap();
        out
    }

    pub fn edit(&self, picture: &Picture, attribute: Attribute, strength: f32) -> Picture {
        self.rendered(picture, &self.run(picture, attribute, strength, true))
    }

    pub fn edit_without_shortcut(
        &self,
        picture: &Picture,
        attribute: Attribute,
        strength: f32,
    ) -> Picture {
        self.rendered(picture, &self.run(picture, attribute, strength, false))
    }

    /// PSNR in dB of the decoded reconstruction against the picture, at the model's size.
    pub fn round_trip(&self, picture: &Picture) -> f64 {
        let report = self.run(picture, Attribute::Sunset, 0.0, false).report();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        report["known_db"]
            .as_f64()
            .expect("the report says how well the model knows the picture")
    }
}
