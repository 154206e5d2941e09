//! New versions in the place of old ones.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::client::{Client, address, ask_until};
use crate::setup::{Site, TARGET, commit, rollout, service};

pub async fn no_request_is_dropped() {
    let site = Site::new();
    let first = site.roll("v1", "well").await.unwrap();
    assert_eq!(first.health[0].identity.as_deref(), Some(commit("v1").as_str()));
    assert_eq!((first.health[0].probe.as_str(), first.health[0].status), ("GET /health", 200));
    let at = address(&first.address);
    assert!(at.ip().is_loopback());

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let clients: Vec<_> = (0..8).map(|_| tokio::spawn(ask_until(at, stopped.clone()))).collect();
    // One request of five seconds spans all of it.
    let slow = tokio::spawn(async move { Client::connect(at).await.get("/slow/5000").await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = Instant::now();
    let second = site.roll("v2", "well").await.unwrap();
    let moved = Instant::now();
    println!("replaced after {} ms", (moved - asked).as_millis());
    assert_eq!(second.address, first.address);
    assert_eq!(Client::connect(at).await.get("/").await.unwrap().body, "v2");
    assert_eq!(site.instances().len(), 2, "the old version is there for its last request");
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.send(true).unwrap();

    for client in clients {
        let load = client.await.unwrap();
        assert_eq!(load.dropped, Vec::<String>::new());
        assert_eq!(load.connected, 1, "the connection survived");
        let versions: Vec<&str> = load.versions.iter().map(|(version, _)| version.as_str()).collect();
        assert_eq!(versions, ["v1", "v2"], "after {} requests", load.good);
        assert!(load.versions[0].1 < moved, "what is asked after the rollout goes to the new version");
    }
    let slow = slow.await.unwrap().unwrap();
    assert_eq!((slow.status, slow.body.as_str()), (200, "v1"));
    site.one_instance().await;

    let check = rollout(&site.shop, "v2", "well").services[0].check();
    let evidence = site.local.closeout(TARGET, &[check]).await.unwrap();
    assert_eq!(evidence[0].identity.as_deref(), Some(commit("v2").as_str()));
    let stale = rollout(&site.shop, "v1", "well").services[0].check();
    let failure = site.local.closeout(TARGET, &[stale]).await.unwrap_err();
    assert!(failure.message.contains("web runs demo/site@"), "{failure}");

    let back = site.roll("v1", "well").await.unwrap();
    assert_eq!((back.address, Client::connect(at).await.get("/").await.unwrap().body.as_str()), (first.address, "v1"));
    site.end().await;
    assert!(tokio::net::TcpStream::connect(at).await.is_err());
}

pub async fn an_equal_service_is_left_running() {
    let site = Site::new();
    site.roll("v1", "well").await.unwrap();
    let before = site.local.live(TARGET).await.unwrap().unwrap();
    let mut again = rollout(&site.shop, "v1", "well");
    again.key = "another".into();
    again.revision = commit("v9");
    let report = site.local.rollout(again).await.unwrap();
    assert_eq!(report.kept, ["web"]);
    let after = site.local.live(TARGET).await.unwrap().unwrap();
    assert_eq!((after.services[0].pid, after.key.as_str()), (before.services[0].pid, "another"));
    assert_eq!((after.services[0].running, after.services[0].restarts), (true, 0));
    assert_eq!((after.address, site.instances().len()), (before.address, 1));
    site.end().await;
}

pub async fn two_services_have_their_own_addresses() {
    let site = Site::new();
    let mut both = rollout(&site.shop, "v1", "well");
    both.services.insert(0, service("api", site.shop.perl_server("v5"), "v5", "well"));
    let report = site.local.rollout(both.clone()).await.unwrap();
    let (api, web) = (report.addresses["api"], report.addresses["web"]);
    assert_eq!((address(&report.address), api == web), (web, false));
    assert_eq!(Client::connect(api).await.get("/").await.unwrap().body, "v5");
    assert_eq!(Client::connect(web).await.get("/").await.unwrap().body, "v1");
    let environment = Client::connect(web).await.get("/environment").await.unwrap().body;
    for expected in ["PORT=8080\n".to_owned(), format!("TOWPATH_SOURCE_COMMIT={}\n", commit("v1"))] {
        assert!(environment.contains(&expected), "{environment}");
    }
    assert!(environment.contains(&format!("TOWPATH_IMAGE_DIGEST={}\n", both.services[1].image.digest)));

    both.services[0].public = true;
    let failure = site.local.rollout(both.clone()).await.unwrap_err();
    assert!(failure.message.contains("both api and web are public"), "{failure}");

    both.services.remove(0);
    both.key = "only web".into();
    let report = site.local.rollout(both).await.unwrap();
    assert_eq!((report.kept.as_slice(), report.addresses.len()), (["web".to_owned()].as_slice(), 1));
    site.one_instance().await;
    assert!(tokio::net::TcpStream::connect(api).await.is_err());
    assert_eq!(Client::connect(web).await.get("/").await.unwrap().body, "v1");
    site.end().await;
}

pub async fn a_fixed_address_is_kept_and_a_taken_one_refused() {
    let site = Site::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut first = rollout(&site.shop, "v1", "well");
    first.listen = Some(free);
    assert_eq!(site.local.rollout(first).await.unwrap().address, format!("http://{free}"));

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_at: SocketAddr = taken.local_addr().unwrap();
    let mut second = rollout(&site.shop, "v2", "well");
    second.listen = Some(taken_at);
    let failure = site.local.rollout(second.clone()).await.unwrap_err();
    assert!(failure.message.contains(&format!("cannot listen on {taken_at}: another program does")), "{failure}");
    assert!(failure.hint.is_some());
    assert_eq!(Client::connect(free).await.get("/").await.unwrap().body, "v1");
    assert_eq!(site.instances().len(), 1);

    drop(taken);
    assert_eq!(site.local.rollout(second).await.unwrap().address, format!("http://{taken_at}"));
    assert_eq!(Client::connect(taken_at).await.get("/").await.unwrap().body, "v2");
    assert!(tokio::net::TcpStream::connect(free).await.is_err());
    site.end().await;
}
