//! From a push to a running site, and each way in which that ends.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::{Options, Site, World, page};
use serde_json::{Value, json};

const FIELDS: [&str; 18] = [
    "actionsRunId",
    "argoHealth",
    "argoSync",
    "buildServices",
    "builderJobName",
    "elapsedSeconds",
    "giteaMirrorLag",
    "gitopsRevision",
    "health",
    "imageDigest",
    "pipelineRunName",
    "reuseEnvImage",
    "reusedServices",
    "runtimeTargetSha",
    "skipImageBuild",
    "snapshotRef",
    "sourceCommit",
    "target",
];

const STAGES: [(&str, &str); 8] = [
    ("source", "mirror-sync"),
    ("workflow", "actions-dispatch"),
    ("reuse", "reuse-plan"),
    ("build", "build-or-reuse"),
    ("pipeline", "tekton-pipelinerun"),
    ("publish", "gitops-publish"),
    ("rollout", "argo-closeout"),
    ("closeout", "runtime-provenance"),
];

/// A value, or a text that says why there is none; nothing else.
fn check_fields(status: &Value) {
    let fields = status["status"].as_object().unwrap();
    let mut names: Vec<_> = fields.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, FIELDS);
    for (name, value) in fields {
        assert!(!value.is_null(), "{name}");
        if let Some(text) = value.as_str() {
            assert!(!text.is_empty(), "{name}");
            let reason = text.strip_prefix("not_applicable: ");
            assert!(reason.is_none_or(|reason| !reason.is_empty()) && text != "not_applicable", "{name}: {text}");
        }
    }
}

fn check_stages(status: &Value) {
    let stages = status["stages"].as_array().unwrap();
    let named: Vec<_> = stages.iter().map(|it| (it["stage"].as_str().unwrap(), it["id"].as_str().unwrap())).collect();
    assert_eq!(named, STAGES);
    for stage in stages {
        let pipeline = stage["stage"] == "pipeline";
        assert_eq!(stage["state"], if pipeline { "not-applicable" } else { "succeeded" }, "{stage}");
        assert_eq!(stage["seconds"].is_null(), pipeline, "{stage}");
        assert_eq!(stage["budgetSeconds"].is_null(), pipeline, "{stage}");
    }
}

fn start(name: &str) -> Option<(World, Site)> {
    let world = World::start(Options::default())?;
    let site = Site::new(&world, name);
    Some((world, site))
}

/// Pushes HEAD to main and waits for what becomes of it.
fn deliver(world: &World, site: &Site, outcome: &str) -> Value {
    site.push("main");
    let status = world.delivered(site, &site.git(&["rev-parse", "HEAD"]));
    assert_eq!(status["outcome"], outcome, "{status:#}");
    check_fields(&status);
    status
}

fn pinned(world: &World, site: &Site, status: &Value) -> String {
    let digest = status["status"]["imageDigest"].as_str().unwrap();
    let (image, host) = (&site.repository, world.registry());
    site.manifest().replace(&format!("{image}:latest"), &format!("{host}/{image}@{digest}"))
}

#[test]
fn a_first_push_becomes_a_site_that_can_be_traced_back() {
    let Some((world, site)) = start("first") else { return };
    let manifests = site.deploy_head();
    let commit = site.git(&["rev-parse", "HEAD"]);
    let status = deliver(&world, &site, "succeeded");
    check_stages(&status);
    assert_eq!(page(&status), "one\n");

    let fields = &status["status"];
    assert_eq!(fields["target"], "first");
    assert_eq!(fields["sourceCommit"], json!(commit));
    assert_eq!(fields["runtimeTargetSha"], json!(commit));
    assert_eq!(fields["buildServices"], json!(["web"]));
    assert_eq!(fields["reusedServices"], json!([]));
    assert_eq!(fields["skipImageBuild"], false);
    assert_eq!(fields["health"], json!({ "probe": "GET /health.json", "status": 200, "identity": commit }));

    let digest = fields["imageDigest"].as_str().unwrap();
    let (_, config) = world.pull_image(&site.repository, digest);
    assert_eq!(config["config"]["Labels"]["org.opencontainers.image.revision"], json!(commit), "{config:#}");
    assert_eq!(world.tags(&site.repository), [&commit[..8], "latest"]);

    let snapshot = fields["snapshotRef"].as_str().unwrap();
    assert_eq!(site.remote_file(snapshot, "page.txt"), "one");
    assert_eq!(site.git(&["rev-parse", "FETCH_HEAD"]), commit);

    let head = site.deploy_head();
    assert_eq!(fields["gitopsRevision"], json!(head));
    assert_eq!(site.pinned_manifest(), pinned(&world, &site, &status));
    assert_eq!(site.git(&["log", "--format=%H", "FETCH_HEAD"]), format!("{head}\n{manifests}"));
    assert!(site.git(&["log", "-1", "--format=%B", "FETCH_HEAD"]).contains(&format!("Source-Commit: {commit}")));

    let workflow = world.get(&format!("/runs/{}", fields["actionsRunId"]));
    assert_eq!((&workflow["kind"], &workflow["outcome"]), (&json!("workflow"), &json!("succeeded")), "{workflow:#}");
    assert_eq!(workflow["jobs"][0]["result"], "success");
    let (_, log) = world.api("GET", &format!("/runs/{}/logs?part=build", status["run"]), None);
    assert!(log.as_str().unwrap().contains("mkdir -p /out"), "{log}");
    // Our own commit to the GitOps branch has started nothing.
    assert_eq!(world.runs(&site.repository).len(), 2);
}

/// Keeps asking until it is told to stop; what was answered, each answer once for as long as it lasted.
fn ask_all_the_time(address: &str) -> (Arc<AtomicBool>, std::thread::JoinHandle<Vec<String>>) {
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, address) = (Arc::clone(&stop), address.to_owned());
    let asking = std::thread::spawn(move || {
        let mut seen: Vec<String> = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            let answer =
                World::ask(&address).map_or_else(|| "no answer".to_owned(), |(code, text)| format!("{code} {text}"));
            if seen.last() != Some(&answer) {
                seen.push(answer);
            }
        }
        seen
    });
    (stop, asking)
}

#[test]
fn a_page_change_takes_over_without_a_gap_and_a_docs_change_is_reused() {
    let Some((world, site)) = start("changes") else { return };
    let first = deliver(&world, &site, "succeeded");
    let (stop, asking) = ask_all_the_time(first["address"].as_str().unwrap());
    site.write("page.txt", "two\n");
    let commit = site.commit("feat: two");
    let changed = deliver(&world, &site, "succeeded");
    assert_eq!(page(&changed), "two\n");
    stop.store(true, Ordering::Relaxed);
    assert_eq!(asking.join().unwrap(), ["200 one\n", "200 two\n"]);
    assert_eq!(changed["address"], first["address"]);
    assert_ne!(changed["status"]["imageDigest"], first["status"]["imageDigest"]);
    assert_eq!(changed["status"]["runtimeTargetSha"], json!(commit));
    assert_eq!(changed["status"]["reuseEnvImage"], true, "only a file changed");
    assert!(changed["evidence"]["reuseDecision"]["web"]["why"].as_str().unwrap().contains("page.txt"));
    assert_eq!(site.pinned_manifest(), pinned(&world, &site, &changed));

    let (head, tags) = (site.deploy_head(), world.tags(&site.repository));
    site.write("README.md", "A site, described.\n");
    site.commit("docs: more");
    let docs = deliver(&world, &site, "reused");
    assert_eq!(site.deploy_head(), head);
    assert_eq!(world.tags(&site.repository), tags);
    assert_eq!(page(&docs), "two\n");
    let fields = &docs["status"];
    assert_eq!(fields["skipImageBuild"], true);
    assert_eq!(fields["reusedServices"], json!(["web"]));
    assert_eq!(fields["imageDigest"], changed["status"]["imageDigest"]);
    assert_eq!(fields["runtimeTargetSha"], json!(commit));
    assert_eq!(fields["gitopsRevision"], json!(head));
    // The tests run on a reuse hit too.
    let workflow = world.get(&format!("/runs/{}", fields["actionsRunId"]));
    assert_eq!(workflow["jobs"][0]["result"], "success", "{workflow:#}");
    for event in ["imageBuilt", "gitopsCommitted", "rolledOut"] {
        assert_eq!(world.count(event, docs["run"].as_i64().unwrap()), 0, "{event}");
    }
}

/// A version that fails leaves the last good one as it is: served, pinned and named in the status.
fn check_refused(world: &World, site: &Site, status: &Value, good: &Value) {
    assert_eq!(status["cause"]["stage"], "rollout", "{status:#}");
    assert_eq!(page(good), "one\n");
    assert_eq!(site.pinned_manifest(), pinned(world, site, good), "the last good digest is pinned again");
    let fields = &status["status"];
    assert_eq!(fields["gitopsRevision"], json!(site.deploy_head()));
    assert_eq!(fields["runtimeTargetSha"], good["status"]["sourceCommit"]);
    assert_eq!(fields["health"], good["status"]["health"]);
}

#[test]
fn a_version_that_is_not_well_never_serves() {
    let Some((mut world, site)) = start("broken") else { return };
    world.apply(&site.target_yaml().replace("timeoutSeconds: 20", "timeoutSeconds: 3"));
    let good = deliver(&world, &site, "succeeded");

    // It answers, but does not say that it is what was built.
    let dockerfile = site.read("Dockerfile");
    let serve = "CMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]";
    let odd = "CMD [\"sh\", \"-c\", \"echo here I come; echo who am I >&2; exec httpd -f -p 8080 -h /www\"]";
    site.edit("Dockerfile", serve, odd);
    site.edit("Dockerfile", "\"$SOURCE_COMMIT\"", "nobody");
    site.write("page.txt", "two\n");
    site.commit("feat: a site that forgot itself");
    let status = deliver(&world, &site, "failed");
    check_refused(&world, &site, &status, &good);
    let cause = &status["cause"];
    assert!(cause["place"].as_str().unwrap().contains("GET /health.json"), "{cause:#}");
    assert!(cause["message"].as_str().unwrap().contains("\"nobody\""), "{cause:#}");
    let lines = cause["lastLines"].to_string();
    assert!(lines.contains("here I come") && lines.contains("who am I"), "{cause:#}");

    // It ends at once.
    site.write("Dockerfile", dockerfile.replace(serve, "CMD [\"sh\", \"-c\", \"echo no such luck >&2; exit 3\"]"));
    site.commit("feat: a site that ends");
    let status = deliver(&world, &site, "failed");
    check_refused(&world, &site, &status, &good);
    assert!(status["cause"]["lastLines"].to_string().contains("no such luck"), "{status:#}");
    let rollout = status["stages"][6]["seconds"].as_f64().unwrap();
    assert!(rollout < 3.0, "a service that has ended is not waited for: {rollout} s");

    // No restart brings the broken one to life.
    world.kill();
    world.up();
    assert_eq!(page(&good), "one\n");

    site.write("Dockerfile", dockerfile);
    site.commit("fix: as it was");
    let mended = deliver(&world, &site, "succeeded");
    assert_eq!(page(&mended), "two\n");
}

#[test]
fn what_is_live_already_is_reused() {
    let Some((world, site)) = start("again") else { return };
    let first = deliver(&world, &site, "succeeded");
    site.write("page.txt", "two\n");
    let two = site.commit("feat: two");
    deliver(&world, &site, "succeeded");
    let head = site.deploy_head();

    site.write("README.md", "More.\n");
    site.commit("docs: more");
    deliver(&world, &site, "reused");
    site.git(&["reset", "--quiet", "--hard", &two]);
    let back = deliver(&world, &site, "reused");
    assert_eq!(back["status"]["sourceCommit"], json!(two));

    let url = format!("{}/{}.git", world.url(), site.repository);
    site.git(&["push", "--quiet", &url, ":refs/heads/main"]);
    assert_eq!(page(&back), "two\n", "the site outlives its branch");
    let anew = deliver(&world, &site, "reused");
    assert_ne!(anew["run"], back["run"]);
    assert_eq!(site.deploy_head(), head);

    // An older version is not live: its image is found, and it is rolled out.
    site.git(&["reset", "--quiet", "--hard", first["status"]["sourceCommit"].as_str().unwrap()]);
    let older = deliver(&world, &site, "succeeded");
    assert_eq!(older["status"]["skipImageBuild"], true);
    assert_eq!(older["status"]["imageDigest"], first["status"]["imageDigest"]);
    assert_eq!(page(&older), "one\n");
    assert_ne!(site.deploy_head(), head);
}

/// The status of the only target run of an answer that opened one, once it has ended.
fn opened(world: &World, answer: &Value) -> Value {
    let runs: Vec<_> = answer["runs"].as_array().unwrap().iter().filter(|run| run["kind"] == "target").collect();
    assert_eq!(runs.len(), 1, "{answer:#}");
    world.wait(runs[0]["run"].as_i64().unwrap())
}

#[test]
fn retry_does_a_run_again_and_rollback_brings_an_image_back() {
    let Some((world, site)) = start("back") else { return };
    let first = deliver(&world, &site, "succeeded");
    let second = {
        site.write("page.txt", "two\n");
        site.commit("feat: two");
        deliver(&world, &site, "succeeded")
    };
    let again = opened(&world, &world.call("POST", &format!("/runs/{}/retry", second["run"]), &json!({})));
    assert_eq!(again["outcome"], "reused", "{again:#}");
    assert_eq!(again["status"]["sourceCommit"], second["status"]["sourceCommit"]);

    let back = opened(&world, &world.call("POST", "/targets/back/rollback", &json!({})));
    assert_eq!(back["outcome"], "succeeded", "{back:#}");
    check_fields(&back);
    assert_eq!(page(&back), "one\n");
    assert_eq!(back["status"]["imageDigest"], first["status"]["imageDigest"]);
    assert_eq!(back["status"]["runtimeTargetSha"], first["status"]["sourceCommit"]);
    assert_eq!(site.pinned_manifest(), pinned(&world, &site, &first));

    let forth = opened(&world, &world.call("POST", "/targets/back/rollback", &json!({ "to": second["run"] })));
    assert_eq!(forth["outcome"], "succeeded", "{forth:#}");
    assert_eq!(page(&forth), "two\n");

    // A job that fails once: the retry runs it on the same snapshot, and it fails again with the same words.
    site.edit(".towpath/workflows/check.yaml", "test -s page.txt", "echo the page is wrong; exit 3");
    let bad = site.commit("test: stricter");
    let failed = deliver(&world, &site, "failed");
    let retried = opened(&world, &world.call("POST", &format!("/runs/{}/retry", failed["run"]), &json!({})));
    assert_eq!(retried["outcome"], "failed");
    assert_eq!(retried["status"]["sourceCommit"], json!(bad));
    assert_eq!(retried["cause"]["stage"], "workflow");
    assert_eq!(page(&forth), "two\n");

    let (status, answer) = world.api("POST", "/targets/back/rollback", Some(&json!({ "to": failed["run"] })));
    assert_eq!(status, 409, "{answer}");
    let (status, answer) = world.api("POST", "/runs/424242/retry", Some(&json!({})));
    assert_eq!(status, 404, "{answer}");
}
