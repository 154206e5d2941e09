//! What is kept of an image and what goes, each with its reason. Pure: facts in, decisions out.
//!
//! A tag goes if the first rule that is about it says so. A manifest goes when its last tag goes, or if it never had one
//! and a rule takes untagged manifests away. Whatever stands on something that is kept is kept: the children of an
//! index, the referrers of a subject, and so on from there.

use std::collections::HashMap;

use model::{Digest, ImageName, ImagePattern, Tag, TagPattern, Timestamp};

/// A rule: which tags of which images are kept. A tag is kept if any of the conditions that are set holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The images it is about.
    pub images: ImagePattern,
    /// The tags it is about.
    pub tags: TagPattern,
    /// Keeps the tags of this many manifests, the newest of those it is about.
    pub keep_newest: Option<usize>,
    /// Keeps tags that were set within so many milliseconds.
    pub keep_younger: Option<i64>,
    /// Keeps what was pulled within so many milliseconds.
    pub keep_pulled_within: Option<i64>,
    /// Removes manifests without a tag that were pushed longer ago than so many milliseconds.
    pub untagged_older_than: Option<i64>,
}

impl Rule {
    /// Whether it says anything about tags.
    const fn keeps_tags(&self) -> bool {
        self.keep_newest.is_some() || self.keep_younger.is_some() || self.keep_pulled_within.is_some()
    }
}

/// What is known of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFacts {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last pushed, or a client that pushes was told that it is there.
    pub pushed: Timestamp,
    /// When it was last pulled, by whatever name.
    pub pulled: Option<Timestamp>,
    /// What it is about.
    pub subject: Option<Digest>,
}

/// What is known of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagFacts {
    /// Its name.
    pub tag: Tag,
    /// What it points to.
    pub digest: Digest,
    /// When it was last set.
    pub updated: Timestamp,
    /// When it was last pulled.
    pub pulled: Option<Timestamp>,
    /// The pattern that makes it immutable.
    pub immutable: Option<String>,
}

/// What is known of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its name.
    pub name: ImageName,
    /// Why nothing of it may change.
    pub frozen: Option<String>,
    /// Its manifests.
    pub manifests: Vec<ManifestFacts>,
    /// Its tags.
    pub tags: Vec<TagFacts>,
    /// Indexes with their children, one pair for each child.
    pub children: Vec<(Digest, Digest)>,
    /// What others need, with the reason.
    pub roots: HashMap<Digest, String>,
}

/// When, and how long after its push nothing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Now.
    pub now: Timestamp,
    /// Milliseconds after a push in which the rest of what belongs to it may still come.
    pub grace: i64,
}

/// What a decision is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A tag, with what it points to.
    Tag(Tag, Digest),
    /// A manifest.
    Manifest(Digest),
}

/// What becomes of a tag or manifest, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The tag or manifest.
    pub subject: Subject,
    /// Whether it stays.
    pub keep: bool,
    /// One line for people.
    pub why: String,
}

/// How a manifest stands before what stands on it is looked at.
#[derive(Clone)]
enum Standing {
    Kept(String),
    Goes(String),
    /// Its index or subject decides.
    Dependent(&'static str),
}

/// Decides on every tag and manifest of an image: the tags first, then the manifests, both in the order of the facts.
pub fn plan(image: &ImageFacts, rules: &[Rule], moment: Moment) -> Vec<Decision> {
    let rules: Vec<(usize, &Rule)> =
        rules.iter().enumerate().filter(|(_, rule)| rule.images.matches(&image.name)).collect();
    let planner = Planner::new(image, &rules, moment);
    let tags = planner.tags();
    let manifests = planner.manifests(&tags);
    let tag = |(facts, verdict): (&TagFacts, Verdict)| Decision {
        subject: Subject::Tag(facts.tag.clone(), facts.digest),
        keep: verdict.keep,
        why: verdict.why,
    };
    let manifest = |(facts, verdict): (&ManifestFacts, Verdict)| Decision {
        subject: Subject::Manifest(facts.digest),
        keep: verdict.keep,
        why: verdict.why,
    };
    let tags = image.tags.iter().zip(tags).map(tag);
    tags.chain(image.manifests.iter().zip(manifests).map(manifest)).collect()
}

#[derive(Clone)]
struct Verdict {
    keep: bool,
    why: String,
}

struct Planner<'a> {
    image: &'a ImageFacts,
    rules: &'a [(usize, &'a Rule)],
    moment: Moment,
    /// Where each manifest is in the facts.
    places: HashMap<Digest, usize>,
}

impl<'a> Planner<'a> {
    fn new(image: &'a ImageFacts, rules: &'a [(usize, &'a Rule)], moment: Moment) -> Self {
        let places = image.manifests.iter().enumerate().map(|(place, facts)| (facts.digest, place)).collect();
        Self { image, rules, moment, places }
    }

    fn ago(&self, then: Timestamp) -> i64 {
        self.moment.now.millis_since(then)
    }

    /// Why nothing goes for now, whatever the rules say.
    fn exempt(&self, digest: &Digest) -> Option<String> {
        if let Some(why) = &self.image.frozen {
            return Some(why.clone());
        }
        if let Some(why) = self.image.roots.get(digest) {
            return Some(why.clone());
        }
        let facts = self.image.manifests.get(*self.places.get(digest)?)?;
        let age = self.ago(facts.pushed);
        let grace = self.moment.grace;
        (age < grace).then(|| format!("pushed {} ago, within the grace of {}", span(age), span(grace)))
    }

    fn tags(&self) -> Vec<Verdict> {
        let mut verdicts: Vec<Option<Verdict>> = vec![None; self.image.tags.len()];
        let mut of_rule: Vec<Vec<usize>> = vec![Vec::new(); self.rules.len()];
        for (place, facts) in self.image.tags.iter().enumerate() {
            let about = |(_, rule): &&(usize, &Rule)| rule.keeps_tags() && rule.tags.matches(&facts.tag);
            match self.rules.iter().position(|rule| about(&rule)) {
                Some(rule) => of_rule[rule].push(place),
                None => verdicts[place] = Some(Verdict { keep: true, why: "no rule is about it".to_owned() }),
            }
        }
        for ((number, rule), places) in self.rules.iter().zip(&of_rule) {
            for (place, verdict) in self.by_rule(*number + 1, rule, places) {
                verdicts[place] = Some(verdict);
            }
        }
        let decided = self.image.tags.iter().zip(verdicts);
        decided.map(|(facts, verdict)| self.unless_exempt(facts, verdict)).collect()
    }

    fn unless_exempt(&self, facts: &TagFacts, verdict: Option<Verdict>) -> Verdict {
        let keep = |why: String| Verdict { keep: true, why };
        let verdict = verdict.unwrap_or_else(|| keep("no rule is about it".to_owned()));
        if verdict.keep {
            return verdict;
        }
        let immutable = facts.immutable.as_ref().map(|pattern| format!("immutable by {pattern}"));
        immutable.or_else(|| self.exempt(&facts.digest)).map_or(verdict, keep)
    }

    /// What a rule says of the tags that it is about.
    fn by_rule(&self, number: usize, rule: &Rule, places: &[usize]) -> Vec<(usize, Verdict)> {
        let ranks = self.ranks(places);
        let count = ranks.len();
        let verdict = |place: &usize| {
            let facts = &self.image.tags[*place];
            let rank = ranks.get(&facts.digest).copied().unwrap_or(0);
            (*place, self.by_conditions(number, rule, facts, (rank, count)))
        };
        places.iter().map(verdict).collect()
    }

    /// The place of each manifest among those that these tags point to, the newest first. Tags of one manifest count
    /// once, and what an index is made of does not count at all.
    fn ranks(&self, places: &[usize]) -> HashMap<Digest, usize> {
        let mut newest: HashMap<Digest, (Timestamp, &str)> = HashMap::new();
        for facts in places.iter().map(|place| &self.image.tags[*place]) {
            let this = (facts.updated, facts.tag.as_str());
            newest.entry(facts.digest).and_modify(|best| *best = this.max(*best)).or_insert(this);
        }
        let mut order: Vec<_> = newest.into_iter().collect();
        order.sort_unstable_by(|(_, one), (_, other)| other.cmp(one));
        order.into_iter().enumerate().map(|(rank, (digest, _))| (digest, rank)).collect()
    }

    fn by_conditions(&self, number: usize, rule: &Rule, facts: &TagFacts, (rank, count): (usize, usize)) -> Verdict {
        let keep = |why: String| Verdict { keep: true, why: format!("rule {number}: {why}") };
        if let Some(newest) = rule.keep_newest.filter(|newest| rank < *newest) {
            return keep(format!("number {} of {count}, the newest {newest} are kept", rank + 1));
        }
        let age = self.ago(facts.updated);
        if let Some(younger) = rule.keep_younger.filter(|younger| age < *younger) {
            return keep(format!("set {} ago, kept for {}", span(age), span(younger)));
        }
        let pulled = facts.pulled.max(self.places.get(&facts.digest).and_then(|it| self.image.manifests[*it].pulled));
        let since = pulled.map(|at| self.ago(at));
        if let (Some(since), Some(within)) = (since, rule.keep_pulled_within)
            && since < within
        {
            return keep(format!("pulled {} ago, kept for {} after a pull", span(since), span(within)));
        }
        let pulled = since.map_or_else(|| "never pulled".to_owned(), |since| format!("pulled {} ago", span(since)));
        let why = format!("rule {number}: number {} of {count}, set {} ago, {pulled}", rank + 1, span(age));
        Verdict { keep: false, why }
    }

    fn manifests(&self, tags: &[Verdict]) -> Vec<Verdict> {
        let mut standings = self.standings(tags);
        let mut edges: Vec<Vec<(usize, &'static str)>> = vec![Vec::new(); standings.len()];
        for (index, child) in &self.image.children {
            if let (Some(index), Some(child)) = (self.places.get(index), self.places.get(child)) {
                edges[*index].push((*child, "is part of"));
            }
        }
        for (place, facts) in self.image.manifests.iter().enumerate() {
            if let Some(subject) = facts.subject.and_then(|subject| self.places.get(&subject)) {
                edges[*subject].push((place, "is about"));
            }
        }
        let mut ahead: Vec<usize> =
            (0..standings.len()).filter(|place| matches!(standings[*place], Standing::Kept(_))).collect();
        while let Some(place) = ahead.pop() {
            for (on, how) in &edges[place] {
                if !matches!(standings[*on], Standing::Kept(_)) {
                    let digest = short(&self.image.manifests[place].digest);
                    standings[*on] = Standing::Kept(format!("{how} {digest}, which is kept"));
                    ahead.push(*on);
                }
            }
        }
        let verdict = |standing: Standing| match standing {
            Standing::Kept(why) => Verdict { keep: true, why },
            Standing::Goes(why) => Verdict { keep: false, why },
            Standing::Dependent(what) => Verdict { keep: false, why: format!("untagged, and every {what} goes") },
        };
        standings.into_iter().map(verdict).collect()
    }

    fn standings(&self, tags: &[Verdict]) -> Vec<Standing> {
        let mut tagged: HashMap<Digest, (&TagFacts, bool)> = HashMap::new();
        for (facts, verdict) in self.image.tags.iter().zip(tags) {
            let entry = tagged.entry(facts.digest).or_insert((facts, verdict.keep));
            if verdict.keep && !entry.1 {
                *entry = (facts, true);
            }
        }
        let parts: std::collections::HashSet<&Digest> = {
            let there = self.image.children.iter().filter(|(index, _)| self.places.contains_key(index));
            there.map(|(_, child)| child).collect()
        };
        let standing = |facts: &ManifestFacts| {
            if let Some((tag, true)) = tagged.get(&facts.digest) {
                return Standing::Kept(format!("tag {} is kept", tag.tag));
            }
            if let Some(why) = self.exempt(&facts.digest) {
                return Standing::Kept(why);
            }
            if let Some((tag, false)) = tagged.get(&facts.digest) {
                return Standing::Goes(format!("tag {} goes, and was its last", tag.tag));
            }
            if parts.contains(&facts.digest) {
                return Standing::Dependent("index that it is part of");
            }
            if facts.subject.is_some_and(|subject| self.places.contains_key(&subject)) {
                return Standing::Dependent("manifest that it is about");
            }
            self.untagged(facts)
        };
        self.image.manifests.iter().map(standing).collect()
    }

    /// A manifest that stands alone.
    fn untagged(&self, facts: &ManifestFacts) -> Standing {
        let rule = self.rules.iter().find_map(|(number, rule)| Some((number + 1, *rule, rule.untagged_older_than?)));
        let Some((number, rule, limit)) = rule else {
            return Standing::Kept("untagged, and no rule is about that".to_owned());
        };
        let age = self.ago(facts.pushed);
        if age < limit {
            return Standing::Kept(format!(
                "rule {number}: untagged, pushed {} ago, kept for {}",
                span(age),
                span(limit)
            ));
        }
        let since = facts.pulled.map(|at| self.ago(at));
        if let (Some(since), Some(within)) = (since, rule.keep_pulled_within)
            && since < within
        {
            return Standing::Kept(format!("rule {number}: untagged, pulled {} ago", span(since)));
        }
        Standing::Goes(format!("rule {number}: untagged, pushed {} ago", span(age)))
    }
}

/// A digest for a line: its algorithm and first digits.
pub(crate) fn short(digest: &Digest) -> String {
    let text = digest.to_string();
    text.get(..text.find(':').unwrap_or(0) + 13).unwrap_or(&text).to_owned()
}

/// A span of time in its largest unit that is not zero.
pub(crate) fn span(millis: i64) -> String {
    let seconds = millis.max(0) / 1000;
    let (count, unit) = match seconds {
        0..60 => (seconds, "s"),
        60..3600 => (seconds / 60, "min"),
        3600..172_800 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit}")
}

#[cfg(test)]
mod tests;
