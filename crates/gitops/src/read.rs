//! Typed reading of manifests, with the place of everything that is wrong.

use crate::workload::{Container, EnvVar, Port, Readiness, Resources, Workload, WorkloadKind};
use crate::yaml::{Kind, Meaning, NodeId, Tree};
use crate::{GitopsError, quantity};

/// Kinds that run pods, which only a cluster runs.
const OTHER_WORKLOADS: [&str; 7] =
    ["StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob", "Pod"];

/// Adds the workloads of one file.
pub(crate) fn file(file: &str, text: &str, found: &mut Vec<Workload>) -> Result<(), GitopsError> {
    // Files without a kind of ours are not manifests for us: charts, patches, values.
    if !text.contains("Deployment") && !OTHER_WORKLOADS.iter().any(|kind| text.contains(kind)) {
        return Ok(());
    }
    let tree = Tree::parse(file, text)?;
    let reader = Reader { tree: &tree };
    for root in &tree.roots {
        match reader.kind(*root) {
            Some("List") => {
                for item in reader.list(*root, "items")? {
                    reader.document(item, found)?;
                }
            }
            _ => reader.document(*root, found)?,
        }
    }
    Ok(())
}

struct Reader<'t> {
    tree: &'t Tree<'t>,
}

impl<'t> Reader<'t> {
    fn kind(&self, root: NodeId) -> Option<&'t str> {
        self.tree.get(root, "kind").and_then(|node| self.tree.scalar(node))
    }

    fn document(&self, root: NodeId, found: &mut Vec<Workload>) -> Result<(), GitopsError> {
        let Some(kind) = self.kind(root) else { return Ok(()) };
        let Some(version) = self.text(root, "apiVersion")? else { return Ok(()) };
        match kind {
            "Deployment" if version == "apps/v1" => found.push(self.deployment(root)?),
            "Deployment" => return Err(self.wrong(root, format!("Deployment of {version:?}: only apps/v1 is known"))),
            other if OTHER_WORKLOADS.contains(&other) && matches!(&*version, "v1" | "apps/v1" | "batch/v1") => {
                let name = self.field(root, "metadata")?.map(|metadata| self.text(metadata, "name")).transpose()?;
                let workload = format!("{other} {}", name.flatten().unwrap_or_default());
                return Err(self.refused(root, &workload, format!("a {other}")));
            }
            _ => {}
        }
        Ok(())
    }

    fn deployment(&self, root: NodeId) -> Result<Workload, GitopsError> {
        let metadata = self.required(root, "metadata", "the Deployment")?;
        let name = self.required_text(metadata, "name", "metadata")?;
        let who = format!("Deployment {name}");
        let spec = self.required(root, "spec", &who)?;
        let template = self.required(spec, "template", &who)?;
        let pod = self.required(template, "spec", &who)?;
        let replicas = self.integer(spec, "replicas")?.unwrap_or(1);
        if replicas == 0 {
            return Err(self.refused(spec, &who, "0 replicas: nothing would serve".to_owned()));
        }
        self.refuse_keys(pod, &who, &["initContainers", "ephemeralContainers"])?;
        for key in ["hostNetwork", "hostPID", "hostIPC"] {
            if let Some(node) = self.field(pod, key)?
                && self.tree.meaning(node) != Some(Meaning::Bool(false))
            {
                return Err(self.refused(node, &who, format!("a pod with {key}")));
            }
        }
        let volumes = self.volumes(pod, &who)?;
        let (user, group) = self.identity(pod)?;
        let mut containers = Vec::new();
        for node in self.list(pod, "containers")? {
            let mut container = self.container(node, &who, &volumes)?;
            container.user = container.user.or(user);
            container.group = container.group.or(group);
            containers.push(container);
        }
        if containers.is_empty() {
            return Err(self.wrong(pod, format!("{who} has no containers")));
        }
        Ok(Workload {
            kind: WorkloadKind::Deployment,
            namespace: self.text(metadata, "namespace")?,
            name,
            file: self.tree.file.to_owned(),
            line: self.tree.nodes[root].line,
            replicas,
            grace_seconds: self.integer(pod, "terminationGracePeriodSeconds")?.unwrap_or(30),
            containers,
        })
    }

    /// The names of the volumes, all of which are empty directories.
    fn volumes(&self, pod: NodeId, who: &str) -> Result<Vec<String>, GitopsError> {
        let mut names = Vec::new();
        for volume in self.list(pod, "volumes")? {
            let name = self.required_text(volume, "name", "the volume")?;
            if self.tree.get(volume, "emptyDir").is_none() {
                let Kind::Mapping(entries) = &self.tree.nodes[volume].kind else { continue };
                let kind = entries.iter().filter_map(|(key, _)| self.tree.scalar(*key)).find(|key| *key != "name");
                let what = format!("the volume {name} of kind {}", kind.unwrap_or("(none)"));
                return Err(self.refused(volume, who, what));
            }
            names.push(name);
        }
        Ok(names)
    }

    fn container(&self, node: NodeId, who: &str, volumes: &[String]) -> Result<Container, GitopsError> {
        let name = self.required_text(node, "name", &format!("a container of {who}"))?;
        self.refuse_keys(node, who, &["envFrom", "volumeDevices"])?;
        let mut scratch = Vec::new();
        for mount in self.list(node, "volumeMounts")? {
            let volume = self.required_text(mount, "name", "the volume mount")?;
            if !volumes.contains(&volume) {
                return Err(self.wrong(mount, format!("{who} has no volume {volume:?}")));
            }
            scratch.push(self.required_text(mount, "mountPath", "the volume mount")?);
        }
        let ports = self.ports(node, who)?;
        let (user, group) = self.identity(node)?;
        Ok(Container {
            image: self.required_text(node, "image", &format!("container {name} of {who}"))?,
            command: self.texts(node, "command")?,
            args: self.texts(node, "args")?,
            working_dir: self.text(node, "workingDir")?,
            env: self.env(node, who)?,
            resources: self.resources(node)?,
            readiness: self.readiness(node, &ports)?,
            name,
            ports,
            user,
            group,
            scratch,
        })
    }

    fn env(&self, container: NodeId, who: &str) -> Result<Vec<EnvVar>, GitopsError> {
        let mut env = Vec::new();
        for entry in self.list(container, "env")? {
            let name = self.required_text(entry, "name", "the environment variable")?;
            if let Some(from) = self.field(entry, "valueFrom")? {
                return Err(self.refused(from, who, format!("the variable {name} with valueFrom")));
            }
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(self.wrong(entry, format!("{name:?} cannot be the name of an environment variable")));
            }
            env.push(EnvVar { value: self.text(entry, "value")?.unwrap_or_default(), name });
        }
        Ok(env)
    }

    fn ports(&self, container: NodeId, who: &str) -> Result<Vec<Port>, GitopsError> {
        let mut ports = Vec::new();
        for entry in self.list(container, "ports")? {
            self.refuse_keys(entry, who, &["hostPort", "hostIP"])?;
            if self.text(entry, "protocol")?.is_some_and(|protocol| protocol != "TCP") {
                continue;
            }
            let node = self.required(entry, "containerPort", "the port")?;
            ports.push(Port { name: self.text(entry, "name")?, number: self.port(node)? });
        }
        Ok(ports)
    }

    fn port(&self, node: NodeId) -> Result<u16, GitopsError> {
        match self.tree.meaning(node) {
            Some(Meaning::Integer(number @ 1..=65535)) => Ok(u16::try_from(number).unwrap_or(u16::MAX)),
            _ => Err(self.wrong(node, "a port is a number from 1 to 65535".to_owned())),
        }
    }

    fn resources(&self, container: NodeId) -> Result<Resources, GitopsError> {
        let Some(resources) = self.field(container, "resources")? else { return Ok(Resources::default()) };
        let Some(limits) = self.field(resources, "limits")? else { return Ok(Resources::default()) };
        let quantity = |key: &str, read: fn(&str) -> Option<u64>| match self.field(limits, key)? {
            None => Ok(None),
            Some(node) => match self.tree.scalar(node).and_then(read) {
                Some(value) => Ok(Some(value)),
                None => Err(self.wrong(node, format!("the {key} limit is not a quantity such as 128Mi or 500m"))),
            },
        };
        Ok(Resources { memory: quantity("memory", quantity::units)?, cpu_millis: quantity("cpu", quantity::millis)? })
    }

    fn readiness(&self, container: NodeId, ports: &[Port]) -> Result<Option<Readiness>, GitopsError> {
        let Some(probe) = self.field(container, "readinessProbe")? else { return Ok(None) };
        // A probe by command or socket says nothing that the identity check would not.
        let Some(get) = self.field(probe, "httpGet")? else { return Ok(None) };
        let path = self.text(get, "path")?.unwrap_or_else(|| "/".to_owned());
        let node = self.required(get, "port", "httpGet")?;
        let port = match self.tree.meaning(node) {
            Some(Meaning::Text) => {
                let name = self.tree.scalar(node);
                ports.iter().find(|port| port.name.as_deref() == name).map(|port| port.number)
            }
            _ => Some(self.port(node)?),
        };
        Ok(Some(Readiness { path, port }))
    }

    fn identity(&self, node: NodeId) -> Result<(Option<u32>, Option<u32>), GitopsError> {
        match self.field(node, "securityContext")? {
            Some(context) => Ok((self.integer(context, "runAsUser")?, self.integer(context, "runAsGroup")?)),
            None => Ok((None, None)),
        }
    }

    fn refuse_keys(&self, node: NodeId, who: &str, keys: &[&str]) -> Result<(), GitopsError> {
        for key in keys {
            if let Some(found) = self.field(node, key)? {
                let empty = matches!(&self.tree.nodes[found].kind, Kind::Sequence(items) if items.is_empty());
                if !empty {
                    return Err(self.refused(found, who, (*key).to_owned()));
                }
            }
        }
        Ok(())
    }

    /// The value of a key; nothing if it is absent or null.
    fn field(&self, node: NodeId, key: &str) -> Result<Option<NodeId>, GitopsError> {
        let Kind::Mapping(entries) = &self.tree.nodes[self.tree.follow(node)].kind else {
            return Err(self.wrong(node, format!("expected a mapping with the key {key}")));
        };
        let mut values = entries.iter().filter(|(name, _)| self.tree.scalar(*name) == Some(key));
        let first = values.next().map(|(_, value)| self.tree.follow(*value));
        if let Some((again, _)) = values.next() {
            return Err(self.wrong(*again, format!("the key {key} is there twice")));
        }
        if first.is_none()
            && let Some((merge, _)) = entries.iter().find(|(name, _)| self.tree.scalar(*name) == Some("<<"))
        {
            return Err(self.wrong(*merge, "merge keys (<<) are not read: write the keys out".to_owned()));
        }
        Ok(first.filter(|value| self.tree.meaning(*value) != Some(Meaning::Null)))
    }

    fn required(&self, node: NodeId, key: &str, whose: &str) -> Result<NodeId, GitopsError> {
        self.field(node, key)?.ok_or_else(|| self.wrong(node, format!("{whose} has no {key}")))
    }

    fn text(&self, node: NodeId, key: &str) -> Result<Option<String>, GitopsError> {
        self.field(node, key)?.map(|value| self.string(value, key)).transpose()
    }

    fn required_text(&self, node: NodeId, key: &str, whose: &str) -> Result<String, GitopsError> {
        self.string(self.required(node, key, whose)?, key)
    }

    fn string(&self, value: NodeId, key: &str) -> Result<String, GitopsError> {
        match (self.tree.meaning(value), self.tree.scalar(value)) {
            (Some(Meaning::Text), Some(text)) if !text.contains('\0') => Ok(text.to_owned()),
            (Some(_), Some(text)) => {
                Err(self.wrong(value, format!("{key} must be a string, and {text} is none: put it in quotes")))
            }
            _ => Err(self.wrong(value, format!("{key} must be a string"))),
        }
    }

    fn integer(&self, node: NodeId, key: &str) -> Result<Option<u32>, GitopsError> {
        let Some(value) = self.field(node, key)? else { return Ok(None) };
        match self.tree.meaning(value) {
            Some(Meaning::Integer(number)) if u32::try_from(number).is_ok() => Ok(u32::try_from(number).ok()),
            _ => Err(self.wrong(value, format!("{key} must be a number from 0 to {}", u32::MAX))),
        }
    }

    fn list(&self, node: NodeId, key: &str) -> Result<Vec<NodeId>, GitopsError> {
        let Some(value) = self.field(node, key)? else { return Ok(Vec::new()) };
        match &self.tree.nodes[value].kind {
            Kind::Sequence(items) => Ok(items.iter().map(|item| self.tree.follow(*item)).collect()),
            _ => Err(self.wrong(value, format!("{key} must be a list"))),
        }
    }

    fn texts(&self, node: NodeId, key: &str) -> Result<Vec<String>, GitopsError> {
        self.list(node, key)?.into_iter().map(|item| self.string(item, &format!("an entry of {key}"))).collect()
    }

    fn wrong(&self, node: NodeId, message: String) -> GitopsError {
        GitopsError::Manifest { place: self.tree.place(node), message }
    }

    fn refused(&self, node: NodeId, workload: &str, what: String) -> GitopsError {
        GitopsError::Refused { place: self.tree.place(node), workload: workload.to_owned(), what }
    }
}

#[cfg(test)]
mod tests;
