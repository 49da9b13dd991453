//! The transpose of a convolution: what takes a cotangent of its result back to its input.
//!
//! For: reverse mode. Not for: networks with transposed convolutions of their own (no bias here).
//!
//! At stride 1 it is a convolution with the kernel turned by 180° and inputs and outputs exchanged.
//! At a larger one, zeros are put between the rows and columns of the cotangent first, which does
//! stride² times the work: few layers have one.

use crate::conv::{Conv, Size, Window};
use crate::error::{Result, mismatch};
use crate::memory::with_scratch;
use crate::product::Finish;
use crate::slices::by_rows;

/// A transposed convolution, packed for one path.
#[derive(Debug)]
pub struct ConvTransposed {
    turned: Conv,
    /// The window of the convolution whose transpose it is.
    window: Window,
}

impl Conv {
    /// The transpose, packed anew.
    ///
    /// Errors when there are more zeros around the map than the kernel reaches over.
    pub fn transposed(&self) -> Result<ConvTransposed> {
        let Window { size, padding, .. } = self.window;
        let around = |p: usize| (size - 1).checked_sub(p);
        let (Some(before), Some(after)) = (around(padding.0), around(padding.1)) else {
            let what = format!("padding {padding:?} of a kernel of {size}");
            return Err(mismatch("transposed", what));
        };
        let turned = Window {
            size,
            stride: 1,
            padding: (before, after),
        };
        let (inputs, outputs) = self.channels();
        let last = size * size - 1;
        let number = |i: usize, tap: usize, o: usize| self.number(o, last - tap, i);
        let cpu = self.weights.cpu;
        Ok(ConvTransposed {
            turned: Conv::assemble(cpu, number, None, (outputs, inputs), turned)?,
            window: self.window,
        })
    }
}

impl ConvTransposed {
    /// Takes `g`, of the size `from` of the convolution's result, back to the size `to` of its input.
    ///
    /// Errors when sizes do not fit.
    pub fn run(&self, g: &[f32], from: Size, to: Size, out: &mut [f32]) -> Result<()> {
        let Window {
            size,
            stride,
            padding,
        } = self.window;
        // Rows (or columns) with the zeros between them and those that no window reached.
        let spread = |length: usize, input: usize| {
            (self.window.output(input) == Some(length)).then(|| {
                (length - 1) * stride + 1 + (input + padding.0 + padding.1 - size) % stride
            })
        };
        let wide = spread(from.h, to.h).and_then(|h| {
            let w = spread(from.w, to.w)?;
            Some(Size { h, w, ..from })
        });
        let wide = wide.filter(|wide| {
            from.len() == Some(g.len()) && self.turned.output(*wide) == Some(to) && !g.is_empty()
        });
        let Some(wide) = wide else {
            let what = format!("{} numbers of {from:?} back to {to:?}", g.len());
            return Err(mismatch("conv transposed", what));
        };
        if stride == 1 {
            return self.turned.run(g, from, Finish::default(), out);
        }
        let line = wide.w * wide.c;
        with_scratch(wide.n * wide.h * line, |scratch| {
            by_rows(scratch, line, |first, rows| {
                rows.fill(0.0);
                for (i, row) in rows.chunks_exact_mut(line).enumerate() {
                    let (n, y) = ((first + i) / wide.h, (first + i) % wide.h);
                    if !y.is_multiple_of(stride) || y / stride >= from.h {
                        continue;
                    }
                    let at = (n * from.h + y / stride) * from.w * from.c;
                    let pixels = g.get(at..at + from.w * from.c).unwrap_or_default();
                    let places = row.chunks_exact_mut(wide.c).step_by(stride);
                    for (place, pixel) in places.zip(pixels.chunks_exact(wide.c)) {
                        place.copy_from_slice(pixel);
                    }
                }
            });
            self.turned.run(scratch, wide, Finish::default(), out)
        })?
    }
}
