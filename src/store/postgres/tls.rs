//! TLS to PostgreSQL: what libpq's `sslmode`, `sslrootcert`, `sslcert` and `sslkey` ask for, and nothing weaker.
//!
//! Only the certificates of `sslrootcert` are trusted; those of the system only if it says `system`. No library serves:
//! tokio-postgres-rustls runs the handshake but knows no `sslmode`, and rustls has no verifier that skips the name or
//! accepts any certificate, as `verify-ca` and `require` need. `trusted_server` decides about certificates.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::trusted_server::{NameCheck, ServerVerifier, TrustedServers};
use super::url_error::InvalidPostgresUrl;
use crate::store::error::class::ErrorClass;
use crate::store::error::store_error::StoreError;

/// The TLS settings of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    usage: TlsUsage,
    server: ServerCheck,
    /// Certificate chain and key of this client.
    identity: Option<(PathBuf, PathBuf)>,
}

/// Whether to use TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TlsUsage {
    Never,
    IfOffered,
    Always,
}

/// Which servers to accept.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ServerCheck {
    /// Any server.
    Any,
    /// A certificate that is in the file, or signed by one in it.
    Signature(PathBuf),
    /// The same, and the certificate must be for the host in the URL.
    SignatureAndName(TrustedRoots),
}

/// Which certificates to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
enum TrustedRoots {
    /// Those of the system.
    System,
    /// Those in a PEM file.
    File(PathBuf),
}

/// The TLS parameters as the URL has them.
#[derive(Debug, Default)]
pub(crate) struct TlsParameters {
    pub(crate) sslmode: Option<String>,
    pub(crate) sslrootcert: Option<String>,
    pub(crate) sslcert: Option<String>,
    pub(crate) sslkey: Option<String>,
}

impl TlsSettings {
    /// Reads the parameters like libpq, with two exceptions: `allow` means `prefer`, and no certificate is searched for
    /// in a home directory, so that the URL alone decides.
    pub(crate) fn of(parameters: TlsParameters) -> Result<Self, InvalidPostgresUrl> {
        let file = |text: Option<String>| text.filter(|text| !text.is_empty()).map(PathBuf::from);
        let system = parameters.sslrootcert.as_deref() == Some("system");
        let roots = file(parameters.sslrootcert);
        let mode = parameters.sslmode.as_deref().unwrap_or(if system { "verify-full" } else { "prefer" });
        let optional = |roots: Option<PathBuf>| roots.map_or(ServerCheck::Any, ServerCheck::Signature);
        let (usage, server) = match (mode, roots) {
            ("verify-full", Some(_)) if system => {
                (TlsUsage::Always, ServerCheck::SignatureAndName(TrustedRoots::System))
            }
            // Anyone can get a certificate of a public authority, for a name of their own.
            ("allow" | "prefer" | "require" | "verify-ca", _) if system => return Err(InvalidPostgresUrl::SystemRoots),
            ("disable", _) => (TlsUsage::Never, ServerCheck::Any),
            ("allow" | "prefer", roots) => (TlsUsage::IfOffered, optional(roots)),
            ("require", roots) => (TlsUsage::Always, optional(roots)),
            ("verify-ca", Some(file)) => (TlsUsage::Always, ServerCheck::Signature(file)),
            ("verify-full", Some(file)) => (TlsUsage::Always, ServerCheck::SignatureAndName(TrustedRoots::File(file))),
            ("verify-ca" | "verify-full", None) => return Err(InvalidPostgresUrl::Roots),
            _ => return Err(InvalidPostgresUrl::SslMode),
        };
        let identity = match (file(parameters.sslcert), file(parameters.sslkey)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(InvalidPostgresUrl::Identity),
        };
        Ok(Self { usage, server, identity })
    }

    pub(crate) fn client_mode(&self) -> SslMode {
        match self.usage {
            TlsUsage::Never => SslMode::Disable,
            TlsUsage::IfOffered => SslMode::Prefer,
            TlsUsage::Always => SslMode::Require,
        }
    }

    /// Reads the certificates. Runs once for each client, not for each connection.
    pub(crate) fn connector(&self) -> Result<MakeTls, StoreError> {
        const PREPARING: &str = "preparing TLS for the database";
        let refused = |error: TlsFileError| StoreError::new(ErrorClass::Refuses, PREPARING, error);
        let provider = Arc::new(ring::default_provider());
        let trusted = match &self.server {
            ServerCheck::Any => None,
            ServerCheck::Signature(file) => Some(trusted("sslrootcert", file, NameCheck::Skipped).map_err(refused)?),
            ServerCheck::SignatureAndName(TrustedRoots::File(file)) => {
                Some(trusted("sslrootcert", file, NameCheck::Needed).map_err(refused)?)
            }
            ServerCheck::SignatureAndName(TrustedRoots::System) => {
                // Those that cannot be read are left out.
                Some(TrustedServers::new(rustls_native_certs::load_native_certs().certs, NameCheck::Needed))
            }
        };
        let verifier = ServerVerifier { trusted, provider: provider.clone() };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| StoreError::new(ErrorClass::Refuses, PREPARING, error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match &self.identity {
            Some((certificate, key)) if self.usage != TlsUsage::Never => {
                let chain = certificates("sslcert", certificate).map_err(refused)?;
                let key_read = PrivateKeyDer::from_pem_file(key);
                let key_read = key_read.map_err(|e| refused(TlsFileError::new("sslkey", key, e)))?;
                config
                    .with_client_auth_cert(chain, key_read)
                    .map_err(|e| refused(TlsFileError::new("sslkey", key, e)))?
            }
            _ => config.with_no_client_auth(),
        };
        Ok(MakeTls(MakeRustlsConnect::new(config)))
    }
}

/// The servers that the certificates of a file vouch for.
fn trusted(parameter: &'static str, file: &Path, name: NameCheck) -> Result<TrustedServers, TlsFileError> {
    let trusted = TrustedServers::new(certificates(parameter, file)?, name);
    if trusted.is_empty() {
        return Err(TlsFileError::new(parameter, file, "it holds no certificate that can be read"));
    }
    Ok(trusted)
}

fn certificates(parameter: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => {
            Err(TlsFileError::new(parameter, file, "it holds no certificate in PEM format"))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(TlsFileError::new(parameter, file, error)),
    }
}

/// A file of the URL that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{parameter}={file} cannot be used: {reason}", file = file.display())]
struct TlsFileError {
    parameter: &'static str,
    file: PathBuf,
    reason: String,
}

impl TlsFileError {
    fn new(parameter: &'static str, file: &Path, reason: impl fmt::Display) -> Self {
        Self { parameter, file: file.to_owned(), reason: reason.to_string() }
    }
}

/// Makes TLS connections for the client.
#[derive(Clone)]
pub struct MakeTls(MakeRustlsConnect);

impl<S> MakeTlsConnect<S> for MakeTls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = <MakeRustlsConnect as MakeTlsConnect<S>>::Stream;
    type TlsConnect = TlsHandshake<<MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect>;
    type Error = Infallible;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Infallible> {
        <MakeRustlsConnect as MakeTlsConnect<S>>::make_tls_connect(&mut self.0, host).map(TlsHandshake)
    }
}

/// A handshake whose errors distinguish certificates from networks.
pub struct TlsHandshake<C>(C);

impl<S, C> TlsConnect<S> for TlsHandshake<C>
where
    C: TlsConnect<S, Error = std::io::Error>,
    C::Future: Send + 'static,
{
    type Stream = C::Stream;
    type Error = HandshakeError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Stream, HandshakeError>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let handshake = self.0.connect(stream);
        Box::pin(async { handshake.await.map_err(HandshakeError::of) })
    }
}

/// A failed handshake. All but the last need the operator to act.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Not signed by a trusted certificate.
    #[error(
        "the server's certificate is not trusted: set sslrootcert in DATABASE_URL to the file with the certificate \
         that signed it"
    )]
    Untrusted,
    /// For another name.
    #[error(
        "the server's certificate is not for this host: use a host name in DATABASE_URL that is among the \
         certificate's subjectAltName entries, make a certificate with that name, or use sslmode=verify-ca"
    )]
    WrongName,
    /// Expired, or not valid yet.
    #[error("the server's certificate is not valid at this time: renew it, or set the clock of this machine")]
    Expired,
    /// Any other error about certificates or the protocol.
    #[error("the TLS handshake failed: {0}")]
    Refused(rustls::Error),
    /// The connection failed. The next one may succeed.
    #[error("the connection ended in the TLS handshake")]
    Connection(#[source] std::io::Error),
}

impl HandshakeError {
    fn of(error: std::io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            None => Self::Connection(error),
            Some(rustls::Error::InvalidCertificate(reason)) => match reason {
                // `Other` includes a self-signed certificate that claims to be an authority.
                CertificateError::UnknownIssuer | CertificateError::BadSignature | CertificateError::Other(_) => {
                    Self::Untrusted
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::WrongName,
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::Expired,
                other => Self::Refused(rustls::Error::InvalidCertificate(other.clone())),
            },
            Some(other) => Self::Refused(other.clone()),
        }
    }
}
