//! Transactions, values and migrations.

use std::sync::mpsc;

use store::{Records, RecordsError, Row, Value};

use crate::Place;

const TABLE: &[&str] = &["CREATE TABLE t (k BIGINT NOT NULL PRIMARY KEY, name TEXT UNIQUE, data BYTES, flag BIGINT)"];

async fn with_table(place: &Place) -> Records {
    let records = place.open().await;
    records.migrate("test", TABLE).await.unwrap();
    records
}

fn insert(key: i64) -> impl FnOnce(&mut store::Tx<'_>) -> Result<u64, RecordsError> + Send + 'static {
    move |tx| tx.execute("INSERT INTO t (k) VALUES ($1)", &[key.into()])
}

async fn count(records: &Records) -> i64 {
    records.read(|tx| tx.query("SELECT COUNT(*) FROM t", &[])?[0].get(0)).await.unwrap()
}

pub async fn values_come_back_as_they_were(place: Place) {
    let records = with_table(&place).await;
    let rows: Vec<Vec<Value>> = vec![
        vec![i64::MIN.into(), "".into(), Vec::<u8>::new().into(), false.into()],
        vec![i64::MAX.into(), "grüße 🚢 'quoted' $1".into(), vec![0, 255, 0, b'\''].into(), true.into()],
        vec![0_i64.into(), None::<&str>.into(), Value::Null, Value::Null],
    ];
    let written = rows.clone();
    records
        .write(move |tx| {
            for row in &written {
                let sql = "INSERT INTO t (data, name, k, flag) VALUES ($3, $2, $1, $4)";
                assert_eq!(tx.execute(sql, row)?, 1);
            }
            Ok(())
        })
        .await
        .unwrap();
    let read: Vec<Row> =
        records.read(|tx| tx.query("SELECT k, name, data, flag FROM t ORDER BY k = 0, k", &[])).await.unwrap();
    assert_eq!(read.iter().map(|row| row.values().to_vec()).collect::<Vec<_>>(), rows);
    assert!(read[1].get::<bool>(3).unwrap());
    assert_eq!(read[2].get::<Option<String>>(1).unwrap(), None);
    let wrong = read[2].get::<String>(0).unwrap_err();
    assert_eq!(wrong.to_string(), "column 0 of an answer is an integer, expected a text");
}

pub async fn nothing_is_left_of_a_transaction_that_refuses(place: Place) {
    let records = with_table(&place).await;
    let outcome = records
        .write(|tx| {
            insert(1)(tx)?;
            assert_eq!(tx.next_id("numbers")?, 1);
            Err::<(), _>(RecordsError::Refused("the branch is protected".to_owned()))
        })
        .await;
    assert_eq!(outcome.unwrap_err().to_string(), "the branch is protected");
    assert_eq!(count(&records).await, 0);
    assert_eq!(records.write(|tx| tx.next_id("numbers")).await.unwrap(), 1);
}

pub async fn nothing_is_left_of_a_transaction_that_panics(place: Place) {
    let records = with_table(&place).await;
    let outcome = records
        .write(|tx| {
            insert(1)(tx)?;
            // Out of bounds: an answer has no row.
            let rows = tx.query("SELECT k FROM t WHERE k = 2", &[])?;
            rows[0].get::<i64>(0)
        })
        .await;
    assert!(matches!(outcome, Err(RecordsError::Stopped(_))));
    assert_eq!(count(&records).await, 0);
    records.write(insert(2)).await.unwrap();
}

pub async fn a_failed_statement_ends_the_transaction(place: Place) {
    let records = with_table(&place).await;
    let outcome = records
        .write(|tx| {
            insert(1)(tx)?;
            assert!(tx.execute("INSERT INTO absent VALUES (1)", &[]).is_err());
            assert!(matches!(insert(2)(tx), Err(RecordsError::Ended(_))));
            // Says that all is well, which it is not.
            Ok(())
        })
        .await;
    assert!(matches!(&outcome, Err(RecordsError::Ended(earlier)) if earlier.contains("absent")), "{outcome:?}");
    assert_eq!(count(&records).await, 0);
}

pub async fn a_conflict_is_told_apart(place: Place) {
    let records = with_table(&place).await;
    records.write(insert(1)).await.unwrap();
    assert!(records.write(insert(1)).await.unwrap_err().is_conflict());
    let name =
        |k: i64| move |tx: &mut store::Tx<'_>| tx.execute("INSERT INTO t (k, name) VALUES ($1, 'n')", &[k.into()]);
    records.write(name(2)).await.unwrap();
    assert!(records.write(name(3)).await.unwrap_err().is_conflict());
    let broken = records.write(|tx| tx.execute("INSERT INTO t (k) VALUES (NULL)", &[])).await.unwrap_err();
    assert!(!broken.is_conflict(), "{broken}");
}

pub async fn a_nul_character_is_refused(place: Place) {
    let records = with_table(&place).await;
    let sql = "INSERT INTO t (k, name) VALUES ($1, $2)";
    let error = records.write(move |tx| tx.execute(sql, &[1_i64.into(), "a\0b".into()])).await.unwrap_err();
    assert!(matches!(error, RecordsError::Nul { number: 2, .. }), "{error}");
}

pub async fn a_reader_cannot_write(place: Place) {
    let records = with_table(&place).await;
    records.read(insert(1)).await.unwrap_err();
    assert_eq!(count(&records).await, 0);
}

pub async fn a_reader_sees_one_moment(place: Place) {
    let records = with_table(&place).await;
    let (looked, first_look) = mpsc::channel();
    let (go_on, written) = mpsc::channel::<()>();
    let reader = tokio::spawn({
        let records = records.clone();
        async move {
            let look = |tx: &mut store::Tx<'_>| tx.query("SELECT COUNT(*) FROM t", &[])?[0].get::<i64>(0);
            records
                .read(move |tx| {
                    let before = look(tx)?;
                    looked.send(()).unwrap();
                    written.recv().unwrap();
                    Ok((before, look(tx)?))
                })
                .await
        }
    });
    tokio::task::spawn_blocking(move || first_look.recv().unwrap()).await.unwrap();
    // The reader does not keep the writer waiting, nor does it see what is written meanwhile.
    records.write(insert(1)).await.unwrap();
    go_on.send(()).unwrap();
    assert_eq!(reader.await.unwrap().unwrap(), (0, 0));
    assert_eq!(count(&records).await, 1);
}

pub async fn what_was_written_is_there_after_opening_again(place: Place) {
    let records = with_table(&place).await;
    records.write(insert(7)).await.unwrap();
    drop(records);
    assert_eq!(count(&with_table(&place).await).await, 1);
}

pub async fn a_caller_that_left_before_its_turn_changes_nothing(place: Place) {
    let records = with_table(&place).await;
    let (begun, has_begun) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let first = tokio::spawn({
        let records = records.clone();
        async move {
            records
                .write(move |tx| {
                    begun.send(()).unwrap();
                    wait.recv().unwrap();
                    insert(1)(tx)
                })
                .await
        }
    });
    tokio::task::spawn_blocking(move || has_begun.recv().unwrap()).await.unwrap();
    let second = records.write(insert(2));
    let left = tokio::time::timeout(std::time::Duration::from_millis(20), second).await;
    assert!(left.is_err(), "the second writer did not wait for the first");
    go_on.send(()).unwrap();
    first.await.unwrap().unwrap();
    records.write(insert(3)).await.unwrap();
    assert_eq!(count(&records).await, 2);
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("no such branch")]
struct NoSuchBranch;

pub async fn an_error_of_a_room_comes_back_whole(place: Place) {
    let records = place.open().await;
    let error = records.write(|_| Err::<(), _>(RecordsError::room(NoSuchBranch))).await.unwrap_err();
    assert_eq!(error.to_string(), "no such branch");
    assert_eq!(error.into_room::<NoSuchBranch>().unwrap(), NoSuchBranch);
    assert!(RecordsError::NoSpace.into_room::<NoSuchBranch>().is_err());
}

pub async fn other_column_types_are_named(place: Place) {
    let records = place.open().await;
    let error = records.read(|tx| tx.query("SELECT CAST(1 AS REAL)", &[])).await.unwrap_err();
    assert!(matches!(error, RecordsError::ColumnType { column: 0, .. }), "{error}");
}

pub async fn migrations_run_once_and_in_order(place: Place) {
    const ONE: &str = "CREATE TABLE m (a BIGINT NOT NULL); INSERT INTO m (a) VALUES (1)";
    const TWO: &str = "INSERT INTO m (a) SELECT MAX(a) + 1 FROM m";
    let records = place.open().await;
    records.migrate("m", &[ONE]).await.unwrap();
    records.migrate("m", &[ONE, TWO]).await.unwrap();
    records.migrate("m", &[ONE, TWO]).await.unwrap();
    let rows = records.read(|tx| tx.query("SELECT a FROM m ORDER BY a", &[])).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get::<i64>(0).unwrap()).collect::<Vec<_>>(), [1, 2]);
}

pub async fn migrations_of_two_replicas_do_not_meet(place: Place) {
    const ADD: &str = "INSERT INTO m (a) VALUES (1)";
    const STEPS: &[&str] = &["CREATE TABLE m (a BIGINT NOT NULL)", ADD, ADD, ADD, ADD];
    let (one, two) = tokio::join!(place.open(), place.open());
    let (first, second) = tokio::join!(one.migrate("m", STEPS), two.migrate("m", STEPS));
    first.unwrap();
    second.unwrap();
    let rows = one.read(|tx| tx.query("SELECT a FROM m", &[])).await.unwrap();
    assert_eq!(rows.len(), 4);
}

pub async fn newer_records_are_refused(place: Place) {
    const ONE: &str = "CREATE TABLE m (a BIGINT NOT NULL)";
    const TWO: &str = "CREATE TABLE n (a BIGINT NOT NULL)";
    let records = place.open().await;
    records.migrate("m", &[ONE, TWO]).await.unwrap();
    let error = records.migrate("m", &[ONE]).await.unwrap_err();
    assert!(matches!(error, RecordsError::Newer { found: 2, known: 1, .. }), "{error}");
    // The records' own tables are checked when they are opened.
    let sql = "INSERT INTO migrations (room, step) VALUES ('records', 1000)";
    records.write(move |tx| tx.execute(sql, &[])).await.unwrap();
    drop(records);
    let error = Records::open(place.location.clone()).await.unwrap_err();
    assert!(matches!(error, RecordsError::Newer { found: 1000, .. }), "{error}");
}

pub async fn a_failing_migration_leaves_nothing(place: Place) {
    const STEPS: &[&str] = &["CREATE TABLE m (a BIGINT NOT NULL); INSERT INTO m (absent) VALUES (1)"];
    let records = place.open().await;
    records.migrate("m", STEPS).await.unwrap_err();
    records.read(|tx| tx.query("SELECT a FROM m", &[])).await.unwrap_err();
    records.migrate("m", &["CREATE TABLE m (a BIGINT NOT NULL)"]).await.unwrap();
}

pub async fn a_watch_moves_with_its_own_tables(place: Place) {
    let records = with_table(&place).await;
    let others = records.watch(|table| table != "t");
    let watch = records.watch(|table| table == "t");
    let (Some(watch), Some(others)) = (watch, others) else {
        assert!(records.is_shared(), "only where others write as well nothing can be watched");
        return;
    };
    let before = (watch.now(), others.now());
    count(&records).await;
    records.write(|tx| tx.next_id("x")).await.unwrap();
    assert_eq!(watch.now(), before.0, "reading and other tables do not count");
    assert_ne!(others.now(), before.1);
    records.write(insert(1)).await.unwrap();
    let written = watch.now();
    assert_ne!(written, before.0);
    records.write_later(insert(2)).await.unwrap();
    assert_ne!(watch.now(), written);
}

pub async fn what_may_be_durable_later_is_there_at_once(place: Place) {
    let records = with_table(&place).await;
    for key in 0..10 {
        match key % 2 {
            0 => records.write_later(insert(key)).await.unwrap(),
            _ => records.write(insert(key)).await.unwrap(),
        };
        assert_eq!(count(&records).await, key + 1);
    }
    drop(records);
    assert_eq!(count(&place.open().await).await, 10);
}
