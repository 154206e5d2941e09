//! Who may do what.

use access::{Access, Action, Denied, JobPrincipal, Level, Principal, Resource, Role, Scope};
use model::{JobId, RunId, Timestamp};

use crate::{Place, sign_in, user};

const ACTIONS: [Action; 4] = [Action::Read, Action::Write, Action::Delete, Action::Admin];

fn repository(name: &str) -> Resource {
    Resource::Repository(name.parse().unwrap())
}

fn image(name: &str) -> Resource {
    Resource::Image(name.parse().unwrap())
}

fn owner(name: &str) -> Resource {
    Resource::Owner(name.to_owned())
}

/// What happens for read, write, delete and admin: `y`es, `u`nauthenticated, `f`orbidden, `s`cope missing, `h`idden.
async fn answers(access: &Access, principal: &Principal, resource: Resource) -> String {
    let mut answers = String::new();
    for action in ACTIONS {
        answers.push(match access.authorize(principal, action, resource.clone()).await {
            Ok(authorized) => {
                assert_eq!(authorized.principal(), principal);
                assert_eq!((authorized.action(), authorized.resource()), (action, &resource));
                'y'
            }
            Err(Denied::Unauthenticated) => 'u',
            Err(Denied::Forbidden { .. }) => 'f',
            Err(Denied::Scope { .. }) => 's',
            Err(Denied::Hidden { .. }) => 'h',
            Err(Denied::Unavailable(error)) => panic!("{error}"),
        });
    }
    answers
}

/// Alice owns a public and a private repository.
async fn alice(access: &Access) -> Principal {
    let (_, alice) = user(access, "alice", false, &[Scope::All]).await;
    access.put_repository(&"alice/open".parse().unwrap(), true).await.unwrap();
    access.put_repository(&"alice/site".parse().unwrap(), false).await.unwrap();
    alice
}

pub async fn everybody_reads_what_is_public_and_nothing_else(place: Place) {
    let access = place.open().await;
    alice(&access).await;
    let (_, stranger) = user(&access, "mallory", false, &[Scope::All]).await;
    let anonymous = Principal::Anonymous;
    for (resource, to_anonymous, to_stranger) in [
        (repository("alice/open"), "yuuu", "yfff"),
        (image("alice/open"), "yuuu", "yfff"),
        (image("alice/open/web"), "yuuu", "yfff"),
        (repository("alice/site"), "uuuu", "hhhh"),
        (image("alice/site"), "uuuu", "hhhh"),
        (repository("alice/absent"), "uuuu", "hhhh"),
        (image("alice/absent"), "uuuu", "hhhh"),
        (image("alice"), "uuuu", "hhhh"),
        (image("nobody/site"), "uuuu", "hhhh"),
        (owner("alice"), "uuuu", "hhhh"),
        (owner("nobody"), "uuuu", "hhhh"),
        (Resource::Server, "uuuu", "yfff"),
    ] {
        assert_eq!(answers(&access, &anonymous, resource.clone()).await, to_anonymous, "anonymous, {resource}");
        assert_eq!(answers(&access, &stranger, resource.clone()).await, to_stranger, "a stranger, {resource}");
    }
}

pub async fn owners_members_and_collaborators(place: Place) {
    let access = place.open().await;
    let alice = alice(&access).await;
    for resource in [repository("alice/site"), repository("Alice/Site"), owner("ALICE"), repository("alice/new")] {
        assert_eq!(answers(&access, &alice, resource.clone()).await, "yyyy", "{resource}");
    }
    access.create_organisation("acme", alice.user().unwrap().id()).await.unwrap();
    access.put_repository(&"acme/shop".parse().unwrap(), false).await.unwrap();
    let (_, bob) = user(&access, "bob", false, &[Scope::All]).await;
    for (role, expected) in [(Role::Read, "yfff"), (Role::Write, "yyff"), (Role::Admin, "yyyy")] {
        access.add_member("acme", "bob", role).await.unwrap();
        assert_eq!(answers(&access, &bob, repository("acme/shop")).await, expected, "member, {role}");
        assert_eq!(answers(&access, &bob, owner("acme")).await, expected, "member, {role}");
        access.add_collaborator(&"alice/site".parse().unwrap(), "bob", role).await.unwrap();
        assert_eq!(answers(&access, &bob, repository("alice/site")).await, expected, "collaborator, {role}");
    }
    // A collaborator of one is nobody in the other.
    assert_eq!(answers(&access, &bob, repository("alice/open")).await, "yfff");
    assert_eq!(answers(&access, &bob, owner("alice")).await, "hhhh");
    // The lesser right never takes from the greater.
    access.put_repository(&"acme/open".parse().unwrap(), true).await.unwrap();
    access.add_collaborator(&"acme/open".parse().unwrap(), "bob", Role::Read).await.unwrap();
    assert_eq!(answers(&access, &bob, repository("acme/open")).await, "yyyy");
}

pub async fn images_follow_their_repository_or_owner(place: Place) {
    let access = place.open().await;
    let alice = alice(&access).await;
    let (_, bob) = user(&access, "bob", false, &[Scope::All]).await;
    access.add_collaborator(&"alice/site".parse().unwrap(), "bob", Role::Write).await.unwrap();
    assert_eq!(answers(&access, &bob, image("alice/site")).await, "yyyf");
    assert_eq!(answers(&access, &bob, image("alice/site/web/cache")).await, "yyyf");
    assert_eq!(answers(&access, &bob, image("alice/site2")).await, "hhhh");
    assert_eq!(answers(&access, &bob, image("alice/base")).await, "hhhh");
    assert_eq!(answers(&access, &alice, image("alice/base")).await, "yyyy");
    assert_eq!(answers(&access, &alice, image("alice/site/web")).await, "yyyy");
    // A name in capitals is found by its image.
    access.put_repository(&"Alice/Big".parse().unwrap(), true).await.unwrap();
    assert_eq!(answers(&access, &bob, image("alice/big")).await, "yfff");
}

pub async fn administrators_do_everything_unless_their_token_cannot(place: Place) {
    let access = place.open().await;
    alice(&access).await;
    let (_, root) = user(&access, "root", true, &[Scope::All]).await;
    let (_, reader) = user(&access, "reader", true, &[Scope::ReadRepository]).await;
    let (_, manager) = user(&access, "manager", true, &[Scope::Admin]).await;
    for resource in [Resource::Server, owner("alice"), repository("alice/site"), image("alice/site")] {
        assert_eq!(answers(&access, &root, resource).await, "yyyy");
    }
    assert_eq!(answers(&access, &reader, Resource::Server).await, "ysss");
    assert_eq!(answers(&access, &reader, repository("alice/site")).await, "ysss");
    assert_eq!(answers(&access, &manager, Resource::Server).await, "yyyy");
    assert_eq!(answers(&access, &manager, repository("alice/site")).await, "ssyy");
}

pub async fn scopes_narrow_but_never_below_public(place: Place) {
    let access = place.open().await;
    let alice = alice(&access).await;
    let id = alice.user().unwrap().id();
    for (scope, on_repository, on_image, on_public) in [
        (Scope::ReadRepository, "ysss", "ssss", "ysss"),
        (Scope::WriteRepository, "yyss", "ssss", "yyss"),
        (Scope::ReadPackage, "ssss", "ysss", "ysss"),
        (Scope::WritePackage, "ssss", "yyys", "ysss"),
        (Scope::Admin, "ssyy", "sssy", "ysyy"),
        (Scope::All, "yyyy", "yyyy", "yyyy"),
    ] {
        let (_, secret) = access.create_token(id, scope.name(), &[scope], None).await.unwrap();
        let principal = sign_in(&access, &secret).await;
        assert_eq!(answers(&access, &principal, repository("alice/site")).await, on_repository, "{scope}");
        assert_eq!(answers(&access, &principal, image("alice/site")).await, on_image, "{scope}");
        assert_eq!(answers(&access, &principal, repository("alice/open")).await, on_public, "{scope}");
    }
}

pub async fn jobs_reach_their_own_repository_alone(place: Place) {
    let access = place.open().await;
    alice(&access).await;
    let forever = Timestamp(i64::MAX);
    let job = |job: i64, contents, packages| JobPrincipal {
        repository: "alice/site".parse().unwrap(),
        run: RunId(1),
        job: JobId(job),
        contents,
        packages,
    };
    let usual = job(1, Level::Read, Level::Write);
    let usual = sign_in(&access, &access.create_job_token(usual, forever).await.unwrap()).await;
    for (resource, expected) in [
        (repository("alice/site"), "yfff"),
        // It may push, never remove.
        (image("alice/site"), "yyff"),
        (image("alice/site/web"), "yyff"),
        (image("alice/open"), "yfff"),
        (repository("alice/open"), "yfff"),
        (image("alice/base"), "hhhh"),
        (owner("alice"), "hhhh"),
        (Resource::Server, "hhhh"),
    ] {
        assert_eq!(answers(&access, &usual, resource.clone()).await, expected, "{resource}");
    }
    let nothing = job(2, Level::None, Level::None);
    let nothing = sign_in(&access, &access.create_job_token(nothing, forever).await.unwrap()).await;
    assert_eq!(answers(&access, &nothing, repository("alice/site")).await, "hhhh");
    let pushing = job(3, Level::Write, Level::None);
    let pushing = sign_in(&access, &access.create_job_token(pushing, forever).await.unwrap()).await;
    assert_eq!(answers(&access, &pushing, repository("alice/site")).await, "yyff");
    assert_eq!(answers(&access, &pushing, image("alice/site")).await, "hhhh");
    // A job that claims to be of another run than its token.
    let forged = Principal::Job(JobPrincipal { run: RunId(2), ..job(1, Level::Write, Level::Write) });
    assert_eq!(answers(&access, &forged, repository("alice/site")).await, "uuuu");
}

pub async fn rights_are_looked_up_each_time(place: Place) {
    let access = place.open().await;
    let alice = alice(&access).await;
    let (bob_id, bob) = user(&access, "bob", true, &[Scope::All]).await;
    access.create_organisation("acme", alice.user().unwrap().id()).await.unwrap();
    let (_, carol) = user(&access, "carol", false, &[Scope::All]).await;
    access.add_member("acme", "carol", Role::Write).await.unwrap();
    assert_eq!(answers(&access, &carol, owner("acme")).await, "yyff");
    access.remove_member("acme", "carol").await.unwrap();
    assert_eq!(answers(&access, &carol, owner("acme")).await, "hhhh");

    assert_eq!(answers(&access, &bob, repository("alice/site")).await, "yyyy");
    access.revoke_token(bob_id, bob.user().unwrap().token()).await.unwrap();
    assert_eq!(answers(&access, &bob, repository("alice/site")).await, "uuuu");

    access.put_repository(&"alice/open".parse().unwrap(), false).await.unwrap();
    assert_eq!(answers(&access, &Principal::Anonymous, repository("alice/open")).await, "uuuu");
}

pub async fn denials_say_no_more_than_they_may(place: Place) {
    let access = place.open().await;
    alice(&access).await;
    let (_, stranger) = user(&access, "mallory", false, &[Scope::ReadPackage]).await;
    let denied = |resource| access.authorize(&stranger, Action::Read, resource);
    // What exists and what does not cannot be told apart.
    let exists = denied(repository("alice/site")).await.unwrap_err().to_string();
    let absent = denied(repository("alice/abcd")).await.unwrap_err().to_string();
    assert_eq!(exists, "there is no repository alice/site");
    assert_eq!(exists.replace("site", "abcd"), absent);
    let forbidden = access.authorize(&stranger, Action::Write, repository("alice/open")).await.unwrap_err();
    assert_eq!(forbidden.to_string(), "mallory may not write repository alice/open");
    let (_, reader) = user(&access, "reader", true, &[Scope::ReadPackage]).await;
    let scope = access.authorize(&reader, Action::Write, repository("alice/site")).await.unwrap_err();
    let expected = "the token of reader does not have the scope write:repository, \
                    which is needed to write repository alice/site";
    assert_eq!(scope.to_string(), expected);
}

pub async fn no_lookup_outlives_a_change(place: Place) {
    let access = place.open().await;
    let alice = alice(&access).await;
    access.create_organisation("acme", alice.user().unwrap().id()).await.unwrap();
    let (_, bob) = user(&access, "bob", false, &[Scope::All]).await;
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asking = {
        let (access, bob, ended) = (access.clone(), bob.clone(), ended.clone());
        tokio::spawn(async move {
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = access.authorize(&bob, Action::Read, owner("acme")).await;
                // What is remembered is answered without waiting, and this runtime has one thread.
                tokio::task::yield_now().await;
            }
        })
    };
    for _ in 0..30 {
        access.add_member("acme", "bob", Role::Read).await.unwrap();
        access.authorize(&bob, Action::Read, owner("acme")).await.unwrap();
        access.remove_member("acme", "bob").await.unwrap();
        let denied = access.authorize(&bob, Action::Read, owner("acme")).await;
        assert!(matches!(denied, Err(Denied::Hidden { .. })));
    }
    ended.store(true, std::sync::atomic::Ordering::Relaxed);
    asking.await.unwrap();
}

pub async fn replicas_see_each_others_changes(place: Place) {
    if !place.is_shared() {
        return;
    }
    let (one, two) = (place.open().await, place.open().await);
    alice(&one).await;
    let (bob_id, bob) = user(&one, "bob", false, &[Scope::All]).await;
    one.add_collaborator(&"alice/site".parse().unwrap(), "bob", Role::Write).await.unwrap();
    for _ in 0..3 {
        assert_eq!(answers(&two, &bob, repository("alice/site")).await, "yyff");
    }
    one.add_collaborator(&"alice/site".parse().unwrap(), "bob", Role::Read).await.unwrap();
    assert_eq!(answers(&two, &bob, repository("alice/site")).await, "yfff");
    one.revoke_token(bob_id, bob.user().unwrap().token()).await.unwrap();
    assert_eq!(answers(&two, &bob, repository("alice/site")).await, "uuuu");
}
