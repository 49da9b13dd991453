//! The merged picture of a stack.
//!
//! For: `mergedimage.png` and the thumbnail, that file managers show. Not for: anything an editor
//! shows, which merges for itself. The formulas are those of <https://www.w3.org/TR/compositing-1/>
//! on encoded values, as the OpenRaster specification asks; modes that are missing here are taken
//! as normal, with a warning.

use super::OpenRaster;
use super::stack::{Group, Layer, Node};
use crate::limits;
use crate::pixels::{Alpha, Color, Order, Pixels, Samples};

/// A blend mode by its name in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mode(String);

impl Mode {
    /// `svg:src-over`.
    pub const NORMAL: Mode = Mode(String::new());

    /// The mode called `name`.
    pub fn named(name: &str) -> Mode {
        match name {
            "svg:src-over" => Mode::NORMAL,
            _ => Mode(name.to_owned()),
        }
    }

    /// The name in the file.
    pub fn name(&self) -> &str {
        match self.0.as_str() {
            "" => "svg:src-over",
            name => name,
        }
    }

    /// B(backdrop, source) of the specification, for one channel; `None` for unknown modes.
    fn function(&self) -> Option<fn(f32, f32) -> f32> {
        fn multiply(b: f32, s: f32) -> f32 {
            b * s
        }
        fn screen(b: f32, s: f32) -> f32 {
            b + s - b * s
        }
        fn hard_light(b: f32, s: f32) -> f32 {
            if s <= 0.5 {
                multiply(b, 2.0 * s)
            } else {
                screen(b, 2.0 * s - 1.0)
            }
        }
        fn soft_light(b: f32, s: f32) -> f32 {
            if s <= 0.5 {
                return b - (1.0 - 2.0 * s) * b * (1.0 - b);
            }
            let d = if b <= 0.25 {
                ((16.0 * b - 12.0) * b + 4.0) * b
            } else {
                b.sqrt()
            };
            b + (2.0 * s - 1.0) * (d - b)
        }
        fn dodge(b: f32, s: f32) -> f32 {
            match (b, s) {
                (b, _) if b <= 0.0 => 0.0,
                (_, s) if s >= 1.0 => 1.0,
                (b, s) => (b / (1.0 - s)).min(1.0),
            }
        }
        fn burn(b: f32, s: f32) -> f32 {
            match (b, s) {
                (b, _) if b >= 1.0 => 1.0,
                (_, s) if s <= 0.0 => 0.0,
                (b, s) => 1.0 - ((1.0 - b) / s).min(1.0),
            }
        }
        Some(match self.name() {
            "svg:src-over" => |_, s| s,
            "svg:multiply" => multiply,
            "svg:screen" => screen,
            "svg:overlay" => |b, s| hard_light(s, b),
            "svg:hard-light" => hard_light,
            "svg:soft-light" => soft_light,
            "svg:darken" => f32::min,
            "svg:lighten" => f32::max,
            "svg:color-dodge" => dodge,
            "svg:color-burn" => burn,
            "svg:difference" => |b, s| (b - s).abs(),
            _ => return None,
        })
    }
}

/// What merging gives.
pub(super) struct Merged {
    /// RGBA, 8 bits, straight.
    pub pixels: Pixels,
    /// What could not be merged as asked, in plain words.
    pub warnings: Vec<String>,
}

/// Merges the visible layers.
pub(super) fn merge(document: &OpenRaster) -> Result<Merged, String> {
    let (width, height) = document.size();
    let mut merger = Merger {
        document,
        width: width as usize,
        height: height as usize,
        warnings: Vec::new(),
        color: None,
        canvases: 0,
    };
    let mut canvas = merger.empty()?;
    merger.nodes(document.nodes(), &mut canvas)?;
    let mut bytes = Vec::with_capacity(canvas.len() * 4);
    for [r, g, b, a] in canvas {
        let scale = if a > 0.0 { 255.0 / a } else { 0.0 };
        for value in [r * scale, g * scale, b * scale, a * 255.0] {
            bytes.push(value.round().clamp(0.0, 255.0) as u8);
        }
    }
    Ok(Merged {
        pixels: Pixels {
            width,
            height,
            samples: Samples::U8,
            order: Order::Rgba,
            alpha: Alpha::Straight,
            color: merger.color.unwrap_or(Color::Srgb),
            bytes,
        },
        warnings: merger.warnings,
    })
}

/// Premultiplied RGBA, canvas size.
type Canvas = Vec<[f32; 4]>;

struct Merger<'a> {
    document: &'a OpenRaster,
    width: usize,
    height: usize,
    warnings: Vec<String>,
    /// The profile of the layers so far.
    color: Option<Color>,
    /// Canvases that live now.
    canvases: u64,
}

impl Merger<'_> {
    /// A canvas, given back by lowering `canvases`.
    fn empty(&mut self) -> Result<Canvas, String> {
        self.canvases += 1;
        let pixels = (self.width * self.height) as u64;
        let needed = (16 * pixels).saturating_mul(self.canvases);
        if needed > limits::MERGE_BYTES {
            return Err(format!(
                "the merged picture: {} groups within groups of {}×{} pixels need {:.1} GiB, at most {}",
                self.canvases - 1,
                self.width,
                self.height,
                needed as f64 / f64::from(1u32 << 30),
                limits::MERGE_BYTES >> 30
            ));
        }
        let mut canvas = Vec::new();
        canvas
            .try_reserve_exact(self.width * self.height)
            .map_err(|_| "the merged picture: not enough memory".to_owned())?;
        canvas.resize(self.width * self.height, [0.0; 4]);
        Ok(canvas)
    }

    fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Lays nodes (uppermost first) over the canvas.
    fn nodes(&mut self, nodes: &[Node], canvas: &mut Canvas) -> Result<(), String> {
        for node in nodes.iter().rev() {
            match node {
                Node::Layer(layer) if layer.visible && layer.opacity > 0.0 => {
                    self.layer(layer, canvas)?;
                }
                Node::Group(group) if group.visible && group.opacity > 0.0 => {
                    self.group(group, canvas)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn group(&mut self, group: &Group, canvas: &mut Canvas) -> Result<(), String> {
        if group.opacity >= 1.0 && group.mode == Mode::NORMAL && !group.isolated {
            return self.nodes(&group.nodes, canvas);
        }
        let mut inner = self.empty()?;
        self.nodes(&group.nodes, &mut inner)?;
        let blend = self.function(&group.mode);
        for (below, above) in canvas.iter_mut().zip(inner) {
            *below = over(*below, straight(above), group.opacity, blend);
        }
        self.canvases -= 1;
        Ok(())
    }

    fn layer(&mut self, layer: &Layer, canvas: &mut Canvas) -> Result<(), String> {
        let picture = match self.document.picture(layer) {
            Ok(picture) => picture,
            Err(what) => {
                self.warn(format!("the merged picture lacks a layer: {what}"));
                return Ok(());
            }
        };
        let pixels = &picture.pixels;
        // Grey layers carry grey profiles, which say nothing about an RGB canvas.
        if !pixels.order.is_gray() {
            match &self.color {
                None => self.color = Some(pixels.color.clone()),
                Some(color) if *color == pixels.color => {}
                Some(_) => self.warn(
                    "layers have different profiles: the merged picture takes the lowest's".into(),
                ),
            }
        }
        let blend = self.function(&layer.mode);
        for row in 0..pixels.height as usize {
            let Some(y) = on_canvas(layer.y, row, self.height) else {
                continue;
            };
            for column in 0..pixels.width as usize {
                let Some(x) = on_canvas(layer.x, column, self.width) else {
                    continue;
                };
                let above = pixels.rgba(row * pixels.width as usize + column);
                if let Some(below) = canvas.get_mut(y * self.width + x) {
                    *below = over(*below, above, layer.opacity, blend);
                }
            }
        }
        Ok(())
    }

    fn function(&mut self, mode: &Mode) -> fn(f32, f32) -> f32 {
        mode.function().unwrap_or_else(|| {
            self.warn(format!(
                "the merged picture takes the mode {} as normal; editors show it right",
                mode.name()
            ));
            |_, s| s
        })
    }
}

/// `offset + at` where that is on a canvas of `size`.
fn on_canvas(offset: i64, at: usize, size: usize) -> Option<usize> {
    usize::try_from(offset + at as i64)
        .ok()
        .filter(|place| *place < size)
}

fn straight([r, g, b, a]: [f32; 4]) -> [f32; 4] {
    if a > 0.0 {
        [r / a, g / a, b / a, a]
    } else {
        [0.0; 4]
    }
}

/// Lays a straight pixel over a premultiplied one.
fn over(below: [f32; 4], above: [f32; 4], opacity: f32, blend: fn(f32, f32) -> f32) -> [f32; 4] {
    let (alpha, backdrop) = (above[3] * opacity, below[3]);
    if alpha <= 0.0 {
        return below;
    }
    let under = straight(below);
    let channel = |at: usize| {
        let (s, b) = (above[at], under[at]);
        let mixed = (1.0 - backdrop) * s + backdrop * blend(b, s);
        alpha * mixed + (1.0 - alpha) * below[at]
    };
    [
        channel(0),
        channel(1),
        channel(2),
        alpha + backdrop * (1.0 - alpha),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_red_over_opaque_blue_is_half_of_each() {
        let mixed = over([0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.5], 1.0, |_, s| s);
        assert_eq!(mixed, [0.5, 0.0, 0.5, 1.0]);
    }

    #[test]
    fn groups_that_would_fill_the_memory_are_refused_with_numbers() {
        let picture = super::super::Picture {
            kind: super::super::Kind::Png,
            pixels: Pixels {
                width: 1,
                height: 1,
                samples: Samples::U8,
                order: Order::Gray,
                alpha: Alpha::None,
                color: Color::Srgb,
                bytes: vec![0],
            },
            metadata: Default::default(),
            warnings: Vec::new(),
        };
        let document = OpenRaster::of_picture(&picture, "a").unwrap();
        let mut merger = Merger {
            document: &document,
            width: 16_384,
            height: 16_384,
            warnings: Vec::new(),
            color: None,
            canvases: 2,
        };
        let what = merger.empty().unwrap_err();
        assert!(what.contains("12.0 GiB, at most 8"), "{what}");
    }

    #[test]
    fn multiply_by_white_changes_nothing() {
        let blend = Mode::named("svg:multiply").function().unwrap();
        assert_eq!(
            over([0.2, 0.4, 0.6, 1.0], [1.0; 4], 1.0, blend),
            [0.2, 0.4, 0.6, 1.0]
        );
    }

    #[test]
    fn every_mode_stays_within_the_unit_interval() {
        for name in [
            "src-over",
            "multiply",
            "screen",
            "overlay",
            "hard-light",
            "soft-light",
            "darken",
            "lighten",
            "color-dodge",
            "color-burn",
            "difference",
        ] {
            let blend = Mode::named(&format!("svg:{name}")).function().unwrap();
            for b in 0..=10 {
                for s in 0..=10 {
                    let value = blend(b as f32 / 10.0, s as f32 / 10.0);
                    assert!((0.0..=1.0).contains(&value), "{name} {b} {s}: {value}");
                }
            }
        }
    }
}
