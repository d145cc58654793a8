//! The listener's certificate, and the check of client certificates.
//!
//! Invariants:
//! - If an authority for clients is configured, no connection is served without a client
//!   certificate that this authority issued.
//! - Files are read again when they change. If the new files cannot be used, the old configuration
//!   stays, and the failure is reported.
//! - The subject of a certificate that is refused is remembered only for the log of its connection.
//!
//! A crash loses nothing: the files are read at the start.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use strongroom_journal::lock;
use thiserror::Error;

/// Longest PEM file that is read.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// PEM files of the listener.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The listener's certificate, followed by the intermediate certificates up to its authority.
    pub cert: PathBuf,
    /// The certificate's private key: PKCS#8, SEC1 or PKCS#1.
    pub key: PathBuf,
    /// Authorities for clients. If set, each client must have a certificate that one of them
    /// issued.
    pub client_ca: Option<PathBuf>,
}

#[derive(Debug, Error)]
pub enum TlsError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is longer than {PEM_BYTES_MAX} bytes", path.display())]
    TooLong { path: PathBuf },
    #[error("{} contains no {what} in PEM", path.display())]
    Pem { path: PathBuf, what: &'static str },
    #[error("the certificate in {} and the key in {} cannot be used", cert.display(), key.display())]
    Pair {
        cert: PathBuf,
        key: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("the authorities in {} cannot be used", path.display())]
    Authorities {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The hash of the files as last read, and the configuration from the last files that could be
/// used.
pub struct Identity {
    files: TlsFiles,
    current: Mutex<(blake3::Hash, Arc<ServerConfig>)>,
}

impl Identity {
    /// Reads the certificate, its key and the authorities from `files`.
    ///
    /// # Errors
    /// [`TlsError`] for files that cannot be read or used.
    pub fn load(files: TlsFiles) -> Result<Identity, TlsError> {
        let contents = Contents::read(&files)?;
        let current = Mutex::new((contents.hash(), Arc::new(contents.config(&files)?)));
        Ok(Identity { files, current })
    }

    /// Returns the configuration for the next connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&lock(&self.current).1)
    }

    /// Reads the files again. Returns `true` if they have changed and are used from now on. Each
    /// change that cannot be used is reported once.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let contents = Contents::read(&self.files)?;
        let hash = contents.hash();
        if lock(&self.current).0 == hash {
            return Ok(false);
        }
        let config = contents.config(&self.files);
        let mut current = lock(&self.current);
        current.0 = hash;
        current.1 = Arc::new(config?);
        Ok(true)
    }
}

struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Contents, TlsError> {
        Ok(Contents {
            cert: read(&files.cert)?,
            key: read(&files.key)?,
            client_ca: files.client_ca.as_deref().map(read).transpose()?,
        })
    }

    fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for part in [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()].into_iter().flatten() {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize()
    }

    fn config(&self, files: &TlsFiles) -> Result<ServerConfig, TlsError> {
        // The features of other crates bring two providers, so there is no default one.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let pair = |source| TlsError::Pair { cert: files.cert.clone(), key: files.key.clone(), source };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(pair)?;
        let builder = match (&self.client_ca, &files.client_ca) {
            (Some(pem), Some(path)) => {
                let unusable = |source| TlsError::Authorities { path: path.clone(), source };
                let mut roots = RootCertStore::empty();
                for authority in certificates(pem, path)? {
                    roots.add(authority).map_err(|error| unusable(error.into()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|error| unusable(error.into()))?;
                builder.with_client_cert_verifier(Arc::new(Noting(verifier)))
            }
            _ => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| TlsError::Pem { path: files.key.clone(), what: "private key" })?;
        let mut config =
            builder.with_single_cert(certificates(&self.cert, &files.cert)?, key).map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

tokio::task_local! {
    /// The subject of the certificate that the client of this connection showed and that was
    /// refused.
    static REFUSED_SUBJECT: RefCell<Option<String>>;
}

/// Runs a handshake. Returns its result, and the subject of the client certificate if it was
/// refused.
pub async fn with_subject<T>(handshake: impl Future<Output = T>) -> (T, Option<String>) {
    let noted = async {
        let result = handshake.await;
        (result, REFUSED_SUBJECT.with(|subject| subject.take()))
    };
    REFUSED_SUBJECT.scope(RefCell::default(), noted).await
}

/// Decides as the verifier inside it does, and remembers the subject of a certificate that it
/// refuses.
#[derive(Debug)]
struct Noting(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Noting {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now);
        if verified.is_err() {
            // Outside of `with_subject` nobody reads the subject.
            let _ = REFUSED_SUBJECT.try_with(|noted| noted.replace(subject(end_entity)));
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.0.requires_raw_public_keys()
    }
}

fn read(path: impl AsRef<Path>) -> Result<Vec<u8>, TlsError> {
    let path = path.as_ref();
    let cannot = |source| TlsError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > PEM_BYTES_MAX {
        return Err(TlsError::TooLong { path: path.to_owned() });
    }
    Ok(bytes)
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TlsError::Pem { path: path.to_owned(), what: "certificate" }),
    }
}

/// Common names in the subject of a certificate that was verified before.
pub fn common_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    names_of(parsed.subject())
}

/// Returns the subject of a certificate as people read it, such as `O=system:masters,
/// CN=kube-apiserver`. The certificate need not be valid.
pub fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    let parts = attributes_of(parsed.subject()).filter_map(|(kind, text)| {
        let (_, name) = SHOWN.iter().find(|(id, _)| *id == kind)?;
        Some(format!("{name}={text}"))
    });
    let subject = parts.take(SHOWN_MAX).collect::<Vec<_>>().join(", ");
    (!subject.is_empty()).then_some(subject)
}

/// The parts of a subject that are shown. Others, such as the country, identify nobody.
const SHOWN: [(&[u8], &str); 3] =
    [(COMMON_NAME, "CN"), (&[0x55, 0x04, 0x0a], "O"), (&[0x55, 0x04, 0x0b], "OU")];
/// Maximum number of parts that are shown.
const SHOWN_MAX: usize = 8;

const SET: u8 = 0x31;
const SEQUENCE: u8 = 0x30;
const OBJECT_ID: u8 = 0x06;
/// UTF8String, PrintableString, IA5String: all are UTF-8.
const STRINGS: [u8; 3] = [0x0c, 0x13, 0x16];
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// Returns the common names in a subject.
fn names_of(subject: &[u8]) -> Vec<String> {
    let names = attributes_of(subject).filter(|(kind, _)| *kind == COMMON_NAME);
    names.map(|(_, text)| text.to_owned()).collect()
}

/// Returns the attributes of a subject that are text, each with its type.
///
/// `subject` is the content of `SEQUENCE OF SET OF SEQUENCE { type, value }`.
fn attributes_of(subject: &[u8]) -> impl Iterator<Item = (&[u8], &str)> {
    values(subject, SET).flat_map(|set| values(set, SEQUENCE)).filter_map(|pair| {
        let (OBJECT_ID, kind, rest) = value(pair)? else { return None };
        let (tag, text, _) = value(rest)?;
        let text = STRINGS.contains(&tag).then(|| std::str::from_utf8(text).ok()).flatten()?;
        Some((kind, text))
    })
}

/// Returns the contents of the values at the beginning that have the tag `wanted`, up to the first
/// value that has another tag or does not parse.
fn values(mut bytes: &[u8], wanted: u8) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (tag, content, rest) = value(bytes)?;
        bytes = rest;
        (tag == wanted).then_some(content)
    })
}

/// Returns tag and content of the DER value at the beginning, and the bytes after the value.
pub fn value(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&[length], rest) = rest.split_first_chunk()?;
            (usize::from(length), rest)
        }
        0x82 => {
            let (&length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(length)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_names_are_read_from_a_real_certificate() {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
        params.distinguished_name.push(rcgen::DnType::CommonName, "kube-apiserver");
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signs");
        assert_eq!(common_names(certificate.der()), ["kube-apiserver"]);
        assert_eq!(subject(certificate.der()).as_deref(), Some("O=system:masters, CN=kube-apiserver"));
        assert_eq!(subject(&CertificateDer::from_slice(b"no certificate")), None);
    }

    #[test]
    fn any_bytes_are_tolerated() {
        proptest::proptest!(|(bytes in proptest::collection::vec(0_u8..0x84, 0..40))| {
            names_of(&bytes);
        });
    }
}
