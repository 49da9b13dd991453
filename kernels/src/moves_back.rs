//! The transposes of what moves numbers or repeats them: a cotangent goes back to where its numbers came from.
//!
//! For: reverse mode. Not for: what depends on numbers (`derivative`).

use crate::conv::Size;
use crate::error::{Result, mismatch};
use crate::memory::with_scratch;
use crate::share;
use crate::slices::by_rows;

/// Rows that are added up in f32 before they are added to the others in f64.
const SUMMED: usize = 64;

/// The transpose of [`crate::concat`], one part at a time: of rows of `width` numbers of `g` those from
/// `first` on that a row of `columns` numbers of `out` takes.
///
/// Errors when lengths do not fit.
pub fn columns(
    g: &[f32],
    width: usize,
    (first, columns): (usize, usize),
    out: &mut [f32],
) -> Result<()> {
    let rows = g.len() / width.max(1);
    let fits = columns > 0
        && first + columns <= width
        && rows * width == g.len()
        && rows * columns == out.len();
    if !fits {
        let what = format!(
            "{columns} from {first} of rows of {width}, {} numbers into {}",
            g.len(),
            out.len()
        );
        return Err(mismatch("columns", what));
    }
    by_rows(out, columns, |begin, out| {
        let rows = g.chunks_exact(width).skip(begin);
        for (out, row) in out.chunks_exact_mut(columns).zip(rows) {
            out.copy_from_slice(row.get(first..first + columns).unwrap_or_default());
        }
    });
    Ok(())
}

/// The transpose of [`crate::upsample`]: `g`, of size `from`, back to `h × w` in `out`, where every number is
/// the sum of those that were made of it.
///
/// Errors when lengths do not fit or a side is 0.
pub fn upsample_cotangent(
    g: &[f32],
    from: Size,
    h: usize,
    w: usize,
    out: &mut [f32],
) -> Result<()> {
    let to = Size { h, w, ..from };
    if from.len() != Some(g.len()) || to.len() != Some(out.len()) || g.is_empty() || out.is_empty()
    {
        let what = format!("{from:?} back to {h} × {w} in {} numbers", out.len());
        return Err(mismatch("upsample_cotangent", what));
    }
    let c = from.c;
    // Of `large` places those that came from place `i` of `small`.
    let made = |i: usize, small: usize, large: usize| {
        (i * large).div_ceil(small)..((i + 1) * large).div_ceil(small)
    };
    by_rows(out, w * c, |first, out| {
        for (i, row) in out.chunks_exact_mut(w * c).enumerate() {
            let (n, y) = ((first + i) / h, (first + i) % h);
            row.fill(0.0);
            for line in made(y, h, from.h) {
                let start = (n * from.h + line) * from.w;
                for (x, pixel) in row.chunks_exact_mut(c).enumerate() {
                    for column in made(x, w, from.w) {
                        let at = (start + column) * c;
                        let g = g.get(at..at + c).unwrap_or_default();
                        pixel.iter_mut().zip(g).for_each(|(to, g)| *to += g);
                    }
                }
            }
        }
    });
    Ok(())
}

/// The sum of each sample's rows of `width` numbers of `g`, in `out`: one row a sample.
///
/// Errors when lengths do not fit.
pub fn sum_rows(g: &[f32], width: usize, out: &mut [f32]) -> Result<()> {
    let samples = out.len() / width.max(1);
    let sample = g.len() / samples.max(1);
    let fits = samples * width == out.len()
        && samples * sample == g.len()
        && sample > 0
        && sample.is_multiple_of(width);
    if !fits {
        let what = format!("{} numbers in rows of {width} into {}", g.len(), out.len());
        return Err(mismatch("sum_rows", what));
    }
    let blocks = (sample / width).div_ceil(SUMMED);
    with_scratch(blocks * width, |sums| {
        for (g, out) in g.chunks_exact(sample).zip(out.chunks_exact_mut(width)) {
            let add = |i: usize, sum: &mut [f32]| {
                sum.fill(0.0);
                let rows = g.chunks_exact(width).skip(i * SUMMED).take(SUMMED);
                rows.for_each(|row| sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x));
            };
            match share::pays(g.len()) {
                true => share::chunks(sums, width, add),
                false => (sums.chunks_mut(width).enumerate()).for_each(|(i, sum)| add(i, sum)),
            }
            for (i, out) in out.iter_mut().enumerate() {
                let parts = sums.iter().skip(i).step_by(width);
                *out = parts.map(|x| f64::from(*x)).sum::<f64>() as f32;
            }
        }
    })
}
