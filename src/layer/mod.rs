//! A host's layer: any pixel format in, the same format out, only changed pixels touched.
//!
//! For: describing host buffers, reducing them to the model's size, and bringing an edit back to
//! full size. Not for: files (the host's business) and networks.

mod pixel;
mod rect;
mod tally;
mod view;

pub use pixel::{AlphaState, ChannelOrder, ColorSpace, Format, MaskSamples, SampleType};
pub use rect::Rect;
pub use tally::Tally;
pub use view::{LayerView, LayerViewMut, MaskView};
