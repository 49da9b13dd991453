//! The colour guided filter: a local affine model of one picture over another.
//!
//! He, Sun, Tang, "Guided Image Filtering" (ECCV 2010; TPAMI 2013), equations 19–21, for a guide
//! of three channels. Where the paper filters a picture, we model a CHANGE: the ridge ε then pulls
//! towards no change, and where nothing changed A and b are exactly 0. Windows are cut at the
//! picture's edge, as in the authors' code. Sums are prefix sums in f64, so that a window of zeros
//! sums to exactly zero.

/// Per pixel: the three columns of A (what one unit of red, green, blue of the guide adds to the
/// target's red, green, blue), then b.
pub(super) type Affine = [[f32; 3]; 4];

/// Fits `target ≈ A · guide + b` in windows of `2 · radius + 1` pixels, and averages A and b over the
/// windows that hold a pixel. Planes are `width × height`, rows top first; `epsilon` is in squared
/// units of the guide.
pub(super) fn fit(
    guide: &[Vec<f64>; 3],
    target: &[Vec<f64>; 3],
    width: usize,
    height: usize,
    radius: usize,
    epsilon: f64,
) -> Vec<Affine> {
    let mean = |plane: &[f64]| box_mean(plane, width, height, radius);
    let product = |a: &[f64], b: &[f64]| {
        let both: Vec<f64> = a.iter().zip(b).map(|(a, b)| a * b).collect();
        mean(&both)
    };
    let mi: Vec<_> = guide.iter().map(|p| mean(p)).collect();
    let mp: Vec<_> = target.iter().map(|p| mean(p)).collect();
    // Upper triangle of the guide's covariance: rr, rg, rb, gg, gb, bb.
    const PAIRS: [(usize, usize); 6] = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)];
    let ii: Vec<_> = PAIRS
        .iter()
        .map(|&(i, j)| product(&guide[i], &guide[j]))
        .collect();
    let ip: Vec<Vec<_>> = guide
        .iter()
        .map(|g| target.iter().map(|t| product(g, t)).collect())
        .collect();
    let mut planes = vec![vec![0.0; width * height]; 12];
    for k in 0..width * height {
        let mut s = [0.0; 6];
        for (s, (&(i, j), ii)) in s.iter_mut().zip(PAIRS.iter().zip(&ii)) {
            *s = ii[k] - mi[i][k] * mi[j][k] + if i == j { epsilon } else { 0.0 };
        }
        let inverse = inverse(s);
        for c in 0..3 {
            let v: [f64; 3] = std::array::from_fn(|i| ip[i][c][k] - mi[i][k] * mp[c][k]);
            let mut b = mp[c][k];
            for i in 0..3 {
                let a = inverse[i][0] * v[0] + inverse[i][1] * v[1] + inverse[i][2] * v[2];
                planes[i * 3 + c][k] = a;
                b -= a * mi[i][k];
            }
            planes[9 + c][k] = b;
        }
    }
    let planes: Vec<_> = planes.iter().map(|p| mean(p)).collect();
    (0..width * height)
        .map(|k| std::array::from_fn(|i| std::array::from_fn(|c| planes[i * 3 + c][k] as f32)))
        .collect()
}

/// Inverse of a symmetric 3×3 matrix given as its upper triangle.
fn inverse([a, b, c, d, e, f]: [f64; 6]) -> [[f64; 3]; 3] {
    let (p, q, r) = (d * f - e * e, c * e - b * f, b * e - c * d);
    let by = 1.0 / (a * p + b * q + c * r);
    let (s, t, u) = (a * f - c * c, b * c - a * e, a * d - b * b);
    [
        [p * by, q * by, r * by],
        [q * by, s * by, t * by],
        [r * by, t * by, u * by],
    ]
}

/// The mean over each pixel's window of `2 · radius + 1` pixels a side, cut at the edge.
pub(super) fn box_mean(plane: &[f64], width: usize, height: usize, radius: usize) -> Vec<f64> {
    let mut across = vec![0.0; plane.len()];
    let mut sums = vec![0.0; width.max(height) + 1];
    for (row, out) in plane.chunks(width).zip(across.chunks_mut(width)) {
        window_means(row.iter().copied(), &mut sums, radius, |x, v| out[x] = v);
    }
    let mut out = vec![0.0; plane.len()];
    for x in 0..width {
        let column = (0..height).map(|y| across[y * width + x]);
        window_means(column, &mut sums, radius, |y, v| out[y * width + x] = v);
    }
    out
}

fn window_means(
    values: impl ExactSizeIterator<Item = f64>,
    sums: &mut [f64],
    radius: usize,
    mut put: impl FnMut(usize, f64),
) {
    let len = values.len();
    let mut sum = 0.0;
    for (v, s) in values.zip(&mut sums[1..]) {
        sum += v;
        *s = sum;
    }
    for i in 0..len {
        let (from, to) = (i.saturating_sub(radius), (i + radius + 1).min(len));
        put(i, (sums[to] - sums[from]) / (to - from) as f64);
    }
}
