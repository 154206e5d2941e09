//! Tags, images and referrers.

use oci::{Descriptor, Manifest, media_type};
use reqwest::Method;

use crate::site::{Site, header, json, sha256};

#[tokio::test]
async fn tags_page_by_page_in_the_order_of_their_bytes() {
    let site = Site::start().await;
    for tag in ["b", "a", "Z", "_x", "v1.10", "v1.9"] {
        site.push_image("alice/site", tag, "same").await;
    }
    let all = json(site.alice(Method::GET, "/v2/alice/site/tags/list").send().await.unwrap()).await;
    assert_eq!(all["name"], "alice/site");
    assert_eq!(all["tags"], serde_json::json!(["Z", "_x", "a", "b", "v1.10", "v1.9"]));
    let mut next = "/v2/alice/site/tags/list?n=4".to_owned();
    let first = site.alice(Method::GET, &next).send().await.unwrap();
    let link = header(&first, "link").to_owned();
    assert_eq!(json(first).await["tags"], serde_json::json!(["Z", "_x", "a", "b"]));
    next = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).unwrap().to_owned();
    let second = site.alice(Method::GET, &next).send().await.unwrap();
    assert_eq!(header(&second, "link"), "");
    assert_eq!(json(second).await["tags"], serde_json::json!(["v1.10", "v1.9"]));
    let none = json(site.alice(Method::GET, "/v2/alice/site/tags/list?n=0").send().await.unwrap()).await;
    assert_eq!(none["tags"], serde_json::json!([]));
    let after = site.alice(Method::GET, "/v2/alice/site/tags/list?last=zzz%00%27--").send().await.unwrap();
    assert_eq!(json(after).await["tags"], serde_json::json!([]));
    assert_eq!(site.alice(Method::GET, "/v2/alice/site/tags/list?n=-1").send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn the_catalog_is_for_administrators() {
    let site = Site::start().await;
    site.push_blob("alice/b", b"x").await;
    site.push_blob("alice/a", b"x").await;
    let admin = |path: &str| site.request(Method::GET, path).basic_auth("admin", Some(&site.admin)).send();
    let page = admin("/v2/_catalog?n=1").await.unwrap();
    assert_eq!(header(&page, "link"), "</v2/_catalog?n=1&last=alice%2Fa>; rel=\"next\"");
    assert_eq!(json(page).await["repositories"], serde_json::json!(["alice/a"]));
    let rest = admin("/v2/_catalog?n=9&last=alice%2Fa").await.unwrap();
    assert_eq!(json(rest).await["repositories"], serde_json::json!(["alice/b"]));
    let token = site.token("admin", &site.admin, &["registry:catalog:*"]).await;
    assert_eq!(site.request(Method::GET, "/v2/_catalog").bearer_auth(token).send().await.unwrap().status(), 200);
    let token = site.token("alice", &site.alice, &["registry:catalog:*"]).await;
    assert_eq!(site.request(Method::GET, "/v2/_catalog").bearer_auth(token).send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn referrers_by_type_and_page() {
    let site = Site::start().await;
    let subject = site.push_image("alice/site", "v1", "layer").await;
    let empty = site.push_blob("alice/site", b"{}").await;
    let mut pushed = Vec::new();
    for (kind, note) in [("application/x.sig", "one"), ("application/x.sig", "two"), ("application/x.sbom", "three")] {
        let mut manifest = Manifest::image(Descriptor::new(media_type::OCI_EMPTY, empty, 2), Vec::new());
        manifest.artifact_type = Some(kind.to_owned());
        manifest.subject = Some(Descriptor::new(media_type::OCI_MANIFEST, subject, 1));
        manifest.annotations = Some([("note".to_owned(), note.to_owned())].into());
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let digest = sha256(&bytes);
        let put = site.push_manifest("alice/site", &digest.to_string(), bytes, media_type::OCI_MANIFEST).await;
        assert_eq!((put.status().as_u16(), header(&put, "oci-subject")), (201, &*subject.to_string()));
        pushed.push(digest.to_string());
    }
    let path = format!("/v2/alice/site/referrers/{subject}");
    let all = site.alice(Method::GET, &path).send().await.unwrap();
    assert_eq!(header(&all, "content-type"), media_type::OCI_INDEX);
    let all = json(all).await;
    assert_eq!(all["manifests"].as_array().unwrap().len(), 3);
    let typed = site.alice(Method::GET, &format!("{path}?artifactType=application%2Fx.sbom")).send().await.unwrap();
    assert_eq!(header(&typed, "oci-filters-applied"), "artifactType");
    let typed = json(typed).await;
    assert_eq!(typed["manifests"][0]["digest"], pushed[2].as_str());
    assert_eq!(typed["manifests"][0]["artifactType"], "application/x.sbom");
    assert_eq!(typed["manifests"][0]["annotations"]["note"], "three");
    assert_eq!(typed["manifests"].as_array().unwrap().len(), 1);
    let page = site.alice(Method::GET, &format!("{path}?n=2")).send().await.unwrap();
    let link = header(&page, "link").trim_start_matches('<').split('>').next().unwrap().to_owned();
    let rest = json(site.alice(Method::GET, &link).send().await.unwrap()).await;
    assert_eq!(rest["manifests"].as_array().unwrap().len(), 1);
    let nobody = format!("/v2/alice/site/referrers/{}", sha256(b"nothing"));
    let none = json(site.alice(Method::GET, &nobody).send().await.unwrap()).await;
    assert_eq!(none["manifests"], serde_json::json!([]));
}
