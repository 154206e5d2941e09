//! Robots: names for machines that pull and push images, each with one token that expires.
//!
//! A robot is of a user or an organisation, whose images alone it reaches, or of the server. It signs in as
//! `<owner>+<name>`, or `robot+<name>` if it is the server's: `+` is in no user's name, needs no quotes in a shell and no
//! escape in a client's file.

use std::fmt;
use std::str::FromStr;

use model::{ImagePattern, Timestamp};
use store::{RecordsError, Row, Tx};

use crate::accounts::find_owner;
use crate::schema::fold;
use crate::secret::{Hash, ROBOT_TOKEN};
use crate::tokens::USE_EVERY;
use crate::{Access, AccessError, RobotPrincipal, Secret, now};

/// The most patterns of one robot.
const MAX_PATTERNS: usize = 20;

/// What a robot may do with the images its patterns match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RobotAction {
    /// Pull.
    Pull,
    /// Push, and so pull: clients look whether a layer is there before they send it.
    Push,
    /// Delete.
    Delete,
}

impl RobotAction {
    /// As people and the registry's protocol write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for RobotAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for RobotAction {
    type Err = AccessError;

    fn from_str(text: &str) -> Result<Self, AccessError> {
        let found = [Self::Pull, Self::Push, Self::Delete].into_iter().find(|action| action.name() == text);
        found.ok_or_else(|| AccessError::BadRobotActions(text.chars().take(80).collect()))
    }
}

/// A robot to be made.
#[derive(Clone, Debug)]
pub struct NewRobot {
    /// Whose it is; nothing for the server's.
    pub owner: Option<String>,
    /// Its name, unique for its owner.
    pub name: String,
    /// Which images it reaches.
    pub images: Vec<ImagePattern>,
    /// What it may do with them.
    pub actions: Vec<RobotAction>,
    /// When its token ends.
    pub expires: Timestamp,
}

/// A robot, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RobotRecord {
    /// Its id.
    pub id: i64,
    /// Whose it is; nothing for the server's.
    pub owner: Option<String>,
    /// The user name it signs in with.
    pub login: String,
    /// Which images it reaches.
    pub images: Vec<String>,
    /// What it may do with them.
    pub actions: Vec<String>,
    /// Since when.
    pub created: Timestamp,
    /// Until when.
    pub expires: Timestamp,
    /// When it last signed in, to the minute.
    pub used: Option<Timestamp>,
}

const COLUMNS: &str = "robots.id, owners.name, robots.login, robots.images, robots.actions, robots.created,
    robots.expires, robots.used FROM robots LEFT JOIN owners ON owners.id = robots.owner";

impl Access {
    /// Makes a robot. Its token, `twr_` and 40 base62 digits, is given out here and never again.
    ///
    /// # Errors
    /// [`AccessError::BadRobotName`], [`AccessError::PatternCount`],
    /// [`AccessError::PatternElsewhere`], [`AccessError::BadRobotActions`] without an action, [`AccessError::NoUser`]
    /// when there is no such owner, [`AccessError::Exists`].
    pub async fn create_robot(&self, new: NewRobot) -> Result<(RobotRecord, Secret), AccessError> {
        if !valid_name(&new.name) {
            return Err(AccessError::BadRobotName(new.name.chars().take(100).collect()));
        }
        if new.actions.is_empty() {
            return Err(AccessError::BadRobotActions(String::new()));
        }
        if new.images.is_empty() || new.images.len() > MAX_PATTERNS {
            return Err(AccessError::PatternCount(new.images.len()));
        }
        let secret = Secret::generate(ROBOT_TOKEN);
        let hash = secret.hash();
        Ok((self.change(move |tx| insert(tx, new, &hash)).await?, secret))
    }

    /// Robots by name: of one owner, or all.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn list_robots(&self, owner: Option<&str>) -> Result<Vec<RobotRecord>, AccessError> {
        let owner = owner.map(fold);
        let found = self.records.read(move |tx| {
            let sql = format!("SELECT {COLUMNS} WHERE $1 = '' OR owners.folded = $1 ORDER BY robots.login");
            tx.query(&sql, &[owner.unwrap_or_default().into()])?.iter().map(read).collect()
        });
        Ok(found.await?)
    }

    /// A robot by its id.
    ///
    /// # Errors
    /// [`AccessError::NoRobot`].
    pub async fn robot(&self, id: i64) -> Result<RobotRecord, AccessError> {
        let sql = format!("SELECT {COLUMNS} WHERE robots.id = $1");
        let found = self.records.read(move |tx| tx.query_first(&sql, &[id.into()])?.as_ref().map(read).transpose());
        found.await?.ok_or_else(|| AccessError::NoRobot(id.to_string()))
    }

    /// Ends a robot and its token. Its next request is refused.
    ///
    /// # Errors
    /// [`AccessError::NoRobot`].
    pub async fn remove_robot(&self, id: i64) -> Result<(), AccessError> {
        match self.change(move |tx| tx.execute("DELETE FROM robots WHERE id = $1", &[id.into()])).await? {
            0 => Err(AccessError::NoRobot(id.to_string())),
            _ => Ok(()),
        }
    }
}

fn valid_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    name.len() <= 60
        && name.bytes().all(allowed)
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

fn insert(tx: &mut Tx<'_>, new: NewRobot, hash: &Hash) -> Result<RobotRecord, RecordsError> {
    let owner = match &new.owner {
        None => None,
        Some(name) => {
            let found = find_owner(tx, name)?;
            Some(found.ok_or_else(|| AccessError::NoUser(name.clone()))?.0)
        }
    };
    let prefix = new.owner.as_deref().map_or("robot".to_owned(), fold);
    if let Some(pattern) = new.images.iter().find(|pattern| owner.is_some() && !is_within(pattern, &prefix)) {
        let pattern = pattern.to_string();
        return Err(AccessError::PatternElsewhere { pattern, owner: prefix }.into());
    }
    let login = format!("{prefix}+{}", new.name);
    if tx.query_first("SELECT id FROM robots WHERE login = $1", &[(&login).into()])?.is_some() {
        return Err(AccessError::Exists(login).into());
    }
    let images: Vec<String> = new.images.iter().map(ToString::to_string).collect();
    let mut actions = new.actions;
    actions.sort_unstable();
    actions.dedup();
    let actions: Vec<String> = actions.iter().map(ToString::to_string).collect();
    let (id, created) = (tx.next_id("robots")?, now());
    let sql = "INSERT INTO robots (id, owner, login, images, actions, lookup, hash, created, expires)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let values = [
        id.into(),
        owner.into(),
        (&login).into(),
        images.join(" ").into(),
        actions.join(" ").into(),
        hash.lookup().into(),
        hash.bytes().into(),
        created.into(),
        new.expires.into(),
    ];
    tx.execute(sql, &values)?;
    Ok(RobotRecord { id, owner: new.owner, login, images, actions, created, expires: new.expires, used: None })
}

/// Whether all that a pattern matches is of this owner, whose name is in lower case.
pub(crate) fn is_within(pattern: &ImagePattern, owner: &str) -> bool {
    pattern.as_str().split_once('/').is_some_and(|(first, _)| first == owner)
}

/// The robot whose token this is, and whether its use has to be noted.
pub(crate) fn find(tx: &mut Tx<'_>, hash: &Hash) -> Result<Option<(RobotPrincipal, bool)>, RecordsError> {
    let sql = "SELECT hash, id, login, used FROM robots WHERE lookup = $1 AND expires > $2";
    for row in tx.query(sql, &[hash.lookup().into(), now().into()])? {
        if hash.is(&row.get::<Vec<u8>>(0)?) {
            let used: Option<Timestamp> = row.get(3)?;
            let note = used.is_none_or(|used| now().0 - used.0 > USE_EVERY);
            return Ok(Some((RobotPrincipal { id: row.get(1)?, login: row.get(2)? }, note)));
        }
    }
    Ok(None)
}

fn read(row: &Row) -> Result<RobotRecord, RecordsError> {
    let words = |column| -> Result<Vec<String>, RecordsError> {
        let text: String = row.get(column)?;
        Ok(text.split_ascii_whitespace().map(str::to_owned).collect())
    };
    Ok(RobotRecord {
        id: row.get(0)?,
        owner: row.get(1)?,
        login: row.get(2)?,
        images: words(3)?,
        actions: words(4)?,
        created: row.get(5)?,
        expires: row.get(6)?,
        used: row.get(7)?,
    })
}
