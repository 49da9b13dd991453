//! A latent as plain numbers, so that samplers need no tensor library.

/// One latent: `channels × height × width` numbers, row-major (CHW), scaled to about unit variance.
#[derive(Clone, Debug, PartialEq)]
pub struct Latent {
    /// The numbers, CHW.
    pub data: Vec<f32>,
    /// Channels (4 for Stable Diffusion).
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}
