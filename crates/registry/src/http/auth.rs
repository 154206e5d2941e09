//! Who asks, and whether they may.

use access::{
    AccessError, Action, Asker, Authorized, BearerClaims, BearerError, Credentials, Denied, Principal, Resource,
};
use http::header;
use http::request::Parts;
use model::ImageName;

use crate::http::RegistryHttp;
use crate::http::failure::Failure;
use crate::uploads::Session;

/// What a token of ours begins with that was made for `/v2`; others are a user's or a job's own.
const BEARER: &str = "twb_";

/// For how long after its end a token still continues an upload, in milliseconds: a day.
const LONGEST_UPLOAD: i64 = 24 * 60 * 60 * 1000;

/// Who asks.
pub(super) struct Caller {
    pub principal: Principal,
    /// What their registry token was given for; nothing if they showed credentials themselves, or none.
    claims: Option<BearerClaims>,
}

impl Caller {
    /// Whether they showed anything.
    pub fn is_known(&self) -> bool {
        self.claims.is_some() || self.principal != Principal::Anonymous
    }

    /// Who they are, to find their uploads again.
    pub fn subject(&self) -> String {
        subject(&self.principal)
    }

    /// Whether they may have come to push: their token was given for it, or they have none.
    pub fn may_push(&self, image: &ImageName) -> bool {
        self.grants("repository", image.as_str(), "push")
    }

    fn grants(&self, kind: &str, name: &str, action: &str) -> bool {
        self.claims.as_ref().is_none_or(|claims| claims.grants(kind, name, action))
    }
}

fn subject(principal: &Principal) -> String {
    match principal {
        Principal::Anonymous => "anonymous".to_owned(),
        Principal::User(user) => format!("user {}", user.id()),
        Principal::Robot(robot) => format!("robot {}", robot.id()),
        Principal::Job(job) => format!("job {}", job.job),
    }
}

/// What a token must be given for, and what a client without one is asked for.
const fn verbs(action: Action) -> (&'static str, &'static str) {
    match action {
        Action::Read => ("pull", "pull"),
        Action::Write => ("push", "pull,push"),
        Action::Delete => ("delete", "delete"),
        Action::Admin => ("*", "*"),
    }
}

/// Tells whoever handed the request on whose it is.
pub(super) fn tell(parts: &Parts, who: &Principal) {
    if let Some(asker) = parts.extensions.get::<Asker>() {
        asker.is(who);
    }
}

fn scope(image: &ImageName, action: Action) -> String {
    format!("repository:{image}:{}", verbs(action).1)
}

impl RegistryHttp {
    /// Who sent the request. Wrong or expired credentials are an error, never nobody.
    pub(super) async fn caller(&self, parts: &Parts) -> Result<Caller, Failure> {
        let caller = self.find_caller(parts).await?;
        tell(parts, &caller.principal);
        Ok(caller)
    }

    async fn find_caller(&self, parts: &Parts) -> Result<Caller, Failure> {
        let unauthorized = || Failure::challenge(None, None);
        let header = match parts.headers.get(header::AUTHORIZATION) {
            Some(value) => Some(value.to_str().map_err(|_| unauthorized())?),
            None => None,
        };
        let credentials = Credentials::from_header(header).map_err(|_| unauthorized())?;
        match &credentials {
            Credentials::Bearer(token) if token.expose().starts_with(BEARER) => {
                match self.access.read_bearer(token.expose(), &self.service).await? {
                    Ok(claims) => Ok(Caller { principal: claims.principal.clone(), claims: Some(claims) }),
                    Err(_) => Err(Failure::challenge(None, Some("invalid_token"))),
                }
            }
            credentials => match self.access.authenticate(credentials).await {
                Ok(principal) => Ok(Caller { principal, claims: None }),
                Err(why @ (AccessError::Records(_) | AccessError::Busy)) => Err(why.into()),
                Err(_) => Err(unauthorized()),
            },
        }
    }

    /// Who sent the request, if they may do `action` to `image`: both the token and its owner must be good for it, and
    /// the owner's rights count as they are now.
    pub(super) async fn require(&self, parts: &Parts, action: Action, image: &ImageName) -> Result<Caller, Failure> {
        let caller = self.caller(parts).await.map_err(|failure| failure.for_scope(&scope(image, action)))?;
        self.require_of(&caller, action, image).await?;
        Ok(caller)
    }

    /// Whether a caller may do `action` to another image as well.
    pub(super) async fn require_of(
        &self,
        caller: &Caller,
        action: Action,
        image: &ImageName,
    ) -> Result<Authorized, Failure> {
        if !caller.grants("repository", image.as_str(), verbs(action).0) {
            return Err(Failure::challenge(Some(scope(image, action)), Some("insufficient_scope")));
        }
        let allowed = self.allowed(&caller.principal, action, image).await;
        // A client that is not told so would show the same token again.
        allowed.map_err(|failure| if caller.claims.is_some() { failure.for_token() } else { failure })
    }

    /// Whether a caller may read an image: with their token, or because everybody may.
    pub(super) async fn may_read(&self, caller: &Caller, image: &ImageName) -> bool {
        self.require_of(caller, Action::Read, image).await.is_ok()
            || self.allowed(&Principal::Anonymous, Action::Read, image).await.is_ok()
    }

    async fn allowed(&self, principal: &Principal, action: Action, image: &ImageName) -> Result<Authorized, Failure> {
        let reading = action == Action::Read;
        let asked = self.access.authorize(principal, action, self.resource(image.clone())).await;
        asked.map_err(|denied| Failure::denied(denied, scope(image, action), reading))
    }

    /// What an image is to the gate: an upstream's is nobody's.
    pub(super) fn resource(&self, image: ImageName) -> Resource {
        match self.upstreams.place(&image) {
            Some(place) => Resource::Cached { image, open: place.upstream().is_anonymous() },
            None => Resource::Image(image),
        }
    }

    /// Whether a caller may list all images.
    pub(super) async fn require_catalog(&self, parts: &Parts) -> Result<Authorized, Failure> {
        let scope = || "registry:catalog:*".to_owned();
        let caller = self.caller(parts).await.map_err(|failure| failure.for_scope(&scope()))?;
        if !caller.grants("registry", "catalog", "*") {
            return Err(Failure::challenge(Some(scope()), Some("insufficient_scope")));
        }
        let asked = self.access.authorize(&caller.principal, Action::Read, Resource::Images).await;
        asked.map_err(|denied| Failure::denied(denied, scope(), false))
    }

    /// Whether the token that a caller's registry token was made of is still good.
    pub(super) async fn require_alive(&self, caller: &Caller) -> Result<(), Failure> {
        if caller.principal == Principal::Anonymous {
            return Ok(());
        }
        match self.access.authorize(&caller.principal, Action::Read, Resource::Server).await {
            Err(Denied::Unauthenticated) => Err(Failure::challenge(None, Some("invalid_token"))),
            Err(Denied::Unavailable(why)) => Err(AccessError::Records(why).into()),
            // A job may not look at the server; that it was asked about at all is enough.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// An upload, if the request comes from who began it.
    ///
    /// Uploads outlive tokens: a client whose token expired while it sent a large blob goes on if that token was given to
    /// who began the upload, with their rights as they are now.
    pub(super) async fn require_upload(&self, parts: &Parts, image: &ImageName, id: &str) -> Result<Session, Failure> {
        let unknown = || Failure::from(crate::RegistryError::UploadUnknown(id.chars().take(80).collect()));
        let asker = match self.require(parts, Action::Write, image).await {
            Ok(caller) => caller.subject(),
            Err(failure) if failure.is_invalid_token() => {
                let Some(claims) = self.expired(parts) else { return Err(failure) };
                if !claims.grants("repository", image.as_str(), "push") {
                    return Err(failure);
                }
                self.allowed(&claims.principal, Action::Write, image).await?;
                subject(&claims.principal)
            }
            Err(failure) => return Err(failure),
        };
        let session = self.registry.upload(image, id).await?;
        if session.subject == asker { Ok(session) } else { Err(unknown()) }
    }

    /// What a genuine registry token said whose time is over, but not for longer than an upload may take.
    fn expired(&self, parts: &Parts) -> Option<Box<BearerClaims>> {
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Ok(Credentials::Bearer(token)) = Credentials::from_header(header) else { return None };
        match self.access.verify_bearer(token.expose(), &self.service) {
            Err(BearerError::Expired(claims)) => {
                let since = crate::now().0.saturating_sub(claims.expires.0);
                (since <= LONGEST_UPLOAD).then_some(claims)
            }
            _ => None,
        }
    }
}
