//! Users, their tokens, and organisations.

use access::{Action, Resource, Role, Scope, TokenRecord, User, UserRecord};
use axum::extract::State;
use http::StatusCode;
use model::{Timestamp, TokenId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::core::{Core, Who, name_of};
use crate::extract::{Input, Json, Path};
use crate::problem::Problem;

fn user_json(user: &UserRecord) -> Value {
    json!({ "id": user.id, "name": user.name, "admin": user.admin, "created": user.created })
}

fn token_json(token: &TokenRecord) -> Value {
    json!({
        "id": token.id, "name": token.name, "scopes": token.scopes,
        "created": token.created, "expires": token.expires, "lastUsed": token.used,
    })
}

/// `GET /user`: whom the request's credentials are.
pub(super) async fn me(State(core): State<Core>, who: Who) -> Result<Json<Value>, Problem> {
    who.known()?;
    let admin = core.allow(&who.0, Action::Admin, Resource::Server).await.is_ok();
    Ok(Json(json!({ "name": name_of(&who.0), "admin": admin })))
}

pub(super) async fn users(State(core): State<Core>, who: Who) -> Result<Json<Value>, Problem> {
    core.allow(&who.0, Action::Read, Resource::Server).await?;
    let users: Vec<_> = core.access.list_users().await?.iter().map(user_json).collect();
    Ok(Json(json!({ "users": users })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUser {
    name: String,
    #[serde(default)]
    admin: bool,
}

pub(super) async fn create_user(
    State(core): State<Core>,
    who: Who,
    input: Input,
) -> Result<(StatusCode, Json<Value>), Problem> {
    core.allow(&who.0, Action::Admin, Resource::Server).await?;
    let new: NewUser = input.json().await?;
    let id = core.access.create_user(&new.name, new.admin).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id, "name": new.name, "admin": new.admin }))))
}

/// Takes over an htpasswd file, which is the body.
pub(super) async fn import(State(core): State<Core>, who: Who, input: Input) -> Result<Json<Value>, Problem> {
    core.allow(&who.0, Action::Admin, Resource::Server).await?;
    let imported = core.access.import_htpasswd(&input.text().await?).await?;
    Ok(Json(json!({ "created": imported.created, "updated": imported.updated })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    subject: String,
}

/// Says who a user is at a provider through which people sign in.
pub(super) async fn link(
    State(core): State<Core>,
    who: Who,
    Path((name, provider)): Path<(String, String)>,
    input: Input,
) -> Result<StatusCode, Problem> {
    core.allow(&who.0, Action::Admin, Resource::Server).await?;
    let user = own(&core, &who, &name).await?;
    let identity: Identity = input.json().await?;
    if identity.subject.is_empty() || identity.subject.len() > 255 {
        return Err(Problem::bad("subject: 1 to 255 bytes"));
    }
    core.access.link_identity(user.id, &provider, &identity.subject).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The user of a path: yourself, or anybody for an administrator of the server. Either way the token must be good for
/// settings: one that was made for a machine to read with does not deal in tokens.
async fn own(core: &Core, who: &Who, name: &str) -> Result<UserRecord, Problem> {
    match who.0.user().filter(|user| user.name().eq_ignore_ascii_case(name)) {
        Some(me) if !holds(me, Scope::Admin) => return Err(no_scope(Scope::Admin)),
        Some(_) => {}
        None => drop(core.allow(&who.0, Action::Admin, Resource::Server).await?),
    }
    let found = core.access.find_user(name).await?;
    found.ok_or_else(|| Problem::not_found(format!("there is no user {name:?}")))
}

pub(super) fn holds(user: &User, scope: Scope) -> bool {
    user.scopes().iter().any(|held| held.includes(scope))
}

pub(super) fn no_scope(scope: Scope) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, format!("your own token does not have the scope {scope}"))
}

pub(super) async fn delete_user(
    State(core): State<Core>,
    who: Who,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    core.allow(&who.0, Action::Admin, Resource::Server).await?;
    let user = own(&core, &who, &name).await?;
    core.access.delete_user(user.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn tokens(
    State(core): State<Core>,
    who: Who,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let user = own(&core, &who, &name).await?;
    let tokens = core.access.list_tokens(user.id).await?;
    Ok(Json(json!({ "tokens": tokens.iter().map(token_json).collect::<Vec<_>>() })))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewToken {
    name: String,
    /// All scopes, if absent: a token for a person's own command line.
    scopes: Option<Vec<Scope>>,
    expires_in_days: Option<u32>,
}

pub(super) async fn create_token(
    State(core): State<Core>,
    who: Who,
    Path(name): Path<String>,
    input: Input,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let user = own(&core, &who, &name).await?;
    let new: NewToken = input.json().await?;
    let wanted = new.scopes.unwrap_or_else(|| vec![Scope::All]);
    // A token never makes one that may do more than itself.
    if let Some(me) = who.0.user()
        && let Some(scope) = wanted.iter().find(|scope| !holds(me, **scope))
    {
        return Err(no_scope(*scope));
    }
    if new.expires_in_days == Some(0) {
        return Err(Problem::bad("expiresInDays: a token is good for at least one day"));
    }
    let now = Timestamp::from(std::time::SystemTime::now());
    let expires = new.expires_in_days.map(|days| Timestamp(now.0 + i64::from(days) * 86_400_000));
    let (id, secret) = core.access.create_token(user.id, &new.name, &wanted, expires).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id, "token": secret.expose() }))))
}

pub(super) async fn revoke_token(
    State(core): State<Core>,
    who: Who,
    Path((name, id)): Path<(String, i64)>,
) -> Result<StatusCode, Problem> {
    let user = own(&core, &who, &name).await?;
    core.access.revoke_token(user.id, TokenId(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn organisations(State(core): State<Core>, who: Who) -> Result<Json<Value>, Problem> {
    core.allow(&who.0, Action::Read, Resource::Server).await?;
    let all = core.access.list_organisations().await?;
    let all: Vec<_> = all.iter().map(|it| json!({ "id": it.id, "name": it.name, "created": it.created })).collect();
    Ok(Json(json!({ "organisations": all })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewOrganisation {
    name: String,
}

pub(super) async fn create_organisation(
    State(core): State<Core>,
    who: Who,
    input: Input,
) -> Result<(StatusCode, Json<Value>), Problem> {
    core.allow(&who.0, Action::Admin, Resource::Server).await?;
    let new: NewOrganisation = input.json().await?;
    let me =
        who.0.user().ok_or_else(|| Problem::new(StatusCode::FORBIDDEN, "only a person manages an organisation"))?;
    let id = core.access.create_organisation(&new.name, me.id()).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id, "name": new.name }))))
}

pub(super) async fn members(
    State(core): State<Core>,
    who: Who,
    Path(org): Path<String>,
) -> Result<Json<Value>, Problem> {
    core.allow(&who.0, Action::Read, Resource::Owner(org.clone())).await?;
    let members = core.access.members(&org).await?;
    let members: Vec<_> = members.iter().map(|(user, role)| json!({ "user": user, "role": role })).collect();
    Ok(Json(json!({ "members": members })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Member {
    role: Role,
}

pub(super) async fn add_member(
    State(core): State<Core>,
    who: Who,
    Path((org, user)): Path<(String, String)>,
    input: Input,
) -> Result<StatusCode, Problem> {
    core.allow(&who.0, Action::Admin, Resource::Owner(org.clone())).await?;
    let member: Member = input.json().await?;
    core.access.add_member(&org, &user, member.role).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn remove_member(
    State(core): State<Core>,
    who: Who,
    Path((org, user)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    core.allow(&who.0, Action::Admin, Resource::Owner(org.clone())).await?;
    core.access.remove_member(&org, &user).await?;
    Ok(StatusCode::NO_CONTENT)
}
