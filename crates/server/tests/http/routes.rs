//! Every route of the API, and what it answers to whom.

use std::collections::BTreeSet;

use access::Scope;
use serde_json::json;

use crate::world::{Answer, GARBAGE, World};

/// Made anew before every request of a row, so that one request does not change what the next finds. Its name is
/// unique, and takes the place of `{fresh}` in path and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fresh {
    /// The name alone.
    Name,
    User,
    /// Of the user `rae`; its id is what stands for it.
    Token,
    Member,
    /// Of the organisation `works`.
    Group,
    /// Of the organisation `works`; its id is what stands for it.
    Robot,
    Repository,
    Secret,
    Target,
    Freeze,
}

/// What is answered to nobody, somebody else, members who may read and write and administer, and the server's
/// administrator.
type Expected = [u16; 6];

struct Row {
    /// As in `api.rs`.
    route: (&'static str, &'static str),
    /// `{run}` and `{delivery}` are those of a push.
    path: &'static str,
    body: &'static str,
    fresh: Fresh,
    expected: Expected,
}

const PUBLIC: Expected = [200; 6];
const SOMEBODY: Expected = [401, 200, 200, 200, 200, 200];
const READERS: Expected = [401, 404, 200, 200, 200, 200];
const SERVER: Expected = [401, 403, 403, 403, 403, 200];
const SERVER_MAKES: Expected = [401, 403, 403, 403, 403, 201];
const SERVER_REMOVES: Expected = [401, 403, 403, 403, 403, 204];
const WRITERS_MAKE: Expected = [401, 404, 403, 201, 201, 201];
/// Allowed, and refused for what it is about.
const WRITERS_IN_VAIN: Expected = [401, 404, 403, 409, 409, 409];
const MANAGERS: Expected = [401, 404, 403, 403, 200, 200];
const MANAGERS_DO: Expected = [401, 404, 403, 403, 204, 204];

const fn row(route: (&'static str, &'static str), path: &'static str, expected: Expected) -> Row {
    Row { route, path, body: "", fresh: Fresh::Name, expected }
}

impl Row {
    const fn body(self, body: &'static str) -> Self {
        Self { body, ..self }
    }

    const fn on(self, fresh: Fresh) -> Self {
        Self { fresh, ..self }
    }
}

const REPOSITORY: &str = "/repositories/{owner}/{name}";
const SECRET: &str = "/repositories/{owner}/{name}/secrets/{secret}";
const MEMBER: &str = "/organisations/{org}/members/{user}";

fn people() -> Vec<Row> {
    let tokens = "/users/{user}/tokens";
    vec![
        row(("GET", "/version"), "/version", PUBLIC),
        row(("GET", "/registry/upstreams"), "/registry/upstreams", SERVER),
        row(("GET", "/user"), "/user", SOMEBODY),
        row(("GET", "/login"), "/login", PUBLIC),
        row(("GET", "/users"), "/users", SOMEBODY),
        row(("POST", "/users"), "/users", SERVER_MAKES).body(r#"{"name":"{fresh}"}"#),
        row(("POST", "/users/import"), "/users/import", SERVER)
            .body("{fresh}:$2y$05$abcdefghijklmnopqrstuu5s1pjzF7Jz2j3M5Sm8qJc5ZL5q3pUOq\n"),
        row(("DELETE", "/users/{user}"), "/users/{fresh}", SERVER_REMOVES).on(Fresh::User),
        row(
            ("PUT", "/users/{user}/identities/{provider}"),
            "/users/rae/identities/none",
            [401, 403, 403, 403, 403, 404],
        )
        .body(r#"{"subject":"7"}"#),
        row(("GET", "/login/oidc/{provider}"), "/login/oidc/none", [404; 6]),
        row(("GET", "/login/oidc/{provider}/callback"), "/login/oidc/none/callback", [404; 6]),
        row(("GET", tokens), "/users/rae/tokens", [401, 403, 200, 403, 403, 200]),
        row(("POST", tokens), "/users/rae/tokens", [401, 403, 201, 403, 403, 201]).body(r#"{"name":"{fresh}"}"#),
        row(("DELETE", "/users/{user}/tokens/{id}"), "/users/rae/tokens/{fresh}", [401, 403, 204, 403, 403, 204])
            .on(Fresh::Token),
        row(("GET", "/organisations"), "/organisations", SOMEBODY),
        row(("POST", "/organisations"), "/organisations", SERVER_MAKES).body(r#"{"name":"{fresh}"}"#),
        row(("GET", "/organisations/{org}/members"), "/organisations/works/members", READERS),
        row(("PUT", MEMBER), "/organisations/works/members/{fresh}", MANAGERS_DO)
            .body(r#"{"role":"read"}"#)
            .on(Fresh::User),
        row(("DELETE", MEMBER), "/organisations/works/members/{fresh}", MANAGERS_DO).on(Fresh::Member),
    ]
}

fn machines() -> Vec<Row> {
    let groups = "/organisations/{org}/groups";
    let (group, grants) = ("/organisations/{org}/groups/{group}", "/organisations/{org}/groups/{group}/grants");
    let member = "/organisations/{org}/groups/{group}/members/{user}";
    let makes: Expected = [401, 404, 403, 403, 201, 201];
    vec![
        row(("GET", groups), "/organisations/works/groups", READERS),
        row(("POST", groups), "/organisations/works/groups", makes).body(r#"{"name":"{fresh}"}"#),
        row(("DELETE", group), "/organisations/works/groups/{fresh}", MANAGERS_DO).on(Fresh::Group),
        row(("PUT", grants), "/organisations/works/groups/{fresh}/grants", MANAGERS_DO)
            .body(r#"{"pattern":"works/*","role":"read"}"#)
            .on(Fresh::Group),
        row(("DELETE", grants), "/organisations/works/groups/{fresh}/grants?pattern=works/*", MANAGERS_DO)
            .on(Fresh::Group),
        row(("PUT", member), "/organisations/works/groups/{fresh}/members/rae", MANAGERS_DO).on(Fresh::Group),
        row(("DELETE", member), "/organisations/works/groups/{fresh}/members/rae", MANAGERS_DO).on(Fresh::Group),
        row(("GET", "/robots"), "/robots", SERVER),
        row(("GET", "/robots"), "/robots?owner=works", MANAGERS),
        row(("POST", "/robots"), "/robots", SERVER_MAKES)
            .body(r#"{"name":"{fresh}","images":["**"],"actions":["pull"]}"#),
        row(("POST", "/robots"), "/robots", makes)
            .body(r#"{"owner":"works","name":"{fresh}","images":["works/*"],"actions":["pull","push"]}"#),
        row(("DELETE", "/robots/{id}"), "/robots/{fresh}", MANAGERS_DO).on(Fresh::Robot),
        row(("GET", "/registry/keys"), "/registry/keys", SERVER),
        row(("POST", "/registry/keys/rotate"), "/registry/keys/rotate", SERVER),
    ]
}

fn upkeep() -> Vec<Row> {
    let (retention, freezes, works) = ("/registry/retention", "/registry/freezes", r#"{"images":"works/**"}"#);
    vec![
        row(("GET", "/registry/replication"), "/registry/replication", SERVER),
        row(("POST", "/registry/replication/{rule}"), "/registry/replication/none", [401, 403, 403, 403, 403, 404]),
        row(("GET", retention), "/registry/retention?images=works/**", MANAGERS),
        row(("POST", retention), retention, MANAGERS).body(works),
        row(("POST", "/registry/gc"), "/registry/gc", SERVER).body("{}"),
        row(("GET", freezes), freezes, SOMEBODY),
        row(("POST", freezes), freezes, MANAGERS).body(r#"{"images":"works/{fresh}"}"#),
        row(("DELETE", freezes), "/registry/freezes?images=works/{fresh}", MANAGERS_DO).on(Fresh::Freeze),
        row(("GET", "/registry/verify"), "/registry/verify?images=works/**", MANAGERS),
        row(("GET", "/registry/deleted"), "/registry/deleted?images=works/**", MANAGERS),
        row(("POST", "/registry/undo"), "/registry/undo", MANAGERS).body(works),
        row(("GET", "/registry/quotas"), "/registry/quotas", SERVER),
    ]
}

fn repositories() -> Vec<Row> {
    let (secrets, dispatches) = ("/repositories/{owner}/{name}/secrets", "/repositories/{owner}/{name}/dispatches");
    vec![
        row(("GET", "/repositories"), "/repositories", PUBLIC),
        row(("POST", "/repositories"), "/repositories", WRITERS_MAKE).body(r#"{"name":"works/{fresh}"}"#),
        row(("GET", REPOSITORY), "/repositories/works/engine", READERS),
        row(("PATCH", REPOSITORY), "/repositories/works/{fresh}", MANAGERS)
            .body(r#"{"visibility":"public"}"#)
            .on(Fresh::Repository),
        row(("DELETE", REPOSITORY), "/repositories/works/{fresh}", MANAGERS_DO).on(Fresh::Repository),
        row(("GET", secrets), "/repositories/works/engine/secrets", MANAGERS),
        row(("PUT", SECRET), "/repositories/works/engine/secrets/KEY", MANAGERS).body(r#"{"value":"{fresh}"}"#),
        row(("DELETE", SECRET), "/repositories/works/engine/secrets/{fresh}", MANAGERS_DO).on(Fresh::Secret),
        row(("POST", dispatches), "/repositories/works/engine/dispatches", WRITERS_MAKE).body(r#"{"ref":"main"}"#),
    ]
}

fn records() -> Vec<Row> {
    let target = "/targets/{target}";
    vec![
        row(("POST", "/apply"), "/apply", SERVER)
            .body("apiVersion: towpath.dev/v1alpha1\nkind: User\nmetadata: {name: '{fresh}'}\n"),
        row(("POST", "/apply"), "/apply", [401, 404, 403, 200, 200, 200])
            .body("apiVersion: towpath.dev/v1alpha1\nkind: Repository\nmetadata: {name: works/{fresh}}\n"),
        row(("POST", "/apply"), "/apply", MANAGERS)
            .body(
                "apiVersion: towpath.dev/v1alpha1\nkind: Repository\nmetadata: {name: works/{fresh}}\n\
                 spec: {visibility: public}\n",
            )
            .on(Fresh::Repository),
        row(("GET", "/export"), "/export", SERVER),
        row(("GET", "/targets"), "/targets", PUBLIC),
        row(("GET", target), "/targets/site", READERS),
        row(("DELETE", target), "/targets/{fresh}", SERVER_REMOVES).on(Fresh::Target),
        row(("GET", "/targets/{target}/status"), "/targets/site/status", READERS),
        row(("POST", "/targets/{target}/rollback"), "/targets/site/rollback", WRITERS_IN_VAIN),
    ]
}

fn runs() -> Vec<Row> {
    vec![
        row(("GET", "/runs"), "/runs", SERVER),
        row(("GET", "/runs"), "/runs?repository=works/engine", READERS),
        row(("GET", "/runs/{run}"), "/runs/{run}", READERS),
        row(("POST", "/runs/{run}/cancel"), "/runs/{run}/cancel", WRITERS_IN_VAIN),
        row(("POST", "/runs/{run}/retry"), "/runs/{run}/retry", WRITERS_MAKE),
        row(("GET", "/runs/{run}/wait"), "/runs/{run}/wait", READERS),
        row(("GET", "/runs/{run}/logs"), "/runs/{run}/logs", READERS),
        row(("GET", "/deliveries/{delivery}"), "/deliveries/{delivery}", READERS),
        row(("GET", "/events"), "/events", SERVER),
        row(("GET", "/outbox"), "/outbox", SERVER),
    ]
}

fn table() -> Vec<Row> {
    let rows = people().into_iter().chain(machines()).chain(upkeep());
    rows.chain(repositories()).chain(records()).chain(runs()).collect()
}

/// The paths of a router's source, with their methods.
fn routes_of(source: &str) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for call in source.split(".route(").skip(1) {
        let path = call.split('"').nth(1).unwrap();
        // Up to the parenthesis that closes the call.
        let mut depth = 1;
        let end = call.find(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth == 0
        });
        let handlers = &call[..end.unwrap()];
        let before = found.len();
        for method in ["get", "post", "put", "delete", "patch", "any"] {
            let called = format!("{method}(");
            let whole = |(at, _): (usize, &str)| !handlers[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if handlers.match_indices(&called).any(whole) {
                found.insert((method.to_ascii_uppercase(), path.to_owned()));
            }
        }
        assert!(found.len() > before, "no method was recognised for {path}");
    }
    found
}

#[test]
fn every_route_is_in_the_table() {
    let table: BTreeSet<_> = table().iter().map(|row| (row.route.0.to_owned(), row.route.1.to_owned())).collect();
    assert_eq!(routes_of(include_str!("../../src/api.rs")), table);
    // These have tests of their own.
    let git = [("GET", "/{owner}/{name}/info/refs"), ("POST", "/{owner}/{name}/git-upload-pack")];
    let git = git.into_iter().chain([("POST", "/{owner}/{name}/git-receive-pack")]);
    let git: BTreeSet<_> = git.map(|(method, path)| (method.to_owned(), path.to_owned())).collect();
    assert_eq!(routes_of(include_str!("../../src/git_http.rs")), git);
    let other: BTreeSet<_> = ["/livez", "/readyz"].map(|path| ("GET".to_owned(), path.to_owned())).into();
    assert_eq!(routes_of(include_str!("../../src/serve.rs")), other);
}

pub fn target(name: &str, branch: &str) -> String {
    format!(
        "apiVersion: towpath.dev/v1alpha1\nkind: Target\nmetadata: {{name: {name}}}\nspec:\n  \
         repository: works/engine\n  branch: {branch}\n  \
         services: [{{name: web, image: works/engine, build: {{}}}}]\n  gitops: {{branch: deploy, path: deploy}}\n"
    )
}

/// Makes what a row is about; what stands for it.
async fn make(world: &World, fresh: Fresh, number: usize) -> String {
    let name = format!("fresh{number}");
    match fresh {
        Fresh::Name => {}
        Fresh::User => drop(world.access().create_user(&name, false).await.unwrap()),
        Fresh::Member => {
            world.access().create_user(&name, false).await.unwrap();
            world.access().add_member("works", &name, access::Role::Read).await.unwrap();
        }
        Fresh::Token => {
            let rae = world.access().find_user("rae").await.unwrap().unwrap();
            return world.access().create_token(rae.id, &name, &[Scope::All], None).await.unwrap().0.to_string();
        }
        Fresh::Group => world.access().create_group("works", &name).await.unwrap(),
        Fresh::Robot => {
            let new = access::NewRobot {
                owner: Some("works".to_owned()),
                name,
                images: vec!["works/*".parse().unwrap()],
                actions: vec![access::RobotAction::Pull],
                expires: model::Timestamp(4_000_000_000_000),
            };
            return world.access().create_robot(new).await.unwrap().0.id.to_string();
        }
        Fresh::Repository => world.repository(&format!("works/{name}"), false).await,
        Fresh::Secret => {
            let path = format!("/repositories/works/engine/secrets/{name}");
            let body = json!({ "value": "v" }).to_string();
            assert_eq!(world.api("PUT", &path, Some(&world.admin), Some(&body)).await.status, 200);
        }
        Fresh::Freeze => {
            let body = json!({ "images": format!("works/{name}") }).to_string();
            assert_eq!(world.api("POST", "/registry/freezes", Some(&world.admin), Some(&body)).await.status, 200);
        }
        Fresh::Target => world.apply(&target(&name, "other")).await,
    }
    name
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_answers_each_as_it_should() {
    let world = World::start().await;
    world.apply(&target("site", "main")).await;
    let (run, delivery) = world.push().await;
    let (run, delivery) = (run.to_string(), delivery.to_string());
    let expired = world.token("max", &[Scope::All], Some(1000)).await;
    let revoked = world.token("max", &[Scope::All], None).await;
    let max = world.access().find_user("max").await.unwrap().unwrap();
    let last = world.access().list_tokens(max.id).await.unwrap().pop().unwrap();
    world.access().revoke_token(max.id, last.id).await.unwrap();

    let who = [None, Some(&world.eve), Some(&world.rae), Some(&world.wyn), Some(&world.max), Some(&world.admin)];
    let bad = [expired.as_str(), GARBAGE, revoked.as_str(), "", "twj_0000000000000000000000000000000000000000"];
    let (mut number, mut wrong) = (0, Vec::new());
    for row in table() {
        let (method, template) = row.route;
        let good = who.iter().zip(row.expected).map(|(token, status)| (token.map(String::as_str), status));
        // Where nobody is asked who they are, nobody is refused for it.
        let refused = match template {
            "/version" | "/login" => 200,
            login if login.starts_with("/login/") => 404,
            _ => 401,
        };
        let bad = bad.iter().map(|token| (Some(*token), refused));
        for (index, (token, status)) in good.chain(bad).enumerate() {
            number += 1;
            let fresh = make(&world, row.fresh, number).await;
            let fill =
                |text: &str| text.replace("{fresh}", &fresh).replace("{run}", &run).replace("{delivery}", &delivery);
            let body = (!row.body.is_empty()).then(|| fill(row.body));
            let path = fill(row.path);
            let answer = world.api(method, &path, token, body.as_deref()).await;
            if answer.status != status {
                wrong.push(format!("{method} {path} as {index}: {} and not {status}: {}", answer.status, answer.text));
            }
            check(&answer);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What holds for every answer.
fn check(answer: &Answer) {
    assert_eq!(answer.header("cache-control"), "no-store", "{answer:?}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff", "{answer:?}");
    assert!(!answer.header("x-request-id").is_empty(), "{answer:?}");
    if answer.status >= 400 {
        answer.is_problem(answer.status);
    }
    let challenged = !answer.header("www-authenticate").is_empty();
    assert_eq!(challenged, answer.status == 401, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_good_for_its_scopes_only() {
    let world = World::start().await;
    let (run, _) = world.push().await;
    let retry = format!("/runs/{run}/retry");
    let show = format!("/runs/{run}");
    let asked = [
        ("GET", "/repositories/works/engine", ""),
        ("GET", show.as_str(), ""),
        ("POST", "/repositories/works/engine/dispatches", r#"{"ref":"main"}"#),
        ("POST", retry.as_str(), ""),
        ("PATCH", "/repositories/works/engine", "{}"),
        ("GET", "/repositories/works/engine/secrets", ""),
        ("GET", "/users/max/tokens", ""),
        ("POST", "/users/max/tokens", r#"{"name":"more"}"#),
        ("POST", "/users/max/tokens", r#"{"name":"same","scopes":["admin"]}"#),
        ("POST", "/robots", r#"{"owner":"works","name":"more","images":["works/*"],"actions":["push"]}"#),
    ];
    let expected = [
        (Scope::ReadRepository, [200, 200, 403, 403, 403, 403, 403, 403, 403, 403]),
        (Scope::WriteRepository, [200, 200, 201, 201, 403, 403, 403, 403, 403, 403]),
        (Scope::ReadPackage, [403; 10]),
        (Scope::WritePackage, [403; 10]),
        (Scope::Admin, [403, 403, 403, 403, 200, 200, 200, 403, 201, 403]),
    ];
    for (scope, statuses) in expected {
        let token = world.token("max", &[scope], None).await;
        for ((method, path, body), status) in asked.into_iter().zip(statuses) {
            let answer = world.api(method, path, Some(&token), (!body.is_empty()).then_some(body)).await;
            assert_eq!(answer.status, status, "{method} {path} with {scope}: {answer:?}");
            if status == 403 {
                assert!(answer.text.contains("scope"), "{answer:?}");
            }
        }
    }
    // An administrator's token is no better than its scopes.
    let token = world.token("admin", &[Scope::WriteRepository, Scope::WritePackage], None).await;
    for (method, path) in [("POST", "/users"), ("GET", "/export"), ("GET", "/events"), ("GET", "/runs")] {
        world.api(method, path, Some(&token), Some(r#"{"name":"nick"}"#)).await.is_problem(403);
    }
}
