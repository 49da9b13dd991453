//! A host's layer: any pixel format in, the same format out, only changed pixels touched.
//!
//! For: describing host buffers, reducing them to the model's size, and bringing an edit back to
//! full size. Not for: files (the host's business) and networks.

mod view;

pub use view::{
    AlphaState, ChannelOrder, ColorSpace, Format, LayerView, LayerViewMut, MaskSamples, MaskView,
    Rect, SampleType,
};
