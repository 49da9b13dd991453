//! Every bound on what a file may ask of this process, with the attack that it stops.

/// Bytes of an input file: larger ones are no pictures that this program can hold.
pub const FILE_BYTES: u64 = 4 << 30;

/// Pixels of one picture: a PNG of a few kilobytes can claim 2³¹ × 2³¹.
pub const PIXELS: u64 = 1 << 28;

/// Bytes of one decoded picture, which also bounds what decoders may allocate.
pub const PICTURE_BYTES: u64 = 4 << 30;

/// Unpacked bytes of a whole OpenRaster archive that are read: zip packs 1000 to 1.
pub const ARCHIVE_BYTES: u64 = 8 << 30;

/// Entries of an archive: each costs memory before anything is read.
pub const ARCHIVE_ENTRIES: usize = 65_536;

/// Bytes of `stack.xml`.
pub const STACK_BYTES: u64 = 16 << 20;

/// Nesting of layer groups: the merged picture is made by recursion.
pub const GROUP_DEPTH: usize = 64;

/// Bytes of all canvases that live at once while a document is merged: every isolated group within
/// another needs one of its own, of 16 bytes a pixel.
pub const MERGE_BYTES: u64 = 8 << 30;

/// Layers and groups of one document.
pub const LAYERS: usize = 10_000;

/// Bytes of a recipe, on its own or in a picture's metadata.
pub const RECIPE_BYTES: u64 = 1 << 20;

/// Bytes of a request to `serve`: a program gone mad may send a line without end.
pub const REQUEST_BYTES: u64 = 2 << 20;

/// Requests to `serve` that wait while an edit runs.
pub const REQUESTS: usize = 1000;

/// Bytes of an XMP packet that are kept.
pub const XMP_BYTES: usize = 16 << 20;
