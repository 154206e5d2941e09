//! The whole path with its records in PostgreSQL.

#![allow(clippy::unwrap_used)]

#[path = "../../crates/store/tests/support/postgresql.rs"]
mod postgresql;

use e2e::{Options, Site, World, page};

fn world() -> Option<World> {
    let database = postgresql::database()?;
    let config =
        "apiVersion: towpath.dev/v1alpha1\nkind: Towpath\nspec: {records: {postgres: 'env:TOWPATH_TEST_RECORDS'}}\n";
    let env = vec![("TOWPATH_TEST_RECORDS".to_owned(), database)];
    World::start(Options { env, config: Some(config.to_owned()), ..Options::default() })
}

#[test]
fn pushes_are_delivered_and_a_killed_server_goes_on() {
    let Some(mut world) = world() else { return };
    assert!(!world.data().join("towpath.db").exists(), "nothing is kept in SQLite");
    let site = Site::new(&world, "site");
    site.push("main");
    let first = world.delivered(&site, &site.git(&["rev-parse", "HEAD"]));
    assert_eq!(first["outcome"], "succeeded", "{first:#}");
    assert_eq!(page(&first), "one\n");

    let second = world.delivered(&site, &site.change_page("two"));
    assert_eq!(second["outcome"], "succeeded", "{second:#}");
    assert_eq!(page(&second), "two\n");

    // The run is under way when the server dies.
    site.edit(".towpath/workflows/check.yaml", "test -s page.txt", "sleep 3 && test -s page.txt");
    let commit = site.change_page("three");
    let run = world.run_of(&site.repository, "target", &commit);
    world.until_stage(run, "workflow");
    world.kill();
    assert_eq!(page(&second), "two\n", "the site goes on without the server");
    world.up();
    let third = world.wait(run);
    assert_eq!(third["outcome"], "succeeded", "{third:#}");
    assert_eq!(page(&third), "three\n");
    for event in ["targetRunCreated", "imageBuilt", "gitopsCommitted", "rolledOut", "targetRunFinished"] {
        assert_eq!(world.count(event, run), 1, "{event}");
    }
    let seqs: Vec<_> = world.whole_log().iter().map(|event| event["seq"].as_i64().unwrap()).collect();
    assert!(seqs.iter().copied().eq(1..=seqs.len() as i64), "the log has a gap: {seqs:?}");
    assert!(!world.data().join("towpath.db").exists());
}

#[test]
fn records_that_cannot_be_reached_end_the_start_with_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.yaml");
    let text =
        "apiVersion: towpath.dev/v1alpha1\nkind: Towpath\nspec: {records: {postgres: 'env:TOWPATH_TEST_RECORDS'}}\n";
    std::fs::write(&file, text).unwrap();
    for database in [None, Some("host=/nonexistent user=towpath password=hunter2 dbname=x"), Some("what=ever hunter2")]
    {
        let mut command = std::process::Command::new(e2e::program(e2e::Program::Debug));
        command.arg("up").arg("--data").arg(dir.path().join("data")).arg("--config").arg(&file);
        command.args(["--listen", "127.0.0.1:0"]).env_remove("TOWPATH_TEST_RECORDS");
        command.envs(database.map(|text| ("TOWPATH_TEST_RECORDS", text)));
        let finished = e2e::finish(&mut command);
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        let says = if database.is_some() { "records" } else { "TOWPATH_TEST_RECORDS" };
        assert!(finished.stderr.starts_with("error: ") && finished.stderr.contains(says), "{}", finished.stderr);
        assert_eq!(
            finished.stderr.lines().filter(|line| !line.starts_with("hint: ")).count(),
            1,
            "{}",
            finished.stderr
        );
        assert!(!finished.stderr.contains("hunter2"), "{}", finished.stderr);
    }
}
