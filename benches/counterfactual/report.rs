//! The bench's rows, as a table for people and as JSON for programs.

use std::collections::BTreeMap;
use std::path::Path;

use crate::metrics::Picture;
use semblance_atelier::Attribute;

/// What a value is of: attribute or subject, size, region, measure.
type Key = (String, (u32, u32), &'static str, &'static str);

/// Every value that was measured, by what it says.
#[derive(Default)]
pub struct Table {
    rows: BTreeMap<Key, Vec<f64>>,
}

impl Table {
    /// Adds one scene's value.
    pub fn add(
        &mut self,
        what: &str,
        size: (u32, u32),
        place: &'static str,
        measure: &'static str,
        value: f64,
    ) {
        self.rows
            .entry((what.to_owned(), size, place, measure))
            .or_default()
            .push(value);
    }

    fn mean(
        &self,
        what: &str,
        size: (u32, u32),
        place: &'static str,
        measure: &'static str,
    ) -> Option<f64> {
        let values = self.rows.get(&(what.to_owned(), size, place, measure))?;
        Some(values.iter().sum::<f64>() / values.len() as f64)
    }

    /// Prints one table a size and the rest as lines.
    pub fn print(&self, attributes: &[Attribute], sizes: &[(u32, u32)]) {
        let number = |v: Option<f64>| v.map_or("–".to_owned(), |v| format!("{v:.2}"));
        for &size in sizes {
            println!(
                "\n{}×{}: dB against the truth, inside | outside the attribute's mask",
                size.0, size.1
            );
            println!(
                "{:10} {:>9} {:>7} {:>7} {:>7} | {:>9} {:>7} {:>7} | {:>6} {:>6}",
                "", "unedited", "LUT", "edit", "gain", "unedited", "LUT", "edit", "ΔE", "true"
            );
            let mut gains = Vec::new();
            for attribute in attributes {
                let name = attribute.name();
                let get = |place, measure| self.mean(name, size, place, measure);
                let gain = get("inside", "psnr edit")
                    .zip(get("inside", "psnr lut"))
                    .map(|(e, l)| e - l);
                gains.extend(gain);
                println!(
                    "{:10} {:>9} {:>7} {:>7} {:>7} | {:>9} {:>7} {:>7} | {:>6} {:>6}",
                    name,
                    number(get("inside", "psnr unedited")),
                    number(get("inside", "psnr lut")),
                    number(get("inside", "psnr edit")),
                    number(gain),
                    number(get("outside", "psnr unedited")),
                    number(get("outside", "psnr lut")),
                    number(get("outside", "psnr edit")),
                    number(get("inside", "ΔE2000 edit")),
                    number(get("inside", "ΔE2000 truth")),
                );
            }
            println!(
                "{:10} {:>33}",
                "mean gain",
                number(Some(gains.iter().sum::<f64>() / gains.len().max(1) as f64))
            );
        }
        println!();
        for ((what, size, place, measure), values) in &self.rows {
            if !measure.starts_with("psnr") && !measure.starts_with('Δ') {
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                println!(
                    "{what:10} {:>9} {place:8} {measure}: {mean:.3} (n = {})",
                    format!("{}×{}", size.0, size.1),
                    values.len()
                );
            }
        }
    }

    /// Writes the means as rows {attribute, size, where, measure, value, n}.
    pub fn write_json(&self, path: &Path) {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|((attribute, (w, h), place, measure), values)| {
                serde_json::json!({
                    "attribute": attribute, "size": format!("{w}x{h}"), "where": place, "measure": measure,
                    "value": values.iter().sum::<f64>() / values.len() as f64, "n": values.len(),
                })
            })
            .collect();
        std::fs::write(path, serde_json::to_string_pretty(&rows).unwrap()).unwrap();
    }
}

/// Says how far the bench is, on one line of standard error.
pub fn tick(done: usize, of: usize, width: u32) {
    eprint!("\r{width} px: scene {done} of {of} ");
    if done == of {
        eprintln!();
    }
}

/// Writes scene `k`'s pictures as one row of a sheet: `sheet-WIDTH-k.png` beside `path`.
pub fn add_to_sheet(path: &Path, pictures: &[Picture], k: usize) {
    let (w, h) = (pictures[0].width, pictures[0].height);
    let mut sheet = image::RgbImage::new(w * pictures.len() as u32, h);
    for (i, p) in pictures.iter().enumerate() {
        let tile = image::RgbImage::from_raw(w, h, p.rgb.clone()).unwrap();
        image::imageops::replace(&mut sheet, &tile, i64::from(w) * i as i64, 0);
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    sheet
        .save(path.with_file_name(format!("{stem}-{w}-{k}.png")))
        .unwrap();
}
