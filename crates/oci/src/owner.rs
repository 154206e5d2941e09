//! How owners inside an image and owners on this machine correspond.

/// The most ids a container has; ids above are nobody's.
const COUNT: u32 = 65_536;

/// The id that stands for whoever has no id in a container.
const NOBODY: u32 = 65_534;

/// How ids inside a container and ids on this machine correspond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// The id on this machine that id 0 of a container stands for.
    pub base: u32,
    /// Whether there is only one id: then everything belongs to who runs this program, and what an image records about
    /// owners other than 0 is dropped.
    pub single: bool,
}

impl IdMap {
    /// Container ids 0 to 65535 are `base` to `base + 65535` on this machine.
    pub const fn shifted(base: u32) -> Self {
        Self { base, single: false }
    }

    /// Everything belongs to who runs this program.
    pub const fn single() -> Self {
        Self { base: 0, single: true }
    }

    /// The id on this machine for a container's `id`; nothing where owners are not set at all. Ids that a container
    /// cannot have become nobody's.
    pub fn outside(&self, id: u64) -> Option<u32> {
        let known = u32::try_from(id).ok().filter(|id| *id < COUNT).unwrap_or(NOBODY);
        (!self.single).then(|| self.base.saturating_add(known))
    }

    /// The id inside a container for `id` on this machine.
    pub fn inside(&self, id: u32) -> u32 {
        if self.single {
            return 0;
        }
        id.checked_sub(self.base).filter(|id| *id < COUNT).unwrap_or(NOBODY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let map = IdMap::shifted(1_000_000);
        assert_eq!(map.outside(33), Some(1_000_033));
        assert_eq!(map.inside(1_000_033), 33);
        assert_eq!(map.outside(1 << 40), Some(1_065_534));
        assert_eq!(map.inside(0), 65_534);
        assert_eq!(IdMap::single().outside(33), None);
        assert_eq!(IdMap::single().inside(1000), 0);
    }
}
