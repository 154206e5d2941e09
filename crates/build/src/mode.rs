//! `--chmod`: permission bits in octal or in symbols. Pure.

/// A change of permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ModeChange {
    /// `644`: these bits.
    Exactly(u32),
    /// `u=rwX,go-w`: each clause in order.
    Clauses(Vec<Clause>),
}

/// One clause of a symbolic change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clause {
    who: u32,
    operator: char,
    permissions: String,
}

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHER: u32 = 0o1007;

impl ModeChange {
    /// Reads `--chmod`'s value; nothing if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).map(Self::Exactly);
        }
        text.split(',').map(Clause::parse).collect::<Option<Vec<_>>>().map(Self::Clauses)
    }

    /// The bits after the change.
    pub fn apply(&self, mode: u32, directory: bool) -> u32 {
        match self {
            Self::Exactly(bits) => *bits,
            Self::Clauses(clauses) => clauses.iter().fold(mode & 0o7777, |mode, clause| clause.apply(mode, directory)),
        }
    }
}

impl Clause {
    fn parse(text: &str) -> Option<Self> {
        let at = text.find(['+', '-', '='])?;
        let mut who = 0;
        for c in text[..at].chars() {
            who |= match c {
                'u' => USER,
                'g' => GROUP,
                'o' => OTHER,
                'a' => USER | GROUP | OTHER,
                _ => return None,
            };
        }
        // Nobody named means everybody: there is no umask here that could hold something back.
        let who = if at == 0 { USER | GROUP | OTHER } else { who };
        let permissions = &text[at + 1..];
        let copies = matches!(permissions, "u" | "g" | "o");
        let legal = copies || permissions.chars().all(|c| "rwxXst".contains(c));
        let operator = text[at..].chars().next()?;
        legal.then(|| Self { who, operator, permissions: permissions.to_owned() })
    }

    fn apply(&self, mode: u32, directory: bool) -> u32 {
        let thrice = |bits: u32| bits << 6 | bits << 3 | bits;
        let bits = match self.permissions.as_str() {
            "u" => thrice(mode >> 6 & 7),
            "g" => thrice(mode >> 3 & 7),
            "o" => thrice(mode & 7),
            symbols => symbols.chars().fold(0, |bits, c| {
                bits | match c {
                    'r' => 0o444,
                    'w' => 0o222,
                    'x' => 0o111,
                    'X' if directory || mode & 0o111 != 0 => 0o111,
                    's' => 0o6000,
                    't' => 0o1000,
                    _ => 0,
                }
            }),
        };
        match self.operator {
            '+' => mode | bits & self.who,
            '-' => mode & !(bits & self.who),
            // Directories keep what was not named of setuid and setgid; so does chmod.
            _ => mode & !(self.who & 0o777) | bits & self.who,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_chmod_does_it() {
        for (change, mode, directory, expected) in [
            ("644", 0o755, false, 0o644),
            ("0755", 0o600, false, 0o755),
            ("4755", 0o600, false, 0o4755),
            ("u+x", 0o644, false, 0o744),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("go=", 0o777, false, 0o700),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("g=u", 0o640, false, 0o660),
            ("u+s", 0o755, false, 0o4755),
            ("+t", 0o777, true, 0o1777),
            ("g+s,o-rwx", 0o755, false, 0o2750),
        ] {
            assert_eq!(ModeChange::parse(change).unwrap().apply(mode, directory), expected, "{change} on {mode:o}");
        }
        for bad in ["", "8", "999", "77777", "u", "u+q", "z+x", "u+x,", "rw"] {
            assert_eq!(ModeChange::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_leaves_the_permission_bits(text in "[ugoa]{0,2}[+=-][rwxXst]{0,4}(,[ugo][+=-][ugo])?", mode in 0u32..0o10000) {
            if let Some(change) = ModeChange::parse(&text) {
                prop_assert!(change.apply(mode, false) <= 0o7777);
            }
        }
    }
}
