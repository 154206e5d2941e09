//! The signature of the Standard Webhooks specification, version 1.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// What a secret begins with whose rest is base64.
pub const SECRET_PREFIX: &str = "whsec_";

/// The key of a secret as it is configured: the bytes behind `whsec_`, or the bytes of the text itself.
pub fn signing_key(secret: &str) -> Zeroizing<Vec<u8>> {
    let decoded = secret.strip_prefix(SECRET_PREFIX).and_then(|text| STANDARD.decode(text).ok());
    Zeroizing::new(decoded.unwrap_or_else(|| secret.as_bytes().to_vec()))
}

/// The value of the header `webhook-signature` for a message that is sent at `seconds` since the epoch.
pub fn signature(key: &[u8], id: &str, seconds: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
    mac.update(id.as_bytes());
    mac.update(format!(".{seconds}.").as_bytes());
    mac.update(body.as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    #[test]
    fn signs_as_the_specification_says() {
        let key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let body = r#"{"test": 2432232314}"#;
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_that_is_not_base64_is_taken_as_it_is() {
        assert_eq!(signing_key("s3cret").as_slice(), b"s3cret");
        assert_eq!(signing_key("whsec_???").as_slice(), b"whsec_???");
    }
}
