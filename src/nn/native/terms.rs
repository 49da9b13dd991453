//! Shapes and kinds in the kernels' own words.

use semblance_kernels as kernels;
use semblance_kernels::Window;

use crate::nn::{Act, ConvSpec, Mask, Shape};

pub(super) fn window(spec: &ConvSpec<'_>) -> Window {
    Window {
        size: spec.size,
        stride: spec.stride,
        padding: spec.padding,
    }
}

pub(super) fn size(s: Shape) -> kernels::Size {
    kernels::Size {
        n: s.n,
        h: s.h,
        w: s.w,
        c: s.c,
    }
}

pub(super) fn activation(act: Act) -> kernels::Act {
    match act {
        Act::Identity => kernels::Act::Identity,
        Act::Silu => kernels::Act::Silu,
        Act::Gelu => kernels::Act::Gelu,
        Act::QuickGelu => kernels::Act::QuickGelu,
        Act::Relu => kernels::Act::Relu,
    }
}

pub(super) fn masking(mask: Mask) -> kernels::Mask {
    match mask {
        Mask::None => kernels::Mask::None,
        Mask::Causal => kernels::Mask::Causal,
    }
}
