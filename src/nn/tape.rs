//! Reverse mode: values with what is needed to pull a gradient back through them.
//!
//! For: gradients of a model's results to what it was given (latents, a text's embedding or its keys and
//! values), for learned mixing weights, guidance and distillation. Not for: gradients to weights, which
//! are frozen and cost nothing here.
//!
//! The tape writes down which step was done with which weights, not a function to call later: so a
//! gradient can be pulled back through a step, and a value that was not kept can be computed again.
//! With [`Memory::Checkpoints`] only what goes from one block of the model to a later one is kept
//! ([`Ops::boundary`]; Chen et al. 2016, arXiv 1604.06174), and the results of attention over many keys;
//! the backward pass does each block's forward pass again, as far as its gradients need it. It is the
//! same steps on the same numbers: the same bits.

use parking_lot::Mutex;

use super::derivatives::Derivatives;
use super::step::{Reading, Step};
use super::{Ops, Shape, mismatch};
use crate::error::Result;
use crate::job::Cancel;

/// What a tape keeps until the backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Every value that a derivative depends on.
    All,
    /// What goes from one block to a later one, and what is small and slow to compute again.
    Checkpoints,
}

/// Keys from which an attention's result is slower to compute again than it is large.
const DEAR_KEYS: usize = 512;

/// The reading, over a backend: the record of one forward pass.
pub struct Tape<'a, O: Ops> {
    ops: &'a O,
    memory: Memory,
    record: Mutex<Record<O>>,
}

/// A value and its place on the tape; none for what no watched value moves.
#[derive(Clone, Debug)]
pub struct Traced<T> {
    value: T,
    node: Option<usize>,
}

struct Record<O: Ops> {
    nodes: Vec<Node<O>>,
    /// Where blocks begin, in order; the first begins at 0.
    blocks: Vec<usize>,
}

struct Node<O: Ops> {
    /// None for a watched value.
    step: Option<Step<O>>,
    operands: Vec<Operand<O::Tensor>>,
    shape: Shape,
    kept: Option<O::Tensor>,
    /// What else the backward pass starts from: [`Step::run_leaving`].
    left: Option<O::Tensor>,
}

/// Where a step finds an operand.
enum Operand<T> {
    Node(usize),
    /// A value that no watched one moves.
    Fixed(T, Shape),
}

impl<O: Ops> Record<O> {
    /// Whether node `i` lies before the block that is being written.
    fn is_before(&self, i: usize) -> bool {
        self.blocks.last().is_some_and(|first| i < *first)
    }

    fn shape(&self, operand: &Operand<O::Tensor>) -> Result<Shape> {
        match operand {
            Operand::Node(i) => Ok(self.node(*i)?.shape),
            Operand::Fixed(_, shape) => Ok(*shape),
        }
    }

    fn node(&self, i: usize) -> Result<&Node<O>> {
        self.nodes.get(i).ok_or_else(|| foreign(i))
    }
}

fn foreign(i: usize) -> crate::Error {
    mismatch("tape", format!("a value at {i}, of another tape"))
}

impl<'a, O: Derivatives> Tape<'a, O> {
    /// An empty tape over `ops`.
    pub fn new(ops: &'a O, memory: Memory) -> Self {
        Tape {
            ops,
            memory,
            record: Mutex::new(Record {
                nodes: Vec::new(),
                blocks: vec![0],
            }),
        }
    }

    /// A value to which a gradient will be wanted.
    pub fn watch(&self, value: O::Tensor) -> Result<Traced<O::Tensor>> {
        let shape = self.ops.shape(&value)?;
        let mut record = self.record.lock();
        record.nodes.push(Node {
            step: None,
            operands: Vec::new(),
            shape,
            kept: Some(value.clone()),
            left: None,
        });
        let node = Some(record.nodes.len() - 1);
        Ok(Traced { value, node })
    }

    /// How many numbers the tape keeps alive, those of the watched values among them.
    pub fn kept(&self) -> usize {
        let record = self.record.lock();
        let len = |x: &O::Tensor| self.ops.shape(x).map_or(0, |shape| shape.len());
        let kept = record
            .nodes
            .iter()
            .flat_map(|node| [&node.kept, &node.left]);
        kept.flatten().map(len).sum()
    }

    /// The gradients to `to` of Σ ⟨cotangent, result⟩ over the `results`: zeros where a value does not
    /// move the results. `cancel` is polled at every step.
    ///
    /// Errors when a cotangent has another shape than its result. Values of another tape mean nothing
    /// here.
    pub fn backward(
        &self,
        results: &[(&Traced<O::Tensor>, &O::Tensor)],
        to: &[&Traced<O::Tensor>],
        cancel: &Cancel,
    ) -> Result<Vec<O::Tensor>> {
        let record = self.record.lock();
        let mut pass = Pass {
            ops: self.ops,
            record: &record,
            gradients: record.nodes.iter().map(|_| None).collect(),
            again: record.nodes.iter().map(|_| None).collect(),
            wanted: to.iter().filter_map(|x| x.node).collect(),
        };
        for (result, cotangent) in results {
            let (shape, given) = (self.ops.shape(&result.value)?, self.ops.shape(cotangent)?);
            if shape != given {
                let what = format!("a cotangent of {given:?} for {shape:?}");
                return Err(mismatch("backward", what));
            }
            if let Some(i) = result.node {
                pass.add(i, (*cotangent).clone())?;
            }
        }
        self.ops.awake(|| {
            let mut end = record.nodes.len();
            record.blocks.iter().rev().try_for_each(|&first| {
                pass.block(first, end, cancel)?;
                end = first;
                Ok::<_, crate::Error>(())
            })
        })?;
        to.iter()
            .map(|x| {
                let found = x.node.and_then(|i| pass.gradients.get(i)?.clone());
                match found {
                    Some(g) => Ok(g),
                    None => self.ops.zeros(self.ops.shape(&x.value)?),
                }
            })
            .collect()
    }
}

/// One backward pass.
struct Pass<'a, O: Ops> {
    ops: &'a O,
    record: &'a Record<O>,
    /// Of every node, as far as it is known.
    gradients: Vec<Option<O::Tensor>>,
    /// Values of the block at hand that were not kept.
    again: Vec<Option<O::Tensor>>,
    /// Nodes whose gradients are results.
    wanted: Vec<usize>,
}

impl<O: Derivatives> Pass<'_, O> {
    fn add(&mut self, i: usize, g: O::Tensor) -> Result<()> {
        let place = self.gradients.get_mut(i).ok_or_else(|| foreign(i))?;
        *place = Some(match place.take() {
            Some(sum) => self.ops.combine(&[(1.0, &sum), (1.0, &g)])?,
            None => g,
        });
        Ok(())
    }

    /// Pulls what is known of the gradients of the nodes `first..end` back through them.
    fn block(&mut self, first: usize, end: usize, cancel: &Cancel) -> Result<()> {
        let own = self.gradients.get(first..end).unwrap_or_default();
        // Nothing after the last node with a gradient moves the results.
        let Some(last) = own.iter().rposition(Option::is_some) else {
            return Ok(());
        };
        let end = first + last + 1;
        self.compute_again(first, end, cancel)?;
        for i in (first..end).rev() {
            cancel.check()?;
            let record = self.record;
            let node = record.node(i)?;
            let (Some(step), Some(place)) = (&node.step, self.gradients.get_mut(i)) else {
                continue;
            };
            let gradient = match self.wanted.contains(&i) {
                true => place.clone(),
                false => place.take(),
            };
            if let Some(g) = gradient {
                self.pull(step, node, &g)?;
            }
        }
        self.again.iter_mut().for_each(|value| *value = None);
        Ok(())
    }

    fn pull(&mut self, step: &Step<O>, node: &Node<O>, g: &O::Tensor) -> Result<()> {
        let record = self.record;
        let shapes = (node.operands.iter())
            .map(|x| record.shape(x))
            .collect::<Result<Vec<_>>>()?;
        let wanted: Vec<_> = (node.operands.iter())
            .map(|x| matches!(x, Operand::Node(_)))
            .collect();
        let values = match step.is_curved() {
            true => self.values(node)?,
            false => Vec::new(),
        };
        let left = node.kept.as_ref().zip(node.left.as_ref());
        let at = (&*values, left.map(|(result, more)| [result, more]));
        let parts = step.cotangent(self.ops, at, &shapes, g, &wanted)?;
        for (operand, part) in node.operands.iter().zip(parts) {
            if let (Operand::Node(i), Some(part)) = (operand, part) {
                self.add(*i, part)?;
            }
        }
        Ok(())
    }

    /// The operands of `node`, kept or computed again.
    fn values<'x>(&'x self, node: &'x Node<O>) -> Result<Vec<&'x O::Tensor>> {
        node.operands.iter().map(|x| self.value(x)).collect()
    }

    fn value<'x>(&'x self, operand: &'x Operand<O::Tensor>) -> Result<&'x O::Tensor> {
        match operand {
            Operand::Fixed(x, _) => Ok(x),
            Operand::Node(i) => {
                let kept = self.record.node(*i)?.kept.as_ref();
                let again = self.again.get(*i).and_then(Option::as_ref);
                kept.or(again)
                    .ok_or_else(|| mismatch("tape", format!("no value at {i}")))
            }
        }
    }

    /// Computes those values of the nodes `first..end` again that derivatives depend on and that were
    /// not kept.
    fn compute_again(&mut self, first: usize, end: usize, cancel: &Cancel) -> Result<()> {
        let mut needed = vec![false; end - first];
        for i in (first..end).rev() {
            let node = self.record.node(i)?;
            let Some(step) = &node.step else { continue };
            let runs = needed.get(i - first).copied().unwrap_or_default();
            if !runs && !step.is_curved() {
                continue;
            }
            for operand in &node.operands {
                let Operand::Node(j) = operand else { continue };
                if self.record.node(*j)?.kept.is_some() {
                    continue;
                }
                // What comes from before the block was kept.
                if let Some(place) = j.checked_sub(first).and_then(|at| needed.get_mut(at)) {
                    *place = true;
                }
            }
        }
        for (i, _) in (first..end).zip(needed).filter(|(_, needed)| *needed) {
            cancel.check()?;
            let node = self.record.node(i)?;
            let Some(step) = &node.step else { continue };
            let value = step.run(self.ops, &self.values(node)?)?;
            if let Some(place) = self.again.get_mut(i) {
                *place = Some(value);
            }
        }
        Ok(())
    }
}

impl<O: Derivatives> Reading for Tape<'_, O> {
    type Over = O;
    type Value = Traced<O::Tensor>;

    fn label(&self) -> &'static str {
        match self.memory {
            Memory::All => "tape",
            Memory::Checkpoints => "checkpointed tape",
        }
    }

    fn over(&self) -> &O {
        self.ops
    }

    fn constant(&self, value: O::Tensor) -> Self::Value {
        Traced { value, node: None }
    }

    fn plain<'x>(&self, x: &'x Self::Value) -> &'x O::Tensor {
        &x.value
    }

    fn step(&self, step: Step<O>, x: &[&Self::Value]) -> Result<Self::Value> {
        let values: Vec<_> = x.iter().map(|x| &x.value).collect();
        let (value, left) = step.run_leaving(self.ops, &values)?;
        if x.iter().all(|x| x.node.is_none()) {
            return Ok(self.constant(value));
        }
        let shape = self.ops.shape(&value)?;
        let keys = x.get(1).map(|k| self.ops.shape(&k.value)).transpose()?;
        let dear = matches!(step, Step::Attention(..))
            && keys.is_some_and(|k| k.rows_per_sample() >= DEAR_KEYS);
        let keeps = dear && self.memory == Memory::Checkpoints || left.is_some();
        let kept = keeps.then(|| value.clone());
        let mut record = self.record.lock();
        let mut operands = Vec::with_capacity(x.len());
        for x in x {
            let Some(i) = x.node else {
                let shape = self.ops.shape(&x.value)?;
                operands.push(Operand::Fixed(x.value.clone(), shape));
                continue;
            };
            let keeps = match self.memory {
                Memory::All => step.is_curved(),
                Memory::Checkpoints => record.is_before(i),
            };
            let node = record.nodes.get_mut(i).ok_or_else(|| foreign(i))?;
            if keeps && node.kept.is_none() {
                node.kept = Some(x.value.clone());
            }
            operands.push(Operand::Node(i));
        }
        record.nodes.push(Node {
            step: Some(step),
            operands,
            shape,
            kept,
            left,
        });
        let node = Some(record.nodes.len() - 1);
        Ok(Traced { value, node })
    }

    fn block_ends(&self) {
        let mut record = self.record.lock();
        let next = record.nodes.len();
        if self.memory == Memory::Checkpoints && record.blocks.last() != Some(&next) {
            record.blocks.push(next);
        }
    }
}
