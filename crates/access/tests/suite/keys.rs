//! The keys that registry tokens are signed with.

use std::time::Duration;

use access::{Access, BearerError, Principal};

use crate::Place;

fn token(access: &Access) -> String {
    access.issue_bearer(&Principal::Anonymous, &[], "registry", Duration::from_secs(300))
}

async fn read(access: &Access, token: &str) -> Result<(), BearerError> {
    access.read_bearer(token, "registry").await.unwrap().map(drop)
}

pub async fn old_keys_verify_until_their_tokens_ran_out(place: Place) {
    let access = place.open().await;
    let first = token(&access);
    let id = access.rotate_keys(false).await.unwrap();
    let second = token(&access);
    assert!(second.starts_with(&format!("twb_{id}.")) && !first.starts_with(&format!("twb_{id}.")));
    access.rotate_keys(false).await.unwrap();
    for token in [&first, &second, &token(&access)] {
        read(&access, token).await.unwrap();
    }
    let keys = access.list_keys().await.unwrap();
    assert_eq!(keys.iter().map(|key| key.retired.is_some()).collect::<Vec<_>>(), [false, true, true]);
    assert!(keys[1..].iter().any(|key| key.id == id));
    // A mac under one key is none under another.
    let (_, mac) = first.rsplit_once('.').unwrap();
    let (signed, _) = second.rsplit_once('.').unwrap();
    assert_eq!(read(&access, &format!("{signed}.{mac}")).await, Err(BearerError::Invalid));
    // After a quarter of an hour nothing of an old key counts: the next rotation forgets it.
    let records = place.records().await;
    let aged = records.write(|tx| tx.execute("UPDATE signing_keys SET retired = retired - 900001", &[])).await;
    assert_eq!(aged.unwrap(), 3);
    let restarted = place.open().await;
    assert_eq!(read(&restarted, &first).await, Err(BearerError::UnknownKey));
    restarted.rotate_keys(false).await.unwrap();
    assert_eq!(restarted.list_keys().await.unwrap().len(), 2);
}

pub async fn a_key_that_became_known_is_refused_at_once(place: Place) {
    let access = place.open().await;
    let old = token(&access);
    access.rotate_keys(true).await.unwrap();
    assert_eq!(read(&access, &old).await, Err(BearerError::UnknownKey));
    read(&access, &token(&access)).await.unwrap();
    assert_eq!(access.list_keys().await.unwrap().len(), 1);
}

pub async fn replicas_pick_up_new_keys(place: Place) {
    let (one, two) = (place.open().await, place.open().await);
    one.rotate_keys(false).await.unwrap();
    let new = token(&one);
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while read(&two, &new).await.is_err() {
        assert!(std::time::Instant::now() < until, "a replica does not pick up a key");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // It may have signed with the old key meanwhile.
    read(&one, &token(&two)).await.unwrap();
}

pub async fn an_unknown_id_does_not_make_them_read_for_ever(place: Place) {
    let access = place.open().await;
    let good = token(&access);
    for number in 0..2000 {
        let forged = format!("twb_none{number}.e30.AAAA");
        assert_eq!(read(&access, &forged).await, Err(BearerError::UnknownKey));
    }
    read(&access, &good).await.unwrap();
}
