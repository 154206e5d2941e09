//! Git over HTTP: who may fetch and who may push.

use crate::world::{World, answer};

fn refs(service: &str) -> String {
    format!("/works/engine.git/info/refs?service=git-{service}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_repository() {
    let world = World::start().await;
    world.push().await;
    for service in ["upload-pack", "receive-pack"] {
        let pack = format!("/works/engine.git/git-{service}");
        let nobody = answer(world.request("GET", &refs(service), None)).await;
        nobody.is_problem(401);
        assert_eq!(nobody.header("www-authenticate"), "Basic realm=\"towpath\"");
        answer(world.request("POST", &pack, None)).await.is_problem(401);
        answer(world.request("GET", &refs(service), Some(&world.eve))).await.is_problem(404);
        answer(world.request("POST", &pack, Some(&world.eve))).await.is_problem(404);
        // As for a repository that is not there.
        let nothing = refs(service).replace("engine", "nothing");
        answer(world.request("GET", &nothing, None)).await.is_problem(401);
        answer(world.request("GET", &nothing, Some(&world.eve))).await.is_problem(404);
    }
    assert_eq!(answer(world.request("GET", &refs("upload-pack"), Some(&world.rae))).await.status, 200);
    answer(world.request("GET", &refs("receive-pack"), Some(&world.rae))).await.is_problem(403);
    answer(world.request("POST", "/works/engine.git/git-receive-pack", Some(&world.rae))).await.is_problem(403);
    answer(world.request("GET", "/works/engine.git/info/refs", Some(&world.rae))).await.is_problem(403);
    answer(world.request("GET", &refs("archive"), Some(&world.rae))).await.is_problem(403);
    let zstd = world.request("POST", "/works/engine.git/git-upload-pack", Some(&world.rae));
    answer(zstd.header("content-encoding", "zstd")).await.is_problem(415);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_client() {
    let world = World::start().await;
    world.push().await;
    for name in ["works/engine.git", "works/engine"] {
        let url = format!("{}/{name}", world.url());
        let listed = world.done(".", &world.rae, &["ls-remote", &url, "refs/heads/main"]).await;
        assert!(listed.ends_with("refs/heads/main"), "{listed}");
    }
    let url = format!("{}/works/engine.git", world.url());
    world.done(".", &world.rae, &["clone", "--quiet", &url, "copy"]).await;
    world.done("copy", &world.rae, &["commit", "--quiet", "--allow-empty", "-m", "mine"]).await;
    let refused = world.git("copy", &world.rae, &["push", &url, "HEAD:refs/heads/mine"]).await;
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("403"), "{refused:?}");
    assert!(!world.git(".", &world.eve, &["ls-remote", &url]).await.status.success());
    world.done("copy", &world.wyn, &["push", "--quiet", &url, "HEAD:refs/heads/mine"]).await;

    // What everybody may read nobody may write.
    let open = format!("{}/works/open.git", world.url());
    world.repository("works/open", true).await;
    world.done("copy", &world.wyn, &["push", "--quiet", &open, "HEAD:refs/heads/main"]).await;
    let anonymous = world.request("GET", "/works/open.git/info/refs?service=git-upload-pack", None);
    assert_eq!(answer(anonymous).await.status, 200);
    answer(world.request("GET", "/works/open.git/info/refs?service=git-receive-pack", None)).await.is_problem(401);
    let eve = world.request("GET", "/works/open.git/info/refs?service=git-receive-pack", Some(&world.eve));
    answer(eve).await.is_problem(403);
}
