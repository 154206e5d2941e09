//! The answers to an authority's questions, whichever process has ordered.

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use store::Records;

use crate::{AcmeError, Challenge, records};

/// Longer tokens and names are nobody's.
const LONGEST: usize = 255;

/// Knows what is to be answered.
#[derive(Clone, Debug)]
pub struct Challenges {
    records: Records,
}

/// What is shown in the handshake that answers a challenge.
pub struct Handshake {
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// Its private key, PKCS #8 DER.
    pub key: Vec<u8>,
}

impl Challenges {
    /// Over the records that [`install`](crate::install) has prepared.
    pub fn new(records: Records) -> Self {
        Self { records }
    }

    /// What is answered over HTTP for a token.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn http(&self, token: &str) -> Result<Option<String>, AcmeError> {
        self.find(Challenge::Http, token).await
    }

    /// What is shown in a handshake for a name.
    ///
    /// # Errors
    /// When the records fail, or the certificate cannot be made.
    pub async fn handshake(&self, name: &str) -> Result<Option<Handshake>, AcmeError> {
        let name = name.to_ascii_lowercase();
        let Some(answer) = self.find(Challenge::TlsAlpn, &name).await? else { return Ok(None) };
        let failed = |why: String| AcmeError::Content(format!("the answer for {name}: {why}"));
        let mut digest = [0; 32];
        hex::decode_to_slice(&answer, &mut digest).map_err(|error| failed(error.to_string()))?;
        let key = KeyPair::generate().map_err(|error| failed(error.to_string()))?;
        let mut params = CertificateParams::new(vec![name.clone()]).map_err(|error| failed(error.to_string()))?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
        let certificate = params.self_signed(&key).map_err(|error| failed(error.to_string()))?;
        Ok(Some(Handshake { certificate: certificate.der().to_vec(), key: key.serialize_der() }))
    }

    async fn find(&self, kind: Challenge, name: &str) -> Result<Option<String>, AcmeError> {
        if name.len() > LONGEST || name.contains('\0') {
            return Ok(None);
        }
        let name = name.to_owned();
        Ok(self.records.read(move |tx| records::answer(tx, kind, &name)).await?)
    }
}
