//! The machines: a server, a proxy before it, and clients inside and outside.

use std::path::{Path, PathBuf};

use e2e::{Daemon, Machine, Options, World, installed};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// The server's plain name inside.
pub const INSIDE: &str = "registry.internal:5000";
/// Its name with TLS outside, which is the proxy's.
pub const OUTSIDE: &str = "registry.example";
/// Its name with TLS of its own, inside.
pub const DIRECT: &str = "direct.example";

/// Where [`INSIDE`] is.
pub const PLAIN: &str = "10.77.1.1:5000";
/// What the proxy dials.
pub const BEHIND: &str = "10.77.2.1:7080";

const CONFIG: &str = "apiVersion: towpath.dev/v1alpha1
kind: Towpath
spec:
  listeners:
    - address: 127.0.0.1:$PORT
    - address: 10.77.1.1:5000
      hosts: ['registry.internal:5000']
    - address: 10.77.2.1:7080
      hosts: [registry.example]
      trustedProxies: [10.77.2.2]
    - address: 10.77.1.1:443
      hosts: [direct.example]
      tls: {certificate: $DIR/direct.example.pem, key: 'file:$DIR/direct.example.key'}
";

const NGINX: &str = "\
    server {
        listen 443 ssl;
        server_name registry.example;
        ssl_certificate $DIR/registry.example.pem;
        ssl_certificate_key $DIR/registry.example.key;
        client_max_body_size 100m;
        location / {
            proxy_pass http://10.77.2.1:7080;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_request_buffering off;
        }
    }
";

/// The machines and what runs on them.
pub struct Town {
    /// Reaches the server under its plain name and over its own TLS.
    pub inside: Machine,
    /// Reaches the proxy only, and knows its authority.
    pub outside: Machine,
    /// Reaches the proxy only, and does not know its authority.
    pub stranger: Machine,
    /// Stands before the server.
    pub proxy: Machine,
    world: World,
    _nginx: Daemon,
    _server: Machine,
    dir: TempDir,
}

impl Town {
    /// Builds it; nothing if a program is missing, which is printed. The calling thread is on the server's machine then.
    pub fn start(clients: &[&str]) -> Option<Self> {
        let needed = ["nginx", "nsenter", "unshare"];
        if !needed.iter().chain(clients).all(|program| installed(program)) {
            return None;
        }
        let dir = TempDir::new().unwrap();
        let server = Machine::new("server")?;
        let [proxy, inside, outside, stranger] = ["proxy", "inside", "outside", "stranger"].map(Machine::new);
        let (proxy, inside, outside, stranger) = (proxy?, inside?, outside?, stranger?);
        server.connect("10.77.1.1/24", &inside, "10.77.1.2/24")?;
        server.connect("10.77.2.1/24", &proxy, "10.77.2.2/24")?;
        proxy.connect("10.77.3.1/24", &outside, "10.77.3.2/24")?;
        proxy.connect("10.77.4.1/24", &stranger, "10.77.4.2/24")?;
        let authority = authority(dir.path());
        inside.knows("registry.internal", "10.77.1.1");
        inside.knows(DIRECT, "10.77.1.1");
        outside.knows(OUTSIDE, "10.77.3.1");
        stranger.knows(OUTSIDE, "10.77.4.1");
        for (machine, name, root) in
            [(&inside, DIRECT, Some(&authority)), (&outside, OUTSIDE, Some(&authority)), (&stranger, OUTSIDE, None)]
        {
            trust(machine, name, root.map(String::as_str));
        }
        server.enter();
        let config = CONFIG.replace("$DIR", &dir.path().display().to_string());
        let world = World::start(Options { config: Some(config), ..Options::default() })?;
        let nginx = nginx(&proxy, dir.path());
        Some(Self { inside, outside, stranger, proxy, world, _nginx: nginx, _server: server, dir })
    }

    /// The administrator's token.
    pub fn token(&self) -> &str {
        self.world.token()
    }

    /// What the server has under a tag.
    pub fn digest(&self, image: &str, tag: &str) -> String {
        self.world.manifest(image, tag).unwrap_or_default()
    }

    /// A place for files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An OCI layout of an image with one layer of this many bytes that do not compress.
    pub fn layout(&self, name: &str, size: usize) -> PathBuf {
        let dir = self.path(name);
        std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        let blob = |bytes: &[u8], media_type: &str| {
            let digest = hex::encode(Sha256::digest(bytes));
            std::fs::write(dir.join("blobs/sha256").join(&digest), bytes).unwrap();
            json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() })
        };
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(size as u64);
        tar.append_data(&mut header, "noise", noise(size).as_slice()).unwrap();
        let tar = tar.into_inner().unwrap();
        let diff_id = format!("sha256:{}", hex::encode(Sha256::digest(&tar)));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        std::io::Write::write_all(&mut gzip, &tar).unwrap();
        let layer = blob(&gzip.finish().unwrap(), "application/vnd.oci.image.layer.v1.tar+gzip");
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        });
        let config = blob(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer] });
        let manifest = blob(manifest.to_string().as_bytes(), media_type);
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
        dir
    }
}

/// Bytes without a pattern, the same each time.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Makes an authority and what it gives out to the two names with TLS; its certificate.
fn authority(dir: &Path) -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    for name in [OUTSIDE, DIRECT] {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    std::fs::write(dir.join("authority.pem"), authority.pem()).unwrap();
    authority.pem()
}

/// Gives the clients of a machine what they need to know a name's authority by.
fn trust(machine: &Machine, name: &str, root: Option<&str>) {
    machine.write_etc("containers/policy.json", r#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
    machine.write_etc("containers/registries.conf", "unqualified-search-registries = []\n");
    if let Some(root) = root {
        machine.write_etc(&format!("containers/certs.d/{name}/ca.crt"), root);
        machine.write_etc(&format!("docker/certs.d/{name}/ca.crt"), root);
    }
}

fn nginx(proxy: &Machine, dir: &Path) -> Daemon {
    let ready = || proxy.run(|| std::net::TcpStream::connect("10.77.3.1:443").is_ok());
    Daemon::nginx(proxy.command("nginx"), dir, NGINX, ready)
}
