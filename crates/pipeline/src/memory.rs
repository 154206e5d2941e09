//! Memory that this process holds and no longer needs.

use std::ops::Range;

/// Gives freed memory back to the system: what a delivery of many files took is not kept for the next.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub(crate) fn give_back() {
    // SAFETY: `malloc_trim` has no preconditions; it takes the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators do so by themselves.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}

/// To be called when the server has started: gives back what only the start needed. That is freed memory, and above all
/// the program's own code, of which the start runs through most. The system keeps its pages as long as it has the room,
/// and what is needed again comes back at the price of a page fault.
#[allow(unsafe_code)]
pub fn settle() {
    give_back();
    for range in unwritten(&std::fs::read_to_string("/proc/self/maps").unwrap_or_default()) {
        // SAFETY: the pages are those of files, mapped to be read or executed and never to be written to: the next access
        // finds the same bytes as the last.
        unsafe {
            libc::madvise(range.start as *mut libc::c_void, range.end - range.start, libc::MADV_DONTNEED);
        }
    }
}

/// The mappings of code, and the beginnings of files with code, which say how they are to be loaded. Other data that is
/// read-only now may have been written to before.
fn unwritten(maps: &str) -> impl Iterator<Item = Range<usize>> {
    maps.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let (rights, offset) = (words.next()?, words.next()?);
        let never = rights == "r-xp" || (rights == "r--p" && offset.bytes().all(|digit| digit == b'0'));
        let of_file = words.nth(2)?.starts_with('/');
        let at = |hex| usize::from_str_radix(hex, 16).ok();
        (never && of_file).then_some(at(start)?..at(end)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_given_back() {
        let maps = "\
            55d0a0000000-55d0a095e000 r--p 00000000 fe:00 1 /usr/bin/towpath\n\
            55d0a095e000-55d0a28b8000 r-xp 0095d000 fe:00 1 /usr/bin/towpath\n\
            55d0a28b9000-55d0a2993000 r--p 028b7000 fe:00 1 /usr/bin/towpath\n\
            55d0a2993000-55d0a299e000 rw-p 02990000 fe:00 1 /usr/bin/towpath\n\
            55d0b0000000-55d0b0200000 rw-p 00000000 00:00 0 [heap]\n\
            7f0000000000-7f0000001000 rwxp 00000000 fe:00 2 /tmp/written to\n\
            7f0000002000-7f0000003000 r-xp 00000000 00:00 0 \n\
            7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0 [vdso]\n";
        assert_eq!(
            unwritten(maps).collect::<Vec<_>>(),
            [0x55d0_a000_0000..0x55d0_a095_e000, 0x55d0_a095_e000..0x55d0_a28b_8000]
        );
    }

    #[test]
    fn the_program_goes_on_as_before() {
        let kept: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        settle();
        assert_eq!(kept.iter().map(|number| number.parse::<u32>().unwrap()).sum::<u32>(), 4950);
    }
}
