//! EXIF between a TIFF, which holds it as directories of its own, and the block that all other formats
//! embed, which is a TIFF without a picture.
//!
//! For: carrying every tag of the EXIF and GPS directories as it is. Not for: what tags mean, and
//! thumbnails, which would show the picture before the edit.

use std::io::{Cursor, Read, Seek, Write};

use ::tiff::TiffResult;
use ::tiff::decoder::Decoder;
use ::tiff::encoder::{DirectoryEncoder, TiffEncoder, TiffKind};
use ::tiff::tags::{ByteOrder, IfdPointer, Tag, Type, ValueBuffer};

/// Tags and their values.
pub(super) type Tags = Vec<(Tag, ValueBuffer)>;

/// The directories of an EXIF block.
#[derive(Default)]
pub(super) struct Exif {
    /// Of the first directory, only what describes the picture: see `keep`.
    pub first: Tags,
    /// The EXIF directory.
    pub exif: Tags,
    /// The GPS directory.
    pub gps: Tags,
}

impl Exif {
    /// The EXIF of an open TIFF; `first` is what was read of its own directory.
    pub(super) fn of_tiff<R: Read + Seek>(decoder: &mut Decoder<R>, first: Tags) -> Exif {
        let mut pointer = |tag| {
            let value = decoder.find_tag(tag).ok().flatten();
            value.and_then(|value| value.into_ifd_pointer().ok())
        };
        let (exif, gps) = (pointer(Tag::ExifDirectory), pointer(Tag::GpsDirectory));
        Exif {
            first,
            exif: directory(decoder, exif, |_| true),
            gps: directory(decoder, gps, |_| true),
        }
    }

    /// The EXIF of a block, `None` where it cannot be read; of its first directory what `keep` says.
    pub(super) fn of_block(block: &[u8], keep: impl Fn(Tag) -> bool) -> Option<Exif> {
        let little = block.starts_with(b"II");
        let number = |bytes: [u8; 4]| match little {
            true => u32::from_le_bytes(bytes),
            false => u32::from_be_bytes(bytes),
        };
        let first = number(block.get(4..8)?.try_into().ok()?);
        // The decoder wants a picture: one of a single pixel is put behind the block.
        let mut file = block.to_vec();
        file.resize(file.len().next_multiple_of(2), 0);
        let at = u32::try_from(file.len()).ok()?;
        let short = |v: u16| match little {
            true => v.to_le_bytes(),
            false => v.to_be_bytes(),
        };
        let long = |v: u32| match little {
            true => v.to_le_bytes(),
            false => v.to_be_bytes(),
        };
        let fields: [(u16, u32); 6] = [(256, 1), (257, 1), (258, 8), (262, 1), (273, 0), (279, 1)];
        file.extend(short(fields.len() as u16));
        for (tag, value) in fields {
            file.extend(short(tag));
            file.extend(short(4));
            file.extend(long(1));
            file.extend(long(value));
        }
        file.extend(long(0));
        file.get_mut(4..8)?.copy_from_slice(&long(at));
        let mut decoder = Decoder::new(Cursor::new(file)).ok()?;
        let first = IfdPointer(u64::from(first));
        let main = decoder.read_directory(first).ok()?;
        let mut pointer = |tag| {
            let value = decoder.read_directory_tags(&main).find_tag(tag);
            value.ok().flatten()?.into_ifd_pointer().ok()
        };
        let (exif, gps) = (pointer(Tag::ExifDirectory), pointer(Tag::GpsDirectory));
        Some(Exif {
            first: directory(&mut decoder, Some(first), keep),
            exif: directory(&mut decoder, exif, |_| true),
            gps: directory(&mut decoder, gps, |_| true),
        })
    }

    /// As a block; `None` where there is no EXIF and no GPS.
    pub(super) fn block(&self) -> Option<Vec<u8>> {
        if self.exif.is_empty() && self.gps.is_empty() {
            return None;
        }
        let mut bytes = Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut bytes).ok()?;
        let pointers = self.write(&mut encoder).ok()?;
        let mut main = encoder.image_directory().ok()?;
        for (tag, value) in &self.first {
            main.write_tag_buf(*tag, value).ok()?;
        }
        for (tag, at) in pointers {
            main.write_tag(tag, at).ok()?;
        }
        main.finish().ok()?;
        Some(bytes.into_inner())
    }

    /// Writes both directories; the tags that point to them.
    pub(super) fn write<W: Write + Seek>(
        &self,
        encoder: &mut TiffEncoder<W>,
    ) -> TiffResult<Vec<(Tag, u32)>> {
        let mut pointers = Vec::new();
        for (tag, tags) in [
            (Tag::ExifDirectory, &self.exif),
            (Tag::GpsDirectory, &self.gps),
        ] {
            if !tags.is_empty() {
                let directory = filled(encoder.extra_directory()?, tags)?;
                pointers.push((tag, directory.finish_with_offsets()?.offset));
            }
        }
        Ok(pointers)
    }
}

fn filled<'a, W: Write + Seek, K: TiffKind>(
    mut directory: DirectoryEncoder<'a, W, K>,
    tags: &Tags,
) -> TiffResult<DirectoryEncoder<'a, W, K>> {
    for (tag, value) in tags {
        directory.write_tag_buf(*tag, value)?;
    }
    Ok(directory)
}

/// The tags of a directory but those that point to further ones, in the machine's byte order. What
/// cannot be read is passed over.
fn directory<R: Read + Seek>(
    decoder: &mut Decoder<R>,
    at: Option<IfdPointer>,
    keep: impl Fn(Tag) -> bool,
) -> Tags {
    /// The directory of interoperability, which nobody reads.
    const INTEROPERABILITY: Tag = Tag::Unknown(0xa005);
    let Some(directory) = at.and_then(|at| decoder.read_directory(at).ok()) else {
        return Tags::new();
    };
    let pointers = [Tag::ExifDirectory, Tag::GpsDirectory, INTEROPERABILITY];
    let tags: Vec<Tag> = (directory.iter().map(|(tag, _)| tag))
        .filter(|tag| !pointers.contains(tag) && keep(*tag))
        .collect();
    let mut found = Tags::new();
    for tag in tags {
        let mut value = ValueBuffer::empty(Type::BYTE);
        let mut reader = decoder.read_directory_tags(&directory);
        if let Ok(Some(_)) = reader.find_tag_buf(tag, &mut value) {
            value.set_byte_order(ByteOrder::native());
            found.push((tag, value));
        }
    }
    found
}
