//! Users, organisations and what is known of repositories.

use access::{AccessError, Action, OwnerKind, Principal, Resource, Role, Scope};
use model::RepoName;

use crate::{Place, sign_in, user};

fn site() -> RepoName {
    "alice/site".parse().unwrap()
}

pub async fn the_first_start_makes_one_administrator_once(place: Place) {
    let access = place.open().await;
    let secret = access.bootstrap().await.unwrap().expect("it is the first start");
    assert!(secret.expose().starts_with("twp_") && secret.expose().len() == 44);
    let Principal::User(admin) = sign_in(&access, &secret).await else { panic!("a token is a user's") };
    assert_eq!((admin.name(), admin.is_admin()), ("admin", true));
    assert!(access.bootstrap().await.unwrap().is_none());
    drop(access);
    assert!(place.open().await.bootstrap().await.unwrap().is_none());
}

pub async fn names_are_checked_and_unique_in_any_case(place: Place) {
    let access = place.open().await;
    for bad in ["", "a/b", "admin", "API", "v2", "..", "-x", "a b", "x.git"] {
        let error = access.create_user(bad, false).await.unwrap_err();
        assert!(matches!(error, AccessError::BadName(_)), "{bad}: {error}");
    }
    let alice = access.create_user("Alice", false).await.unwrap();
    assert!(matches!(access.create_user("alice", false).await, Err(AccessError::Exists(_))));
    assert!(matches!(access.create_organisation("ALICE", alice).await, Err(AccessError::Exists(_))));
    access.create_organisation("acme", alice).await.unwrap();
    assert!(matches!(access.create_user("Acme", false).await, Err(AccessError::Exists(_))));
    assert_eq!(access.owner("aLiCe").await.unwrap(), Some(OwnerKind::User));
    assert_eq!(access.owner("ACME").await.unwrap(), Some(OwnerKind::Organisation));
    assert_eq!(access.owner("nobody").await.unwrap(), None);
    assert_eq!(access.list_organisations().await.unwrap()[0].name, "acme");
}

pub async fn users_are_listed_and_deleted(place: Place) {
    let access = place.open().await;
    let (alice, principal) = user(&access, "alice", false, &[Scope::All]).await;
    let (bob, _) = user(&access, "Bob", false, &[Scope::All]).await;
    let names: Vec<String> = access.list_users().await.unwrap().into_iter().map(|user| user.name).collect();
    assert_eq!(names, ["alice", "Bob"]);
    assert_eq!(access.find_user("bob").await.unwrap().unwrap().id, bob);

    access.put_repository(&site(), false).await.unwrap();
    let error = access.delete_user(alice).await.unwrap_err();
    assert_eq!(error.to_string(), "user \"alice\" still owns 1 repositories: remove or move them first");
    access.remove_repository(&site()).await.unwrap();
    access.delete_user(alice).await.unwrap();
    assert!(access.find_user("alice").await.unwrap().is_none());
    assert!(matches!(access.delete_user(alice).await, Err(AccessError::NoUser(_))));
    // Who comes later under that name is somebody else, and the old sign-in is worth nothing.
    access.create_user("alice", false).await.unwrap();
    let denied = access.authorize(&principal, Action::Read, Resource::Owner("alice".to_owned())).await.unwrap_err();
    assert!(matches!(denied, access::Denied::Unauthenticated), "{denied}");
}

pub async fn somebody_always_administers_the_server(place: Place) {
    let access = place.open().await;
    access.bootstrap().await.unwrap();
    let admin = access.find_user("admin").await.unwrap().unwrap().id;
    assert!(matches!(access.delete_user(admin).await, Err(AccessError::LastAdministrator(_))));
    access.create_user("second", true).await.unwrap();
    access.delete_user(admin).await.unwrap();
    // Not the first start, although `admin` is gone.
    assert!(access.bootstrap().await.unwrap().is_none());
}

pub async fn somebody_always_manages_an_organisation(place: Place) {
    let access = place.open().await;
    let alice = access.create_user("alice", false).await.unwrap();
    access.create_user("bob", false).await.unwrap();
    access.create_organisation("acme", alice).await.unwrap();
    assert!(matches!(access.remove_member("acme", "alice").await, Err(AccessError::LastManager(_))));
    assert!(matches!(access.add_member("acme", "alice", Role::Write).await, Err(AccessError::LastManager(_))));
    assert!(matches!(access.delete_user(alice).await, Err(AccessError::LastManager(_))));
    access.add_member("acme", "bob", Role::Read).await.unwrap();
    access.add_member("acme", "bob", Role::Admin).await.unwrap();
    let members = access.members("acme").await.unwrap();
    assert_eq!(members, [("alice".to_owned(), Role::Admin), ("bob".to_owned(), Role::Admin)]);
    access.remove_member("acme", "alice").await.unwrap();
    access.delete_user(alice).await.unwrap();
    assert!(matches!(access.add_member("acme", "carol", Role::Read).await, Err(AccessError::NoUser(_))));
    assert!(matches!(access.add_member("bob", "bob", Role::Read).await, Err(AccessError::NoOrganisation(_))));
}

pub async fn a_new_repository_inherits_nothing_from_a_removed_one(place: Place) {
    let access = place.open().await;
    let (_, bob) = user(&access, "bob", false, &[Scope::All]).await;
    assert!(matches!(access.add_collaborator(&site(), "bob", Role::Read).await, Err(AccessError::NoRepository(_))));
    access.put_repository(&site(), true).await.unwrap();
    access.add_collaborator(&site(), "bob", Role::Write).await.unwrap();
    access.remove_repository(&site()).await.unwrap();
    access.put_repository(&site(), false).await.unwrap();
    assert_eq!(access.collaborators(&site()).await.unwrap(), []);
    assert!(access.authorize(&bob, Action::Read, Resource::Repository(site())).await.is_err());
}

pub async fn a_renamed_repository_keeps_its_rights(place: Place) {
    let access = place.open().await;
    let (_, bob) = user(&access, "bob", false, &[Scope::All]).await;
    let (other, taken): (RepoName, RepoName) = ("alice/page".parse().unwrap(), "alice/taken".parse().unwrap());
    access.put_repository(&site(), false).await.unwrap();
    access.put_repository(&taken, false).await.unwrap();
    access.add_collaborator(&site(), "bob", Role::Write).await.unwrap();
    assert!(matches!(access.rename_repository(&site(), &taken).await, Err(AccessError::Exists(_))));
    access.rename_repository(&site(), &other).await.unwrap();
    assert_eq!(access.is_public(&site()).await.unwrap(), None);
    assert_eq!(access.is_public(&other).await.unwrap(), Some(false));
    access.authorize(&bob, Action::Write, Resource::Repository(other.clone())).await.unwrap();
    assert!(access.authorize(&bob, Action::Read, Resource::Repository(site())).await.is_err());
    access.remove_collaborator(&other, "bob").await.unwrap();
    assert!(access.authorize(&bob, Action::Read, Resource::Repository(other)).await.is_err());
}
