//! Packed numbers in a file, mapped.
//!
//! For: weights that were packed before. Their pages are the system's own: nothing is made clean and
//! copied to, processes share them, and the system may take them back and read them again. Not for:
//! files that somebody may write to.
//!
//! Who looks at a page that its file no longer has, or that the disk no longer gives, is killed, and that
//! would be an image editor. It is so of every library that a process has loaded, and is kept away as it
//! is there: only a file that nobody may write to, not even its owner, who is this user, and that lies on a
//! disk of this machine is mapped (it is replaced by another, or removed, and lives on for who has
//! it); and its pages are brought in by a call that answers rather than kills.

use std::fs::File;
use std::ops::Deref;

/// Numbers in a file that nobody writes to.
#[derive(Debug)]
pub struct Mapped(system::Map);

impl Mapped {
    /// The `count` numbers of `file` from byte `from` on, a multiple of 64; `None` where they are better
    /// read: the file is shorter or may be written to, its disk is another machine's, or the
    /// system is none that this was tried on.
    pub fn of(file: &File, from: u64, count: usize) -> Option<Mapped> {
        let bytes = count.checked_mul(4)?;
        let end = from.checked_add(u64::try_from(bytes).ok()?)?;
        let there = file.metadata().is_ok_and(|meta| meta.len() >= end);
        let fits = count > 0 && from.is_multiple_of(64) && there;
        fits.then(|| system::map(file, from, bytes))
            .flatten()
            .map(Mapped)
    }

    /// `len` bytes from `from` on, or as many as there are, in memory; `None` where they cannot be had.
    pub fn load(&self, from: usize, len: usize) -> Option<&[u8]> {
        let end = from.checked_add(len)?.min(self.0.len());
        system::load(&self.0, from, end.checked_sub(from)?)?;
        self.0.get(from..end)
    }
}

impl Deref for Mapped {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        let bytes: &[u8] = &self.0;
        // SAFETY: whole numbers at a multiple of 64 bytes (pages are, and `from` is), borrowed as the bytes
        // are; any bytes are some numbers.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / 4) }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs::File;
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;

    pub(super) use memmap2::Mmap as Map;
    use memmap2::{Advice, MmapOptions};

    /// File systems on disks of this machine (and in its memory), by the numbers of `statfs(2)`: ext2 to
    /// 4, XFS, Btrfs, F2FS, bcachefs, ZFS, overlayfs, tmpfs.
    const OURS: [u32; 8] = [
        0xEF53,
        0x5846_5342,
        0x9123_683E,
        0xF2F5_2010,
        0xCA45_1A4E,
        0x2FC1_2FC1,
        0x794C_7630,
        0x0102_1994,
    ];

    pub(super) fn map(file: &File, from: u64, bytes: usize) -> Option<Map> {
        let meta = file.metadata().ok()?;
        // SAFETY: asks for a number and cannot fail.
        let user = unsafe { libc::geteuid() };
        let settled = meta.is_file() && meta.mode() & 0o222 == 0 && meta.uid() == user;
        if !settled || !on_a_disk_of_ours(file) {
            return None;
        }
        // SAFETY: nobody may write to the file, and its owner would have to allow it first: it stays as
        // it is for as long as it is mapped.
        let map = unsafe { MmapOptions::new().offset(from).len(bytes).map(file) }.ok()?;
        // In large pages where the file system has them; else nothing is lost.
        let _ = map.advise(Advice::HugePage);
        Some(map)
    }

    fn on_a_disk_of_ours(file: &File) -> bool {
        let mut about = MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: an open file, and room for the answer, which is there when the call says so.
        let kind = unsafe {
            match libc::fstatfs(file.as_raw_fd(), about.as_mut_ptr()) {
                0 => about.assume_init().f_type,
                _ => return false,
            }
        };
        // Of another width on other processors, with the sign of an i32 on some.
        OURS.contains(&(kind as u32))
    }

    /// Linux 5.14 has the advice that says what failed; before that files are read.
    pub(super) fn load(map: &Map, from: usize, len: usize) -> Option<()> {
        map.advise_range(Advice::PopulateRead, from, len).ok()
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::convert::Infallible;
    use std::fs::File;

    #[derive(Debug)]
    pub(super) struct Map(Infallible);

    impl std::ops::Deref for Map {
        type Target = [u8];
        fn deref(&self) -> &[u8] {
            match self.0 {}
        }
    }

    pub(super) fn map(_: &File, _: u64, _: usize) -> Option<Map> {
        None
    }

    pub(super) fn load(map: &Map, _: usize, _: usize) -> Option<()> {
        match map.0 {}
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A file of 64 bytes and then the numbers 0 to 5000, whose mode is `mode`.
    fn file(mode: u32) -> (tempfile::TempDir, File) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers");
        let mut bytes = vec![0; 64];
        bytes.extend((0..5000_u16).flat_map(|i| f32::from(i).to_ne_bytes()));
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let file = File::open(&path).unwrap();
        (folder, file)
    }

    #[test]
    fn numbers_of_a_file_that_nobody_may_write_to_are_there_and_outlive_its_name() {
        let (folder, file) = file(0o400);
        let mapped = Mapped::of(&file, 64, 5000).unwrap();
        drop((folder, file));
        let bytes = mapped.load(4 * 4999, 1 << 20).unwrap();
        assert_eq!(bytes, 4999_f32.to_ne_bytes());
        assert!(mapped.iter().zip(0_u16..).all(|(x, i)| *x == f32::from(i)));
        assert_eq!(mapped.len(), 5000);
        assert!(mapped.load(4 * 5000 + 1, 1).is_none());
    }

    #[test]
    fn what_may_change_or_is_not_there_is_not_mapped() {
        for mode in [0o600, 0o440 | 0o020, 0o404 | 0o002] {
            let (_folder, file) = file(mode);
            assert!(Mapped::of(&file, 64, 5000).is_none(), "{mode:o}");
        }
        let (_folder, file) = file(0o400);
        for (from, count) in [
            (64, 5001),
            (64, 0),
            (32, 10),
            (u64::MAX - 63, 16),
            (0, usize::MAX),
        ] {
            assert!(Mapped::of(&file, from, count).is_none(), "{from}, {count}");
        }
        let zero = File::open("/dev/zero").unwrap();
        assert!(Mapped::of(&zero, 0, 16).is_none());
    }
}
