//! Rows at equal distances, which is how a tile register is loaded.
//!
//! For: copying those that are not, once for all the columns that they are multiplied by. Not for:
//! rows that are known to lie so (`crate::product::Rows::even`).

use super::GROUP;

/// Makes the pointers of every group of 16 rows lie at equal distances: where they do not, the rows are
/// copied to `to` on, one after the other, and pointed to there. `table` has `rows` pointers for each
/// tap, to `bytes` bytes each. The end of what was written.
///
/// # Safety
/// Every pointer may be read for `bytes`; `to` may be written for `bytes` times the length of `table`,
/// and nothing else lies there.
pub(crate) unsafe fn straighten(
    table: &mut [*const u8],
    rows: usize,
    bytes: usize,
    mut to: *mut u8,
) -> *mut u8 {
    for tap in table.chunks_mut(rows.max(1)) {
        for group in tap.chunks_mut(GROUP) {
            if is_even(group) {
                continue;
            }
            for row in group {
                // SAFETY: the caller's promise; each pointer is copied once at most.
                unsafe {
                    std::ptr::copy_nonoverlapping(*row, to, bytes);
                    *row = to;
                    to = to.add(bytes);
                }
            }
        }
    }
    to
}

fn is_even(group: &[*const u8]) -> bool {
    let gap = |from: &*const u8, to: &*const u8| to.addr().wrapping_sub(from.addr());
    let mut gaps = group
        .iter()
        .zip(group.iter().skip(1))
        .map(|(a, b)| gap(a, b));
    match gaps.next() {
        Some(first) => gaps.all(|gap| gap == first),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_at_equal_distances_stay_and_others_are_copied_in_order() {
        let map: Vec<u8> = (0..200).collect();
        let at = |i: usize| map[4 * i..].as_ptr();
        // Two taps of 18 rows: a group of 16 and one of 2, which is always even.
        let mut table: Vec<*const u8> = (0..18).map(|i| at(2 * i)).collect();
        table.extend((0..18).map(|i| at(if i == 7 { 0 } else { i })));
        let before = table.clone();
        let mut room = vec![0_u8; 4 * table.len()];
        let from = room.as_mut_ptr();
        // SAFETY: each pointer leads to four bytes of `map`, and there is room for all.
        let end = unsafe { straighten(&mut table, 18, 4, from) };
        assert_eq!(end.addr() - from.addr(), 16 * 4);
        assert_eq!(table[..18], before[..18]);
        assert_eq!(table[34..], before[34..]);
        assert!(is_even(&table[18..34]) && table[18] == from.cast_const());
        for (i, row) in room[..64].chunks_exact(4).enumerate() {
            let first = if i == 7 { 0 } else { 4 * i as u8 };
            assert_eq!(row, [first, first + 1, first + 2, first + 3]);
        }
    }

    #[test]
    fn one_place_for_all_rows_is_an_equal_distance() {
        let zero = [0_u8; 4];
        assert!(is_even(&[zero.as_ptr(); 16]) && is_even(&[zero.as_ptr()]) && is_even(&[]));
    }
}
