//! The contract of records: one suite, on SQLite and on PostgreSQL.
#![allow(clippy::unwrap_used)]

#[path = "support/postgresql.rs"]
mod postgresql_cluster;

#[path = "records/basics.rs"]
mod basics;
#[path = "records/log.rs"]
mod log;
#[path = "records/outbox_and_leases.rs"]
mod outbox_and_leases;
#[path = "records/tls.rs"]
mod tls;

use store::{Location, Records};

/// A place for records that lasts as long as the value.
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

    /// Opens the records, as another replica would if they are open already.
    pub async fn open(&self) -> Records {
        let records = Records::open(self.location.clone()).await.unwrap();
        store::log::install(&records).await.unwrap();
        records
    }
}

/// Runs each test of the suite on both databases.
macro_rules! on_both {
    ($($room:ident :: $test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$room::$test(super::Place::sqlite().unwrap()).await;
            })*
        }
        mod postgresql {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(place) = super::Place::postgresql() {
                    super::$room::$test(place).await;
                }
            })*
        }
    };
}

on_both! {
    basics::values_come_back_as_they_were,
    basics::nothing_is_left_of_a_transaction_that_refuses,
    basics::nothing_is_left_of_a_transaction_that_panics,
    basics::a_failed_statement_ends_the_transaction,
    basics::a_conflict_is_told_apart,
    basics::a_nul_character_is_refused,
    basics::a_reader_cannot_write,
    basics::a_reader_sees_one_moment,
    basics::what_was_written_is_there_after_opening_again,
    basics::a_caller_that_left_before_its_turn_changes_nothing,
    basics::an_error_of_a_room_comes_back_whole,
    basics::other_column_types_are_named,
    basics::a_watch_moves_with_its_own_tables,
    basics::what_may_be_durable_later_is_there_at_once,
    basics::migrations_run_once_and_in_order,
    basics::migrations_of_two_replicas_do_not_meet,
    basics::newer_records_are_refused,
    basics::a_failing_migration_leaves_nothing,
    log::events_come_back_by_stream_and_by_place,
    log::events_of_a_transaction_that_refuses_leave_no_gap,
    log::the_order_has_no_gap_under_concurrent_writers,
    log::a_waiting_reader_is_told,
    outbox_and_leases::a_message_is_enqueued_once,
    outbox_and_leases::a_claimed_message_comes_back_when_its_sender_died,
    outbox_and_leases::a_failing_message_waits_longer_each_time_and_is_given_up,
    outbox_and_leases::a_message_that_kills_its_sender_is_given_up,
    outbox_and_leases::a_lease_has_one_holder_until_it_expires,
    outbox_and_leases::of_many_replicas_one_gets_the_lease,
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = Records::open(Location::Sqlite(directory.path().join("absent/towpath.db"))).await.unwrap_err();
    assert!(error.to_string().contains("absent/towpath.db"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_its_password() {
    let directory = tempfile::tempdir().unwrap();
    let text = format!("host={} user=u password=hunter2 dbname=d", directory.path().display());
    let location = Location::Postgres(text);
    assert!(!format!("{location:?}").contains("hunter2"));
    let error = Records::open(location).await.unwrap_err().to_string();
    assert!(error.contains(&directory.path().display().to_string()), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_server_that_was_restarted_is_connected_to_again() {
    let Some(place) = Place::postgresql() else { return };
    let (records, other) = (place.open().await, place.open().await);
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for _ in 0..2 {
        other.write(move |tx| tx.query(end, &[])).await.unwrap();
        records.write(|tx| tx.next_id("x")).await.unwrap();
        records.read(store::log::last).await.unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_of_the_server_is_told_apart() {
    let Some(place) = Place::postgresql() else { return };
    let records = place.open().await;
    let full = "DO $x$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $x$";
    let error = records.write(move |tx| tx.execute(full, &[])).await.unwrap_err();
    assert!(error.is_no_space(), "{error}");
}
