//! Accounts, tokens and rights: one suite, on SQLite and on PostgreSQL.
#![allow(clippy::unwrap_used)]

#[path = "../../store/tests/support/postgresql.rs"]
mod postgresql_cluster;

#[path = "suite/accounts.rs"]
mod accounts;
#[path = "suite/gate.rs"]
mod gate;
#[path = "suite/tokens.rs"]
mod tokens;

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

    /// Opens them, as a server that starts does.
    pub async fn open(&self) -> Access {
        Access::install(Records::open(self.location.clone()).await.unwrap()).await.unwrap()
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
    gate::denials_say_no_more_than_they_may,
}
