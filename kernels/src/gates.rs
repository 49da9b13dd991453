//! Derivatives of gated layers, value · gelu(gate).
//!
//! For: forward mode, from what the opened layer gives and its tangent; and reverse mode, from the layer's inputs,
//! block of rows by block of rows, so that values, gates and their cotangents stay in a cache. Not for: the layer
//! itself, whose product ends with the gates (`finish`).

use crate::derivative::part;
use crate::error::{Result, mismatch};
use crate::finish::Finish;
use crate::isa::{Micro, Task};
use crate::linear::linear;
use crate::math;
use crate::memory::with_scratch;
use crate::pack::Weights;
use crate::slices::by_rows;
use crate::values::{Input, Output, widen};

/// Values and gates, about, that stay in the second caches between products.
const STAYS: usize = 3 << 18;
/// Rows at least that products are worth reading all weights for.
const LEAST: usize = 128;

/// How many numbers of an opened layer's row are for values in a run, in a row, and for results.
fn gates(w: &Weights) -> (usize, usize, usize) {
    (w.panels.wide / 2, w.panels.columns(), w.outputs())
}

/// The tangent of value · gelu(gate): `z` is what [`Weights::opened`] of the gated layer `w` gives, `dz`
/// its tangent, `out` has `w`'s own outputs.
///
/// Errors when lengths do not fit.
pub fn gate_tangent(w: &Weights, z: &[f32], dz: &[f32], out: &mut [f32]) -> Result<()> {
    struct Rows<'a> {
        run: usize,
        columns: usize,
        outputs: usize,
        z: &'a [f32],
        dz: &'a [f32],
        out: &'a mut [f32],
    }
    impl Task for Rows<'_> {
        type Out = ();
        #[inline(always)]
        fn run<M: Micro>(self) {
            let z = self.z.chunks_exact(self.columns);
            let dz = self.dz.chunks_exact(self.columns);
            let out = self.out.chunks_exact_mut(self.outputs);
            for ((z, dz), out) in z.zip(dz).zip(out) {
                let both = z.chunks_exact(2 * self.run);
                let both = both.zip(dz.chunks_exact(2 * self.run));
                for ((z, dz), out) in both.zip(out.chunks_mut(self.run)) {
                    let ((a, b), (da, db)) = (z.split_at(self.run), dz.split_at(self.run));
                    let pairs = a.iter().zip(b).zip(da.iter().zip(db));
                    for (out, ((a, b), (da, db))) in out.iter_mut().zip(pairs) {
                        let (gelu, slope) = math::gelu_with_slope::<M>(*b);
                        *out = M::fma(*da, gelu, a * slope * db);
                    }
                }
            }
        }
    }
    let (run, columns, outputs) = gates(w);
    let rows = out.len() / outputs.max(1);
    check_gates(w, rows, (z, dz), out)?;
    by_rows(out, outputs, |first, out| {
        let len = out.len() / outputs * columns;
        let (z, dz) = (part(z, columns, first, len), part(dz, columns, first, len));
        w.cpu.run(Rows {
            run,
            columns,
            outputs,
            z,
            dz,
            out,
        });
    });
    Ok(())
}

/// The cotangent of the inputs `x` of the gated layer `w`, into `out`: `g` is the cotangent of its results, `back` the
/// transpose of what [`Weights::opened`] gives. Between products, numbers stay f32.
///
/// Errors when lengths do not fit, and for rounded values where products take none ([`crate::Cpu::rounds`]).
pub fn geglu_cotangent(
    x: Input<'_>,
    w: &Weights,
    back: &Weights,
    g: Input<'_>,
    mut out: Output<'_>,
) -> Result<()> {
    let open = w.opened()?;
    let (inputs, outputs, columns) = (w.inputs(), w.outputs(), open.outputs());
    let rows = x.len() / inputs.max(1);
    let fits = rows * inputs == x.len()
        && rows * outputs == g.len()
        && x.len() == out.len()
        && back.inputs() == columns
        && back.outputs() == inputs;
    if !fits {
        let what = format!(
            "{} numbers of {rows} rows by {inputs} → {outputs}, back by {} → {}, {} into {}",
            x.len(),
            back.inputs(),
            back.outputs(),
            g.len(),
            out.len()
        );
        return Err(mismatch("geglu cotangent", what));
    }
    let wide = match g {
        Input::Plain(_) => 0,
        Input::Rounded(_) => outputs,
    };
    let at_once = (STAYS / columns)
        .next_multiple_of(LEAST / 2)
        .max(LEAST)
        .min(rows);
    with_scratch(at_once * (columns + wide), |room| {
        let (z, room) = room.split_at_mut(at_once * columns);
        for first in (0..rows).step_by(at_once.max(1)) {
            let count = at_once.min(rows - first);
            let x = x.part(first * inputs, count * inputs);
            let z = z.get_mut(..count * columns).unwrap_or_default();
            linear(x, 1, &open, Finish::default(), &mut *z)?;
            let g = match g.part(first * outputs, count * outputs) {
                Input::Plain(g) => g,
                Input::Rounded(g) => {
                    let room = room.get_mut(..count * outputs).unwrap_or_default();
                    widen(w.cpu, g, &mut *room)?;
                    room
                }
            };
            pull(w, g, z);
            let z = Input::Plain(z);
            linear(
                z,
                1,
                back,
                Finish::default(),
                out.part(first * inputs, count * inputs),
            )?;
        }
        Ok(())
    })?
}

/// The cotangents of values and gates in the place of `z`, these; `g` is that of values · gelu(gates).
fn pull(w: &Weights, g: &[f32], z: &mut [f32]) {
    struct Rows<'a> {
        run: usize,
        columns: usize,
        outputs: usize,
        g: &'a [f32],
        z: &'a mut [f32],
    }
    impl Task for Rows<'_> {
        type Out = ();
        #[inline(always)]
        fn run<M: Micro>(self) {
            let g = self.g.chunks_exact(self.outputs);
            let z = self.z.chunks_exact_mut(self.columns);
            for (z, g) in z.zip(g) {
                for (z, g) in z.chunks_exact_mut(2 * self.run).zip(g.chunks(self.run)) {
                    let (a, b) = z.split_at_mut(self.run);
                    for ((a, b), g) in a.iter_mut().zip(&mut *b).zip(g) {
                        let (gelu, slope) = math::gelu_with_slope::<M>(*b);
                        (*a, *b) = (g * gelu, g * *a * slope);
                    }
                    // Columns that are no output.
                    for rest in [a, b] {
                        rest.get_mut(g.len()..).unwrap_or_default().fill(0.0);
                    }
                }
            }
        }
    }
    let (run, columns, outputs) = gates(w);
    by_rows(z, columns, |first, z| {
        let g = part(g, outputs, first, z.len() / columns * outputs);
        w.cpu.run(Rows {
            run,
            columns,
            outputs,
            g,
            z,
        });
    });
}

/// Whether two rows of values and gates and one of results fit each other.
fn check_gates(w: &Weights, rows: usize, wide: (&[f32], &[f32]), narrow: &[f32]) -> Result<()> {
    let (_, columns, outputs) = gates(w);
    let all = rows * columns;
    let fits =
        w.gated && wide.0.len() == all && wide.1.len() == all && narrow.len() == rows * outputs;
    if fits {
        return Ok(());
    }
    let what = format!(
        "{} and {} numbers in rows of {columns}, {} in rows of {outputs}",
        wide.0.len(),
        wide.1.len(),
        narrow.len()
    );
    Err(mismatch("gate derivative", what))
}
