//! TLS to PostgreSQL: what libpq's `sslmode`, `sslrootcert`, `sslcert` and `sslkey` ask for, and nothing weaker.
//!
//! The certificates of `sslrootcert` are the only ones trusted; those of the system count where it says `system`.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::{ErrorClass, InvalidDatabaseUrl, StoreError};

/// What a URL says about TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    when: When,
    server: Server,
    /// Certificate chain and key of this client.
    identity: Option<(PathBuf, PathBuf)>,
}

/// Whether to speak TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Never,
    IfOffered,
    Always,
}

/// Whom to take for the server.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Server {
    /// Whoever answers.
    Anyone,
    /// Who has a certificate signed by one of a file, or is in it.
    SignedBy(PathBuf),
    /// The same, and it has to be for the host in the URL.
    Named(Roots),
}

/// Whom to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Roots {
    /// Whom the system trusts.
    System,
    /// The certificates in a PEM file.
    File(PathBuf),
}

/// The parameters of a URL, as they stand there.
#[derive(Debug, Default)]
pub(crate) struct TlsParameters {
    pub(crate) sslmode: Option<String>,
    pub(crate) sslrootcert: Option<String>,
    pub(crate) sslcert: Option<String>,
    pub(crate) sslkey: Option<String>,
}

impl TlsSettings {
    /// As libpq has it, with two exceptions: `allow` is `prefer`, and no certificate is looked for in a home directory,
    /// so that the URL alone decides.
    pub(crate) fn of(parameters: TlsParameters) -> Result<Self, InvalidDatabaseUrl> {
        let file = |text: Option<String>| text.filter(|text| !text.is_empty()).map(PathBuf::from);
        let system = parameters.sslrootcert.as_deref() == Some("system");
        let roots = file(parameters.sslrootcert);
        let mode = parameters.sslmode.as_deref().unwrap_or(if system { "verify-full" } else { "prefer" });
        let whoever = |roots: Option<PathBuf>| roots.map_or(Server::Anyone, Server::SignedBy);
        let (when, server) = match (mode, roots) {
            ("verify-full", Some(_)) if system => (When::Always, Server::Named(Roots::System)),
            // Anybody can get a certificate of a public authority, for a name of their own.
            ("allow" | "prefer" | "require" | "verify-ca", _) if system => return Err(InvalidDatabaseUrl::SystemRoots),
            ("disable", _) => (When::Never, Server::Anyone),
            ("allow" | "prefer", roots) => (When::IfOffered, whoever(roots)),
            ("require", roots) => (When::Always, whoever(roots)),
            ("verify-ca", Some(file)) => (When::Always, Server::SignedBy(file)),
            ("verify-full", Some(file)) => (When::Always, Server::Named(Roots::File(file))),
            ("verify-ca" | "verify-full", None) => return Err(InvalidDatabaseUrl::Roots),
            _ => return Err(InvalidDatabaseUrl::SslMode),
        };
        let identity = match (file(parameters.sslcert), file(parameters.sslkey)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(InvalidDatabaseUrl::Identity),
        };
        Ok(Self { when, server, identity })
    }

    pub(crate) fn client_mode(&self) -> SslMode {
        match self.when {
            When::Never => SslMode::Disable,
            When::IfOffered => SslMode::Prefer,
            When::Always => SslMode::Require,
        }
    }

    /// Reads the certificates. Done anew for each client, not for each connection.
    pub(crate) fn connector(&self) -> Result<MakeTls, StoreError> {
        const PREPARING: &str = "preparing TLS for the database";
        let refused = |wrong: TlsFileError| StoreError::new(ErrorClass::Refuses, PREPARING, wrong);
        let provider = Arc::new(ring::default_provider());
        let trusted = match &self.server {
            Server::Anyone => None,
            Server::SignedBy(file) => Some(Trusted::file(file, NameCheck::Skipped, &provider).map_err(refused)?),
            Server::Named(Roots::File(file)) => {
                Some(Trusted::file(file, NameCheck::Needed, &provider).map_err(refused)?)
            }
            Server::Named(Roots::System) => Some(Trusted::system(&provider).map_err(refused)?),
        };
        let verifier = Verifier { trusted, provider: provider.clone() };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| StoreError::new(ErrorClass::Refuses, PREPARING, error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match &self.identity {
            Some((certificate, key)) if self.when != When::Never => {
                let chain = certificates("sslcert", certificate).map_err(refused)?;
                let key_read = PrivateKeyDer::from_pem_file(key);
                let key_read = key_read.map_err(|wrong| refused(TlsFileError::new("sslkey", key, wrong)))?;
                config
                    .with_client_auth_cert(chain, key_read)
                    .map_err(|wrong| refused(TlsFileError::new("sslkey", key, wrong)))?
            }
            _ => config.with_no_client_auth(),
        };
        Ok(MakeTls(MakeRustlsConnect::new(config)))
    }
}

fn certificates(parameter: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(TlsFileError::new(parameter, file, "it holds no certificate in PEM form")),
        Ok(found) => Ok(found),
        Err(wrong) => Err(TlsFileError::new(parameter, file, wrong)),
    }
}

/// A file that the URL names and that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{parameter}={file} cannot be used: {why}", file = file.display())]
struct TlsFileError {
    parameter: &'static str,
    file: PathBuf,
    why: String,
}

impl TlsFileError {
    fn new(parameter: &'static str, file: &Path, why: impl fmt::Display) -> Self {
        Self { parameter, file: file.to_owned(), why: why.to_string() }
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
    type TlsConnect = Connect<<MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect>;
    type Error = Infallible;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Infallible> {
        <MakeRustlsConnect as MakeTlsConnect<S>>::make_tls_connect(&mut self.0, host).map(Connect)
    }
}

/// One handshake to be made; its errors tell certificates from networks.
pub struct Connect<C>(C);

impl<S, C> TlsConnect<S> for Connect<C>
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

/// A handshake that failed. All but the last need somebody to act.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Signed by somebody else.
    #[error(
        "the server's certificate is not trusted: let sslrootcert in DATABASE_URL name the file with the certificate that \
         signed it"
    )]
    Untrusted,
    /// Made for another name.
    #[error(
        "the server's certificate is not for this host: name the host in DATABASE_URL as one of the certificate's \
         subjectAltName entries does, make a certificate with that name, or take sslmode=verify-ca"
    )]
    WrongName,
    /// Too old or too young.
    #[error("the server's certificate is not valid at this time: renew it, or set the clock of this machine")]
    Expired,
    /// Anything else about certificates or protocol.
    #[error("the TLS handshake failed: {0}")]
    Refused(rustls::Error),
    /// The connection, which may be better the next time.
    #[error("the connection ended in the TLS handshake")]
    Connection(#[source] std::io::Error),
}

impl HandshakeError {
    fn of(error: std::io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            None => Self::Connection(error),
            Some(rustls::Error::InvalidCertificate(wrong)) => match wrong {
                // Among the others is a self-signed one that calls itself an authority.
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

/// Looks at the server's certificate as the mode asks for.
#[derive(Debug)]
struct Verifier {
    /// `None` lets anyone pass.
    trusted: Option<Trusted>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct Trusted {
    chain: Arc<WebPkiServerVerifier>,
    /// The trusted certificates themselves: a server may show one of them, as self-signed ones do.
    itself: Vec<CertificateDer<'static>>,
    name: NameCheck,
}

/// Whether the host's name has to stand in the certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameCheck {
    Skipped,
    Needed,
}

impl Trusted {
    fn file(file: &Path, name: NameCheck, provider: &Arc<CryptoProvider>) -> Result<Self, TlsFileError> {
        Self::new(file, certificates("sslrootcert", file)?, name, provider)
    }

    /// What cannot be read of the system's certificates is not trusted.
    fn system(provider: &Arc<CryptoProvider>) -> Result<Self, TlsFileError> {
        let found = rustls_native_certs::load_native_certs().certs;
        Self::new(Path::new("system"), found, NameCheck::Needed, provider)
    }

    fn new(
        file: &Path,
        itself: Vec<CertificateDer<'static>>,
        name: NameCheck,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsFileError> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(itself.iter().cloned());
        let chain = WebPkiServerVerifier::builder_with_provider(store.into(), Arc::clone(provider))
            .build()
            .map_err(|wrong| TlsFileError::new("sslrootcert", file, wrong))?;
        Ok(Self { chain, itself, name })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(Trusted { chain, itself, name }) = &self.trusted else {
            return Ok(ServerCertVerified::assertion());
        };
        if itself.contains(end_entity) {
            if *name == NameCheck::Needed {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last, so everything else was right.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if *name == NameCheck::Skipped => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
