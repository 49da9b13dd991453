//! Operations that only move numbers, and their transposes, over plain slices.
//!
//! For: what every backend shares (the defaults of [`super::Ops`] and of
//! [`super::derivatives::Derivatives`]). Not for: what is worth a kernel.

use super::derivatives::Way;
use super::{Shape, mismatch};
use crate::error::Result;

/// Numbers and how they lie.
type Value = (Vec<f32>, Shape);

/// Where each number of a pool's result comes from, and the result's size.
fn winners(x: &[f32], s: Shape, size: usize) -> Result<(Vec<usize>, Shape)> {
    let to = match (s.h.checked_div(size), s.w.checked_div(size)) {
        (Some(h), Some(w)) if h > 0 && w > 0 && x.len() == s.len() => Shape { h, w, ..s },
        _ => return Err(mismatch("max_pool", format!("{s:?} by {size}"))),
    };
    let mut from = Vec::with_capacity(to.len());
    for row in 0..to.n * to.h {
        let (n, y) = (row / to.h, row % to.h);
        for column in 0..to.w {
            let pixel =
                |dy: usize, dx: usize| ((n * s.h + y * size + dy) * s.w + column * size + dx) * s.c;
            for c in 0..s.c {
                let window = (0..size * size).map(|i| pixel(i / size, i % size) + c);
                let largest = |best: usize, i: usize| match x.get(i) > x.get(best) {
                    true => i,
                    false => best,
                };
                from.push(window.fold(pixel(0, 0) + c, largest));
            }
        }
    }
    Ok((from, to))
}

/// [`super::Ops::max_pool`].
pub(super) fn max_pool(x: &[f32], s: Shape, size: usize) -> Result<Value> {
    let (from, to) = winners(x, s, size)?;
    Ok((taken(x, &from), to))
}

fn taken(x: &[f32], from: &[usize]) -> Vec<f32> {
    let number = |i: &usize| x.get(*i).copied().unwrap_or_default();
    from.iter().map(number).collect()
}

/// `t` through the derivative of [`max_pool`] at `x`.
pub(super) fn max_pool_derivative(
    (x, s): (&[f32], Shape),
    t: &[f32],
    size: usize,
    way: Way,
) -> Result<Value> {
    let (from, to) = winners(x, s, size)?;
    let wanted = match way {
        Way::Forward => s,
        Way::Back => to,
    };
    if t.len() != wanted.len() {
        let what = format!("{} numbers for {wanted:?}", t.len());
        return Err(mismatch("max_pool", what));
    }
    if way == Way::Forward {
        return Ok((taken(t, &from), to));
    }
    let mut out = vec![0.0; s.len()];
    for (i, g) in from.iter().zip(t) {
        if let Some(place) = out.get_mut(*i) {
            *place += g;
        }
    }
    Ok((out, s))
}

/// Where the rows of the patches of a map begin, patch by patch, and the size of the patches.
fn rows_of_patches(s: Shape, size: usize) -> Result<(impl Iterator<Item = usize>, Shape)> {
    let fits = size > 0 && s.h.is_multiple_of(size) && s.w.is_multiple_of(size) && !s.is_empty();
    if !fits {
        return Err(mismatch("patches", format!("{s:?} in patches of {size}")));
    }
    let (h, w) = (s.h / size, s.w / size);
    let to = Shape::tokens(s.n, h * w, size * size * s.c);
    let starts = (0..to.rows()).flat_map(move |i| {
        let (line, column) = (i / w, i % w);
        (0..size).map(move |dy| ((line * size + dy) * s.w + column * size) * s.c)
    });
    Ok((starts, to))
}

/// [`super::Ops::patches`].
pub(super) fn patches(x: &[f32], s: Shape, size: usize) -> Result<Value> {
    let (starts, to) = rows_of_patches(s, size)?;
    let mut out = Vec::with_capacity(to.len());
    for at in starts {
        out.extend_from_slice(x.get(at..at + size * s.c).unwrap_or_default());
    }
    Ok((out, to))
}

/// The transpose of [`patches`]: of tokens `g` the map of size `s` that they are the patches of.
pub(super) fn patches_back(g: &[f32], s: Shape, size: usize) -> Result<Vec<f32>> {
    let (starts, _) = rows_of_patches(s, size)?;
    if g.len() != s.len() {
        let what = format!("{} numbers back to {s:?}", g.len());
        return Err(mismatch("patches", what));
    }
    let mut out = vec![0.0; s.len()];
    for (at, row) in starts.zip(g.chunks_exact(size * s.c)) {
        if let Some(place) = out.get_mut(at..at + row.len()) {
            place.copy_from_slice(row);
        }
    }
    Ok(out)
}

/// [`super::Ops::join`].
pub(super) fn join((a, sa): (&[f32], Shape), (b, sb): (&[f32], Shape)) -> Result<Value> {
    let fits = sa.h == 1 && Shape { w: sa.w, ..sb } == sa && !sa.is_empty() && !sb.is_empty();
    if !fits {
        return Err(mismatch("join", format!("{sa:?} and {sb:?}")));
    }
    let to = Shape::tokens(sa.n, sa.w + sb.w, sa.c);
    let mut out = Vec::with_capacity(to.len());
    for (a, b) in a.chunks_exact(sa.w * sa.c).zip(b.chunks_exact(sb.w * sb.c)) {
        out.extend_from_slice(a);
        out.extend_from_slice(b);
    }
    Ok((out, to))
}

/// The numbers of a sample that `count` tokens from `first` on are.
fn run(s: Shape, first: usize, count: usize) -> Result<std::ops::Range<usize>> {
    match first.checked_add(count) {
        Some(end) if s.h == 1 && count > 0 && end <= s.w && !s.is_empty() => {
            Ok(first * s.c..end * s.c)
        }
        _ => Err(mismatch("tokens", format!("{count} from {first} of {s:?}"))),
    }
}

/// [`super::Ops::tokens`].
pub(super) fn tokens(x: &[f32], s: Shape, first: usize, count: usize) -> Result<Value> {
    let run = run(s, first, count)?;
    let samples = x.chunks_exact(s.w * s.c);
    let kept = samples.flat_map(|x| x.get(run.clone()).unwrap_or_default());
    Ok((kept.copied().collect(), Shape { w: count, ..s }))
}

/// The transpose of [`tokens`]: `count` tokens a sample, among zeros in a sequence of size `s`.
pub(super) fn tokens_back(g: &[f32], s: Shape, first: usize, count: usize) -> Result<Vec<f32>> {
    let run = run(s, first, count)?;
    if g.len() != s.n * run.len() {
        let what = format!("{} numbers back to {s:?}", g.len());
        return Err(mismatch("tokens", what));
    }
    let mut out = vec![0.0; s.len()];
    for (out, g) in (out.chunks_exact_mut(s.w * s.c)).zip(g.chunks_exact(run.len())) {
        if let Some(place) = out.get_mut(run.clone()) {
            place.copy_from_slice(g);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn of_equal_numbers_the_first_has_the_whole_gradient_and_overhanging_ones_have_none() {
        let s = Shape::map(1, 2, 3, 1);
        let x = [1.0, 5.0, 9.0, 5.0, 2.0, 9.0];
        let pull = |g| max_pool_derivative((&x, s), &[g], 2, Way::Back).unwrap();
        assert_eq!(pull(3.0), (vec![0.0, 3.0, 0.0, 0.0, 0.0, 0.0], s));
        let push = max_pool_derivative((&x, s), &[0., 1., 2., 3., 4., 5.], 2, Way::Forward);
        assert_eq!(push.unwrap(), (vec![1.0], Shape::map(1, 1, 1, 1)));
        assert!(max_pool_derivative((&x, s), &[0.0; 2], 2, Way::Back).is_err());
    }
}
