//! Certificates for a test's server and client, made anew for each test.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;

/// An authority, what it signed, and an authority that signed nothing.
pub(crate) struct Certificates {
    directory: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key as PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = authority("odograph test authority");
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        std::fs::write(directory.path().join("other.pem"), self::authority("somebody else").pem()).unwrap();
        std::fs::write(directory.path().join("empty.pem"), "").unwrap();
        Self { directory, authority }
    }

    /// The file of the authority that signed, `ca.pem`, or of another one, `other.pem`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn authority(&self) -> String {
        self.authority.pem()
    }

    /// Signed by the authority, for these names.
    pub(crate) fn signed(&self, names: &[&str]) -> Pair {
        self.pair(&parameters(names))
    }

    /// Signed by the authority, and no longer valid.
    pub(crate) fn expired(&self, names: &[&str]) -> Pair {
        let mut parameters = parameters(names);
        (parameters.not_before, parameters.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        self.pair(&parameters)
    }

    /// Signed by itself, and an authority by its own word, as `openssl req -x509` makes them.
    pub(crate) fn self_signed(names: &[&str]) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut parameters = parameters(names);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Pair { certificate: parameters.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    /// For a client that logs in as a role; writes both files.
    pub(crate) fn client(&self, role: &str) -> (PathBuf, PathBuf) {
        let mut parameters = parameters(&[]);
        parameters.distinguished_name.push(DnType::CommonName, role);
        let Pair { certificate, key } = self.pair(&parameters);
        self.write("client.pem", &certificate);
        self.write("client.key", &key);
        (self.file("client.pem"), self.file("client.key"))
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let file: &Path = &self.file(name);
        std::fs::write(file, text).unwrap();
        file.to_owned()
    }

    fn pair(&self, parameters: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.authority).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

fn parameters(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = parameters(&[]);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
}
