//! Small vectors and the few transcendental functions, through `libm` so that every machine gives the same bits.
//! Not a general vector library: colours and directions are plain `[f32; 3]`.

/// A linear RGB colour or a direction.
pub(crate) type V3 = [f32; 3];

pub(crate) fn add(a: V3, b: V3) -> V3 {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}
pub(crate) fn mul(a: V3, b: V3) -> V3 {
    [a[0] * b[0], a[1] * b[1], a[2] * b[2]]
}
pub(crate) fn scale(a: V3, s: f32) -> V3 {
    [a[0] * s, a[1] * s, a[2] * s]
}
pub(crate) fn dot(a: V3, b: V3) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}
pub(crate) fn mix(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}
pub(crate) fn mix3(a: V3, b: V3, t: f32) -> V3 {
    [mix(a[0], b[0], t), mix(a[1], b[1], t), mix(a[2], b[2], t)]
}
/// Geometric interpolation, the even one for light levels.
pub(crate) fn gmix(a: f32, b: f32, t: f32) -> f32 {
    exp(mix(ln(a.max(1e-5)), ln(b.max(1e-5)), t))
}
pub(crate) fn gmix3(a: V3, b: V3, t: f32) -> V3 {
    [gmix(a[0], b[0], t), gmix(a[1], b[1], t), gmix(a[2], b[2], t)]
}
pub(crate) fn norm(a: V3) -> V3 {
    scale(a, 1.0 / dot(a, a).sqrt().max(1e-9))
}
pub(crate) fn luma(c: V3) -> f32 {
    0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]
}
/// Hermite step; works for `a > b` too (falling).
pub(crate) fn step(a: f32, b: f32, x: f32) -> f32 {
    let t = ((x - a) / (b - a)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}
pub(crate) fn exp(x: f32) -> f32 {
    libm::expf(x)
}
pub(crate) fn ln(x: f32) -> f32 {
    libm::logf(x)
}
pub(crate) fn pow(x: f32, y: f32) -> f32 {
    libm::powf(x.max(0.0), y)
}
pub(crate) fn sin(x: f32) -> f32 {
    libm::sinf(x)
}
pub(crate) fn cos(x: f32) -> f32 {
    libm::cosf(x)
}
