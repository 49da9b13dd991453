//! Packed numbers: a buffer of their own, one on loan, a mapped file, or a piece of one of these.
//!
//! For: weights, which are never written again once they are packed. Not for: values.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::arena::{Pooled, lasting};
use crate::error::Result;
use crate::mapped::Mapped;
use crate::memory::Buffer;

/// What a piece begins at a multiple of, in numbers: a cache line.
pub const LINE: usize = 16;

/// What numbers can lie in.
trait Whole: Deref<Target = [f32]> + fmt::Debug + Send + Sync {}

impl Whole for Buffer {}
impl Whole for Pooled {}
impl Whole for Mapped {}
impl Whole for Box<[f32]> {}

/// Numbers that are only read. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Packed {
    whole: Arc<dyn Whole>,
    from: usize,
    len: usize,
}

impl Packed {
    /// `len` numbers of these from `from` on, a multiple of [`LINE`]; `None` where there are none such.
    pub fn piece(&self, from: usize, len: usize) -> Option<Packed> {
        let end = from.checked_add(len)?;
        (from.is_multiple_of(LINE) && end <= self.len).then(|| Packed {
            whole: Arc::clone(&self.whole),
            from: self.from + from,
            len,
        })
    }

    /// A copy of `numbers`.
    pub fn copy(numbers: &[f32]) -> Result<Packed> {
        let mut buffer = lasting(numbers.len())?;
        buffer.copy_from_slice(numbers);
        Ok(buffer.into())
    }

    /// The same as bytes, as this machine orders them.
    pub fn bytes(&self) -> &[u8] {
        let numbers: &[f32] = self;
        // SAFETY: the same memory for as long; bytes may have any value and lie anywhere.
        unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), 4 * numbers.len()) }
    }
}

impl<W: Whole + 'static> From<W> for Packed {
    fn from(whole: W) -> Self {
        Packed {
            from: 0,
            len: whole.len(),
            whole: Arc::new(whole),
        }
    }
}

impl Default for Packed {
    /// No numbers.
    fn default() -> Self {
        Buffer::default().into()
    }
}

impl Deref for Packed {
    type Target = [f32];

    #[inline]
    fn deref(&self) -> &[f32] {
        (self.whole.get(self.from..self.from + self.len)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_piece_lies_inside_its_buffer_at_a_line() {
        let mut buffer = Buffer::zeros(40).unwrap();
        buffer[16] = 1.0;
        let whole = Packed::from(buffer);
        let piece = whole.piece(16, 24).unwrap();
        assert_eq!((piece.len(), piece[0]), (24, 1.0));
        assert_eq!(piece.bytes()[..4], 1.0_f32.to_ne_bytes());
        assert_eq!(piece.piece(16, 8).unwrap().len(), 8);
        assert!(piece.piece(16, 9).is_none());
        for (from, len) in [
            (16, 25),
            (8, 8),
            (48, 0),
            (usize::MAX - 15, 16),
            (32, usize::MAX),
        ] {
            assert!(whole.piece(from, len).is_none(), "{from}, {len}");
        }
        assert!(Packed::default().is_empty());
    }
}
