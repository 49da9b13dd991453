//! The operations that a model is written in.
//!
//! For: [`Ops`], the one vocabulary of every network here, and its backends. Not for: the networks
//! (`model`), where weights come from (`weights`) and dense linear algebra outside networks.
//!
//! A model is a function over `O: Ops`, so that one text of it can be read in several ways: plain
//! values ([`native`], and [`candle`] as its independent reference), values with what a reverse pass
//! needs ([`tape`]), values with a tangent ([`dual`]). To leave those ways open, weights are frozen
//! handles that the backend makes once and lays out as it likes, what a fast kernel can fuse (bias,
//! residual, activation, gate) is ONE operation, and no operation says how a value lies in memory. One
//! loaded model serves every reading over its backend ([`Reads`]).
//!
//! Every value is a map of `n × h × w × c` numbers. A token sequence is a map of height 1, a vector
//! per sample a map of 1 × 1: attention over an image then needs no reshape.

pub mod candle;
pub mod derivatives;
pub mod dual;
mod moves;
pub mod native;
pub mod step;
pub mod tape;

pub use semblance_kernels::Packed;

use crate::error::{Code, Error, Result};

/// A list of a network's parts, or of what they give: up to 24 without an allocation, for Stable Diffusion's U-Net
/// has 22 residual blocks.
pub type Several<T> = smallvec::SmallVec<[T; 24]>;

/// The size of a value: samples, rows, columns, channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Samples in the batch.
    pub n: usize,
    /// Rows; 1 for token sequences.
    pub h: usize,
    /// Columns, or the length of a token sequence.
    pub w: usize,
    /// Channels, or the width of a token.
    pub c: usize,
}

impl Shape {
    /// A batch of maps.
    pub fn map(n: usize, h: usize, w: usize, c: usize) -> Self {
        Shape { n, h, w, c }
    }

    /// A batch of token sequences.
    pub fn tokens(n: usize, length: usize, width: usize) -> Self {
        Shape::map(n, 1, length, width)
    }

    /// How many numbers.
    pub fn len(&self) -> usize {
        self.n * self.rows_per_sample() * self.c
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions in one sample.
    pub fn rows_per_sample(&self) -> usize {
        self.h * self.w
    }

    /// Positions in all samples.
    pub fn rows(&self) -> usize {
        self.n * self.rows_per_sample()
    }
}

/// What a convolution or a linear layer adds to its result, besides its bias.
#[derive(Debug)]
pub enum Plus<'a, T> {
    /// Nothing.
    Nothing,
    /// A vector per sample (`n × 1 × 1 × c`), at every position: the time embedding of a block.
    PerSample(&'a T),
    /// A value of the result's own shape: a residual.
    Residual(&'a T),
}

/// A pointwise non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// x.
    Identity,
    /// x · sigmoid(x).
    Silu,
    /// x · Φ(x) with the exact normal distribution function, not its tanh approximation.
    Gelu,
    /// x · sigmoid(1.702 x).
    QuickGelu,
    /// x where it is positive, 0 elsewhere; its derivative at 0 is 0.
    Relu,
}

/// Which keys a query may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// All.
    None,
    /// Those at its own position and before.
    Causal,
}

/// A convolution's weights as files have them.
#[derive(Clone, Copy, Debug)]
pub struct ConvSpec<'a> {
    /// `outputs × inputs × size × size`.
    pub kernel: &'a [f32],
    /// One per output.
    pub bias: &'a [f32],
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// The kernel's height and width.
    pub size: usize,
    /// Distance between neighbouring windows.
    pub stride: usize,
    /// Zeros around the map: before (top, left) and after (bottom, right).
    pub padding: (usize, usize),
    /// Rows and columns of the maps that it will mostly be run on, where they are known: a backend may
    /// compute it in another way then, which is exact to 1e-3 of the result's norm.
    pub map: Option<(usize, usize)>,
}

impl ConvSpec<'_> {
    /// Output rows (or columns) for `length` input ones; `None` when the kernel does not fit.
    pub fn output(&self, length: usize) -> Option<usize> {
        let padded = length + self.padding.0 + self.padding.1;
        Some(padded.checked_sub(self.size)? / self.stride + 1)
    }
}

/// A linear layer's weights as files have them.
#[derive(Clone, Copy, Debug)]
pub struct LinearSpec<'a> {
    /// `outputs × inputs`.
    pub weight: &'a [f32],
    /// One per output, or none at all.
    pub bias: Option<&'a [f32]>,
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
}

/// Numbers in a model's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// All of them.
    pub all: u64,
    /// Those that are f16 or bf16.
    pub halves: u64,
}

impl std::ops::Add for Count {
    type Output = Count;

    fn add(self, other: Count) -> Count {
        Count {
            all: self.all.saturating_add(other.all),
            halves: self.halves.saturating_add(other.halves),
        }
    }
}

/// The operations. Shapes are those of [`Shape`]; a mismatch is [`Code::Internal`], because models
/// check what users give them. Results depend on the values alone, never on the number of threads.
pub trait Ops: Send + Sync {
    /// A value; cheap to clone.
    type Tensor: Clone + Send + Sync;
    /// A convolution's frozen weights; cheap to clone.
    type Conv: Clone + Send + Sync;
    /// A linear layer's frozen weights; cheap to clone.
    type Linear: Clone + Send + Sync;
    /// A normalisation's frozen scale and shift; cheap to clone.
    type Norm: Clone + Send + Sync;

    /// The backend and what its results depend on, as in reports: `native-avx2`, for example.
    fn name(&self) -> String;

    /// Takes over a convolution's weights.
    fn make_conv(&self, spec: ConvSpec<'_>) -> Result<Self::Conv>;
    /// Takes over a linear layer's weights.
    fn make_linear(&self, spec: LinearSpec<'_>) -> Result<Self::Linear>;
    /// Takes over the weights of a linear layer for [`Ops::geglu`] alone.
    fn make_gate(&self, spec: LinearSpec<'_>) -> Result<Self::Linear> {
        self.make_linear(spec)
    }
    /// Takes over a normalisation's scale and shift, one of each per channel.
    fn make_norm(&self, scale: &[f32], shift: &[f32], eps: f32) -> Result<Self::Norm>;

    /// Bytes that the weights of a model whose files have so many numbers take once they are taken over: an
    /// estimate from above.
    fn weight_bytes(&self, count: Count) -> u64 {
        count.all.saturating_mul(4)
    }

    /// What the packed form of weights depends on besides their numbers; `None` where a backend packs
    /// nothing that is worth keeping.
    fn packing(&self) -> Option<String> {
        None
    }
    /// The packed numbers of a convolution, for [`Ops::conv_of`] on a backend of the same packing.
    fn conv_parts(&self, _: &Self::Conv) -> Vec<Packed> {
        Vec::new()
    }
    /// The convolution of these sizes (the numbers in `spec` are not looked at) that had these parts;
    /// `None` where they do not fit.
    fn conv_of(&self, _spec: ConvSpec<'_>, _parts: Vec<Packed>) -> Option<Self::Conv> {
        None
    }
    /// The packed numbers of a linear layer, for [`Ops::linear_of`] or [`Ops::gate_of`].
    fn linear_parts(&self, _: &Self::Linear) -> Vec<Packed> {
        Vec::new()
    }
    /// As [`Ops::conv_of`], for a layer of [`Ops::make_linear`].
    fn linear_of(&self, _spec: LinearSpec<'_>, _parts: Vec<Packed>) -> Option<Self::Linear> {
        None
    }
    /// As [`Ops::conv_of`], for a layer of [`Ops::make_gate`].
    fn gate_of(&self, _spec: LinearSpec<'_>, _parts: Vec<Packed>) -> Option<Self::Linear> {
        None
    }

    /// A value from numbers in the order `n, h, w, c`.
    fn value(&self, data: impl AsRef<[f32]> + Into<Vec<f32>>, shape: Shape)
    -> Result<Self::Tensor>;
    /// A value's numbers in the order `n, h, w, c`.
    fn numbers(&self, x: &Self::Tensor) -> Result<Vec<f32>>;
    /// A value's size.
    fn shape(&self, x: &Self::Tensor) -> Result<Shape>;

    /// 2-D convolution, bias and `plus` added.
    fn conv(
        &self,
        x: &Self::Tensor,
        w: &Self::Conv,
        plus: Plus<'_, Self::Tensor>,
    ) -> Result<Self::Tensor>;
    /// The linear layer `w` at every position, bias and `plus` added.
    fn linear(
        &self,
        x: &Self::Tensor,
        w: &Self::Linear,
        plus: Plus<'_, Self::Tensor>,
    ) -> Result<Self::Tensor>;
    /// [`Ops::linear`] of each of `layers`, which take the same inputs.
    fn linears(&self, x: &Self::Tensor, layers: &[&Self::Linear]) -> Result<Several<Self::Tensor>> {
        let one = |w: &&Self::Linear| self.linear(x, w, Plus::Nothing);
        layers.iter().map(one).collect()
    }
    /// [`Ops::linear`], then `act`.
    fn linear_act(&self, x: &Self::Tensor, w: &Self::Linear, act: Act) -> Result<Self::Tensor> {
        self.act(&self.linear(x, w, Plus::Nothing)?, act)
    }
    /// `a · gelu(b)` where `w`, made by [`Ops::make_gate`], gives `a` and `b` side by side (GEGLU,
    /// Shazeer 2020, arXiv 2002.05202).
    fn geglu(&self, x: &Self::Tensor, w: &Self::Linear) -> Result<Self::Tensor>;
    /// Normalises each sample over positions and `groups` runs of channels, then `act`.
    fn group_norm(
        &self,
        x: &Self::Tensor,
        w: &Self::Norm,
        groups: usize,
        act: Act,
    ) -> Result<Self::Tensor>;
    /// Normalises each position over its channels.
    fn layer_norm(&self, x: &Self::Tensor, w: &Self::Norm) -> Result<Self::Tensor>;
    /// softmax(q kᵀ / √d) v per head; `q` has its own number of positions, `k` and `v` share theirs.
    /// Channels hold the heads side by side.
    fn attention(
        &self,
        q: &Self::Tensor,
        k: &Self::Tensor,
        v: &Self::Tensor,
        heads: usize,
        mask: Mask,
    ) -> Result<Self::Tensor>;
    /// `act` at every number.
    fn act(&self, x: &Self::Tensor, act: Act) -> Result<Self::Tensor>;
    /// Nearest neighbour to `h × w`: output (i, j) is input (⌊i·H/h⌋, ⌊j·W/w⌋).
    fn upsample(&self, x: &Self::Tensor, h: usize, w: usize) -> Result<Self::Tensor>;
    /// `a`'s channels, then `b`'s.
    fn concat(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>;
    /// All samples of all `parts` (at least one), which agree in everything else.
    fn stack(&self, parts: &[&Self::Tensor]) -> Result<Self::Tensor>;
    /// Σ weightᵢ · xᵢ over at least one term; a single term of weight 1 comes back bit for bit.
    fn combine(&self, terms: &[(f32, &Self::Tensor)]) -> Result<Self::Tensor>;

    // What only moves numbers is here for every backend, by way of [`Ops::numbers`]: a backend may
    // have something faster, and a reading must have its own, or its derivatives end here.

    /// The largest number of each channel in every whole window of `size × size` positions, side by
    /// side: `n × ⌊h/size⌋ × ⌊w/size⌋ × c`. Of equal numbers the first, row by row, is taken.
    fn max_pool(&self, x: &Self::Tensor, size: usize) -> Result<Self::Tensor> {
        let (data, to) = moves::max_pool(&self.numbers(x)?, self.shape(x)?, size)?;
        self.value(data, to)
    }
    /// The windows of `size × size` positions, side by side, each as a token of `size · size · c`
    /// numbers, row by row: `n × 1 × (h/size · w/size) × (size · size · c)`. The sides must be
    /// multiples of `size`.
    fn patches(&self, x: &Self::Tensor, size: usize) -> Result<Self::Tensor> {
        let (data, to) = moves::patches(&self.numbers(x)?, self.shape(x)?, size)?;
        self.value(data, to)
    }
    /// Sample by sample the tokens of `a`, then those of `b`.
    fn join(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor> {
        let (sa, sb) = (self.shape(a)?, self.shape(b)?);
        let (data, to) = moves::join((&self.numbers(a)?, sa), (&self.numbers(b)?, sb))?;
        self.value(data, to)
    }
    /// The `count` tokens from `first` on, of every sample.
    fn tokens(&self, x: &Self::Tensor, first: usize, count: usize) -> Result<Self::Tensor> {
        let (data, to) = moves::tokens(&self.numbers(x)?, self.shape(x)?, first, count)?;
        self.value(data, to)
    }

    /// Runs `f`, a network's operations one after the other: a backend may keep its threads awake for them.
    fn awake<R>(&self, f: impl FnOnce() -> R) -> R {
        f()
    }

    /// A model says that one of its blocks ends here and few values go on: where a reading may forget
    /// what is inside and compute it again.
    fn boundary(&self) {}

    /// A value from numbers in the order `n, c, h, w`, as pictures, latents and PyTorch have them.
    fn value_nchw(&self, data: &[f32], shape: Shape) -> Result<Self::Tensor> {
        if data.len() != shape.len() {
            return Err(mismatch(
                "value",
                format!("{} numbers for {shape:?}", data.len()),
            ));
        }
        let rows = shape.rows_per_sample();
        let mut out = vec![0.0; data.len()];
        if !data.is_empty() {
            let sample = rows * shape.c;
            for (to, from) in out.chunks_mut(sample).zip(data.chunks(sample)) {
                transpose(from, to, shape.c, rows);
            }
        }
        self.value(out, shape)
    }

    /// A value's numbers in the order `n, c, h, w`.
    fn numbers_nchw(&self, x: &Self::Tensor) -> Result<Vec<f32>> {
        let shape = self.shape(x)?;
        let data = self.numbers(x)?;
        let rows = shape.rows_per_sample();
        let mut out = vec![0.0; data.len()];
        if !data.is_empty() {
            let sample = rows * shape.c;
            for (to, from) in out.chunks_mut(sample).zip(data.chunks(sample)) {
                transpose(from, to, rows, shape.c);
            }
        }
        Ok(out)
    }
}

/// Operations that take the weights which the backend `O` made: `O` itself, and every reading over it.
pub trait Reads<O: Ops>: Ops<Conv = O::Conv, Linear = O::Linear, Norm = O::Norm> {}

impl<O, R> Reads<O> for R
where
    O: Ops,
    R: Ops<Conv = O::Conv, Linear = O::Linear, Norm = O::Norm>,
{
}

/// `rows × cols` into `cols × rows`.
pub(crate) fn transpose(from: &[f32], to: &mut [f32], rows: usize, cols: usize) {
    transpose_to(from, to, rows, cols, |col| col);
}

/// As [`transpose`], column `c` becoming row `place(c)`.
pub(crate) fn transpose_to(
    from: &[f32],
    to: &mut [f32],
    rows: usize,
    cols: usize,
    place: impl Fn(usize) -> usize,
) {
    // A run of rows at a time, so that what is written lies together.
    const RUN: usize = 16;
    for first in (0..rows).step_by(RUN) {
        let run = RUN.min(rows - first);
        for col in 0..cols {
            let start = place(col) * rows + first;
            let to = to.get_mut(start..start + run).unwrap_or_default();
            let column = from.get(first * cols + col..).unwrap_or_default();
            for (to, &x) in to.iter_mut().zip(column.iter().step_by(cols)) {
                *to = x;
            }
        }
    }
}

/// An operation was given what it does not fit: a defect of the model's code, not of its user.
pub(crate) fn mismatch(operation: &str, what: impl std::fmt::Display) -> Error {
    Error::new(Code::Internal, format!("{operation}: {what}"))
}
