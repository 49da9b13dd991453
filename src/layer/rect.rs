//! Rectangles in layer coordinates.

/// An axis-aligned rectangle in layer coordinates; x to the right, y down, pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rect {
    /// Left edge.
    pub x: i64,
    /// Upper edge.
    pub y: i64,
    /// Width, pixels.
    pub width: u32,
    /// Height, pixels.
    pub height: u32,
}

impl Rect {
    /// One past the right edge.
    pub(crate) fn right(&self) -> i64 {
        self.x.saturating_add(i64::from(self.width))
    }

    /// One past the lower edge.
    pub(crate) fn bottom(&self) -> i64 {
        self.y.saturating_add(i64::from(self.height))
    }

    /// What both rectangles cover; zero size when they do not meet.
    #[must_use]
    pub fn intersect(&self, other: &Rect) -> Rect {
        let x = self.x.max(other.x);
        let y = self.y.max(other.y);
        let side = |end: i64, start: i64| u32::try_from(end.saturating_sub(start)).unwrap_or(0);
        let width = side(self.right().min(other.right()), x);
        let height = side(self.bottom().min(other.bottom()), y);
        if width == 0 || height == 0 {
            return Rect::default();
        }
        Rect {
            x,
            y,
            width,
            height,
        }
    }

    /// Whether no pixel lies in it.
    pub fn is_empty(&self) -> bool {
        self.width == 0 || self.height == 0
    }

    /// Whether every pixel of `other` lies in it.
    pub fn contains(&self, other: &Rect) -> bool {
        other.is_empty() || self.intersect(other) == *other
    }
}
