//! Freezing: nothing of an image is written, deleted or collected until it is thawed. Reading goes on.

use std::fmt;
use std::sync::PoisonError;

use model::{ImageName, ImagePattern, Timestamp};
use store::{RecordsError, Tx};

use crate::{Registry, RegistryError, now};

/// The longest reason that is kept, in characters.
const LONGEST_REASON: usize = 500;

/// What is frozen, by whom and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// The images.
    pub images: ImagePattern,
    /// Who froze them.
    pub by: String,
    /// When.
    pub since: Timestamp,
    /// Why, in that person's words; perhaps nothing.
    pub because: String,
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frozen by {} since {}", self.by, self.since)?;
        if self.because.is_empty() { Ok(()) } else { write!(f, " because {}", self.because) }
    }
}

/// All of them.
pub(crate) fn all(tx: &mut Tx<'_>) -> Result<Vec<Freeze>, RecordsError> {
    let rows = tx.query("SELECT images, by_whom, since, because FROM registry_freezes ORDER BY images", &[])?;
    let freeze = |row: &store::Row| {
        Ok(Freeze { images: row.parse(0)?, by: row.get(1)?, since: row.get(2)?, because: row.get(3)? })
    };
    rows.iter().map(freeze).collect()
}

/// Fails if the image is frozen.
pub(crate) fn refuse(tx: &mut Tx<'_>, name: &ImageName) -> Result<(), RecordsError> {
    match all(tx)?.into_iter().find(|freeze| freeze.images.matches(name)) {
        Some(freeze) => Err(RegistryError::Frozen { image: name.clone(), freeze: Box::new(freeze) }.into()),
        None => Ok(()),
    }
}

impl Registry {
    /// Freezes images; again with another reason, if they are frozen by the same pattern.
    ///
    /// # Errors
    /// When the records cannot be written.
    pub async fn freeze(&self, images: ImagePattern, by: &str, because: &str) -> Result<Freeze, RegistryError> {
        let line = |text: &str| text.chars().filter(|c| !c.is_control()).take(LONGEST_REASON).collect::<String>();
        let freeze = Freeze { images, by: line(by), since: now(), because: line(because.trim()) };
        let stored = freeze.clone();
        let written = self.records.write(move |tx| {
            let sql = "INSERT INTO registry_freezes (images, by_whom, since, because) VALUES ($1, $2, $3, $4)
                       ON CONFLICT (images) DO UPDATE SET
                           by_whom = excluded.by_whom, since = excluded.since, because = excluded.because";
            let Freeze { images, by, since, because } = stored;
            tx.execute(sql, &[images.as_str().into(), by.into(), since.into(), because.into()]).map(drop)
        });
        written.await?;
        self.know_frozen().await?;
        Ok(freeze)
    }

    /// Thaws what was frozen by this pattern. False if nothing was.
    ///
    /// # Errors
    /// When the records cannot be written.
    pub async fn thaw(&self, images: &ImagePattern) -> Result<bool, RegistryError> {
        let images = images.clone();
        let sql = "DELETE FROM registry_freezes WHERE images = $1";
        let thawed = self.records.write(move |tx| tx.execute(sql, &[images.as_str().into()])).await? > 0;
        self.know_frozen().await?;
        Ok(thawed)
    }

    /// What is frozen.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn freezes(&self) -> Result<Vec<Freeze>, RegistryError> {
        Ok(self.records.read(all).await?)
    }

    /// Remembers what is frozen, so that nobody looks it up where nothing is.
    pub(crate) async fn know_frozen(&self) -> Result<(), RegistryError> {
        let frozen = self.freezes().await?.into_iter().map(|freeze| freeze.images).collect();
        *self.shared.frozen.write().unwrap_or_else(PoisonError::into_inner) = frozen;
        Ok(())
    }

    /// Fails if an image is frozen, as far as this process knows. Asked before a client sends what would be refused in
    /// the end, by the transaction that decides.
    pub(crate) async fn refuse_frozen(&self, name: &ImageName) -> Result<(), RegistryError> {
        let known = self.shared.frozen.read().unwrap_or_else(PoisonError::into_inner).iter().any(|it| it.matches(name));
        if !known {
            return Ok(());
        }
        let name = name.clone();
        Ok(self.records.read(move |tx| refuse(tx, &name)).await?)
    }
}
