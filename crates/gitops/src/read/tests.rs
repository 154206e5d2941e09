//! Manifests as teams write them, and what is wrong with some.

use std::collections::BTreeMap;

use crate::{GitopsError, Port, Readiness, Resources, Workload, workloads};

const SITE: &str = r#"apiVersion: v1
kind: Service
metadata: {name: site}
spec: {ports: [{port: 80, targetPort: http}]}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: site
  namespace: demo
spec:
  replicas: 2
  selector: {matchLabels: {app: site}}
  template:
    metadata: {labels: {app: site}}
    spec:
      terminationGracePeriodSeconds: 5
      securityContext: {runAsUser: 1000, runAsGroup: 1001}
      volumes:
        - {name: tmp, emptyDir: {}}
      containers:
        - name: web
          image: registry.example/demo/site:v1
          command: ["/bin/serve"]
          args: ["--port=$(PORT)", "--quiet"]
          workingDir: /srv
          env:
            - name: PORT
              value: "8080"
            - {name: EMPTY}
          ports:
            - {containerPort: 9000, protocol: UDP}
            - {name: http, containerPort: 8080}
          resources:
            requests: {memory: 64Mi}
            limits: {memory: 128Mi, cpu: 250m}
          readinessProbe:
            httpGet: {path: /ready, port: http}
          securityContext: {runAsUser: 7}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
"#;

fn read(text: &str) -> Result<Vec<Workload>, GitopsError> {
    workloads(&BTreeMap::from([("deploy.yaml".to_owned(), text.to_owned())]))
}

#[test]
fn a_deployment_is_read_whole() {
    let found = read(SITE).unwrap();
    let [workload] = &found[..] else { panic!("{found:?}") };
    assert_eq!((workload.name.as_str(), workload.line, workload.replicas), ("site", 6, 2));
    assert_eq!((workload.namespace.as_deref(), workload.grace_seconds), (Some("demo"), 5));
    let web = workload.container_of(&"demo/site".parse().unwrap()).unwrap();
    assert_eq!((&web.command[..], web.args.len()), (&["/bin/serve".to_owned()][..], 2));
    assert_eq!(
        web.env.iter().map(|var| (&*var.name, &*var.value)).collect::<Vec<_>>(),
        [("PORT", "8080"), ("EMPTY", "")]
    );
    assert_eq!(web.ports, [Port { name: Some("http".into()), number: 8080 }]);
    assert_eq!(web.resources, Resources { memory: Some(128 << 20), cpu_millis: Some(250) });
    assert_eq!(web.readiness, Some(Readiness { path: "/ready".into(), port: Some(8080) }));
    assert_eq!((web.user, web.group), (Some(7), Some(1001)));
    assert_eq!((web.scratch.clone(), web.working_dir.as_deref()), (vec!["/tmp".to_owned()], Some("/srv")));
}

#[test]
fn lists_are_opened_and_other_files_passed_over() {
    let document = SITE.split_once("---\n").unwrap().1;
    let indented: String = document.lines().map(|line| format!("    {line}\n")).collect();
    let list = format!("apiVersion: v1\nkind: List\nitems:\n  -\n{indented}");
    assert_eq!(read(&list).unwrap().len(), 1);
    assert_eq!(read("not: [a manifest").unwrap(), []);
    assert_eq!(read("kind: Deployment\npatch: without version\n").unwrap(), []);
}

#[test]
fn every_mistake_has_its_place() {
    for (from, to, place, says) in [
        ("value: \"8080\"", "value: 8080", "deploy.yaml:29:22", "put it in quotes"),
        ("containerPort: 8080", "containerPort: 80800", "deploy.yaml:33:43", "1 to 65535"),
        ("memory: 128Mi", "memory: lots", "deploy.yaml:36:30", "not a quantity"),
        ("          image: registry.example/demo/site:v1\n", "", "deploy.yaml:22:11", "has no image"),
        ("  name: site\n  namespace", "  namespace", "deploy.yaml:9:3", "has no name"),
        ("apps/v1", "extensions/v1beta1", "deploy.yaml:6:1", "only apps/v1"),
        ("replicas: 2", "replicas: many", "deploy.yaml:12:13", "must be a number"),
        ("workingDir: /srv", "image: again", "deploy.yaml:26:11", "twice"),
        ("command: [", "command: &c\n            <<: [", "deploy.yaml:24:20", "must be a list"),
        ("{name: tmp, mountPath", "{name: data, mountPath", "deploy.yaml:41:15", "no volume"),
    ] {
        let text = SITE.replacen(from, to, 1);
        assert_ne!(text, SITE, "{from}");
        let error = read(&text).unwrap_err();
        assert!(matches!(error, GitopsError::Manifest { .. }), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(error.to_string().starts_with(&format!("{place}: ")), "{place} expected: {error}");
    }
}

#[test]
fn what_the_local_engine_does_not_run_is_refused_by_name() {
    for (from, to, says) in [
        ("emptyDir: {}", "configMap: {name: x}", "the volume tmp of kind configMap"),
        ("      containers:", "      initContainers: [{name: a}]\n      containers:", "initContainers"),
        ("value: \"8080\"", "valueFrom: {secretKeyRef: {name: a, key: b}}", "the variable PORT with valueFrom"),
        ("          env:", "          envFrom: [{secretRef: {name: a}}]\n          env:", "envFrom"),
        ("replicas: 2", "replicas: 0", "0 replicas"),
        ("terminationGracePeriodSeconds: 5", "hostNetwork: true", "hostNetwork"),
        ("kind: Deployment", "kind: StatefulSet", "a StatefulSet"),
    ] {
        let error = read(&SITE.replacen(from, to, 1)).unwrap_err();
        assert!(matches!(error, GitopsError::Refused { .. }), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(error.place().unwrap().contains('^'));
    }
}

proptest::proptest! {
    #[test]
    fn never_panics(at in 0usize..1500, insert in "[-:{}\\[\\]&*a\n ]{0,6}") {
        let at = at.min(SITE.len());
        let _ = read(&format!("{}{insert}{}", &SITE[..at], &SITE[at..]));
    }
}
