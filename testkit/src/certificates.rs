//! Certificates for the server and the client of one test.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;

/// An authority with its certificates, and another authority that signed nothing. Files are deleted with this value.
pub struct Certificates {
    directory: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key as PEM.
#[derive(Debug)]
pub struct CertificateAndKey {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// What a self-signed certificate says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Properties {
    /// Whether it may sign others.
    pub is_authority: bool,
    /// From the beginning of one year to that of another; by default a long time around now.
    pub years: Option<(i32, i32)>,
}

impl Properties {
    fn set(self, parameters: &mut CertificateParams) {
        parameters.is_ca =
            if self.is_authority { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        if let Some((from, to)) = self.years {
            (parameters.not_before, parameters.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        }
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificates {
    /// Makes both authorities.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = authority("odograph test authority");
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        std::fs::write(directory.path().join("other.pem"), self::authority("another authority").pem()).unwrap();
        std::fs::write(directory.path().join("empty.pem"), "").unwrap();
        Self { directory, authority }
    }

    /// The path of a file: `ca.pem` is the authority that signed, `other.pem` another one, `empty.pem` none.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The authority's certificate as PEM.
    #[must_use]
    pub fn authority(&self) -> String {
        self.authority.pem()
    }

    /// Signed by the authority, for these names.
    #[must_use]
    pub fn signed(&self, names: &[&str]) -> CertificateAndKey {
        self.pair(&parameters(names))
    }

    /// Signed by the authority, and expired.
    #[must_use]
    pub fn expired(&self, names: &[&str]) -> CertificateAndKey {
        let mut parameters = parameters(names);
        (parameters.not_before, parameters.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        self.pair(&parameters)
    }

    /// Signed by the authority, and not valid yet.
    #[must_use]
    pub fn not_yet_valid(&self, names: &[&str]) -> CertificateAndKey {
        let mut parameters = parameters(names);
        (parameters.not_before, parameters.not_after) = (date_time_ymd(2090, 1, 1), date_time_ymd(2095, 1, 1));
        self.pair(&parameters)
    }

    /// Signed by an intermediate authority, which the second value is; the first does not contain it.
    #[must_use]
    pub fn signed_by_intermediate(&self, names: &[&str]) -> (CertificateAndKey, String) {
        let mut of_authority = parameters(&[]);
        of_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        of_authority.distinguished_name.push(DnType::CommonName, "odograph test intermediate");
        let intermediate =
            CertifiedIssuer::signed_by(of_authority, KeyPair::generate().unwrap(), &self.authority).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = parameters(names).signed_by(&key, &intermediate).unwrap();
        (CertificateAndKey { certificate: certificate.pem(), key: key.serialize_pem() }, intermediate.pem())
    }

    /// Signed by a self-signed certificate with these properties, which the second value is.
    #[must_use]
    pub fn signed_by(names: &[&str], properties: Properties) -> (CertificateAndKey, String) {
        let mut of_authority = parameters(&[]);
        properties.set(&mut of_authority);
        of_authority.distinguished_name.push(DnType::CommonName, "odograph test signer");
        let signer = CertifiedIssuer::self_signed(of_authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = parameters(names).signed_by(&key, &signer).unwrap();
        (CertificateAndKey { certificate: certificate.pem(), key: key.serialize_pem() }, signer.pem())
    }

    /// Signed by itself.
    #[must_use]
    pub fn signed_by_itself(names: &[&str], properties: Properties) -> CertificateAndKey {
        let key = KeyPair::generate().unwrap();
        let mut parameters = parameters(names);
        properties.set(&mut parameters);
        CertificateAndKey { certificate: parameters.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    /// Signed by itself and marked as an authority, as `openssl req -x509` makes them.
    #[must_use]
    pub fn self_signed(names: &[&str]) -> CertificateAndKey {
        Self::signed_by_itself(names, Properties { is_authority: true, years: None })
    }

    /// Writes the certificate and the key of a client that logs in as a role. Returns both paths.
    #[must_use]
    pub fn client(&self, role: &str) -> (PathBuf, PathBuf) {
        let mut parameters = parameters(&[]);
        parameters.distinguished_name.push(DnType::CommonName, role);
        let CertificateAndKey { certificate, key } = self.pair(&parameters);
        (self.write("client.pem", &certificate), self.write("client.key", &key))
    }

    /// Writes a file next to the others. Returns its path.
    #[must_use]
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let file: &Path = &self.file(name);
        std::fs::write(file, text).unwrap();
        file.to_owned()
    }

    fn pair(&self, parameters: &CertificateParams) -> CertificateAndKey {
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.authority).unwrap();
        CertificateAndKey { certificate: certificate.pem(), key: key.serialize_pem() }
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
