//! What a plan is made from, read image by image: a few queries for many images, never one for a manifest.

use std::collections::{BTreeMap, HashMap};

use model::{Digest, ImageName, ImagePattern, Tag, Timestamp};
use store::{RecordsError, Row, Tx};

use crate::freeze::{self, Freeze};
use crate::policy::Policy;
use crate::retention::plan::{ImageFacts, ManifestFacts, TagFacts};

/// Images that are read at a time.
const IMAGES: i64 = 200;

/// The images after `after`, by their ids, that the pattern is about: at most [`IMAGES`] are looked at. Answers the last
/// id that was looked at, or nothing if there was none.
pub(super) fn page(
    tx: &mut Tx<'_>,
    after: i64,
    wanted: &ImagePattern,
    policy: &Policy,
) -> Result<(Option<i64>, Vec<ImageFacts>), RecordsError> {
    let sql = "SELECT id, name FROM registry_images WHERE id > $1 ORDER BY id LIMIT $2";
    let rows = tx.query(sql, &[after.into(), IMAGES.into()])?;
    let Some(last) = rows.last().map(|row| row.get::<i64>(0)).transpose()? else { return Ok((None, Vec::new())) };
    let freezes = freeze::all(tx)?;
    let mut images = BTreeMap::new();
    for row in rows {
        let name: ImageName = text(&row, 1)?;
        if wanted.matches(&name) {
            images.insert(row.get::<i64>(0)?, empty(name, &freezes));
        }
    }
    // A range that holds nothing that is wanted is not read.
    if let (Some((first, _)), Some((end, _))) = (images.first_key_value(), images.last_key_value()) {
        let range = (*first, *end);
        fill(tx, range, &mut images, policy)?;
    }
    Ok((Some(last), images.into_values().collect()))
}

fn empty(name: ImageName, freezes: &[Freeze]) -> ImageFacts {
    let frozen = freezes.iter().find(|freeze| freeze.images.matches(&name)).map(ToString::to_string);
    let (manifests, tags, children, roots) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
    ImageFacts { name, frozen, manifests, tags, children, roots }
}

fn fill(
    tx: &mut Tx<'_>,
    (first, end): (i64, i64),
    images: &mut BTreeMap<i64, ImageFacts>,
    policy: &Policy,
) -> Result<(), RecordsError> {
    let range = [first.into(), end.into()];
    let mut pulls: HashMap<(i64, String), Timestamp> = HashMap::new();
    let sql = "SELECT image, reference, at FROM registry_pulls WHERE image >= $1 AND image <= $2";
    for row in tx.query(sql, &range)? {
        pulls.insert((row.get::<i64>(0)?, row.get::<String>(1)?), row.get(2)?);
    }
    // All of it is in one index, so the manifests themselves are not read.
    let sql = "SELECT image, digest, pushed, renewed, subject, size FROM registry_manifests
               WHERE image >= $1 AND image <= $2 ORDER BY image, digest";
    for row in tx.query(sql, &range)? {
        let id: i64 = row.get(0)?;
        let Some(image) = images.get_mut(&id) else { continue };
        let pulled = if pulls.is_empty() { None } else { pulls.get(&(id, row.get(1)?)).copied() };
        let renewed: Option<Timestamp> = row.get(3)?;
        let subject: Option<String> = row.get(4)?;
        image.manifests.push(ManifestFacts {
            digest: row.parse(1)?,
            size: row.get::<i64>(5)?.unsigned_abs(),
            pushed: renewed.unwrap_or_default().max(row.get(2)?),
            pulled,
            subject: subject.map(|text| parse(&text, 4)).transpose()?,
        });
    }
    let sql = "SELECT image, tag, digest, updated FROM registry_tags WHERE image >= $1 AND image <= $2
               ORDER BY image, tag";
    for row in tx.query(sql, &range)? {
        let id: i64 = row.get(0)?;
        let Some(image) = images.get_mut(&id) else { continue };
        let tag: Tag = text(&row, 1)?;
        let pulled = pulls.get(&(id, tag.as_str().to_owned())).copied();
        let immutable = policy.immutable(&image.name, &tag).map(ToString::to_string);
        image.tags.push(TagFacts { digest: row.parse(2)?, updated: row.get(3)?, pulled, immutable, tag });
    }
    let sql = "SELECT image, manifest, digest FROM registry_references
               WHERE kind = 'manifest' AND image >= $1 AND image <= $2";
    for row in tx.query(sql, &range)? {
        if let Some(image) = images.get_mut(&row.get::<i64>(0)?) {
            image.children.push((row.parse(1)?, row.parse(2)?));
        }
    }
    Ok(())
}

fn parse(text: &str, column: usize) -> Result<Digest, RecordsError> {
    text.parse().map_err(|why| RecordsError::Unreadable { column, why: format!("{why}") })
}

/// The value of a column of bytes, read as what it is the text of.
pub(crate) fn text<T>(row: &Row, column: usize) -> Result<T, RecordsError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let unreadable = |why: String| RecordsError::Unreadable { column, why };
    let text = String::from_utf8(row.get(column)?).map_err(|why| unreadable(why.to_string()))?;
    text.parse().map_err(|why| unreadable(format!("{why}")))
}
