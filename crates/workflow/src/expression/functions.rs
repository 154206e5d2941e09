//! The functions that expressions can call.

use crate::text;

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Contains,
    StartsWith,
    EndsWith,
    Format,
    Join,
    ToJson,
    FromJson,
    HashFiles,
    Case,
    Success,
    Always,
    Cancelled,
    Failure,
}

/// Every function with its name and how many arguments it takes.
const FUNCTIONS: [(Function, &str, usize, usize); 13] = [
    (Function::Contains, "contains", 2, 2),
    (Function::StartsWith, "startsWith", 2, 2),
    (Function::EndsWith, "endsWith", 2, 2),
    (Function::Format, "format", 1, 255),
    (Function::Join, "join", 1, 2),
    (Function::ToJson, "toJSON", 1, 1),
    (Function::FromJson, "fromJSON", 1, 1),
    (Function::HashFiles, "hashFiles", 1, 255),
    (Function::Case, "case", 3, 255),
    (Function::Success, "success", 0, 0),
    (Function::Always, "always", 0, 0),
    (Function::Cancelled, "cancelled", 0, 0),
    (Function::Failure, "failure", 0, 0),
];

impl Function {
    /// The function of a name, whatever its case.
    pub(crate) fn find(name: &str) -> Option<Self> {
        FUNCTIONS.iter().find(|(_, known, ..)| text::equal(known, name)).map(|(function, ..)| *function)
    }

    /// What to say of a name that is no function.
    pub(crate) fn unknown(name: &str) -> String {
        let near = text::nearest(name, FUNCTIONS.map(|(_, known, ..)| known));
        let meant = near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
        format!("there is no function `{}`{meant}", text::clip(name, 40))
    }

    fn entry(self) -> (&'static str, usize, usize) {
        let found = FUNCTIONS.iter().find(|(function, ..)| *function == self);
        found.map_or(("", 0, 0), |(_, name, least, most)| (name, *least, *most))
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        self.entry().0
    }

    /// Whether it asks how the job or the jobs before went.
    pub(crate) const fn is_status(self) -> bool {
        matches!(self, Self::Success | Self::Always | Self::Cancelled | Self::Failure)
    }

    pub(crate) fn check_count(self, count: usize) -> Result<(), String> {
        let (name, least, most) = self.entry();
        let expected = if least == most { least.to_string() } else { format!("{least} to {most}") };
        if count < least {
            return Err(format!("`{name}` has too few arguments: {count} instead of {expected}"));
        }
        if count > most {
            return Err(format!("`{name}` has too many arguments: {count} instead of {expected}"));
        }
        if self == Self::Case && count.is_multiple_of(2) {
            return Err("`case` needs an odd number of arguments: conditions with values, and a default".to_owned());
        }
        Ok(())
    }
}
