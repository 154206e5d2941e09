//! Robots.

use access::{
    Access, AccessError, Action, Credentials, Denied, NewRobot, Principal, Resource, RobotAction, Scope, Secret,
};
use model::Timestamp;

use crate::{Place, sign_in, user};

fn in_a_minute() -> Timestamp {
    Timestamp(Timestamp::from(std::time::SystemTime::now()).0 + 60_000)
}

fn robot(owner: Option<&str>, name: &str, images: &[&str], actions: &[RobotAction]) -> NewRobot {
    NewRobot {
        owner: owner.map(str::to_owned),
        name: name.to_owned(),
        images: images.iter().map(|text| text.parse().unwrap()).collect(),
        actions: actions.to_vec(),
        expires: in_a_minute(),
    }
}

async fn made(access: &Access, new: NewRobot) -> (i64, Principal, Secret) {
    let (record, secret) = access.create_robot(new).await.unwrap();
    let principal = sign_in(access, &secret).await;
    (record.id, principal, secret)
}

/// What of reading, writing and deleting an image is allowed; `h` where it is as if it was not there.
async fn image(access: &Access, who: &Principal, name: &str) -> String {
    let mut answers = String::new();
    for (action, letter) in [(Action::Read, 'r'), (Action::Write, 'w'), (Action::Delete, 'd'), (Action::Admin, 'a')] {
        match access.authorize(who, action, Resource::Image(name.parse().unwrap())).await {
            Ok(_) => answers.push(letter),
            Err(Denied::Hidden { .. }) => answers.push('h'),
            Err(Denied::Forbidden { .. }) => answers.push('-'),
            Err(other) => panic!("{name}: {other}"),
        }
    }
    answers
}

pub async fn a_robot_reaches_what_its_patterns_match(place: Place) {
    use RobotAction::{Delete, Pull, Push};
    let access = place.open().await;
    let (id, _) = user(&access, "alice", false, &[Scope::All]).await;
    access.create_organisation("Acme", id).await.unwrap();
    access.put_repository(&"acme/open".parse().unwrap(), true).await.unwrap();
    access.put_repository(&"other/open".parse().unwrap(), true).await.unwrap();
    let (_, pulls, _) = made(&access, robot(Some("acme"), "pulls", &["acme/*"], &[Pull])).await;
    let (_, pushes, _) =
        made(&access, robot(Some("Acme"), "pushes", &["acme/app", "acme/app/**", "acme/base"], &[Push])).await;
    let (_, cleans, _) = made(&access, robot(Some("acme"), "cleans", &["acme/**"], &[Delete])).await;
    let (_, server, _) = made(&access, robot(None, "mirror", &["*/base", "acme/app"], &[Pull, Push, Delete])).await;
    for (who, name, expected) in [
        (&pulls, "acme/app", "r---"),
        (&pulls, "acme/app/web", "hhhh"),
        (&pulls, "other/app", "hhhh"),
        (&pulls, "other/open", "r---"),
        (&pushes, "acme/app", "rw--"),
        (&pushes, "acme/app/web/cache", "rw--"),
        (&pushes, "acme/base", "rw--"),
        (&pushes, "acme/open", "r---"),
        (&pushes, "acme/other", "hhhh"),
        (&cleans, "acme/app", "--d-"),
        (&cleans, "acme/open", "r-d-"),
        (&server, "acme/app", "rwd-"),
        (&server, "other/base", "rwd-"),
        (&server, "other/app", "hhhh"),
    ] {
        assert_eq!(image(&access, who, name).await, expected, "{who} {name}");
    }
    // Images and nothing else.
    access.put_repository(&"acme/app".parse().unwrap(), false).await.unwrap();
    for resource in
        [Resource::Server, Resource::Owner("acme".to_owned()), Resource::Repository("acme/app".parse().unwrap())]
    {
        let denied = access.authorize(&pushes, Action::Read, resource).await.unwrap_err();
        assert!(matches!(denied, Denied::Hidden { .. }), "{denied}");
    }
}

pub async fn a_robot_signs_in_by_name_and_as_bearer(place: Place) {
    let access = place.open().await;
    user(&access, "Alice", false, &[Scope::All]).await;
    let (record, secret) =
        access.create_robot(robot(Some("alice"), "ci", &["alice/*"], &[RobotAction::Push])).await.unwrap();
    assert_eq!((record.login.as_str(), record.used), ("alice+ci", None));
    assert!(secret.expose().starts_with("twr_") && secret.expose().len() == 44);
    let basic = |user: &str| Credentials::Basic { user: user.to_owned(), password: secret.clone() };
    for credentials in [Credentials::Bearer(secret.clone()), basic("alice+ci"), basic("ALICE+ci"), basic("")] {
        let principal = access.authenticate(&credentials).await.unwrap();
        assert_eq!(principal.to_string(), "alice+ci");
        assert!(principal.user().is_none());
    }
    for other in ["alice", "alice+other", "robot+ci", "ci"] {
        assert!(access.authenticate(&basic(other)).await.is_err(), "{other}");
    }
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while access.robot(record.id).await.unwrap().used.is_none() {
        assert!(std::time::Instant::now() < until, "the use of a robot is not recorded");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

pub async fn a_robot_ends_at_the_next_request(place: Place) {
    let access = place.open().await;
    user(&access, "alice", false, &[Scope::All]).await;
    let (id, ci, secret) = made(&access, robot(Some("alice"), "ci", &["alice/*"], &[RobotAction::Push])).await;
    assert_eq!(image(&access, &ci, "alice/site").await, "rw--");
    let bearer = access.issue_bearer(&ci, &[], "registry", std::time::Duration::from_secs(60));
    assert_eq!(access.verify_bearer(&bearer, "registry").unwrap().principal, ci);
    access.remove_robot(id).await.unwrap();
    let site = Resource::Image("alice/site".parse().unwrap());
    let denied = access.authorize(&ci, Action::Read, site.clone()).await.unwrap_err();
    assert!(matches!(denied, Denied::Unauthenticated));
    assert!(access.authenticate(&Credentials::Bearer(secret)).await.is_err());
    assert!(matches!(access.remove_robot(id).await, Err(AccessError::NoRobot(_))));

    // One whose time ends while what it may do is remembered.
    let soon = Timestamp(in_a_minute().0 - 50_000);
    let new = NewRobot { expires: soon, ..robot(None, "brief", &["alice/*"], &[RobotAction::Pull]) };
    let (_, brief, secret) = made(&access, new).await;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while access.authorize(&brief, Action::Read, site.clone()).await.is_ok() {
        assert!(std::time::Instant::now() < until, "a robot outlives its token");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(access.authenticate(&Credentials::Bearer(secret)).await.is_err());
}

pub async fn what_no_robot_can_be(place: Place) {
    let access = place.open().await;
    user(&access, "alice", false, &[Scope::All]).await;
    let pull = [RobotAction::Pull];
    for bad in ["", "Ci", "a b", "a+b", ".a", &"a".repeat(61)] {
        let error = access.create_robot(robot(None, bad, &["**"], &pull)).await.unwrap_err();
        assert!(matches!(error, AccessError::BadRobotName(_)), "{bad:?}: {error}");
    }
    for elsewhere in ["**", "bob/*", "*/x", "alice2/x", "{alice,bob}/x", "alice"] {
        let error = access.create_robot(robot(Some("alice"), "x", &["alice/*", elsewhere], &pull)).await.unwrap_err();
        assert!(matches!(error, AccessError::PatternElsewhere { .. }), "{elsewhere}: {error}");
    }
    let error = access.create_robot(robot(None, "x", &["**"], &[])).await.unwrap_err();
    assert!(matches!(error, AccessError::BadRobotActions(_)), "{error}");
    let error = access.create_robot(robot(None, "x", &[], &pull)).await.unwrap_err();
    assert!(matches!(error, AccessError::PatternCount(0)), "{error}");
    let error = access.create_robot(robot(Some("bob"), "x", &["bob/*"], &pull)).await.unwrap_err();
    assert!(matches!(error, AccessError::NoUser(_)), "{error}");
    access.create_robot(robot(Some("alice"), "x", &["alice/*"], &pull)).await.unwrap();
    let error = access.create_robot(robot(Some("Alice"), "x", &["alice/*"], &pull)).await.unwrap_err();
    assert!(matches!(error, AccessError::Exists(_)), "{error}");
}

pub async fn a_robot_goes_with_its_owner(place: Place) {
    let access = place.open().await;
    let (id, _) = user(&access, "alice", false, &[Scope::All]).await;
    user(&access, "root", true, &[Scope::All]).await;
    let (_, _, secret) = made(&access, robot(Some("alice"), "ci", &["alice/*"], &[RobotAction::Pull])).await;
    access.create_robot(robot(None, "all", &["**"], &[RobotAction::Pull])).await.unwrap();
    let logins = |robots: Vec<access::RobotRecord>| robots.into_iter().map(|it| it.login).collect::<Vec<_>>();
    assert_eq!(logins(access.list_robots(None).await.unwrap()), ["alice+ci", "robot+all"]);
    assert_eq!(logins(access.list_robots(Some("ALICE")).await.unwrap()), ["alice+ci"]);
    access.delete_user(id).await.unwrap();
    assert!(access.authenticate(&Credentials::Bearer(secret)).await.is_err());
    assert_eq!(logins(access.list_robots(None).await.unwrap()), ["robot+all"]);
}
