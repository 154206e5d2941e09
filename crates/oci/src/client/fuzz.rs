//! Doors to the client's parsers for the fuzzer.

#![allow(missing_docs)]

use reqwest::header::{HeaderMap, HeaderValue, LINK, WWW_AUTHENTICATE};

use crate::client::challenge::Challenge;
use crate::client::listing::next_link;

/// Lines of `WWW-Authenticate`.
pub fn challenge(lines: &str) {
    let mut headers = HeaderMap::new();
    for line in lines.lines() {
        if let Ok(value) = HeaderValue::from_str(line) {
            headers.append(WWW_AUTHENTICATE, value);
        }
    }
    let _ = Challenge::choose(&headers);
}

/// A `Link`: what it leads to is a part of it.
pub fn link(text: &str) {
    let Ok(value) = HeaderValue::from_str(text) else { return };
    let headers = HeaderMap::from_iter([(LINK, value)]);
    if let Some(next) = headers[LINK].to_str().ok().and_then(next_link) {
        assert!(text.contains(next));
    }
}
