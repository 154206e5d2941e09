//! Accounts, tokens and rights: one suite, on SQLite and on PostgreSQL.
#![allow(clippy::unwrap_used)]

#[path = "../../store/tests/support/postgresql.rs"]
mod postgresql_cluster;

#[path = "suite/accounts.rs"]
mod accounts;
#[path = "suite/gate.rs"]
mod gate;
#[path = "suite/groups.rs"]
mod groups;
#[path = "suite/issuer.rs"]
mod issuer;
#[path = "suite/keys.rs"]
mod keys;
#[path = "suite/logins.rs"]
mod logins;
#[path = "suite/passwords.rs"]
mod passwords;
#[path = "suite/robots.rs"]
mod robots;
#[path = "suite/tokens.rs"]
mod tokens;
#[path = "suite/workloads.rs"]
mod workloads;

use access::{Access, Credentials, Principal, Scope, Secret};
use model::UserId;
use store::{Location, Records};

/// Records that last as long as the value.
pub struct Place {
    location: Location,
    _directory: Option<tempfile::TempDir>,
}

impl Place {
    fn sqlite() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Sqlite(directory.path().join("towpath.db"));
        Some(Self { location, _directory: Some(directory) })
    }

    fn postgresql() -> Option<Self> {
        postgresql_cluster::database().map(|text| Self { location: Location::Postgres(text), _directory: None })
    }

    /// Whether several processes may have them open.
    pub fn is_shared(&self) -> bool {
        matches!(self.location, Location::Postgres(_))
    }

    /// Opens them, as a server that starts does.
    pub async fn open(&self) -> Access {
        Access::install(self.records().await).await.unwrap()
    }

    /// The records themselves.
    pub async fn records(&self) -> Records {
        Records::open(self.location.clone()).await.unwrap()
    }
}

/// A user with a token of these scopes, as they are after signing in.
pub async fn user(access: &Access, name: &str, admin: bool, scopes: &[Scope]) -> (UserId, Principal) {
    let id = access.create_user(name, admin).await.unwrap();
    let (_, secret) = access.create_token(id, "test", scopes, None).await.unwrap();
    (id, sign_in(access, &secret).await)
}

/// Who a token is of.
pub async fn sign_in(access: &Access, secret: &Secret) -> Principal {
    access.authenticate(&Credentials::Bearer(secret.clone())).await.unwrap()
}

macro_rules! on_both {
    ($($area:ident :: $test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$area::$test(super::Place::sqlite().unwrap()).await;
            })*
        }
        mod postgresql {
            $(#[tokio::test]
            async fn $test() {
                if let Some(place) = super::Place::postgresql() {
                    super::$area::$test(place).await;
                }
            })*
        }
    };
}

on_both! {
    accounts::the_first_start_makes_one_administrator_once,
    accounts::names_are_checked_and_unique_in_any_case,
    accounts::users_are_listed_and_deleted,
    accounts::somebody_always_administers_the_server,
    accounts::somebody_always_manages_an_organisation,
    accounts::a_new_repository_inherits_nothing_from_a_removed_one,
    accounts::a_renamed_repository_keeps_its_rights,
    tokens::a_token_signs_in_by_basic_and_bearer,
    tokens::wrong_credentials_are_never_anonymous,
    tokens::expired_and_revoked_tokens_are_refused,
    tokens::only_hashes_are_stored,
    tokens::the_last_use_of_a_token_is_listed,
    tokens::a_token_needs_a_name_and_a_scope,
    tokens::a_job_token_dies_with_its_job,
    tokens::registry_tokens_say_what_was_granted,
    tokens::changed_registry_tokens_are_refused,
    tokens::replicas_and_restarts_share_the_signing_key,
    gate::everybody_reads_what_is_public_and_nothing_else,
    gate::owners_members_and_collaborators,
    gate::images_follow_their_repository_or_owner,
    gate::administrators_do_everything_unless_their_token_cannot,
    gate::scopes_narrow_but_never_below_public,
    gate::jobs_reach_their_own_repository_alone,
    gate::rights_are_looked_up_each_time,
    gate::no_lookup_outlives_a_change,
    gate::replicas_see_each_others_changes,
    groups::a_group_gives_roles_on_what_its_patterns_match,
    groups::whoever_leaves_a_group_is_denied_at_the_next_request,
    groups::names_and_patterns_are_checked,
    keys::old_keys_verify_until_their_tokens_ran_out,
    keys::a_key_that_became_known_is_refused_at_once,
    keys::replicas_pick_up_new_keys,
    keys::an_unknown_id_does_not_make_them_read_for_ever,
    logins::whoever_the_provider_knows_gets_a_token_and_their_groups,
    logins::a_name_that_is_taken_is_not_given_away,
    logins::a_login_that_did_not_begin_here_is_refused,
    workloads::a_token_gets_what_the_first_rule_that_fits_gives,
    workloads::what_is_not_signed_for_us_is_refused,
    workloads::rsa_keys_and_an_issuer_that_changes_them,
    passwords::imported_users_sign_in_with_their_old_passwords,
    passwords::a_changed_or_revoked_password_is_refused_at_once,
    passwords::an_unknown_user_is_as_much_work_as_a_wrong_password,
    passwords::a_file_is_taken_over_whole_or_not_at_all,
    robots::a_robot_reaches_what_its_patterns_match,
    robots::a_robot_signs_in_by_name_and_as_bearer,
    robots::a_robot_ends_at_the_next_request,
    robots::what_no_robot_can_be,
    robots::a_robot_goes_with_its_owner,
    gate::denials_say_no_more_than_they_may,
}
