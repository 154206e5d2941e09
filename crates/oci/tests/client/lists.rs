//! Pages.

use model::Digest;
use oci::client::{Auth, ClientError};

use crate::script::{Script, answer};

#[tokio::test]
async fn pages_are_followed_to_the_end_and_not_elsewhere() {
    let script = Script::start(|heard| match heard.path.as_str() {
        "/v2/a/b/tags/list?n=1000" => {
            let link = r#"<https://elsewhere.example/v2/a/b/tags/list?n=1000&last=v2>; rel="next""#;
            answer(200, &[("Link", link)], r#"{"name":"a/b","tags":["v1","v2","not a tag!"]}"#)
        }
        "/v2/a/b/tags/list?n=1000&last=v2" => answer(200, &[], r#"{"name":"a/b","tags":["v3"]}"#),
        "/v2/a/b/tags/list" => answer(200, &[("Link", "</v2/c/tags/list?n=1>; rel=next")], r#"{"tags":null}"#),
        _ => answer(404, &[], ""),
    })
    .await;
    let remote = script.remote(Auth::Anonymous);
    let tags: Vec<String> = remote.all_tags(100).await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(tags, ["v1", "v2", "v3"]);
    assert!(matches!(remote.all_tags(2).await, Err(ClientError::Protocol { .. })));
    assert!(matches!(remote.tags(None, None).await, Err(ClientError::Protocol { .. })));
}

#[tokio::test]
async fn a_page_that_leads_to_itself_ends() {
    let script = Script::start(|heard| {
        let link = format!("<{}>; rel=\"next\"", heard.path);
        answer(200, &[("Link", &link)], r#"{"tags":["v1"]}"#)
    })
    .await;
    assert_eq!(script.remote(Auth::Anonymous).all_tags(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_page_for_people_is_no_list_of_referrers() {
    let digest = Digest::sha256([7; 32]);
    let script = Script::start(|heard| match heard.path.contains("/referrers/") {
        true => answer(200, &[("Content-Type", "text/html")], "<html>"),
        false => answer(404, &[], ""),
    })
    .await;
    assert_eq!(script.remote(Auth::Anonymous).referrers(&digest, None).await.unwrap(), []);
    assert_eq!(script.heard(&format!("/v2/a/b/manifests/sha256-{}", digest.hex())).len(), 1);
}
