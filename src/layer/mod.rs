//! A host's layer: any pixel format in, the same format out, only changed pixels touched.
//!
//! For: describing host buffers (`pixel`, `view`), reducing them to the model's size (`patch`), and
//! bringing an edit back to full size (`change`, `composite`). Not for: files (the host's business)
//! and networks.

mod change;
mod color;
mod composite;
mod confidence;
mod fill;
mod format;
mod guided;
mod patch;
mod pixel;
mod place;
mod rect;
mod tally;
mod view;

pub use change::Change;
pub use composite::{copy_pixels, render, render_in_place, render_reduced};
pub use patch::Patch;
pub use pixel::{AlphaState, ChannelOrder, ColorSpace, Format, MaskSamples, SampleType};
pub use place::Placement;
pub use rect::Rect;
pub use tally::Tally;
pub use view::{LayerView, LayerViewMut, MaskView, View};
