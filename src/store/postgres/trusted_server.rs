//! Which server certificates to trust. Chains and names are checked by rustls' own verifiers. What they leave out is here,
//! because libpq does it: a trusted certificate has to be valid today, and to be an authority if it signed another one.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};

/// Checks the server's certificate as the mode asks for.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    /// `None` accepts any certificate.
    pub(super) trusted: Option<TrustedServers>,
    pub(super) provider: Arc<CryptoProvider>,
}

/// The servers that a file of certificates vouches for.
#[derive(Debug)]
pub(super) struct TrustedServers {
    trusted: Vec<TrustedCertificate>,
    name: NameCheck,
}

/// Whether the certificate must contain the host's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameCheck {
    Skipped,
    Needed,
}

/// A certificate of the file.
#[derive(Debug)]
struct TrustedCertificate {
    der: CertificateDer<'static>,
    /// Seconds of Unix time, both included.
    valid: (u64, u64),
    /// Whether it may sign others.
    is_authority: bool,
}

impl TrustedServers {
    /// Trusts these certificates, except those that cannot be read.
    pub(super) fn new(certificates: Vec<CertificateDer<'static>>, name: NameCheck) -> Self {
        Self { trusted: certificates.into_iter().filter_map(TrustedCertificate::read).collect(), name }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.trusted.is_empty()
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
        provider: &Arc<CryptoProvider>,
    ) -> Result<ServerCertVerified, Error> {
        // A server may present a trusted certificate itself, as self-signed ones do. rustls takes none that is also an authority.
        if let Some(itself) = self.trusted.iter().find(|trusted| trusted.der == *end_entity) {
            itself.check_time(now)?;
            if self.name == NameCheck::Needed {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let (mut roots, mut expired) = (RootCertStore::empty(), None);
        for authority in self.trusted.iter().filter(|trusted| trusted.is_authority) {
            match authority.check_time(now) {
                // One that rustls cannot use signs nothing.
                Ok(()) => drop(roots.add(authority.der.clone())),
                Err(error) => expired = Some(error),
            }
        }
        if roots.is_empty() {
            return Err(expired.unwrap_or(CertificateError::UnknownIssuer.into()));
        }
        let chain = WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(provider)).build();
        let chain = chain.map_err(|error| Error::General(error.to_string()))?;
        match chain.verify_server_cert(end_entity, intermediates, server_name, &[], now) {
            // The name is checked last, so everything else was right.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.name == NameCheck::Skipped => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }
}

impl TrustedCertificate {
    fn read(der: CertificateDer<'static>) -> Option<Self> {
        let certificate = Certificate::from_der(&der).ok()?.tbs_certificate;
        let validity = certificate.validity;
        let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
        let valid = (seconds(validity.not_before), seconds(validity.not_after));
        let constraints = certificate.get::<BasicConstraints>().ok()?.map(|(_, constraints)| constraints.ca);
        let usage = certificate.get::<KeyUsage>().ok()?.map(|(_, usage)| usage.key_cert_sign());
        // As OpenSSL decides. Certificates of version 1 cannot say it.
        let is_authority =
            usage != Some(false) && constraints.unwrap_or(usage.is_some() || certificate.version == Version::V1);
        Some(Self { der, valid, is_authority })
    }

    fn check_time(&self, now: UnixTime) -> Result<(), Error> {
        let (from, to) = self.valid;
        match now.as_secs() {
            now if now < from => Err(CertificateError::NotValidYet.into()),
            now if now > to => Err(CertificateError::Expired.into()),
            _ => Ok(()),
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.trusted {
            Some(trusted) => trusted.verify(end_entity, intermediates, server_name, now, &self.provider),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
