//! TLS settings of a sink: the certificate authorities that it trusts, and its own certificate.
//!
//! Invariant: a receiver's certificate and its name are always verified. The certificate must lead
//! to an authority in the configured file, or, without a file, to one of the system's authorities.
//! No setting turns this off. No state.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

/// Maximum number of bytes that are read of a PEM file.
const PEM_BYTES_MAX: u64 = 4 << 20;

/// PEM files of a sink.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// Certificate authorities. Without a file, those of the system are used.
    pub ca_file: Option<PathBuf>,
    /// Client certificate and key, which the receiver may ask for.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why a sink cannot be made from its configuration.
#[derive(Debug, Error)]
pub enum SinkError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} contains no {what} in PEM", path.display())]
    Pem { path: PathBuf, what: &'static str },
    #[error("the system has no certificate authorities for TLS: set ca_file")]
    NoAuthorities,
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    #[error("the URL {what}")]
    Url { what: &'static str },
    #[error("the secret {what}")]
    Secret { what: &'static str },
    #[error("the address {what}")]
    Address { what: &'static str },
    #[error("cannot start the HTTP client")]
    Runtime(#[source] std::io::Error),
    #[error("{0}")]
    Kafka(String),
}

fn read(path: &Path) -> Result<Vec<u8>, SinkError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).and_then(|file| file.take(PEM_BYTES_MAX).read_to_end(&mut bytes));
    file.map_err(|source| SinkError::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SinkError> {
    let none = || SinkError::Pem { path: path.to_owned(), what: "certificate" };
    let found =
        CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<Vec<_>, _>>().map_err(|_| none())?;
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

impl TlsOptions {
    /// Returns the settings of a TLS client.
    ///
    /// # Errors
    /// When a file cannot be read or used, or there is no authority to trust.
    pub fn client(&self) -> Result<ClientConfig, SinkError> {
        let mut roots = RootCertStore::empty();
        let authorities = match &self.ca_file {
            Some(path) => certificates(path)?,
            // System authorities that cannot be read are left out. If none is left, an error is
            // returned below.
            None => rustls_native_certs::load_native_certs().certs,
        };
        let (added, _) = roots.add_parsable_certificates(authorities);
        if added == 0 {
            return Err(match &self.ca_file {
                Some(path) => SinkError::Pem { path: path.clone(), what: "certificate that can be used" },
                None => SinkError::NoAuthorities,
            });
        }
        self.trusting(roots)
    }

    /// Like [`TlsOptions::client`], but trusts no authority, for a client that does not use TLS.
    pub(super) fn none(&self) -> Result<ClientConfig, SinkError> {
        self.trusting(RootCertStore::empty())
    }

    fn trusting(&self, roots: RootCertStore) -> Result<ClientConfig, SinkError> {
        // The features of other crates enable two cryptography providers, so there is no default
        // one.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(SinkError::Tls)?
            .with_root_certificates(roots);
        match &self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some((cert, key)) => {
                let bytes = read(key)?;
                let private = PrivateKeyDer::from_pem_slice(&bytes);
                let private =
                    private.map_err(|_| SinkError::Pem { path: key.clone(), what: "private key" })?;
                builder.with_client_auth_cert(certificates(cert)?, private).map_err(SinkError::Tls)
            }
        }
    }
}
