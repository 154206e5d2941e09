//! What a proxy changes in the headers (RFC 9110, section 7.6).

use std::net::IpAddr;

use http::header::{CONNECTION, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

/// Headers that end at the next hop even if `Connection` does not name them.
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Whether a request asks for another protocol on its connection.
pub(crate) fn wants_upgrade(version: Version, headers: &HeaderMap) -> bool {
    let named = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case("upgrade"));
    named && headers.contains_key(UPGRADE) && version == Version::HTTP_11
}

fn end_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Headers as the service gets them.
pub(crate) fn to_service(headers: &mut HeaderMap, client: IpAddr, upgrade: bool) {
    let protocol = headers.get(UPGRADE).cloned();
    end_hop(headers);
    // The body is forwarded as it comes, so the proxy has said already that it may come.
    headers.remove(EXPECT);
    match protocol.filter(|_| upgrade) {
        Some(protocol) => {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocol);
        }
        None => {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
    let forwarded_for = HeaderName::from_static("x-forwarded-for");
    let before = headers.get_all(&forwarded_for).iter().filter_map(|value| value.to_str().ok());
    let all = before.map(str::to_owned).chain([client.to_canonical().to_string()]).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::from_str(&all) {
        headers.insert(forwarded_for, value);
    }
    set_if_absent(headers, "x-forwarded-proto", HeaderValue::from_static("http"));
    match headers.get(HOST).cloned() {
        Some(host) => set_if_absent(headers, "x-forwarded-host", host),
        // HTTP/1.0 has none, and HTTP/1.1 needs one.
        None => _ = headers.insert(HOST, HeaderValue::from_static("localhost")),
    }
}

fn set_if_absent(headers: &mut HeaderMap, name: &'static str, value: HeaderValue) {
    headers.entry(HeaderName::from_static(name)).or_insert(value);
}

/// Headers as the client gets them.
pub(crate) fn to_client(headers: &mut HeaderMap, status: StatusCode) {
    let protocol = headers.get(UPGRADE).cloned();
    end_hop(headers);
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(protocol)) = (status, protocol) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Whether the proxy forwards the method: it is no tunnel to elsewhere.
pub(crate) fn forwards(method: &Method) -> bool {
    method != Method::CONNECT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn hop_by_hop_headers_end_here() {
        let mut headers = map(&[
            ("host", "site.example"),
            ("connection", "keep-alive, X-Secret"),
            ("keep-alive", "timeout=5"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("upgrade", "h2c"),
            ("x-forwarded-for", "10.0.0.1"),
            ("cookie", "a=b"),
        ]);
        to_service(&mut headers, "::ffff:127.0.0.1".parse().unwrap(), false);
        let expected = map(&[
            ("host", "site.example"),
            ("cookie", "a=b"),
            ("connection", "close"),
            ("x-forwarded-for", "10.0.0.1, 127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "site.example"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn upgrades_keep_their_protocol() {
        let mut headers = map(&[("connection", "Upgrade"), ("upgrade", "websocket"), ("host", "x")]);
        assert!(wants_upgrade(Version::HTTP_11, &headers));
        assert!(!wants_upgrade(Version::HTTP_10, &headers));
        to_service(&mut headers, "127.0.0.1".parse().unwrap(), true);
        assert_eq!(
            (&headers[CONNECTION], &headers[UPGRADE]),
            (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
        let mut answer = map(&[("connection", "upgrade"), ("upgrade", "websocket")]);
        to_client(&mut answer, StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(answer.len(), 2);
        to_client(&mut answer, StatusCode::OK);
        assert_eq!(answer.len(), 0);
    }
}
