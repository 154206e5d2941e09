//! Deaths of every process there is.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::client::{Client, address, ask_until};
use crate::image::Shop;
use crate::setup::{Site, TARGET, engine, eventually, kill, rollout, workloads};

pub async fn a_process_that_dies_is_started_again() {
    let site = Site::new();
    let at = address(&site.roll("v1", "well").await.unwrap().address);
    let before = site.local.live(TARGET).await.unwrap().unwrap();
    let mut client = Client::connect(at).await;
    for deaths in 1..=2 {
        let _ = client.get("/die").await.unwrap();
        // What is asked of a process in the moment of its death is lost with it; what is asked then is not.
        let mut service = site.local.live(TARGET).await.unwrap().unwrap().services.remove(0);
        while service.running && service.restarts < deaths {
            tokio::time::sleep(Duration::from_millis(5)).await;
            service = site.local.live(TARGET).await.unwrap().unwrap().services.remove(0);
        }
        let answer = client.get("/").await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "v1"));
        let live = site.local.live(TARGET).await.unwrap().unwrap();
        assert_eq!((live.services[0].running, live.services[0].restarts), (true, deaths));
        assert_ne!(live.services[0].pid, before.services[0].pid);
    }
    let lines = site.local.last_lines(TARGET, "web", 50).unwrap();
    assert_eq!(
        lines.iter().filter(|line| line.starts_with("towpath: web: killed by SIGKILL after")).count(),
        2,
        "{lines:?}"
    );
    site.end().await;
}

pub async fn supervisors_that_die_are_started_again() {
    let site = Site::new();
    let url = site.roll("v1", "well").await.unwrap().address;
    let at = address(&url);
    let [supervisor] = workloads(&site.path().join("services"))[..] else { panic!("one supervisor expected") };
    let pid = site.local.live(TARGET).await.unwrap().unwrap().services[0].pid.unwrap();
    kill(supervisor);
    let answer = Client::connect(at).await.get("/").await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "v1"));
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the process went with its supervisor");

    let [proxy] = workloads(&site.path().join("sites"))[..] else { panic!("one proxy expected") };
    kill(proxy);
    eventually("another proxy", || workloads(&site.path().join("sites")).iter().any(|pid| *pid != proxy)).await;
    let mut connected = tokio::net::TcpStream::connect(at).await;
    for _ in 0..100 {
        if connected.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        connected = tokio::net::TcpStream::connect(at).await;
    }
    assert_eq!(Client::connect(at).await.get("/").await.unwrap().body, "v1");
    assert_eq!(site.local.address(TARGET).unwrap(), Some(url));
    site.end().await;
}

pub async fn a_new_server_takes_over() {
    let mut site = Site::new();
    let at = address(&site.roll("v1", "well").await.unwrap().address);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let asking = tokio::spawn(ask_until(at, stopped));
    let before = workloads(site.path());

    site.local = engine(site.path());
    let found = site.local.recover().await;
    assert_eq!(
        (found.live.as_slice(), found.started.len(), found.problems.len()),
        ([TARGET].as_slice(), 0, 0),
        "{found:?}"
    );
    assert_eq!(workloads(site.path()), before, "nothing was started again");
    site.roll("v2", "well").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.send(true).unwrap();
    let load = asking.await.unwrap();
    assert_eq!((load.dropped.as_slice(), load.connected), ([].as_slice(), 1));
    site.one_instance().await;

    // The whole machine went down: nothing runs, and even the unpacked layers are gone.
    let elsewhere = engine(&site.path().join("elsewhere"));
    site.local = elsewhere;
    for pid in workloads(site.path()) {
        kill(pid);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(workloads(site.path()), Vec::<u32>::new(), "the engine that is gone starts nothing");
    sandbox::remove_tree(&site.path().join("layers")).unwrap();
    site.local = engine(site.path());
    let found = site.local.recover().await;
    assert_eq!((found.started.len(), found.problems.as_slice()), (2, [].as_slice()), "{found:?}");
    assert_eq!(Client::connect(at).await.get("/").await.unwrap().body, "v2");
    site.end().await;
}

/// A server that rolls a slow version out; it is killed before that is done.
pub fn server(dir: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let report = runtime.block_on(async {
        let slow = rollout(&Shop::open(&dir.join("shop")), "v2", "slow");
        engine(dir).rollout(slow).await
    });
    panic!("it should have been killed by now: {report:?}");
}

/// How many instances take requests, below `services/<target>/<instance>/`.
fn supervised(services: &Path) -> usize {
    let below = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    below(services).flat_map(|target| below(&target)).filter(|instance| instance.join("control.sock").exists()).count()
}

pub async fn a_server_killed_in_a_rollout_converges() {
    let mut site = Site::new();
    let at = address(&site.roll("v1", "well").await.unwrap().address);
    // Another process is the server now.
    let elsewhere = engine(&site.path().join("elsewhere"));
    site.local = elsewhere;
    let mut server = Command::new("/proc/self/exe").arg("__server").arg(site.path()).spawn().unwrap();
    eventually("the new version is being started", || supervised(&site.path().join("services")) == 2).await;
    // Until the server was told that it is ready, a supervisor may still end with it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(workloads(&site.path().join("services")).len(), 2, "supervisors outlive the server");
    assert_eq!(Client::connect(at).await.get("/").await.unwrap().body, "v1");

    site.local = engine(site.path());
    let found = site.local.recover().await;
    assert_eq!((found.live.len(), found.retired.len(), found.problems.len()), (1, 1, 0), "{found:?}");
    let slow = rollout(&site.shop, "v2", "slow");
    let report = site.local.rollout(slow.clone()).await.unwrap();
    assert_eq!(address(&report.address), at);
    let again = site.local.rollout(slow).await.unwrap();
    assert_eq!(again.kept, ["web"]);
    assert_eq!(Client::connect(at).await.get("/").await.unwrap().body, "v2");
    site.one_instance().await;
    assert_eq!(workloads(&site.path().join("services")).len(), 1);
    site.end().await;
}

pub async fn a_rollout_that_is_given_up_leaves_nothing() {
    let site = Site::new();
    let at = address(&site.roll("v1", "well").await.unwrap().address);
    let slow = site.roll("v2", "slow");
    assert!(tokio::time::timeout(Duration::from_millis(1200), slow).await.is_err());
    assert_eq!(site.instances().len(), 2);
    site.one_instance().await;
    assert_eq!(Client::connect(at).await.get("/").await.unwrap().body, "v1");
    site.end().await;
}
