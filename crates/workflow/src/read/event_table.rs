//! The events that GitHub knows, their activity types and the filters each takes.

/// An event.
pub(crate) struct EventKind {
    pub(crate) name: &'static str,
    /// Its activity types; empty if it has none.
    pub(crate) types: &'static [&'static str],
    /// The types that fire where the file names none; empty means all.
    pub(crate) default_types: &'static [&'static str],
    /// Its filters besides `types`.
    pub(crate) filters: &'static [&'static str],
}

const fn event(name: &'static str, types: &'static [&'static str], filters: &'static [&'static str]) -> EventKind {
    EventKind { name, types, default_types: &[], filters }
}

const BRANCHES: &[&str] = &["branches", "branches-ignore"];
const BRANCHES_AND_PATHS: &[&str] = &["branches", "branches-ignore", "paths", "paths-ignore"];
const PUSH: &[&str] = &["branches", "branches-ignore", "tags", "tags-ignore", "paths", "paths-ignore"];
const EDITS: &[&str] = &["created", "edited", "deleted"];
const PULL_REQUEST_DEFAULT: &[&str] = &["opened", "synchronize", "reopened"];
const PULL_REQUEST: &[&str] = &[
    "assigned",
    "unassigned",
    "labeled",
    "unlabeled",
    "opened",
    "edited",
    "closed",
    "reopened",
    "synchronize",
    "converted_to_draft",
    "locked",
    "unlocked",
    "enqueued",
    "dequeued",
    "milestoned",
    "demilestoned",
    "ready_for_review",
    "review_requested",
    "review_request_removed",
    "auto_merge_enabled",
    "auto_merge_disabled",
    "stacked",
];
const ISSUES: &[&str] = &[
    "opened",
    "edited",
    "deleted",
    "transferred",
    "pinned",
    "unpinned",
    "closed",
    "reopened",
    "assigned",
    "unassigned",
    "labeled",
    "unlabeled",
    "locked",
    "unlocked",
    "milestoned",
    "demilestoned",
    "field_added",
    "field_removed",
    "typed",
    "untyped",
];
const DISCUSSION: &[&str] = &[
    "created",
    "edited",
    "deleted",
    "transferred",
    "pinned",
    "unpinned",
    "labeled",
    "unlabeled",
    "locked",
    "unlocked",
    "category_changed",
    "answered",
    "unanswered",
];

/// Every event.
pub(crate) const EVENTS: &[EventKind] = &[
    event("branch_protection_rule", EDITS, &[]),
    event("check_run", &["completed", "created", "rerequested", "requested_action"], &[]),
    event("check_suite", &["completed"], &[]),
    event("create", &[], &[]),
    event("delete", &[], &[]),
    event("deployment", &[], &[]),
    event("deployment_status", &[], &[]),
    event("discussion", DISCUSSION, &[]),
    event("discussion_comment", EDITS, &[]),
    event("fork", &[], &[]),
    event("gollum", &[], &[]),
    event("image_version", &["created", "ready", "deleted"], &["names", "versions"]),
    event("issue_comment", EDITS, &[]),
    event("issues", ISSUES, &[]),
    event("label", EDITS, &[]),
    event("merge_group", &["checks_requested"], BRANCHES),
    event("milestone", &["created", "closed", "opened", "edited", "deleted"], &[]),
    event("page_build", &[], &[]),
    event("project", &["created", "closed", "reopened", "edited", "deleted"], &[]),
    event("project_card", &["created", "moved", "converted", "edited", "deleted"], &[]),
    event("project_column", &["created", "updated", "moved", "deleted"], &[]),
    event("public", &[], &[]),
    EventKind {
        name: "pull_request",
        types: PULL_REQUEST,
        default_types: PULL_REQUEST_DEFAULT,
        filters: BRANCHES_AND_PATHS,
    },
    event("pull_request_comment", EDITS, &[]),
    event("pull_request_review", &["submitted", "edited", "dismissed"], &[]),
    event("pull_request_review_comment", EDITS, &[]),
    EventKind {
        name: "pull_request_target",
        types: PULL_REQUEST,
        default_types: PULL_REQUEST_DEFAULT,
        filters: BRANCHES_AND_PATHS,
    },
    event("push", &[], PUSH),
    event("registry_package", &["published", "updated"], &[]),
    event("release", &["published", "unpublished", "created", "edited", "deleted", "prereleased", "released"], &[]),
    event("repository_dispatch", &[], &[]),
    event("schedule", &[], &[]),
    event("status", &[], &[]),
    event("watch", &["started"], &[]),
    event("workflow_call", &[], &[]),
    event("workflow_dispatch", &[], &[]),
    event("workflow_run", &["requested", "completed", "in_progress"], &["workflows", "branches", "branches-ignore"]),
];

/// The event of a name.
pub(crate) fn find(name: &str) -> Option<&'static EventKind> {
    EVENTS.iter().find(|event| event.name == name)
}
