//! Listeners whose certificates an authority issues.

use std::sync::Arc;

use acme::{Challenge, Challenges, Issuer, Options};
use config::{AcmeChallenge, Listener};
use futures_util::future::join_all;
use store::Records;

use crate::listen::Bound;
use crate::serve::StartError;
use crate::tls::Certificates;

/// The certificates that are ordered and renewed while the server runs.
#[derive(Default)]
pub(crate) struct Certifying {
    all: Vec<(usize, Issuer, Arc<Certificates>)>,
    /// What authorities are answered; nothing if none is asked.
    pub(crate) challenges: Option<Challenges>,
}

impl Certifying {
    /// Reads what is kept, for the listeners whose certificates are ordered. Nothing is ordered yet.
    pub(crate) async fn open(listeners: &[Listener], bound: &[Bound], records: &Records) -> Result<Self, StartError> {
        let mut certifying = Self::default();
        let holder = format!("{}-{:016x}", std::process::id(), rand::random::<u64>());
        for (listener, (configured, bound)) in listeners.iter().zip(bound).enumerate() {
            let Some(configured) = configured.tls.as_ref().and_then(|tls| tls.acme.as_ref()) else { continue };
            let Some(tls) = &bound.tls else { continue };
            let failed = |error: acme::AcmeError| StartError::Tls { listener, reason: format!("acme: {error}") };
            if certifying.challenges.is_none() {
                acme::install(records).await.map_err(failed)?;
            }
            let challenges = certifying.challenges.get_or_insert_with(|| Challenges::new(records.clone()));
            let issuer = Issuer::open(options(configured), records.clone(), holder.clone()).await.map_err(failed)?;
            let certificates = tls.answer(challenges.clone());
            take(listener, &issuer, &certificates);
            certifying.all.push((listener, issuer, certificates));
        }
        Ok(certifying)
    }

    /// Orders and renews for as long as it is polled.
    pub(crate) async fn run(self) {
        let each = |(listener, issuer, certificates): (usize, Issuer, Arc<Certificates>)| async move {
            let mut issued = issuer.issued();
            let follow = async {
                while issued.changed().await.is_ok() {
                    take(listener, &issuer, &certificates);
                }
            };
            tokio::join!(issuer.run(), follow);
        };
        join_all(self.all.into_iter().map(each)).await;
    }
}

/// Serves what was issued from now on.
fn take(listener: usize, issuer: &Issuer, certificates: &Certificates) {
    let Some(issued) = issuer.issued().borrow().clone() else { return };
    if let Err(error) = certificates.put_issued(&issued.chain, &issued.key) {
        tracing::error!(listener, error, "an issued certificate cannot be used; the one before it stays");
    }
}

fn options(configured: &config::Acme) -> Options {
    Options {
        directory: configured.directory.clone(),
        domains: configured.domains.clone(),
        contact: configured.contact.clone(),
        ca: configured.ca.as_ref().map(|ca| ca.path().to_owned()),
        challenge: match configured.challenge {
            AcmeChallenge::TlsAlpn => Challenge::TlsAlpn,
            AcmeChallenge::Http => Challenge::Http,
        },
    }
}
