//! Groups of organisations.

use access::{Access, AccessError, Action, Principal, Resource, Role, Scope};
use model::ImagePattern;

use crate::{Place, user};

fn pattern(text: &str) -> ImagePattern {
    text.parse().unwrap()
}

/// Whether somebody may read and may write an image.
async fn image(access: &Access, who: &Principal, name: &str) -> (bool, bool) {
    let image = Resource::Image(name.parse().unwrap());
    let read = access.authorize(who, Action::Read, image.clone()).await.is_ok();
    (read, access.authorize(who, Action::Write, image).await.is_ok())
}

async fn acme(access: &Access) -> Principal {
    let (id, _) = user(access, "alice", false, &[Scope::All]).await;
    access.create_organisation("Acme", id).await.unwrap();
    access.create_group("acme", "Builders").await.unwrap();
    user(access, "bob", false, &[Scope::All]).await.1
}

pub async fn a_group_gives_roles_on_what_its_patterns_match(place: Place) {
    let access = place.open().await;
    let bob = acme(&access).await;
    access.put_repository(&"Acme/App".parse().unwrap(), false).await.unwrap();
    access.grant_group("acme", "builders", pattern("acme/base/*"), Role::Read).await.unwrap();
    access.grant_group("acme", "builders", pattern("acme/app"), Role::Write).await.unwrap();
    assert_eq!(image(&access, &bob, "acme/app").await, (false, false), "before they are a member");
    access.add_group_member("acme", "builders", "BOB").await.unwrap();
    for (name, expected) in [
        ("acme/app", (true, true)),
        // An image belongs to its repository.
        ("acme/app/web", (true, true)),
        ("acme/base/debian", (true, false)),
        ("acme/base", (false, false)),
        ("acme/base/debian/slim", (false, false)),
        ("acme/other", (false, false)),
        ("other/app", (false, false)),
    ] {
        assert_eq!(image(&access, &bob, name).await, expected, "{name}");
    }
    let repository = |name: &str| Resource::Repository(name.parse().unwrap());
    access.authorize(&bob, Action::Write, repository("acme/APP")).await.unwrap();
    access.authorize(&bob, Action::Admin, repository("acme/app")).await.unwrap_err();
    access.authorize(&bob, Action::Read, repository("acme/other")).await.unwrap_err();
    access.authorize(&bob, Action::Read, Resource::Owner("acme".to_owned())).await.unwrap_err();
    access.grant_group("acme", "builders", pattern("acme/**"), Role::Admin).await.unwrap();
    assert_eq!(image(&access, &bob, "acme/other").await, (true, true));
    let listed = access.groups("acme").await.unwrap();
    assert_eq!((listed[0].name.as_str(), listed[0].members.as_slice()), ("Builders", ["bob".to_owned()].as_slice()));
    let patterns: Vec<_> = listed[0].grants.iter().map(|(pattern, role)| (pattern.as_str(), *role)).collect();
    assert_eq!(patterns, [("acme/**", Role::Admin), ("acme/app", Role::Write), ("acme/base/*", Role::Read)]);
}

pub async fn whoever_leaves_a_group_is_denied_at_the_next_request(place: Place) {
    let access = place.open().await;
    let bob = acme(&access).await;
    access.grant_group("acme", "builders", pattern("acme/**"), Role::Write).await.unwrap();
    let (yes, no) = ((true, true), (false, false));
    access.add_group_member("acme", "builders", "bob").await.unwrap();
    assert_eq!(image(&access, &bob, "acme/app").await, yes);
    access.remove_group_member("acme", "builders", "bob").await.unwrap();
    assert_eq!(image(&access, &bob, "acme/app").await, no);
    access.add_group_member("acme", "builders", "bob").await.unwrap();
    assert_eq!(image(&access, &bob, "acme/app").await, yes);
    access.ungrant_group("acme", "builders", "acme/**").await.unwrap();
    assert_eq!(image(&access, &bob, "acme/app").await, no);
    access.grant_group("acme", "builders", pattern("acme/**"), Role::Write).await.unwrap();
    assert_eq!(image(&access, &bob, "acme/app").await, yes);
    access.remove_group("acme", "builders").await.unwrap();
    assert_eq!(image(&access, &bob, "acme/app").await, no);
    // A later group of the same name inherits nothing.
    access.create_group("acme", "builders").await.unwrap();
    assert_eq!(image(&access, &bob, "acme/app").await, no);
    assert!(access.groups("acme").await.unwrap()[0].grants.is_empty());
}

pub async fn names_and_patterns_are_checked(place: Place) {
    let access = place.open().await;
    acme(&access).await;
    assert!(matches!(access.create_group("acme", "builders").await, Err(AccessError::Exists(_))));
    assert!(matches!(access.create_group("acme", "a b").await, Err(AccessError::BadName(_))));
    assert!(matches!(access.create_group("nobody", "x").await, Err(AccessError::NoOrganisation(_))));
    assert!(matches!(access.remove_group("acme", "x").await, Err(AccessError::NoGroup(_))));
    assert!(matches!(access.add_group_member("acme", "builders", "x").await, Err(AccessError::NoUser(_))));
    for elsewhere in ["**", "*/app", "other/app", "acm*/app", "acme2/app", "{acme/app,other/app}", "acme"] {
        let error = access.grant_group("acme", "builders", pattern(elsewhere), Role::Admin).await.unwrap_err();
        assert!(matches!(error, AccessError::PatternElsewhere { .. }), "{elsewhere}: {error}");
    }
}
