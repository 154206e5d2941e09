//! The stages of a target run.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The stages of a target run, in their order. One closed set; each maps to the stage id of the CI/CD specification
/// that teams already write (`spec.stages[].id`) and to one of its budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The pushed commit is held by an immutable snapshot ref.
    Source,
    /// The workflow jobs that gate the target have run.
    Workflow,
    /// It is decided which services must be built.
    Reuse,
    /// Images are built, or the reused ones checked.
    Build,
    /// An outside pipeline (Tekton) ran. Does not apply to the local engine.
    Pipeline,
    /// The GitOps branch pins the digests.
    Publish,
    /// The engine has brought the revision to life.
    Rollout,
    /// What runs says itself that it is what was built.
    Closeout,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 8] = [
        Self::Source,
        Self::Workflow,
        Self::Reuse,
        Self::Build,
        Self::Pipeline,
        Self::Publish,
        Self::Rollout,
        Self::Closeout,
    ];

    /// The stage id of the specification.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Source => "mirror-sync",
            Self::Workflow => "actions-dispatch",
            Self::Reuse => "reuse-plan",
            Self::Build => "build-or-reuse",
            Self::Pipeline => "tekton-pipelinerun",
            Self::Publish => "gitops-publish",
            Self::Rollout => "argo-closeout",
            Self::Closeout => "runtime-provenance",
        }
    }

    /// The name people see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Workflow => "workflow",
            Self::Reuse => "reuse",
            Self::Build => "build",
            Self::Pipeline => "pipeline",
            Self::Publish => "publish",
            Self::Rollout => "rollout",
            Self::Closeout => "closeout",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
