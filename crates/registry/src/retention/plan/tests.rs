//! What no plan may do, and what the rules mean.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const DAY: i64 = 86_400_000;
const MOMENT: Moment = Moment { now: Timestamp(1000 * DAY), grace: DAY };

fn digest(number: u8) -> Digest {
    Digest::sha256([number; 32])
}

fn manifest(number: u8, days: i64) -> ManifestFacts {
    let pushed = Timestamp(MOMENT.now.0 - days * DAY);
    ManifestFacts { digest: digest(number), size: 1, pushed, pulled: None, subject: None }
}

fn tag(name: &str, number: u8, days: i64) -> TagFacts {
    let updated = Timestamp(MOMENT.now.0 - days * DAY);
    TagFacts { tag: name.parse().unwrap(), digest: digest(number), updated, pulled: None, immutable: None }
}

fn image(manifests: Vec<ManifestFacts>, tags: Vec<TagFacts>) -> ImageFacts {
    let (children, roots) = (Vec::new(), HashMap::new());
    ImageFacts { name: "demo/site".parse().unwrap(), frozen: None, manifests, tags, children, roots }
}

fn rule() -> Rule {
    Rule {
        images: ImagePattern::all(),
        tags: TagPattern::all(),
        keep_newest: None,
        keep_younger: None,
        keep_pulled_within: None,
        untagged_older_than: None,
    }
}

/// The names of the tags and the numbers of the manifests that go.
fn gone(image: &ImageFacts, rules: &[Rule]) -> (Vec<String>, Vec<u8>) {
    let (mut tags, mut manifests) = (Vec::new(), Vec::new());
    for decision in plan(image, rules, MOMENT).into_iter().filter(|decision| !decision.keep) {
        assert!(!decision.why.is_empty() && !decision.why.contains('\n'));
        match decision.subject {
            Subject::Tag(tag, _) => tags.push(tag.to_string()),
            Subject::Manifest(digest) => manifests.push(digest.as_bytes()[0]),
        }
    }
    (tags, manifests)
}

#[test]
fn without_rules_everything_stays() {
    let image = image(vec![manifest(1, 900), manifest(2, 900)], vec![tag("v1", 1, 900)]);
    assert_eq!(gone(&image, &[]), (vec![], vec![]));
}

#[test]
fn the_newest_are_counted_by_what_a_person_means() {
    // An index of two platforms with two tags, and three plain images.
    let mut image = image(
        (1..=6).map(|number| manifest(number, i64::from(number) * 10)).collect(),
        vec![tag("v4", 1, 10), tag("latest", 1, 10), tag("v3", 4, 40), tag("v2", 5, 50), tag("v1", 6, 60)],
    );
    image.children = vec![(digest(1), digest(2)), (digest(1), digest(3))];
    let rules = [Rule { keep_newest: Some(2), ..rule() }];
    assert_eq!(gone(&image, &rules), (vec!["v2".to_owned(), "v1".to_owned()], vec![5, 6]));
    let why: Vec<String> = plan(&image, &rules, MOMENT).into_iter().map(|decision| decision.why).collect();
    assert_eq!(why[2], "rule 1: number 2 of 4, the newest 2 are kept");
    assert_eq!(why[4], "rule 1: number 4 of 4, set 60 days ago, never pulled");
    assert_eq!(why[6], "is part of sha256:010101010101, which is kept");
}

#[test]
fn any_condition_keeps_and_the_first_rule_counts() {
    let mut image = image(
        (1..=4).map(|number| manifest(number, 100)).collect(),
        vec![tag("v1", 1, 100), tag("v2", 2, 20), tag("v3", 3, 100), tag("pr-4", 4, 100)],
    );
    image.manifests[2].pulled = Some(Timestamp(MOMENT.now.0 - 3 * DAY));
    let versions = Rule {
        tags: "v*".parse().unwrap(),
        keep_younger: Some(30 * DAY),
        keep_pulled_within: Some(14 * DAY),
        ..rule()
    };
    let rest = Rule { keep_newest: Some(0), ..rule() };
    let expected = (vec!["v1".to_owned(), "pr-4".to_owned()], vec![1, 4]);
    assert_eq!(gone(&image, &[versions.clone(), rest.clone()]), expected);
    let elsewhere = Rule { images: "other/*".parse().unwrap(), keep_newest: Some(0), ..rule() };
    assert_eq!(gone(&image, &[elsewhere]), (vec![], vec![]));
    image.tags[0].immutable = Some("v*".to_owned());
    assert_eq!(gone(&image, &[versions, rest]), (vec!["pr-4".to_owned()], vec![4]));
}

#[test]
fn untagged_ones_go_with_what_they_stand_on() {
    let mut image = image((1..=6).map(|number| manifest(number, 50)).collect(), Vec::new());
    // 1 is an index of 2; 3 is about 1, and 4 about 3; 5 is about something that is not here; 6 is young.
    image.children = vec![(digest(1), digest(2))];
    image.manifests[2].subject = Some(digest(1));
    image.manifests[3].subject = Some(digest(3));
    image.manifests[4].subject = Some(digest(99));
    image.manifests[5].pushed = MOMENT.now;
    let rules = [Rule { untagged_older_than: Some(7 * DAY), ..rule() }];
    assert_eq!(gone(&image, &rules).1, vec![1, 2, 3, 4, 5]);
    image.roots = HashMap::from([(digest(1), "deployed at target site".to_owned())]);
    assert_eq!(gone(&image, &rules).1, vec![5]);
    image.frozen = Some("frozen".to_owned());
    assert_eq!(gone(&image, &rules).1, Vec::<u8>::new());
}

#[test]
fn what_is_deployed_keeps_its_tag_until_it_is_not() {
    let mut image = image(vec![manifest(1, 50)], vec![tag("v1", 1, 50)]);
    let rules = [Rule { keep_newest: Some(0), ..rule() }];
    image.roots = HashMap::from([(digest(1), "deployed at target site".to_owned())]);
    assert_eq!(gone(&image, &rules), (vec![], vec![]));
    image.roots.clear();
    assert_eq!(gone(&image, &rules), (vec!["v1".to_owned()], vec![1]));
}

/// Images in which anything may stand on anything that is older.
fn images() -> impl Strategy<Value = ImageFacts> {
    let manifest = (0..60_i64, proptest::option::of(0..60_i64), proptest::option::of(any::<u8>()));
    let manifests = proptest::collection::vec(manifest, 1..24);
    let tags = proptest::collection::vec((any::<u8>(), 0..60_i64, any::<bool>()), 0..12);
    let children = proptest::collection::vec((any::<u8>(), any::<u8>()), 0..24);
    let roots = proptest::collection::vec(any::<u8>(), 0..3);
    (manifests, tags, children, roots, proptest::bool::weighted(0.05)).prop_map(build)
}

type Parts = (Vec<(i64, Option<i64>, Option<u8>)>, Vec<(u8, i64, bool)>, Vec<(u8, u8)>, Vec<u8>, bool);

fn build((manifests, tags, children, roots, frozen): Parts) -> ImageFacts {
    let count = u8::try_from(manifests.len()).unwrap();
    let mut facts = image(Vec::new(), Vec::new());
    for (number, (days, pulled, subject)) in (0..count).zip(manifests) {
        let mut manifest = manifest(number, days);
        manifest.pulled = pulled.map(|days| Timestamp(MOMENT.now.0 - days * DAY));
        manifest.subject = subject.map(|it| digest(it % (number + 2))).filter(|it| *it != manifest.digest);
        facts.manifests.push(manifest);
    }
    for (number, (on, days, immutable)) in tags.into_iter().enumerate() {
        let mut tag = tag(&format!("v{number}"), on % count, days);
        tag.immutable = immutable.then(|| "v*".to_owned());
        facts.tags.push(tag);
    }
    let pairs = children.into_iter().map(|(one, other)| (one % count, other % count));
    facts.children =
        pairs.filter(|(one, other)| one > other).map(|(one, other)| (digest(one), digest(other))).collect();
    facts.roots = roots.into_iter().map(|root| (digest(root % count), "deployed".to_owned())).collect();
    facts.frozen = frozen.then(|| "frozen".to_owned());
    facts
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let days = || proptest::option::of((0..60_i64).prop_map(|days| days * DAY));
    let rule = (proptest::bool::ANY, proptest::option::of(0..6_usize), days(), days(), days());
    let rule = rule.prop_map(|(all, keep_newest, keep_younger, keep_pulled_within, untagged_older_than)| Rule {
        images: ImagePattern::all(),
        tags: if all { TagPattern::all() } else { "v[0-4]".parse().unwrap() },
        keep_newest,
        keep_younger,
        keep_pulled_within,
        untagged_older_than,
    });
    proptest::collection::vec(rule, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_stood_on_ever_goes(facts in images(), rules in rules()) {
        let decisions = plan(&facts, &rules, MOMENT);
        prop_assert_eq!(decisions.len(), facts.tags.len() + facts.manifests.len());
        prop_assert_eq!(&decisions, &plan(&facts, &rules, MOMENT));
        let gone: HashSet<&Digest> = decisions.iter().filter(|it| !it.keep).filter_map(|it| match &it.subject {
            Subject::Manifest(digest) => Some(digest),
            Subject::Tag(..) => None,
        }).collect();
        for decision in &decisions {
            if let Subject::Tag(tag, digest) = &decision.subject {
                prop_assert!(!decision.keep || !gone.contains(digest), "{tag} is kept and points to nothing");
                let facts = facts.tags.iter().find(|facts| facts.tag == *tag).unwrap();
                prop_assert!(decision.keep || facts.immutable.is_none(), "{tag} is immutable");
            }
        }
        for (index, child) in &facts.children {
            prop_assert!(gone.contains(index) || !gone.contains(child), "a child of a kept index");
        }
        for manifest in &facts.manifests {
            let kept = |subject: &Digest| facts.manifests.iter().any(|it| it.digest == *subject) && !gone.contains(subject);
            prop_assert!(!manifest.subject.as_ref().is_some_and(kept) || !gone.contains(&manifest.digest), "a referrer");
            let young = MOMENT.now.millis_since(manifest.pushed) < MOMENT.grace;
            prop_assert!(!young || !gone.contains(&manifest.digest), "within its grace");
        }
        prop_assert!(facts.roots.keys().all(|root| !gone.contains(root)), "a root");
        prop_assert!(facts.frozen.is_none() || gone.is_empty(), "frozen");
        // What a manifest lost its tags for is not left behind without one.
        for tag in decisions.iter().filter(|it| !it.keep) {
            let Subject::Tag(_, digest) = &tag.subject else { continue };
            let why = decisions.iter().find(|it| matches!(&it.subject, Subject::Manifest(it) if it == digest)).unwrap();
            prop_assert!(gone.contains(digest) || !why.why.contains("untagged"), "{}", why.why);
        }
    }

    #[test]
    fn more_to_keep_never_removes_more(facts in images(), rules in rules(), newest in 0..6_usize) {
        let with = |count| {
            let mut rules = rules.clone();
            rules.insert(0, Rule { keep_newest: Some(count), ..rule() });
            gone(&facts, &rules)
        };
        let (fewer, more) = (with(newest), with(newest + 1));
        prop_assert!(more.0.iter().all(|tag| fewer.0.contains(tag)));
        prop_assert!(more.1.iter().all(|manifest| fewer.1.contains(manifest)));
    }
}
