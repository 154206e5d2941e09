//! What is run, from what image and manifest say.

use gitops::{EnvVar, Port, Workload, WorkloadKind};

use super::*;
use crate::health::{Health, Identity};

fn image() -> ImageConfig {
    let mut image = ImageConfig::default();
    image.config.entrypoint = Some(vec!["/bin/serve".into()]);
    image.config.cmd = Some(vec!["--all".into()]);
    image.config.env = vec!["PATH=/bin".into(), "MODE=image".into()];
    image
}

fn service() -> ServiceRollout {
    let container = Container { name: "web".into(), image: "demo/site:v1".into(), ..Container::default() };
    let digest = format!("sha256:{}", "1".repeat(64));
    ServiceRollout {
        name: "web".into(),
        image: model::PinnedImage { name: "demo/site".parse().unwrap(), digest: digest.parse().unwrap() },
        source_commit: Some("a".repeat(40).parse().unwrap()),
        workload: Workload {
            kind: WorkloadKind::Deployment,
            name: "site".into(),
            namespace: None,
            file: "deploy.yaml".into(),
            line: 1,
            replicas: 1,
            grace_seconds: 7,
            containers: vec![container],
        },
        health: Health { path: "/health".into(), identity: Identity::None, timeout_ms: 1000, port: None },
        expected: vec![],
        env: vec![],
        public: true,
    }
}

fn run(service: &ServiceRollout, image: &ImageConfig) -> Result<InstanceSpec, RolloutFailure> {
    instance(TargetId(1), "Demo Site", service, image, Vec::new())
}

fn value<'s>(spec: &'s InstanceSpec, name: &str) -> Option<&'s str> {
    spec.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[test]
fn the_image_alone_is_enough() {
    let spec = run(&service(), &image()).unwrap();
    assert_eq!(
        (spec.argv.as_slice(), spec.cwd.as_str()),
        (["/bin/serve".to_owned(), "--all".to_owned()].as_slice(), "/")
    );
    assert_eq!(
        (value(&spec, "PATH"), value(&spec, "MODE"), value(&spec, "PORT")),
        (Some("/bin"), Some("image"), Some("8080"))
    );
    assert_eq!(value(&spec, "TOWPATH_SOURCE_COMMIT"), Some("a".repeat(40).as_str()));
    assert!(value(&spec, "TOWPATH_IMAGE_DIGEST").unwrap().starts_with("sha256:11"));
    assert_eq!((spec.hostname.as_str(), spec.stop_signal, spec.grace_ms, spec.port), ("demo-site-web", 15, 7000, 8080));
}

#[test]
fn command_and_arguments_as_kubernetes_joins_them() {
    for (command, args, expected) in [
        (vec![], vec!["--one"], "/bin/serve --one"),
        (vec!["/bin/other"], vec![], "/bin/other"),
        (vec!["/bin/other"], vec!["-p", "$(PORT)"], "/bin/other -p 8080"),
    ] {
        let mut service = service();
        service.workload.containers[0].command = command.into_iter().map(str::to_owned).collect();
        service.workload.containers[0].args = args.into_iter().map(str::to_owned).collect();
        assert_eq!(run(&service, &image()).unwrap().argv.join(" "), expected);
    }
    let error = run(&service(), &ImageConfig::default()).unwrap_err();
    assert!(error.message.contains("neither an entrypoint nor a command"), "{error}");
}

#[test]
fn ports_from_manifest_image_or_default() {
    let mut image = image();
    image.config.exposed_ports = [("53/udp", ()), ("9090/tcp", ()), ("9000/tcp", ())]
        .into_iter()
        .map(|(port, ())| (port.to_owned(), serde_json::json!({})))
        .collect();
    assert_eq!(run(&service(), &image).unwrap().port, 9000);
    let mut with_env = service();
    with_env.workload.containers[0].env = vec![EnvVar { name: "PORT".into(), value: "7000".into() }];
    assert_eq!(run(&with_env, &image).unwrap().port, 7000);
    with_env.workload.containers[0].ports = vec![Port { name: None, number: 6000 }];
    with_env.health.port = Some(6001);
    let spec = run(&with_env, &image).unwrap();
    assert_eq!((spec.port, spec.ports.as_slice(), value(&spec, "PORT")), (6000, [6000, 6001].as_slice(), Some("7000")));
}

#[test]
fn the_environment_is_layered_and_the_provenance_wins() {
    let mut service = service();
    service.workload.containers[0].env = vec![
        EnvVar { name: "MODE".into(), value: "manifest".into() },
        EnvVar { name: "URL".into(), value: "http://$(MODE):$(PORT)/".into() },
        EnvVar { name: "TOWPATH_IMAGE_DIGEST".into(), value: "lie".into() },
    ];
    service.env = vec![("EXTRA".into(), "1".into())];
    let spec = run(&service, &image()).unwrap();
    assert_eq!((value(&spec, "URL"), value(&spec, "EXTRA")), (Some("http://manifest:8080/"), Some("1")));
    assert!(value(&spec, "TOWPATH_IMAGE_DIGEST").unwrap().starts_with("sha256:"));
}

#[test]
fn users_and_signals() {
    let mut service = service();
    let mut image = image();
    image.config.user = "1000:1001".into();
    image.config.stop_signal = Some("SIGQUIT".into());
    let spec = run(&service, &image).unwrap();
    assert_eq!((spec.user, spec.stop_signal), ((1000, 1001), 3));
    service.workload.containers[0].user = Some(7);
    assert_eq!(run(&service, &image).unwrap().user.0, 7);
    image.config.user = "nobody-here".into();
    service.workload.containers[0].user = None;
    assert!(run(&service, &image).unwrap_err().message.contains("nobody-here"));
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let mut two = service();
    two.workload.containers.push(Container::default());
    assert!(run(&two, &image()).unwrap_err().message.contains("deploy.yaml:1) has 2 containers"));
    let mut other = service();
    other.workload.containers[0].image = "demo/other".into();
    assert!(run(&other, &image()).unwrap_err().message.contains("runs demo/other, not demo/site"));
    let foreign = ImageConfig { architecture: "mips".into(), os: "linux".into(), ..image() };
    assert!(run(&service(), &foreign).unwrap_err().message.contains("image for linux/mips"));
}
