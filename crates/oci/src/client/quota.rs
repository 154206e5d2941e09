//! How many pulls a registry allows, as docker's says it.

use std::time::Duration;

use reqwest::header::HeaderMap;

/// How many pulls a registry allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullQuota {
    /// In all, within the window; nothing if it did not say.
    pub limit: Option<u64>,
    /// How many are left.
    pub remaining: u64,
    /// The window.
    pub window: Option<Duration>,
}

impl PullQuota {
    /// From `RateLimit-Limit: 100;w=21600` and `RateLimit-Remaining: 76;w=21600`.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let read = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).and_then(count);
        let (remaining, window) = read("ratelimit-remaining")?;
        Some(Self { limit: read("ratelimit-limit").map(|(limit, _)| limit), remaining, window })
    }
}

/// A number and the window that it is for.
fn count(text: &str) -> Option<(u64, Option<Duration>)> {
    let mut parts = text.split(';').map(str::trim);
    let number = parts.next()?.parse().ok()?;
    let seconds = parts.find_map(|part| part.strip_prefix("w=")?.parse::<u64>().ok());
    Some((number, seconds.map(|seconds| Duration::from_secs(seconds.min(86_400)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_says() {
        let mut headers = HeaderMap::new();
        assert_eq!(PullQuota::of(&headers), None);
        headers.insert("ratelimit-remaining", "76;w=21600".parse().unwrap());
        let window = Some(Duration::from_secs(21_600));
        assert_eq!(PullQuota::of(&headers), Some(PullQuota { limit: None, remaining: 76, window }));
        headers.insert("ratelimit-limit", "100; w=21600".parse().unwrap());
        assert_eq!(PullQuota::of(&headers), Some(PullQuota { limit: Some(100), remaining: 76, window }));
        headers.insert("ratelimit-remaining", "-1".parse().unwrap());
        assert_eq!(PullQuota::of(&headers), None);
    }
}
