//! [`Ops`] over our own CPU kernels: the backend that the engine runs on.
//!
//! For: speed on any CPU, on the path that a [`Cpu`] names, and derivatives ([`super::derivatives`]).
//! Not for: other devices.
//!
//! Values are f32 and lie as `n × h × w × c`, in memory that the backend recycles, so that a network
//! in its stride allocates nothing. Weights are packed once for the path, or taken up as they were
//! packed before (`packing`); on `avx512bf16` and `amx` products round their operands to bf16, which what
//! goes into products alone is from the beginning ([`Native::make_operand`]). On `amx` so are large values between
//! layers ([`Native::make_value`]); everything else stays f32.

mod derivative;
mod packing;
mod terms;
mod value;

use std::sync::Arc;

use once_cell::sync::OnceCell;
use semblance_kernels as kernels;
use semblance_kernels::cpu::VARIABLE;
use semblance_kernels::{
    Affine, Arena, ConvTransposed, Cpu, CpuError, CpuPath, Finish, Heads, KernelError, Output,
    Packed, Tiling, Weights,
};

use terms::{activation, masking, size, window};

use super::{Act, ConvSpec, Count, LinearSpec, Mask, Ops, Plus, Several, Shape, mismatch};
use crate::error::{Code, Error, Result};

pub use value::Tensor;

/// Bytes that are kept for the next values: those of a decoder of 512 × 512 pixels where the system may take them
/// back ([`Arena`]), for new memory costs it a tenth of its time or more. Stops: an edit of a large model that leaves its
/// largest maps behind.
const KEEP: usize = if cfg!(target_os = "linux") {
    1 << 30
} else {
    128 << 20
};
/// Bytes that are kept for the next transpose: the largest of Stable Diffusion 1.5's takes
/// 150 MiB in bf16. Twice that, in f32, is given back.
const KEEP_FOR_TRANSPOSES: usize = 192 << 20;

/// The backend: a path and recycled memory.
#[derive(Clone, Debug)]
pub struct Native {
    cpu: Cpu,
    arena: Arc<Arena>,
    shelf: Arc<value::Shelf>,
    /// For the weights that a gradient goes back through.
    transposes: Arc<Arena>,
    /// Numbers of a sample from which values between layers are rounded, on tiles.
    large: usize,
}

/// A convolution's weights, and their transpose once a gradient has asked for it.
#[derive(Debug)]
pub struct Conv(kernels::Conv, OnceCell<ConvTransposed>);

/// A linear layer's weights; those of a gated one are packed in another order.
#[derive(Debug)]
pub struct Linear {
    weights: Weights,
    gated: bool,
    /// Once a gradient has asked for it.
    transposed: OnceCell<Weights>,
}

/// A normalisation's scale and shift.
#[derive(Debug)]
pub struct Norm {
    scale: Vec<f32>,
    shift: Vec<f32>,
    eps: f32,
}

impl Linear {
    fn over(weights: Weights, gated: bool) -> Arc<Linear> {
        Arc::new(Linear {
            weights,
            gated,
            transposed: OnceCell::new(),
        })
    }
}

impl From<KernelError> for Error {
    fn from(e: KernelError) -> Self {
        match e {
            KernelError::OutOfMemory { .. } => {
                Error::new(Code::OutOfMemory, e.to_string()).with_hint("free some memory")
            }
            _ => Error::new(Code::Internal, e.to_string()),
        }
    }
}

impl Norm {
    fn affine(&self) -> Affine<'_> {
        Affine {
            scale: &self.scale,
            shift: &self.shift,
            eps: self.eps,
        }
    }
}

impl Native {
    /// The backend on the path of `cpu`.
    pub fn new(cpu: Cpu) -> Self {
        Native {
            cpu,
            arena: Arena::new(KEEP),
            shelf: Arc::default(),
            transposes: Arena::new(KEEP_FOR_TRANSPOSES),
            large: value::LARGE,
        }
    }

    /// The same, whose values between layers are rounded from `numbers` of a sample on where it computes on tiles,
    /// however small they are: what large networks do, for tests on small ones.
    pub fn rounding_from(self, numbers: usize) -> Self {
        Native {
            large: numbers,
            ..self
        }
    }

    /// The backend on the path that this CPU should take, or that the environment asks for.
    ///
    /// Errors with [`Code::InvalidParameter`] when the CPU lacks what is asked for.
    pub fn detect() -> Result<Self> {
        let cpu = Cpu::detect().map_err(|e| {
            Error::new(Code::InvalidParameter, e.to_string()).with_parameter(VARIABLE)
        })?;
        Ok(Native::new(cpu))
    }

    /// The backend on the path that the option `cpu` asks for, or else as [`Native::detect`].
    ///
    /// Errors with [`Code::InvalidParameter`] when the CPU lacks what is asked for.
    pub fn chosen(cpu: Option<&str>) -> Result<Self> {
        let Some(asked) = cpu else {
            return Native::detect();
        };
        let cpu = Cpu::asked("cpu", asked);
        let refused =
            |e: CpuError| Error::new(Code::InvalidParameter, e.to_string()).with_parameter("cpu");
        cpu.map(Native::new).map_err(refused)
    }

    /// The path that it runs on.
    pub fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// Calls `f` with what to add to a result of shape `out`, checked; a residual is in f32 unless `rounded`
    /// ones are taken.
    fn with_finish<R>(
        &self,
        plus: &Plus<'_, Tensor>,
        out: Shape,
        rounded: bool,
        f: impl FnOnce(Finish<'_>) -> Result<R>,
    ) -> Result<R> {
        let (x, shape) = match plus {
            Plus::Nothing => return f(Finish::default()),
            Plus::PerSample(x) => (x, Shape::map(out.n, 1, 1, out.c)),
            Plus::Residual(x) => (x, out),
        };
        if x.0.shape != shape {
            return Err(mismatch("plus", format!("{:?} onto {out:?}", x.0.shape)));
        }
        let with = |plus| {
            f(Finish {
                plus,
                ..Finish::default()
            })
        };
        match plus {
            Plus::Residual(x) => with(kernels::Plus::Residual(self.read(x, rounded)?.input())),
            _ => with(kernels::Plus::PerSample(&self.plain(x)?)),
        }
    }

    fn convolve(&self, x: &Tensor, w: &kernels::Conv, plus: &Plus<'_, Tensor>) -> Result<Tensor> {
        let from = size(x.0.shape);
        let Some(to) = w.output(from) else {
            return Err(mismatch("conv", format!("{from:?} does not fit")));
        };
        let out = Shape::map(to.n, to.h, to.w, to.c);
        let x = self.read(x, w.takes_rounded())?;
        let x = x.input();
        self.with_finish(plus, out, w.gives_rounded(), |finish| {
            match w.gives_rounded() {
                true => self.make_value(out, |out| w.run(x, from, finish, out)),
                false => self.make(out, |out| w.run(x, from, finish, out)),
            }
        })
    }

    /// How a convolution is computed: by tiles only where its maps are known.
    fn tiling(&self, spec: &ConvSpec<'_>) -> Tiling {
        let io = (spec.inputs, spec.outputs);
        spec.map.map_or(Tiling::Direct, |map| {
            Tiling::choose(self.cpu, io, window(spec), map)
        })
    }

    fn product(&self, x: &Tensor, w: &Weights, plus: &Plus<'_, Tensor>) -> Result<Tensor> {
        self.product_act(x, w, plus, Act::Identity)
    }

    fn product_act(
        &self,
        x: &Tensor,
        w: &Weights,
        plus: &Plus<'_, Tensor>,
        act: Act,
    ) -> Result<Tensor> {
        let s = x.0.shape;
        if s.c != w.inputs() || s.is_empty() {
            let what = format!("{s:?} into {} inputs", w.inputs());
            return Err(mismatch("linear", what));
        }
        let out = Shape {
            c: w.outputs(),
            ..s
        };
        let x = self.read(x, self.cpu.rounds(s.c))?;
        let x = x.input();
        self.with_finish(plus, out, true, |finish| {
            let finish = Finish {
                act: activation(act),
                ..finish
            };
            let run = |out: Output<'_>| kernels::linear(x, s.n, w, finish, out);
            match w.is_gated() || act != Act::Identity {
                true => self.make_operand(out, run),
                false => self.make_value(out, run),
            }
        })
    }

    fn heads(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Heads> {
        let (sq, sk) = (q.0.shape, k.0.shape);
        let fits = v.0.shape == sk && sq.n == sk.n && sq.c == sk.c;
        if !fits || heads == 0 || !sq.c.is_multiple_of(heads) {
            let what = format!("{sq:?} over {sk:?} with {heads} heads");
            return Err(mismatch("attention", what));
        }
        Ok(Heads {
            samples: sq.n,
            queries: sq.rows_per_sample(),
            keys: sk.rows_per_sample(),
            heads,
            size: sq.c / heads,
        })
    }

    /// [`Ops::attention`]; into `lse`, if it is wanted, what [`kernels::attention_and_lse`] leaves.
    fn attend(
        &self,
        [q, k, v]: [&Tensor; 3],
        (heads, mask): (usize, Mask),
        lse: Option<&mut [f32]>,
    ) -> Result<Tensor> {
        let counts = Self::heads(q, k, v, heads)?;
        let (shape, mask) = (q.0.shape, masking(mask));
        let even = counts.size.is_multiple_of(2);
        // Rounded operands are taken as they are where they would be rounded, else widened.
        let takes = even && kernels::attention_rounds(self.cpu, counts.keys);
        let (q, k, v) = (
            self.read(q, takes)?,
            self.read(k, takes)?,
            self.read(v, takes)?,
        );
        let run = |out: Output<'_>| {
            let (q, k, v) = (q.input(), k.input(), v.input());
            match lse {
                Some(lse) => {
                    kernels::attention_and_lse(self.cpu, [q, k, v], counts, mask, out, lse)
                }
                None => kernels::attention(self.cpu, q, k, v, counts, mask, out),
            }
        };
        match even {
            true => self.make_operand(shape, run),
            false => self.make(shape, |out| run(Output::Plain(out))),
        }
    }
}

impl Ops for Native {
    type Tensor = Tensor;
    type Conv = Arc<Conv>;
    type Linear = Arc<Linear>;
    type Norm = Arc<Norm>;

    fn name(&self) -> String {
        match self.large {
            value::LARGE => format!("native-{}", self.cpu),
            large => format!("native-{}-rounding-from-{large}", self.cpu),
        }
    }

    fn make_conv(&self, spec: ConvSpec<'_>) -> Result<Arc<Conv>> {
        let io = (spec.inputs, spec.outputs);
        let (kernel, bias, window) = (spec.kernel, spec.bias, window(&spec));
        let conv = kernels::Conv::tiled(self.cpu, kernel, bias, io, window, self.tiling(&spec))?;
        Ok(Arc::new(Conv(conv, OnceCell::new())))
    }

    fn make_linear(&self, spec: LinearSpec<'_>) -> Result<Arc<Linear>> {
        let (weight, bias) = (spec.weight, spec.bias);
        let weights = Weights::linear(self.cpu, weight, bias, spec.inputs, spec.outputs)?;
        Ok(Linear::over(weights, false))
    }

    fn make_gate(&self, spec: LinearSpec<'_>) -> Result<Arc<Linear>> {
        let (weight, bias) = (spec.weight, spec.bias);
        let weights = Weights::gated(self.cpu, weight, bias, spec.inputs, spec.outputs)?;
        Ok(Linear::over(weights, true))
    }

    fn make_norm(&self, scale: &[f32], shift: &[f32], eps: f32) -> Result<Arc<Norm>> {
        if scale.len() != shift.len() || scale.is_empty() {
            let what = format!("{} scales, {} shifts", scale.len(), shift.len());
            return Err(mismatch("norm", what));
        }
        Ok(Arc::new(Norm {
            scale: scale.to_vec(),
            shift: shift.to_vec(),
            eps,
        }))
    }

    fn awake<R>(&self, f: impl FnOnce() -> R) -> R {
        kernels::awake(f)
    }

    fn weight_bytes(&self, count: Count) -> u64 {
        packing::bytes(self.cpu, count)
    }

    fn packing(&self) -> Option<String> {
        packing::of(self.cpu)
    }

    fn conv_parts(&self, w: &Arc<Conv>) -> Vec<Packed> {
        w.0.parts()
    }

    fn conv_of(&self, spec: ConvSpec<'_>, parts: Vec<Packed>) -> Option<Arc<Conv>> {
        let io = (spec.inputs, spec.outputs);
        let tiling = self.tiling(&spec);
        let conv = kernels::Conv::of(self.cpu, io, window(&spec), tiling, parts)?;
        Some(Arc::new(Conv(conv, OnceCell::new())))
    }

    fn linear_parts(&self, w: &Arc<Linear>) -> Vec<Packed> {
        w.weights.parts()
    }

    fn linear_of(&self, spec: LinearSpec<'_>, parts: Vec<Packed>) -> Option<Arc<Linear>> {
        let weights = Weights::linear_of(self.cpu, spec.inputs, spec.outputs, parts)?;
        Some(Linear::over(weights, false))
    }

    fn gate_of(&self, spec: LinearSpec<'_>, parts: Vec<Packed>) -> Option<Arc<Linear>> {
        let weights = Weights::gated_of(self.cpu, spec.inputs, spec.outputs, parts)?;
        Some(Linear::over(weights, true))
    }

    fn value(&self, data: impl AsRef<[f32]> + Into<Vec<f32>>, shape: Shape) -> Result<Tensor> {
        let data = data.as_ref();
        if data.len() != shape.len() {
            let what = format!("{} numbers for {shape:?}", data.len());
            return Err(mismatch("value", what));
        }
        self.make(shape, |out| {
            out.copy_from_slice(data);
            Ok(())
        })
    }

    fn numbers(&self, x: &Tensor) -> Result<Vec<f32>> {
        Ok(self.plain(x)?.to_vec())
    }

    fn shape(&self, x: &Tensor) -> Result<Shape> {
        Ok(x.0.shape)
    }

    fn conv(&self, x: &Tensor, w: &Arc<Conv>, plus: Plus<'_, Tensor>) -> Result<Tensor> {
        self.convolve(x, &w.0, &plus)
    }

    fn linear(&self, x: &Tensor, w: &Arc<Linear>, plus: Plus<'_, Tensor>) -> Result<Tensor> {
        match w.gated {
            false => self.product(x, &w.weights, &plus),
            true => Err(mismatch("linear", "a gated layer")),
        }
    }

    fn linears(&self, x: &Tensor, layers: &[&Arc<Linear>]) -> Result<Several<Tensor>> {
        let s = x.0.shape;
        if s.is_empty() || layers.iter().any(|w| w.gated || w.weights.inputs() != s.c) {
            return Err(mismatch("linears", format!("{s:?} into other inputs")));
        }
        let x = self.read(x, self.cpu.rounds(s.c))?;
        let layers = layers.iter().map(|w| {
            let w = &w.weights;
            (
                w,
                Shape {
                    c: w.outputs(),
                    ..s
                },
            )
        });
        self.make_values(layers, |layers| kernels::linears(x.input(), s.n, layers))
    }

    fn linear_act(&self, x: &Tensor, w: &Arc<Linear>, act: Act) -> Result<Tensor> {
        let out = Shape {
            c: w.weights.outputs(),
            ..x.0.shape
        };
        match w.gated {
            // A derivative has the two one after the other, and its values are the same bits.
            false if self.rounds_value(out) => self.act(&self.linear(x, w, Plus::Nothing)?, act),
            false => self.product_act(x, &w.weights, &Plus::Nothing, act),
            true => Err(mismatch("linear", "a gated layer")),
        }
    }

    fn geglu(&self, x: &Tensor, w: &Arc<Linear>) -> Result<Tensor> {
        match w.gated {
            true => self.product(x, &w.weights, &Plus::Nothing),
            false => Err(mismatch("geglu", "a layer without gates")),
        }
    }

    fn group_norm(&self, x: &Tensor, w: &Arc<Norm>, groups: usize, act: Act) -> Result<Tensor> {
        let s = x.0.shape;
        if s.c != w.scale.len() || s.is_empty() {
            let what = format!("{s:?} over {} channels", w.scale.len());
            return Err(mismatch("group_norm", what));
        }
        let act = activation(act);
        let run = |out: Output<'_>| {
            kernels::group_norm(self.cpu, x.input(), s.n, groups, w.affine(), act, out)
        };
        // Convolutions by tiles transform numbers before they round them.
        match self.cpu.path() {
            CpuPath::Amx => self.make_operand(s, run),
            _ => self.make(s, |out| run(Output::Plain(out))),
        }
    }

    fn layer_norm(&self, x: &Tensor, w: &Arc<Norm>) -> Result<Tensor> {
        let s = x.0.shape;
        if s.c != w.scale.len() {
            let what = format!("{s:?} over {} channels", w.scale.len());
            return Err(mismatch("layer_norm", what));
        }
        let x = self.read(x, s.c <= kernels::WIDEST)?;
        self.make_operand(s, |out| {
            kernels::layer_norm(self.cpu, x.input(), w.affine(), out)
        })
    }

    fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        heads: usize,
        mask: Mask,
    ) -> Result<Tensor> {
        self.attend([q, k, v], (heads, mask), None)
    }

    fn act(&self, x: &Tensor, act: Act) -> Result<Tensor> {
        let numbers = self.plain(x)?;
        self.make(x.0.shape, |out| {
            out.copy_from_slice(&numbers);
            kernels::activate(self.cpu, activation(act), out);
            Ok(())
        })
    }

    fn upsample(&self, x: &Tensor, h: usize, w: usize) -> Result<Tensor> {
        let s = x.0.shape;
        self.moved(&[x], Shape { h, w, ..s }, |x, each, out| {
            let from = kernels::Size {
                c: s.c / each,
                ..size(s)
            };
            kernels::upsample(x.first().copied().unwrap_or_default(), from, h, w, out)
        })
    }

    fn max_pool(&self, x: &Tensor, by: usize) -> Result<Tensor> {
        let s = x.0.shape;
        let (h, w) = (s.h.checked_div(by), s.w.checked_div(by));
        let (h, w) = (h.unwrap_or_default(), w.unwrap_or_default());
        let x = self.plain(x)?;
        self.make(Shape { h, w, ..s }, |out| {
            kernels::max_pool(&x, size(s), by, out)
        })
    }

    fn concat(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let (sa, sb) = (a.0.shape, b.0.shape);
        if (Shape { c: sb.c, ..sa }) != sb {
            return Err(mismatch("concat", format!("{sa:?} and {sb:?}")));
        }
        let c = sa.c + sb.c;
        self.moved(&[a, b], Shape { c, ..sa }, |parts, each, out| match parts {
            [a, b] => kernels::concat(a, b, (sa.c / each, sb.c / each), out),
            _ => Ok(()),
        })
    }

    fn stack(&self, parts: &[&Tensor]) -> Result<Tensor> {
        let Some((first, rest)) = parts.split_first() else {
            return Err(mismatch("stack", "no parts"));
        };
        if rest.is_empty() {
            return Ok((*first).clone());
        }
        let s = first.0.shape;
        if let Some(other) = rest.iter().find(|p| {
            Shape {
                n: s.n,
                ..p.0.shape
            } != s
        }) {
            return Err(mismatch("stack", format!("{s:?} and {:?}", other.0.shape)));
        }
        let n = parts.iter().map(|p| p.0.shape.n).sum();
        self.moved(parts, Shape { n, ..s }, |parts, _, mut out| {
            for part in parts {
                let (to, rest) = out.split_at_mut(part.len());
                to.copy_from_slice(part);
                out = rest;
            }
            Ok(())
        })
    }

    fn combine(&self, terms: &[(f32, &Tensor)]) -> Result<Tensor> {
        let Some((weight, first)) = terms.first() else {
            return Err(mismatch("combine", "no terms"));
        };
        if *weight == 1.0 && terms.len() == 1 {
            return Ok((*first).clone());
        }
        let s = first.0.shape;
        if let Some((_, other)) = terms.iter().find(|(_, x)| x.0.shape != s) {
            return Err(mismatch(
                "combine",
                format!("{s:?} and {:?}", other.0.shape),
            ));
        }
        let plain = terms.iter().map(|(w, x)| Ok((*w, self.plain(x)?)));
        let plain = plain.collect::<Result<Several<_>>>()?;
        let slices: Several<(f32, &[f32])> = plain.iter().map(|(w, x)| (*w, &**x)).collect();
        self.make(s, |out| kernels::combine(self.cpu, &slices, out))
    }
}
