//! What an edit did to a layer's bytes, found out by comparing them.
//!
//! For: saying how many pixels changed inside and outside the mask, and for refusing to write a
//! picture in which one outside changed. Not for: the library's own report, which this checks.

use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::library::Mask;
use crate::pixels::Pixels;

/// One side of the mask.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Side {
    /// Pixels.
    pub pixels: u64,
    /// Those whose bytes changed.
    pub changed: u64,
    /// Sum over changed pixels of the largest change of a sample, in 0..=1 of full scale.
    sum: f64,
    /// The largest of them.
    largest: f32,
}

/// Both sides of the mask; without one everything is inside.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Explained {
    pub inside: Side,
    pub outside: Side,
}

impl Side {
    fn add(&mut self, change: Option<f32>) {
        self.pixels += 1;
        if let Some(size) = change {
            self.changed += 1;
            self.sum += f64::from(size);
            self.largest = self.largest.max(size);
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "pixels": self.pixels,
            "changed": self.changed,
            "mean_change": self.sum / self.changed.max(1) as f64,
            "largest_change": self.largest,
        })
    }
}

impl Explained {
    /// Compares a layer before and after; both have the same size and format.
    pub(super) fn new(before: &Pixels, after: &Pixels, mask: Option<&Mask>) -> Explained {
        let mut found = Explained::default();
        let (width, size) = (before.width as usize, before.pixel_size());
        for y in 0..before.height as usize {
            let row = y * width * size..(y + 1) * width * size;
            let same = before.bytes.get(row.clone()) == after.bytes.get(row);
            for x in 0..width {
                let change = match same {
                    true => None,
                    false => before.difference(after, y * width + x),
                };
                match mask.is_none_or(|mask| mask.selects(x, y)) {
                    true => found.inside.add(change),
                    false => found.outside.add(change),
                }
            }
        }
        found
    }

    /// Fails when a pixel outside the mask changed: a defect that must not reach a file.
    pub(super) fn check(&self) -> Result<()> {
        match self.outside.changed {
            0 => Ok(()),
            changed => Err(Failure::library(format!(
                "{changed} pixels outside the mask changed: nothing was written"
            ))
            .hint("this is a defect of Semblance: please report it")),
        }
    }
}

impl Mask {
    /// Whether the layer's pixel `(x, y)` is above 0 in the mask.
    fn selects(&self, x: usize, y: usize) -> bool {
        let at = |place: usize, origin: i64, length: u32| {
            usize::try_from(place as i64 - origin)
                .ok()
                .filter(|at| *at < length as usize)
        };
        let column = at(x, self.rect.x, self.rect.width);
        let row = at(y, self.rect.y, self.rect.height);
        column.zip(row).is_some_and(|(column, row)| {
            let index = row * self.rect.width as usize + column;
            self.samples.get(index).is_some_and(|sample| *sample > 0.0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::Rect;
    use crate::pixels::{Alpha, Color, Order, Samples};

    fn grey(bytes: [u8; 6]) -> Pixels {
        Pixels {
            width: 3,
            height: 2,
            samples: Samples::U8,
            order: Order::Gray,
            alpha: Alpha::None,
            color: Color::Srgb,
            bytes: bytes.to_vec(),
        }
    }

    #[test]
    fn changes_are_counted_on_their_side_of_the_mask() {
        // Selects (1, 0) and (1, 1); its first row lies above the layer.
        let mask = Mask {
            rect: Rect {
                x: 1,
                y: -1,
                width: 1,
                height: 3,
            },
            samples: vec![1.0, 0.5, 1.0],
        };
        let before = grey([0, 0, 0, 0, 0, 0]);
        let inside = Explained::new(&before, &grey([0, 51, 0, 0, 102, 0]), Some(&mask));
        assert_eq!((inside.inside.pixels, inside.inside.changed), (2, 2));
        assert_eq!((inside.outside.pixels, inside.outside.changed), (4, 0));
        let told = inside.inside.json();
        assert!((told["mean_change"].as_f64().unwrap() - 0.3).abs() < 1e-6);
        assert!(inside.check().is_ok());
        let outside = Explained::new(&before, &grey([1, 0, 0, 0, 0, 0]), Some(&mask));
        assert!(outside.check().unwrap_err().message.starts_with("1 pixels"));
        let unmasked = Explained::new(&before, &grey([1, 0, 0, 0, 0, 0]), None);
        assert_eq!((unmasked.inside.pixels, unmasked.outside.pixels), (6, 0));
    }
}
