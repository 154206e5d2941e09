//! What was deleted is brought back, as an administrator does.

use std::time::Instant;

use serde_json::{Value, json};

use super::Wrong;
use super::http::Ask;
use super::worker::{Stop, Worker};

impl Worker<'_> {
    /// Brings back one tag, or all that was deleted of the image.
    pub(super) fn bring_back(&mut self) -> Result<(), Stop> {
        let tag = self.one_in(2).then(|| format!("t{}", self.random.below(super::work::TAGS)));
        let image = self.book.image.clone();
        let only = tag.as_ref().map(|tag| format!("&tags={tag}")).unwrap_or_default();
        let deleted = self.manage("GET", &format!("/registry/deleted?images={image}{only}"), None)?;
        let deleted = entries(&deleted["deleted"]);
        if deleted.is_empty() {
            return Ok(());
        }
        for (tag, digest, _) in &deleted {
            self.book.may_be_back(digest);
            if let Some(tag) = tag {
                self.book.tag_may(tag, Some(digest));
            }
        }
        let since = Instant::now();
        let mut asked = json!({ "images": image });
        if let Some(tag) = tag {
            asked["tags"] = tag.into();
        }
        let undone = self.manage("POST", "/registry/undo", Some(&asked))?;
        for (tag, digest, restored) in entries(&undone["undone"]) {
            if restored {
                self.book.is_back(&digest, since);
                if let Some(tag) = tag {
                    self.book.tag_is(&tag, Some(&digest));
                }
            }
        }
        Ok(())
    }

    /// A request of an administrator; nothing if it was refused because the disk is full.
    pub(super) fn manage(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Stop> {
        let body = body.map(|body| body.to_string().into_bytes());
        let headers = [("Content-Type", "application/json")];
        let path = format!("/towpath/v1{path}");
        let answer = self.send(&Ask { method, path: &path, headers: &headers, body: body.as_deref() })?;
        let full = answer.status == 507 && self.shared.full.load(std::sync::atomic::Ordering::Relaxed);
        if answer.status != 200 && !full {
            self.found(Wrong::Answer, format!("{method} {path}: {}", answer.said()));
        }
        Ok(if answer.status == 200 { serde_json::from_slice(&answer.body).unwrap_or_default() } else { Value::Null })
    }
}

/// Tag, digest and whether it was restored.
fn entries(list: &Value) -> Vec<(Option<String>, String, bool)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let entry = |it: &Value| Some((text(&it["tag"]), text(&it["digest"])?, it["restored"] == true));
    list.as_array().into_iter().flatten().filter_map(entry).collect()
}
