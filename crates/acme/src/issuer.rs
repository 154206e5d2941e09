//! Keeps one certificate: what is there serves, and the next one is ordered in time.

use std::time::Duration;

use instant_acme::CertificateIdentifier;
use model::Timestamp;
use store::{Records, leases};
use tokio::sync::watch;
use x509_parser::pem::Pem;
use x509_parser::prelude::ParsedExtension;

use crate::connection::Http;
use crate::order::Client;
use crate::{AcmeError, Issued, Options, now, records};

/// For how long a process has the turn to order: longer than an order takes.
const TURN_MS: i64 = 600_000;
/// How often it is looked whether another process has a new certificate, and whether it is time.
const LOOK: Duration = Duration::from_secs(60);
/// How often the authority is asked when it wants the certificate renewed.
const ASK_MS: i64 = 6 * 3_600_000;
/// How long a certificate is kept at least, or a third of its life, whatever the authority advises.
const LEAST_LIFE_MS: i64 = 3_600_000;
/// The first and the longest rest after an order that failed. Authorities allow few failures in an hour.
const REST_MS: (i64, i64) = (60_000, 3_600_000);
/// How often an order is begun when the authority only wants fresher nonces.
const ORDERS: usize = 5;

/// Keeps one certificate.
pub struct Issuer {
    options: Options,
    records: Records,
    http: Http,
    holder: String,
    issued: watch::Sender<Option<Issued>>,
}

/// A certificate's times, and what its authority knows it by.
struct Facts {
    from: Timestamp,
    until: Timestamp,
    id: Option<CertificateIdentifier<'static>>,
}

/// When the authority wants it renewed, and when that was asked.
#[derive(Default)]
struct Advice {
    asked: Timestamp,
    /// For the certificate of that end.
    about: Timestamp,
    at: Option<Timestamp>,
}

impl Issuer {
    /// Reads what is kept. Nothing connects yet. `holder` is who this process is among those that share the records.
    ///
    /// # Errors
    /// When the file of certificates to trust cannot be used, or the records fail.
    pub async fn open(options: Options, records: Records, holder: String) -> Result<Self, AcmeError> {
        let http = Http::new(&options)?;
        if !records.is_shared() {
            // Nobody else can hold it: the process that did is gone.
            let lease = lease(&options);
            records.write(move |tx| tx.execute("DELETE FROM leases WHERE name = $1", &[lease.into()])).await?;
        }
        let name = options.key();
        // Somebody may have put right what was wrong: the first attempt does not wait.
        let kept = records.write(move |tx| {
            tx.execute("UPDATE acme_failures SET until = 0 WHERE name = $1", &[(&name).into()])?;
            records::certificate(tx, &name)
        });
        let kept = kept.await?;
        Ok(Self { options, records, http, holder, issued: watch::Sender::new(kept) })
    }

    /// The certificate as it changes; nothing until there is one.
    pub fn issued(&self) -> watch::Receiver<Option<Issued>> {
        self.issued.subscribe()
    }

    /// Orders and renews, for as long as it is polled.
    pub async fn run(&self) {
        let mut advice = Advice::default();
        loop {
            let pause = match Box::pin(self.look(&mut advice)).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(domains = self.options.domains.join(", "), %error, "no certificate was issued");
                    Duration::from_secs(1)
                }
            };
            tokio::time::sleep(pause.clamp(Duration::from_millis(200), LOOK)).await;
        }
    }

    /// Orders a certificate if it is time. How long it will not be.
    async fn look(&self, advice: &mut Advice) -> Result<Duration, AcmeError> {
        let name = self.options.key();
        let (kept, (failures, rests)) =
            self.records.read(move |tx| Ok((records::certificate(tx, &name)?, records::failures(tx, &name)?))).await?;
        if kept.is_some() && *self.issued.borrow() != kept {
            self.issued.send_replace(kept.clone());
        }
        let due = match &kept {
            None => Timestamp(0),
            Some(kept) => self.due(&facts(kept)?, advice).await,
        };
        let due = due.max(rests);
        let left = due.0.saturating_sub(now().0);
        if left > 0 {
            return Ok(Duration::from_millis(left.unsigned_abs()));
        }
        let (lease, holder) = (lease(&self.options), self.holder.clone());
        let taken = self.records.write(move |tx| leases::acquire(tx, &lease, &holder, now(), TURN_MS)).await?;
        if !taken {
            return Ok(LOOK);
        }
        let ordered = Box::pin(self.order(failures)).await;
        let (lease, holder) = (self::lease(&self.options), self.holder.clone());
        self.records.write(move |tx| leases::release(tx, &lease, &holder)).await?;
        ordered.map(|()| Duration::ZERO)
    }

    async fn order(&self, failures: i64) -> Result<(), AcmeError> {
        let domains = self.options.domains.join(", ");
        tracing::info!(domains, directory = self.options.directory, "ordering a certificate");
        let client = Client { options: &self.options, records: &self.records, http: &self.http };
        let name = self.options.key();
        match patient_order(&client).await.and_then(|issued| Ok((facts(&issued)?, issued))) {
            Ok((facts, issued)) => {
                let kept = issued.clone();
                self.records.write(move |tx| records::put_certificate(tx, &name, &kept)).await?;
                self.issued.send_replace(Some(issued));
                tracing::info!(domains, ends = %facts.until, "a certificate was issued");
                Ok(())
            }
            Err(error) => {
                let name = self.options.key();
                let doublings = u32::try_from(failures).unwrap_or(0).min(16);
                let rest = REST_MS.0.saturating_mul(1 << doublings).min(REST_MS.1);
                let until = Timestamp(now().0.saturating_add(rest));
                let noted = (failures.saturating_add(1), until);
                self.records.write(move |tx| records::put_failures(tx, &name, noted)).await?;
                Err(error)
            }
        }
    }

    /// When the next certificate is to be ordered: when the authority says, or else at two thirds of the life.
    async fn due(&self, facts: &Facts, advice: &mut Advice) -> Timestamp {
        let life = facts.until.0.saturating_sub(facts.from.0);
        let usual = Timestamp(facts.from.0.saturating_add(life / 3 * 2));
        if advice.about != facts.until || now().millis_since(advice.asked) > ASK_MS {
            let at = self.advised(facts).await;
            *advice = Advice { asked: now(), about: facts.until, at };
        }
        // An authority that never has enough is not asked all the time, and none when it is too late for another attempt.
        let least = Timestamp(facts.from.0.saturating_add((life / 3).min(LEAST_LIFE_MS)));
        let most = Timestamp(facts.until.0.saturating_sub(life / 6));
        advice.at.unwrap_or(usual).min(most).max(least)
    }

    async fn advised(&self, facts: &Facts) -> Option<Timestamp> {
        let id = facts.id.as_ref()?;
        let client = Client { options: &self.options, records: &self.records, http: &self.http };
        let (info, _) = client.account().await.ok()?.renewal_info(id).await.ok()?;
        let window = info.suggested_window;
        let millis = |nanos: i128| i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX);
        let (start, end) = (millis(window.start.unix_timestamp_nanos()), millis(window.end.unix_timestamp_nanos()));
        // Not everybody at once: each certificate has its own place in the window.
        let place = id.serial.bytes().fold(0_i64, |sum, byte| (sum * 31 + i64::from(byte)) % 1000);
        let at = start.saturating_add(end.saturating_sub(start).max(0) / 1000 * place);
        Some(Timestamp(at))
    }
}

/// Orders, and begins anew a few times where the authority was not content with a nonce: that says nothing of the order
/// (RFC 8555, section 6.5).
async fn patient_order(client: &Client<'_>) -> Result<Issued, AcmeError> {
    for _ in 1..ORDERS {
        match Box::pin(client.order()).await {
            Err(error) if error.is_bad_nonce() => {}
            ordered => return ordered,
        }
    }
    Box::pin(client.order()).await
}

fn lease(options: &Options) -> String {
    format!("acme/{}", options.key())
}

fn facts(issued: &Issued) -> Result<Facts, AcmeError> {
    let unreadable = |why: String| AcmeError::Content(format!("the certificate that was issued cannot be read: {why}"));
    let first = Pem::iter_from_buffer(issued.chain.as_bytes()).next();
    let first = first.ok_or_else(|| unreadable("it is not PEM".to_owned()))?;
    let first = first.map_err(|error| unreadable(error.to_string()))?;
    let certificate = first.parse_x509().map_err(|error| unreadable(error.to_string()))?;
    let validity = certificate.validity();
    let authority = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(key) => key.key_identifier.as_ref().map(|key| key.0.to_vec()),
        _ => None,
    });
    let id = authority
        .map(|key| CertificateIdentifier::new(key.into(), certificate.raw_serial().to_vec().into()).into_owned());
    let millis = |seconds: i64| Timestamp(seconds.saturating_mul(1000));
    Ok(Facts { from: millis(validity.not_before.timestamp()), until: millis(validity.not_after.timestamp()), id })
}
