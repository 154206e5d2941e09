//! Passwords from htpasswd files.

use std::time::Instant;

use access::{Access, AccessError, Action, Credentials, Denied, Imported, Principal, Resource};

use crate::Place;

/// A line as `htpasswd -B` writes it, with the least cost.
fn line(name: &str, password: &str) -> String {
    format!("{name}:{}\n", bcrypt::hash(password, 4).unwrap().replacen("$2b$", "$2y$", 1))
}

fn basic(user: &str, password: &str) -> Credentials {
    Credentials::Basic { user: user.to_owned(), password: password.into() }
}

async fn refused(access: &Access, user: &str, password: &str) {
    let error = access.authenticate(&basic(user, password)).await.unwrap_err();
    assert!(matches!(error, AccessError::BadCredentials), "{user}: {error}");
}

pub async fn imported_users_sign_in_with_their_old_passwords(place: Place) {
    let access = place.open().await;
    access.create_user("Bob", true).await.unwrap();
    let text = format!("# users\n\n{}{}", line("alice", "pa:ss wörd"), line("bob", "hunter2"));
    assert_eq!(access.import_htpasswd(&text).await.unwrap(), Imported { created: 1, updated: 1 });
    // The first time it is checked, the second time remembered.
    for _ in 0..2 {
        let alice = access.authenticate(&basic("Alice", "pa:ss wörd")).await.unwrap();
        let image = Resource::Image("alice/site".parse().unwrap());
        for action in [Action::Read, Action::Write, Action::Delete] {
            access.authorize(&alice, action, image.clone()).await.unwrap();
        }
        // For images and nothing else.
        let repository = Resource::Repository("alice/site".parse().unwrap());
        let denied = access.authorize(&alice, Action::Read, repository).await.unwrap_err();
        assert!(matches!(denied, Denied::Scope { .. }), "{denied}");
    }
    let bob = access.authenticate(&basic("bob", "hunter2")).await.unwrap();
    let denied = access.authorize(&bob, Action::Admin, Resource::Server).await.unwrap_err();
    assert!(matches!(denied, Denied::Scope { .. }), "{denied}");
    for (user, password) in [
        ("alice", "hunter2"),
        ("alice", ""),
        ("alice", "pa:ss wörd "),
        ("", "hunter2"),
        ("carol", "hunter2"),
        ("x-access-token", "hunter2"),
        ("bob", &"x".repeat(2000)),
    ] {
        refused(&access, user, password).await;
    }
    let bearer = access.authenticate(&Credentials::Bearer("hunter2".into())).await;
    assert!(matches!(bearer, Err(AccessError::BadCredentials)));
}

pub async fn a_changed_or_revoked_password_is_refused_at_once(place: Place) {
    let access = place.open().await;
    access.import_htpasswd(&line("alice", "old")).await.unwrap();
    let old = access.authenticate(&basic("alice", "old")).await.unwrap();
    assert_eq!(access.import_htpasswd(&line("alice", "new")).await.unwrap(), Imported { created: 0, updated: 1 });
    refused(&access, "alice", "old").await;
    let denied = access.authorize(&old, Action::Read, Resource::Server).await.unwrap_err();
    assert!(matches!(denied, Denied::Unauthenticated), "who signed in with the old one is signed out");
    let Principal::User(new) = access.authenticate(&basic("alice", "new")).await.unwrap() else { panic!("no user") };
    let listed = access.list_tokens(new.id()).await.unwrap();
    assert_eq!((listed.len(), listed[0].name.as_str()), (1, "password from htpasswd"));
    access.revoke_token(new.id(), listed[0].id).await.unwrap();
    refused(&access, "alice", "new").await;
}

pub async fn an_unknown_user_is_as_much_work_as_a_wrong_password(place: Place) {
    let access = place.open().await;
    // Nobody has a password: nothing is worth the work.
    refused(&access, "nobody", "x").await;
    let hash = bcrypt::hash("right", 10).unwrap();
    access.import_htpasswd(&format!("alice:{hash}")).await.unwrap();
    let time = async |user: &str| {
        let begun = Instant::now();
        refused(&access, user, "wrong").await;
        begun.elapsed()
    };
    // Of several attempts the fastest; a lookup alone would be a hundred times faster.
    let (mut known, mut unknown) = (time("alice").await, time("nobody").await);
    for _ in 0..3 {
        known = known.min(time("alice").await);
        unknown = unknown.min(time("nobody").await);
    }
    assert!(unknown * 5 > known, "an unknown user {unknown:?}, a wrong password {known:?}");
}

pub async fn a_file_is_taken_over_whole_or_not_at_all(place: Place) {
    let access = place.open().await;
    let alice = access.create_user("alice", true).await.unwrap();
    access.create_organisation("acme", alice).await.unwrap();
    let good = line("bob", "x");
    let dear = good.replacen("$04$", "$15$", 1).replacen("bob", "carol", 1);
    for (bad, at) in [
        ("nothing\n".to_owned(), 2),
        ("carol:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=\n".to_owned(), 2),
        ("carol:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/\n".to_owned(), 2),
        ("carol:$2y$05$short\n".to_owned(), 2),
        ("car ol:$2y$05$short\n".to_owned(), 2),
        (dear, 2),
        (line("BOB", "y"), 2),
    ] {
        let error = access.import_htpasswd(&format!("{good}{bad}")).await.unwrap_err();
        assert!(matches!(error, AccessError::Htpasswd { line, .. } if line == at), "{bad}: {error}");
        assert!(!error.to_string().contains("$2y$"), "{error}");
    }
    let error = access.import_htpasswd(&format!("{good}{}", line("Acme", "y"))).await.unwrap_err();
    assert!(matches!(error, AccessError::Exists(_)), "{error}");
    assert!(access.find_user("bob").await.unwrap().is_none());
}
