//! Nobody reaches what is another's through their own, or learns that it is there.

use serde_json::json;

use crate::routes::target;
use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_of_others_are_as_if_they_were_not_there() {
    let world = World::start().await;
    world.apply(&target("site", "main")).await;
    let (run, delivery) = world.push().await;
    let eve = Some(world.eve.as_str());
    // The same words for what is another's and for what is not there at all.
    let pairs = [
        (format!("/runs/{run}"), "/runs/99887766".to_owned()),
        (format!("/runs/{run}/logs"), "/runs/99887766/logs".to_owned()),
        (format!("/runs/{run}/wait"), "/runs/99887766/wait".to_owned()),
        (format!("/deliveries/{delivery}"), "/deliveries/99887766".to_owned()),
        ("/targets/site".to_owned(), "/targets/nosite".to_owned()),
        ("/targets/site/status".to_owned(), "/targets/nosite/status".to_owned()),
        ("/repositories/works/engine".to_owned(), "/repositories/works/nothing".to_owned()),
        ("/repositories/works/engine/secrets".to_owned(), "/repositories/works/nothing/secrets".to_owned()),
        ("/runs?repository=works/engine".to_owned(), "/runs?repository=works/nothing".to_owned()),
    ];
    for (theirs, nobodys) in pairs {
        for token in [eve, None] {
            let (found, missing) =
                (world.api("GET", &theirs, token, None).await, world.api("GET", &nobodys, token, None).await);
            found.is_problem(if token.is_some() { 404 } else { 401 });
            assert_eq!(found.status, missing.status, "{theirs}");
            let bare = |text: &str| {
                let text = text.replace("works/engine", "X").replace("works/nothing", "X").replace("nosite", "site");
                text.replace("99887766", "N").replace(&format!("{run},"), "N,").replace(&format!("{delivery},"), "N,")
            };
            assert_eq!(bare(&found.text), bare(&missing.text), "{theirs}");
            assert!(!found.text.contains("works/engine") || theirs.contains("works/engine"), "{found:?}");
        }
    }
    for path in [format!("/runs/{run}/cancel"), format!("/runs/{run}/retry"), "/targets/site/rollback".to_owned()] {
        world.api("POST", &path, eve, None).await.is_problem(404);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_one_repository_is_reached_through_another() {
    let world = World::start().await;
    let (run, _) = world.push().await;
    let eve = Some(world.eve.as_str());
    let value = json!({ "value": "theirs" }).to_string();
    let secret = "/repositories/works/engine/secrets/KEY";
    assert_eq!(world.api("PUT", secret, Some(&world.max), Some(&value)).await.status, 200);

    world.api("DELETE", "/repositories/eve/own/secrets/KEY", eve, None).await.is_problem(404);
    let listed = world.api("GET", "/repositories/eve/own/secrets", eve, None).await;
    assert_eq!(listed.json(), json!({ "secrets": [] }));
    let theirs = world.get("/repositories/works/engine/secrets").await;
    assert_eq!(theirs["secrets"][0]["name"], "KEY");

    let rae = world.access().find_user("rae").await.unwrap().unwrap();
    let token = world.access().list_tokens(rae.id).await.unwrap()[0].id;
    world.api("DELETE", &format!("/users/eve/tokens/{token}"), eve, None).await.is_problem(404);
    assert_eq!(world.api("GET", "/users/rae/tokens", Some(&world.rae), None).await.status, 200);

    let listed = world.api("GET", "/runs?repository=eve/own", eve, None).await;
    assert_eq!(listed.json(), json!({ "runs": [] }));
    let listed = world.api("GET", "/repositories", eve, None).await.json();
    assert_eq!(listed["repositories"].as_array().unwrap().len(), 1, "{listed}");

    // A target of another repository does not bring their run back.
    let own = target("own", "main").replace("works/engine", "eve/own");
    world.apply(&own).await;
    world.api("POST", "/targets/own/rollback", eve, Some(&json!({ "to": run }).to_string())).await.is_problem(404);
    let to = json!({ "name": "works/taken" }).to_string();
    world.api("PATCH", "/repositories/eve/own", eve, Some(&to)).await.is_problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_change_changes_nothing() {
    let world = World::start().await;
    let change = json!({ "defaultBranch": "trunk", "visibility": "public", "name": "works/stolen" }).to_string();
    world.api("PATCH", "/repositories/eve/own", Some(&world.eve), Some(&change)).await.is_problem(404);
    let own = world.get("/repositories/eve/own").await;
    assert_eq!((&own["defaultBranch"], &own["visibility"]), (&json!("main"), &json!("private")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_holds_a_secret() {
    const VALUE: &str = "hunter2-4c1f9b";
    let world = World::start().await;
    world.apply(&target("site", "main")).await;
    let secret = "/repositories/works/engine/secrets/KEY";
    let body = json!({ "value": VALUE }).to_string();
    let set = world.api("PUT", secret, Some(&world.max), Some(&body)).await;
    assert_eq!(set.status, 200);
    let (run, delivery) = world.push().await;
    let mut answers = vec![set];
    // What is refused is not sent back either.
    let broken = [
        format!("{VALUE:?}"),
        format!("[{VALUE:?}]"),
        format!("{{\"value\":[{VALUE:?}]}}"),
        format!("{{\"valu\":{VALUE:?}}}"),
        format!("{{\"value\":\"\",\"{VALUE}\":1}}"),
        format!("{{\"value\":{VALUE}"),
    ];
    for body in broken {
        let answer = world.api("PUT", secret, Some(&world.max), Some(&body)).await;
        answer.is_problem(400);
        answers.push(answer);
    }
    let paths = [
        "/users".to_owned(),
        "/users/max/tokens".to_owned(),
        "/users/admin/tokens".to_owned(),
        "/organisations".to_owned(),
        "/organisations/works/members".to_owned(),
        "/organisations/works/groups".to_owned(),
        "/robots".to_owned(),
        "/registry/keys".to_owned(),
        "/repositories".to_owned(),
        "/repositories/works/engine".to_owned(),
        "/repositories/works/engine/secrets".to_owned(),
        "/export".to_owned(),
        "/targets".to_owned(),
        "/targets/site".to_owned(),
        "/targets/site/status".to_owned(),
        "/runs".to_owned(),
        format!("/runs/{run}"),
        format!("/runs/{run}/wait"),
        format!("/runs/{run}/logs"),
        format!("/deliveries/{delivery}"),
        "/events".to_owned(),
        "/outbox".to_owned(),
    ];
    for path in paths {
        let answer = world.api("GET", &path, Some(&world.admin), None).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answers.push(answer);
    }
    for answer in answers {
        for secret in [VALUE, "twp_", "twj_", "twr_"] {
            assert!(!answer.text.contains(secret), "{secret}: {answer:?}");
        }
    }
}
