//! Integer ids: stable across renames, and what the runner protocol, Woodpecker and `GITHUB_RUN_ID` need.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    )*};
}

ids! {
    /// A person or a robot account.
    UserId,
    /// An organisation that owns repositories.
    OrgId,
    /// A git repository; survives a rename.
    RepoId,
    /// An access token.
    TokenId,
    /// A configured target: repository, branch, services and a place to run.
    TargetId,
    /// One trigger on one ref: an immutable snapshot and all runs made of it.
    DeliveryId,
    /// A workflow run or a target run; both draw from one sequence, so a run id names one thing.
    RunId,
    /// A job of a workflow run.
    JobId,
    /// A registered runner.
    RunnerId,
}
