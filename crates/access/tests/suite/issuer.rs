//! An issuer of JSON web tokens in this process, with a real port.

use std::sync::{Arc, Mutex};

use access::IssuerConfig;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What the issuer answers with.
#[derive(Default)]
struct Answers {
    /// Requests for its keys.
    asked: usize,
    /// What a code is worth, and the challenge that its verifier must fit.
    id_token: String,
    challenge: String,
}

pub struct TestIssuer {
    pub url: String,
    key: KeyPair,
    keys: Arc<Mutex<Value>>,
    answers: Arc<Mutex<Answers>>,
}

impl TestIssuer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let key = KeyPair::generate().unwrap();
        let answers = Arc::new(Mutex::new(Answers::default()));
        let keys = json!([{ "kty": "future", "kid": "other" }, jwk(&key, "one")]);
        let keys = Arc::new(Mutex::new(keys));
        let (at, listed, shared) = (url.clone(), Arc::clone(&keys), Arc::clone(&answers));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let keys = json!({ "keys": *listed.lock().unwrap() });
                let (at, shared) = (at.clone(), Arc::clone(&shared));
                tokio::spawn(async move { answer(socket, &at, &keys, &shared).await });
            }
        });
        Self { url, key, keys, answers }
    }

    /// Lists these keys, and no others, from now on.
    pub fn list(&self, keys: &[Value]) {
        *self.keys.lock().unwrap() = json!(keys);
    }

    pub fn config(&self, name: &str) -> IssuerConfig {
        IssuerConfig { name: name.to_owned(), issuer: self.url.clone(), jwks: None, roots: Vec::new() }
    }

    /// Signs claims as the issuer does.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(claims, "one")
    }

    pub fn sign_as(&self, claims: &Value, id: &str) -> String {
        let header = Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::ES256) };
        sign(&header, claims, &self.key)
    }

    /// The public key, as everybody sees it.
    pub fn public(&self) -> Vec<u8> {
        self.key.public_key_raw().to_vec()
    }

    /// How often its keys were asked for.
    pub fn asked(&self) -> usize {
        self.answers.lock().unwrap().asked
    }

    /// What the next code is worth.
    pub fn promise(&self, id_token: String, challenge: &str) {
        let mut answers = self.answers.lock().unwrap();
        (answers.id_token, answers.challenge) = (id_token, challenge.to_owned());
    }
}

/// Signs claims under any header with any key.
pub fn sign(header: &Header, claims: &Value, key: &KeyPair) -> String {
    jsonwebtoken::encode(header, claims, &EncodingKey::from_ec_der(&key.serialize_der())).unwrap()
}

/// An RSA key as most issuers have one.
pub struct RsaKey(KeyPair);

/// Bytes of its modulus.
const MODULUS: usize = 256;

impl RsaKey {
    pub fn new() -> Self {
        Self(KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap())
    }

    /// Signs claims with this algorithm.
    pub fn sign(&self, algorithm: Algorithm, claims: &Value, id: &str) -> String {
        let header = Header { kid: Some(id.to_owned()), ..Header::new(algorithm) };
        let wrapped = self.0.serialize_der();
        // PKCS #8 says in 26 bytes that the rest is an RSA key.
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_rsa_der(&wrapped[26..])).unwrap()
    }

    /// Its public half.
    pub fn jwk(&self, id: &str) -> Value {
        // A sequence of the modulus, after a byte for its sign, and the exponent 65537.
        let raw = self.0.public_key_raw();
        let (n, e) = (URL_SAFE_NO_PAD.encode(&raw[9..9 + MODULUS]), URL_SAFE_NO_PAD.encode([1, 0, 1]));
        json!({ "kty": "RSA", "kid": id, "use": "sig", "n": n, "e": e })
    }
}

/// A public key as a JWK.
pub fn jwk(key: &KeyPair, id: &str) -> Value {
    let point = key.public_key_raw();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]));
    json!({ "kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "alg": "ES256", "x": x, "y": y })
}

async fn answer(socket: TcpStream, at: &str, keys: &Value, answers: &Mutex<Answers>) {
    let mut socket = BufReader::new(socket);
    let (mut first, mut length) = (String::new(), 0);
    socket.read_line(&mut first).await.unwrap();
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line).await.unwrap() == 0 || line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.unwrap();
    let path = first.split(' ').nth(1).unwrap_or_default();
    let found = match path {
        "/.well-known/openid-configuration" => Some(json!({
            "issuer": at, "jwks_uri": format!("{at}/keys"), "token_endpoint": format!("{at}/token"),
            "authorization_endpoint": format!("{at}/authorize"),
        })),
        "/keys" => {
            answers.lock().unwrap().asked += 1;
            Some(keys.clone())
        }
        "/token" => redeem(&String::from_utf8(body).unwrap(), answers),
        _ => None,
    };
    let (status, text) = found.map_or(("400 Bad Request", "{}".to_owned()), |found| ("200 OK", found.to_string()));
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n");
    let whole = format!("{head}Content-Length: {}\r\n\r\n{text}", text.len());
    let _ = socket.write_all(whole.as_bytes()).await;
}

/// The identity token, for the code `good` with the verifier of the challenge.
fn redeem(form: &str, answers: &Mutex<Answers>) -> Option<Value> {
    let field = |name: &str| form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let answers = answers.lock().unwrap();
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(field("code_verifier")?.as_bytes()));
    let good = field("code")? == "good" && challenge == answers.challenge && field("client_id")? == "towpath";
    good.then(|| json!({ "id_token": answers.id_token, "access_token": "x", "token_type": "Bearer" }))
}
