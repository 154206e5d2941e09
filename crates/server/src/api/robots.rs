//! Robots, groups within organisations, and the keys of the registry's tokens.

use access::{AccessError, Action, Denied, GroupRecord, NewRobot, Resource, RobotAction, RobotRecord, Role, Scope};
use axum::extract::State;
use http::StatusCode;
use model::{ImagePattern, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::accounts::{holds, no_scope};
use crate::core::{Core, Who};
use crate::extract::{Input, Json, Path, Query};
use crate::problem::Problem;

/// How long a robot's token is good if nothing else is said, and at most.
const DAYS: (u32, u32) = (90, 3650);

fn robot_json(robot: &RobotRecord) -> Value {
    json!({
        "id": robot.id, "owner": robot.owner, "login": robot.login, "images": robot.images, "actions": robot.actions,
        "created": robot.created, "expires": robot.expires, "lastUsed": robot.used,
    })
}

/// What is asked of the gate for the robots of an owner, or of the server.
fn place(owner: Option<&str>) -> Resource {
    owner.map_or(Resource::Server, |owner| Resource::Owner(owner.to_owned()))
}

#[derive(Deserialize)]
pub(super) struct Of {
    owner: Option<String>,
}

pub(super) async fn list(State(core): State<Core>, who: Who, Query(of): Query<Of>) -> Result<Json<Value>, Problem> {
    core.allow(&who.0, Action::Admin, place(of.owner.as_deref())).await?;
    let robots = core.access.list_robots(of.owner.as_deref()).await?;
    Ok(Json(json!({ "robots": robots.iter().map(robot_json).collect::<Vec<_>>() })))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Robot {
    owner: Option<String>,
    name: String,
    images: Vec<ImagePattern>,
    actions: Vec<String>,
    expires_in_days: Option<u32>,
}

pub(super) async fn create(
    State(core): State<Core>,
    who: Who,
    input: Input,
) -> Result<(StatusCode, Json<Value>), Problem> {
    who.known()?;
    let new: Robot = input.json().await?;
    core.allow(&who.0, Action::Admin, place(new.owner.as_deref())).await?;
    let actions: Vec<RobotAction> = new.actions.iter().map(|action| action.parse()).collect::<Result<_, _>>()?;
    // A token never makes one that may do more than itself.
    let writes = actions.iter().any(|action| *action != RobotAction::Pull);
    let needed = if writes { Scope::WritePackage } else { Scope::ReadPackage };
    if who.0.user().is_none_or(|me| !holds(me, needed)) {
        return Err(no_scope(needed));
    }
    let days = new.expires_in_days.unwrap_or(DAYS.0);
    if days == 0 || days > DAYS.1 {
        return Err(Problem::bad(format!("expiresInDays: a robot is good for 1 to {} days", DAYS.1)));
    }
    let now = Timestamp::from(std::time::SystemTime::now());
    let expires = Timestamp(now.0 + i64::from(days) * 86_400_000);
    let new = NewRobot { owner: new.owner, name: new.name, images: new.images, actions, expires };
    let (robot, secret) = core.access.create_robot(new).await?;
    let mut answer = robot_json(&robot);
    answer["token"] = json!(secret.expose());
    Ok((StatusCode::CREATED, Json(answer)))
}

pub(super) async fn remove(State(core): State<Core>, who: Who, Path(id): Path<i64>) -> Result<StatusCode, Problem> {
    who.known()?;
    // The same words for what is another's and for what is not there.
    let hidden = || Problem::not_found(format!("there is no robot {id}, or you may not see it"));
    let robot = match core.access.robot(id).await {
        Ok(robot) => robot,
        Err(AccessError::NoRobot(_)) => return Err(hidden()),
        Err(error) => return Err(error.into()),
    };
    match core.access.authorize(&who.0, Action::Admin, place(robot.owner.as_deref())).await {
        Ok(_) => {}
        Err(Denied::Hidden { .. }) => return Err(hidden()),
        Err(Denied::Forbidden { .. }) if robot.owner.is_none() => return Err(hidden()),
        Err(denied) => return Err(denied.into()),
    }
    core.access.remove_robot(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn group_json(group: &GroupRecord) -> Value {
    let grants: Vec<_> =
        group.grants.iter().map(|(pattern, role)| json!({ "pattern": pattern, "role": role })).collect();
    json!({ "name": group.name, "members": group.members, "grants": grants })
}

pub(super) async fn groups(
    State(core): State<Core>,
    who: Who,
    Path(org): Path<String>,
) -> Result<Json<Value>, Problem> {
    core.allow(&who.0, Action::Read, Resource::Owner(org.clone())).await?;
    let groups = core.access.groups(&org).await?;
    Ok(Json(json!({ "groups": groups.iter().map(group_json).collect::<Vec<_>>() })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewGroup {
    name: String,
}

pub(super) async fn create_group(
    State(core): State<Core>,
    who: Who,
    Path(org): Path<String>,
    input: Input,
) -> Result<(StatusCode, Json<Value>), Problem> {
    core.allow(&who.0, Action::Admin, Resource::Owner(org.clone())).await?;
    let new: NewGroup = input.json().await?;
    core.access.create_group(&org, &new.name).await?;
    Ok((StatusCode::CREATED, Json(json!({ "name": new.name }))))
}

pub(super) async fn remove_group(
    State(core): State<Core>,
    who: Who,
    Path((org, group)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    core.allow(&who.0, Action::Admin, Resource::Owner(org.clone())).await?;
    core.access.remove_group(&org, &group).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn add_to_group(
    State(core): State<Core>,
    who: Who,
    Path((org, group, user)): Path<(String, String, String)>,
) -> Result<StatusCode, Problem> {
    core.allow(&who.0, Action::Admin, Resource::Owner(org.clone())).await?;
    core.access.add_group_member(&org, &group, &user).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn remove_from_group(
    State(core): State<Core>,
    who: Who,
    Path((org, group, user)): Path<(String, String, String)>,
) -> Result<StatusCode, Problem> {
    core.allow(&who.0, Action::Admin, Resource::Owner(org.clone())).await?;
    core.access.remove_group_member(&org, &group, &user).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    pattern: ImagePattern,
    role: Role,
}

pub(super) async fn grant(
    State(core): State<Core>,
    who: Who,
    Path((org, group)): Path<(String, String)>,
    input: Input,
) -> Result<StatusCode, Problem> {
    core.allow(&who.0, Action::Admin, Resource::Owner(org.clone())).await?;
    let grant: Grant = input.json().await?;
    core.access.grant_group(&org, &group, grant.pattern, grant.role).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
pub(super) struct Granted {
    pattern: String,
}

pub(super) async fn ungrant(
    State(core): State<Core>,
    who: Who,
    Path((org, group)): Path<(String, String)>,
    Query(granted): Query<Granted>,
) -> Result<StatusCode, Problem> {
    core.allow(&who.0, Action::Admin, Resource::Owner(org.clone())).await?;
    core.access.ungrant_group(&org, &group, &granted.pattern).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn keys(State(core): State<Core>, who: Who) -> Result<Json<Value>, Problem> {
    core.allow(&who.0, Action::Admin, Resource::Server).await?;
    let keys = core.access.list_keys().await?;
    let keys: Vec<_> =
        keys.iter().map(|key| json!({ "id": key.id, "created": key.created, "retired": key.retired })).collect();
    Ok(Json(json!({ "keys": keys })))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Rotation {
    at_once: bool,
}

pub(super) async fn rotate_keys(State(core): State<Core>, who: Who, input: Input) -> Result<Json<Value>, Problem> {
    core.allow(&who.0, Action::Admin, Resource::Server).await?;
    let rotation: Rotation = input.optional_json().await?.unwrap_or_default();
    let id = core.access.rotate_keys(rotation.at_once).await?;
    Ok(Json(json!({ "id": id })))
}
