//! One order, from the account to the certificate.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use store::Records;

use crate::connection::{Http, chain};
use crate::{AcmeError, Challenge, Issued, Options, records};

/// How long an authority may take to look at the answers, and to make the certificate.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the authority says when it does not know our account any more.
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Whoever orders.
pub(crate) struct Client<'a> {
    pub options: &'a Options,
    pub records: &'a Records,
    pub http: &'a Http,
}

impl Client<'_> {
    fn failed(&self, what: &str) -> impl FnOnce(Error) -> AcmeError + use<> {
        let (directory, what) = (self.options.directory.clone(), what.to_owned());
        move |error| match error {
            Error::Json(_) => AcmeError::NoDirectory(directory),
            error => AcmeError::Authority { directory, what, why: chain(&error) },
        }
    }

    /// The account at the authority, which is made if there is none.
    pub(crate) async fn account(&self) -> Result<Account, AcmeError> {
        let directory = self.options.directory.clone();
        let known = self.records.read(move |tx| records::account(tx, &directory)).await?;
        let contact: Vec<&str> = self.options.contact.iter().map(String::as_str).collect();
        let Some((credentials, known_contact)) = known else { return self.new_account(&contact).await };
        let credentials = serde_json::from_str(&credentials)
            .map_err(|_| AcmeError::Content("the account in the records cannot be read".to_owned()))?;
        let account = Account::builder_with_http(Box::new(self.http.clone())).from_credentials(credentials).await;
        let account = account.map_err(self.failed("the directory"))?;
        if known_contact != contact.join(" ") {
            match account.update_contacts(&contact).await {
                Err(error) if is_no_account(&error) => {
                    self.forget_account().await?;
                    return self.new_account(&contact).await;
                }
                updated => updated.map_err(self.failed("the contact of the account"))?,
            }
            let (directory, contact) = (self.options.directory.clone(), contact.join(" "));
            let sql = "UPDATE acme_accounts SET contact = $2 WHERE directory = $1";
            self.records.write(move |tx| tx.execute(sql, &[directory.into(), contact.into()])).await?;
        }
        Ok(account)
    }

    async fn new_account(&self, contact: &[&str]) -> Result<Account, AcmeError> {
        let new = NewAccount { contact, terms_of_service_agreed: true, only_return_existing: false };
        let directory = self.options.directory.clone();
        let created = Account::builder_with_http(Box::new(self.http.clone())).create(&new, directory, None).await;
        let (account, credentials) = created.map_err(self.failed("a new account"))?;
        let credentials = serde_json::to_string(&credentials)
            .map_err(|error| AcmeError::Content(format!("the account cannot be kept: {error}")))?;
        let (directory, contact) = (self.options.directory.clone(), contact.join(" "));
        self.records.write(move |tx| records::put_account(tx, &directory, &credentials, &contact)).await?;
        Ok(account)
    }

    async fn forget_account(&self) -> Result<(), AcmeError> {
        let directory = self.options.directory.clone();
        Ok(self.records.write(move |tx| records::forget_account(tx, &directory)).await?)
    }

    /// Orders a certificate.
    pub(crate) async fn order(&self) -> Result<Issued, AcmeError> {
        let domains = &self.options.domains;
        let identifiers: Vec<Identifier> = domains.iter().map(|domain| Identifier::Dns(domain.clone())).collect();
        let new = NewOrder::new(&identifiers);
        let mut order = match self.account().await?.new_order(&new).await {
            Err(error) if is_no_account(&error) => {
                self.forget_account().await?;
                self.account().await?.new_order(&new).await
            }
            order => order,
        }
        .map_err(self.failed(&format!("an order for {}", domains.join(", "))))?;
        let mut placed = Vec::new();
        let ordered = self.fulfil(&mut order, &mut placed).await;
        let kind = self.options.challenge;
        let forgotten = self
            .records
            .write(move |tx| placed.iter().try_for_each(|name: &String| records::forget_answer(tx, kind, name)));
        forgotten.await?;
        ordered
    }

    async fn fulfil(&self, order: &mut Order, placed: &mut Vec<String>) -> Result<Issued, AcmeError> {
        self.answer(order, placed).await?;
        let patience = RetryPolicy::new().timeout(PATIENCE).backoff(1.5);
        let ready = order.poll_ready(&patience).await;
        if !matches!(ready, Ok(OrderStatus::Ready)) {
            // What the authority found is with the challenge.
            let why = match (self.refusal(order).await, ready) {
                (Some(why), _) => why,
                (None, Err(error)) => chain(&error),
                (None, Ok(_)) => "the authority says that the order is not valid".to_owned(),
            };
            let (directory, what) = (self.options.directory.clone(), self.options.challenge.name().to_owned());
            return Err(AcmeError::Authority { directory, what, why });
        }
        let key = KeyPair::generate().map_err(|error| AcmeError::Content(format!("a key: {error}")))?;
        let request = CertificateParams::new(self.options.domains.clone()).and_then(|mut params| {
            params.distinguished_name = DistinguishedName::new();
            params.serialize_request(&key)
        });
        let request = request.map_err(|error| AcmeError::Content(format!("the request: {error}")))?;
        order.finalize_csr(request.der()).await.map_err(self.failed("the request for the certificate"))?;
        let chain = order.poll_certificate(&patience).await.map_err(self.failed("the certificate"))?;
        Ok(Issued { chain, key: key.serialize_pem() })
    }

    /// Places the answers to all challenges, and lets the authority ask.
    async fn answer(&self, order: &mut Order, placed: &mut Vec<String>) -> Result<(), AcmeError> {
        let kind = self.options.challenge;
        let wanted = match kind {
            Challenge::TlsAlpn => ChallengeType::TlsAlpn01,
            Challenge::Http => ChallengeType::Http01,
        };
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(self.failed("an authorization"))?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let domain = authorization.identifier().to_string();
            let mut challenge = authorization.challenge(wanted.clone()).ok_or_else(|| AcmeError::Authority {
                directory: self.options.directory.clone(),
                what: domain.clone(),
                why: format!("the authority offers no {}", kind.name()),
            })?;
            let said = challenge.key_authorization();
            let (name, answer) = match kind {
                Challenge::TlsAlpn => (domain.to_ascii_lowercase(), hex::encode(said.digest())),
                Challenge::Http => (challenge.token.clone(), said.as_str().to_owned()),
            };
            placed.push(name.clone());
            self.records.write(move |tx| records::put_answer(tx, kind, &name, &answer)).await?;
            challenge.set_ready().await.map_err(self.failed(&domain))?;
        }
        Ok(())
    }

    /// What the authority has against the answers.
    async fn refusal(&self, order: &mut Order) -> Option<String> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.ok()?;
            let domain = authorization.identifier().to_string();
            let Ok(state) = authorization.refresh().await else { continue };
            if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
                return Some(format!("{domain}: {}", chain(problem)));
            }
        }
        None
    }
}

fn is_no_account(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if problem.r#type.as_deref() == Some(NO_ACCOUNT))
}
