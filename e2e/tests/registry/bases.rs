//! Builds that stand on images of an upstream, through the pull-through cache.

use std::time::Duration;

use e2e::{Options, Site, World, free_port, page};
use serde_json::Value;

use crate::alone::Alone;

/// A Dockerfile on this image, which has the page of the site in a layer of its own.
fn dockerfile(base: &str) -> String {
    format!(
        "FROM {base}\nARG SOURCE_COMMIT\nCOPY page.txt /www/index.html\nRUN printf '{{\"commit\":\"%s\"}}' \"$SOURCE_COMMIT\" > \
         /www/health.json\nEXPOSE 8080\nCMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]\n"
    )
}

fn deliver(world: &World, site: &Site, outcome: &str) -> Value {
    site.push("main");
    let status = world.delivered(site, &site.git(&["rev-parse", "HEAD"]));
    assert_eq!(status["outcome"], outcome, "{status:#}");
    status
}

/// Builds the site on `base`, which must fail; what the run says of it.
fn refused(world: &World, site: &Site, base: &str) -> String {
    site.write("Dockerfile", dockerfile(base));
    site.commit(&format!("feat: on {base}"));
    deliver(world, site, "failed")["cause"].to_string()
}

#[test]
fn a_build_stands_on_an_image_of_an_upstream() {
    let (port, _lock) = free_port();
    let address = format!("127.0.0.1:{port}");
    let serve = ["--anonymous", "pull,push", "--listen", &address];
    let mut upstream = Alone::start(&serve);
    let config = format!(
        "apiVersion: towpath.dev/v1alpha1\nkind: Towpath\nspec:\n  actions: {{}}\n  registry:\n    upstreams:\n      - name: docker.io\n        \
         url: http://{address}\n        insecurePlainHttp: true\n        revalidateAfter: 1s\n        negativeFor: 0s\n        \
         deny: ['acme/secret']\n"
    );
    let Some(world) = World::start(Options { config: Some(config), ..Options::default() }) else { return };
    upstream.push_page("library/base", "1", "from there");
    let site = Site::new(&world, "bases");
    site.write("Dockerfile", dockerfile("docker.io/library/base:1"));
    site.commit("feat: on an image of docker");
    assert_eq!(page(&deliver(&world, &site, "succeeded")), "one\n");

    // The upstream moves the tag: what the image is made of has changed, though nothing here has.
    upstream.push_page("library/base", "1", "from there, again");
    let moved = upstream.digest("library/base", "1");
    std::thread::sleep(Duration::from_secs(1));
    site.write("README.md", "Not part of the image.\n");
    site.commit("docs: a word more");
    deliver(&world, &site, "succeeded");
    let why = format!("base image docker.io/library/base:1 is {moved} now");
    let log = world.whole_log();
    assert!(log.iter().any(|event| event.to_string().contains(&why)), "{why}: {log:#?}");

    // Without the upstream it is built on what is here, and a short name is the same image.
    upstream.stop();
    std::thread::sleep(Duration::from_secs(1));
    site.write("Dockerfile", dockerfile("base:1"));
    site.write("page.txt", "two\n");
    site.commit("feat: a short name");
    assert_eq!(page(&deliver(&world, &site, "succeeded")), "two\n");
    upstream.restart(&serve);

    for (base, parts) in [
        ("docker.io/acme/missing:1", &["docker.io/acme/missing:1", "docker.io has no image acme/missing:1"][..]),
        ("docker.io/acme/secret:1", &["acme/secret is not among the images of docker.io"]),
        ("quay.io/acme/app:1", &["quay.io/acme/app:1", "name quay.io in spec.registry.upstreams"]),
        ("demo/missing:1", &["there is no image demo/missing:1"]),
    ] {
        let cause = refused(&world, &site, base);
        assert!(parts.iter().all(|part| cause.contains(part)), "{base}: {cause}");
    }
}
