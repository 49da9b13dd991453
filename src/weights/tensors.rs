//! Tensors by name out of a safetensors file, every length checked before it is believed.

use std::ops::Add;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::source::{ModelSource, Reader};
use super::{MAX_HEADER_BYTES, MAX_RANK};
use crate::error::{Code, Error, Result};
use crate::nn::Count;

/// Something that has tensors by name.
pub trait Tensors {
    /// Whether there is a tensor `name`.
    fn has(&self, name: &str) -> bool;
    /// The tensor `name` as f32, which must have exactly `shape` and hold finite numbers only.
    fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>>;
}

/// An open safetensors file; tensors are read when asked for.
pub struct TensorFile {
    reader: Reader,
    metadata: Metadata,
    /// Where the tensors begin.
    start: u64,
    place: String,
}

impl TensorFile {
    /// Reads and checks the header of `path`: its size, every dtype, shape and offset, and that the
    /// tensors fill the file without gap or overlap.
    pub fn open(source: &ModelSource, path: &str) -> Result<Self> {
        let place = source.describe(path);
        let bad = |what: String| {
            Error::new(Code::InvalidModel, format!("{place}: {what}"))
                .with_hint("weights must be an undamaged safetensors file")
        };
        let reader = source.open(path)?;
        let length = reader.length();
        let mut first = [0; 8];
        if length < 8 {
            return Err(bad(format!("{length} bytes are no safetensors file")));
        }
        reader
            .read_at(0, &mut first)
            .map_err(|e| source.io(path, &e))?;
        refuse_others(first, &place)?;
        let header = u64::from_le_bytes(first);
        let limit = MAX_HEADER_BYTES.min(length - 8);
        if header > limit {
            return Err(bad(format!("a header of {header} bytes, at most {limit}")));
        }
        let mut json = vec![0; header as usize];
        reader
            .read_at(8, &mut json)
            .map_err(|e| source.io(path, &e))?;
        let metadata: Metadata =
            serde_json::from_slice(&json).map_err(|e| bad(format!("header: {e}")))?;
        let start = 8 + header;
        let (said, found) = (metadata.data_len() as u64, length - start);
        if said != found {
            return Err(bad(format!(
                "{found} bytes of tensors, the header says {said}"
            )));
        }
        for (name, info) in metadata.tensors() {
            if info.shape.len() > MAX_RANK {
                return Err(bad(format!(
                    "{name}: {} dimensions, at most {MAX_RANK}",
                    info.shape.len()
                )));
            }
        }
        Ok(TensorFile {
            reader,
            metadata,
            start,
            place,
        })
    }

    /// Numbers in all tensors.
    pub fn count(&self) -> Count {
        let tensors = self.metadata.tensors();
        let of = |info: &TensorInfo| {
            let all = info.shape.iter().product::<usize>() as u64;
            let half = matches!(info.dtype, Dtype::F16 | Dtype::BF16);
            Count {
                all,
                halves: if half { all } else { 0 },
            }
        };
        tensors
            .values()
            .copied()
            .map(of)
            .fold(Count::default(), Add::add)
    }

    fn bad(&self, name: &str, what: String) -> Error {
        Error::new(
            Code::InvalidModel,
            format!("{}: tensor {name}: {what}", self.place),
        )
        .with_parameter(name)
    }
}

/// Names what a file is that is no safetensors file, by its first bytes.
fn refuse_others(first: [u8; 8], place: &str) -> Result<()> {
    let what = match first {
        [b'P', b'K', 3, 4, ..] => "a pickle in a zip (PyTorch's .bin, .pt, .ckpt)",
        [0x80, 1..=5, ..] => "a pickle",
        [b'G', b'G', b'U', b'F', ..] => "a GGUF file",
        [0x89, b'H', b'D', b'F', ..] => "an HDF5 file",
        [b'v', b'e', b'r', b's', b'i', b'o', b'n', b' '] => {
            "a Git LFS pointer, not the file itself"
        }
        [b'<', ..] => "a web page, not the file itself",
        _ => return Ok(()),
    };
    Err(Error::new(
        Code::InvalidModel,
        format!("{place}: this is {what}; weights are read from safetensors only"),
    )
    .with_hint("pickles can run code when opened; save the model with safe_serialization=True"))
}

impl Tensors for TensorFile {
    fn has(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let info = self
            .metadata
            .info(name)
            .ok_or_else(|| self.bad(name, format!("missing; expected {shape:?}")))?;
        if info.shape != shape {
            return Err(self.bad(name, format!("is {:?}, expected {shape:?}", info.shape)));
        }
        let (from, to) = info.data_offsets;
        let mut bytes = room(to - from)?;
        bytes.resize(to - from, 0);
        self.reader
            .read_at(self.start + from as u64, &mut bytes)
            .map_err(|e| self.bad(name, e.to_string()))?;
        let mut numbers: Vec<f32> = room(shape.iter().product())?;
        match info.dtype {
            Dtype::F32 => numbers.extend(words(&bytes).map(f32::from_le_bytes)),
            Dtype::F16 => {
                numbers.extend(words(&bytes).map(|b| half::f16::from_le_bytes(b).to_f32()));
            }
            Dtype::BF16 => {
                numbers.extend(words(&bytes).map(|b| half::bf16::from_le_bytes(b).to_f32()));
            }
            other => {
                let what = format!("is {other:?}; F32, F16 and BF16 are read");
                return Err(self.bad(name, what));
            }
        }
        match numbers.iter().position(|x| !x.is_finite()) {
            Some(i) => Err(self.bad(name, format!("number {i} is not finite"))),
            None => Ok(numbers),
        }
    }
}

/// Room for so many; [`Code::OutOfMemory`] where there is none.
fn room<T>(count: usize) -> Result<Vec<T>> {
    let mut room = Vec::new();
    room.try_reserve_exact(count).map_err(|_| {
        let what = format!("no memory for {count} numbers of a model's weights");
        Error::new(Code::OutOfMemory, what)
            .with_hint("close other programs, or choose a smaller model")
    })?;
    Ok(room)
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}
