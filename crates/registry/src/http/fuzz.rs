//! Doors to the parsers of this module for the fuzzer, with what must hold of whatever they read.

#![allow(missing_docs)]

use http::Method;

use crate::http::form::Form;
use crate::http::range::{Wanted, sent, wanted};
use crate::http::route::Route;
use crate::http::token;

/// A path below `/v2`: what it names could have been written as it is, and leads nowhere.
pub fn route(path: &str) {
    for method in [Method::GET, Method::PUT] {
        let Ok(route) = Route::parse(&method, path) else { continue };
        if let Some(image) = route.image() {
            let name = image.as_str();
            assert!(name.split('/').all(|part| !part.is_empty() && part != "." && part != ".."), "{name}");
            assert!(name.len() <= 255 && name.is_ascii(), "{name}");
        }
    }
}

/// `Range` and `Content-Range`: never more than there is.
pub fn range(header: &str, size: u64) {
    if let Wanted::Part(range) = wanted(Some(header), size) {
        assert!(range.start < range.end && range.end <= size, "{range:?} of {size}");
    }
    if let Some(range) = sent(header) {
        assert!(range.start < range.end, "{range:?}");
    }
}

/// The scopes of a query or form: nothing but known actions, and each thing once.
pub fn scopes(form: &str) {
    let form = Form::parse(form);
    let Ok(scopes) = token::wanted(form.all("scope")) else { return };
    for (index, scope) in scopes.iter().enumerate() {
        assert!(scope.actions.iter().all(|action| matches!(action.as_str(), "pull" | "push" | "delete" | "*")));
        let twice = scopes[..index].iter().any(|other| other.kind == scope.kind && other.name == scope.name);
        assert!(!twice, "{scope:?}");
    }
}
