//! Containers and services: the shape of what is written, and the expressions in it.

use super::Reader;
use crate::error::WorkflowError;
use crate::expression::scope::Scope;
use crate::node::{Kind, Node};
use crate::text::clip;

type Read<T> = Result<T, WorkflowError>;

const CONTAINER_KEYS: [&str; 6] = ["image", "credentials", "env", "ports", "volumes", "options"];
const SERVICE_KEYS: [&str; 8] = ["image", "credentials", "env", "ports", "volumes", "options", "command", "entrypoint"];

impl Reader<'_> {
    /// Checks `container:` of a job.
    pub(crate) fn check_container(&self, node: &Node, what: &str) -> Read<()> {
        self.check_container_keys(node, what, &CONTAINER_KEYS)
    }

    /// Checks `services:` of a job.
    pub(crate) fn check_services(&self, node: &Node) -> Read<()> {
        if let Some(text) = node.as_template() {
            return self.check_template(node, text, &Scope::JOB).map(|_| ());
        }
        for (key, service) in self.map(node, "`services`")? {
            self.check_id(&key.text, key.place, "the service")?;
            let what = format!("the service `{}`", clip(&key.text, 60));
            self.check_container_keys(service, &what, &SERVICE_KEYS)?;
        }
        Ok(())
    }

    fn check_container_keys(&self, node: &Node, what: &str, known: &[&str]) -> Read<()> {
        if let Kind::Scalar(scalar) = &node.kind {
            return self.check_template(node, &scalar.text, &Scope::JOB).map(|_| ());
        }
        let fields = self.fields(node, what, known)?;
        let Some(image) = fields.get("image") else {
            return Err(self.error(node.place, format!("{what} has no `image`")));
        };
        self.filled(image, &format!("`image` of {what}"), Some(&Scope::JOB))?;
        for key in ["options", "command", "entrypoint"] {
            if let Some(node) = fields.get(key) {
                self.text(node, &format!("`{key}` of {what}"), &Scope::JOB)?;
            }
        }
        for key in ["ports", "volumes"] {
            if let Some(node) = fields.get(key) {
                self.check_list(node, &format!("`{key}` of {what}"))?;
            }
        }
        if let Some(node) = fields.get("env") {
            self.text_map(node, &format!("`env` of {what}"), &Scope::OUTPUTS)?;
        }
        if let Some(node) = fields.get("credentials") {
            self.check_credentials(node, what)?;
        }
        Ok(())
    }

    fn check_list(&self, node: &Node, what: &str) -> Read<()> {
        match &node.kind {
            Kind::List(items) => {
                items.iter().try_for_each(|item| self.filled(item, what, Some(&Scope::JOB)).map(|_| ()))
            }
            Kind::Scalar(scalar) if node.as_template().is_some() => {
                self.check_template(node, &scalar.text, &Scope::JOB).map(|_| ())
            }
            _ if node.is_null() => Ok(()),
            _ => Err(self.error(node.place, format!("{what} must be a list, not {}", node.describe()))),
        }
    }

    fn check_credentials(&self, node: &Node, what: &str) -> Read<()> {
        let name = format!("`credentials` of {what}");
        let fields = self.fields(node, &name, &["username", "password"])?;
        for key in ["username", "password"] {
            match fields.get(key) {
                Some(node) => {
                    self.filled(node, &format!("`{key}` of {name}"), Some(&Scope::CREDENTIALS)).map(|_| ())?
                }
                None => return Err(self.error(node.place, format!("{name} have no `{key}`"))),
            }
        }
        Ok(())
    }
}
