//! `sparse-checkout` in cone mode: directories, and the files beside the way to them.

/// Which files are checked out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sparse {
    /// Directories; nothing means everything.
    cones: Option<Vec<String>>,
}

impl Sparse {
    /// All of them.
    pub fn everything() -> Self {
        Self { cones: None }
    }

    /// Those in the directories of `list`, one in each line, and those that stand in a directory above one of them.
    pub fn cone(list: &str) -> Self {
        let trim = |line: &str| line.trim().trim_start_matches("./").trim_matches('/').to_owned();
        let mut cones: Vec<_> = list.lines().map(trim).filter(|line| !line.is_empty()).collect();
        if cones.iter().any(|cone| cone == ".") {
            return Self::everything();
        }
        cones.sort();
        Self { cones: Some(cones) }
    }

    /// Whether the file `path` is one of them.
    pub fn keeps(&self, path: &str) -> bool {
        let Some(cones) = &self.cones else { return true };
        let Some((parent, _)) = path.rsplit_once('/') else { return true };
        let within = |dir: &str, cone: &str| dir == cone || dir.strip_prefix(cone).is_some_and(|r| r.starts_with('/'));
        cones.iter().any(|cone| within(parent, cone) || within(cone, parent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cones() {
        let sparse = Sparse::cone("  src/app/ \n./docs\n\n");
        for kept in ["README", "src/x", "src/app/y", "src/app/deep/z", "docs/a/b"] {
            assert!(sparse.keeps(kept), "{kept}");
        }
        for left in ["src/application/y", "src/other/y", "lib/x", "docs2/x"] {
            assert!(!sparse.keeps(left), "{left}");
        }
        assert!(Sparse::everything().keeps("a/b/c"));
    }
}
