//! Timestamps of checkpoints by an independent authority: RFC 3161, updated by RFC 5816.
//!
//! Invariant: a timestamp token is valid only if all of this is true:
//! - It is over the expected bytes.
//! - It has exactly one signature. The signature covers the token's attributes, which contain the
//!   hash of the token's content.
//! - The signature was made with the certificate that the attributes name by hash (ESSCertID).
//! - That certificate is for timestamps only. At the time stated in the token, the certificate's
//!   chain leads to an authority given by the caller.
//!
//! Revocation is not checked, because it must be possible to check a token offline and years later.
//!
//! `webpki` checks signatures and certificate chains. This module parses the CMS structures that a
//! token has, and the two fields of a certificate that `webpki` does not expose. Parsers of other
//! crates are not used: no CMS crate has been released for today's DER crates, and every
//! certificate parser would add a tree of macro crates to save thirty lines. Encodings other than
//! DER are refused.

use std::time::Duration;

use aws_lc_rs::digest;
use chrono::{DateTime, NaiveDateTime, Utc};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use strongroom_schemas::record::Sha256Hash as Hash;
use webpki::{
    ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert, aws_lc_rs as algorithms,
};

use super::error::TlogError;

/// Maximum size of an authority's answer, and of a token. Both contain certificates.
pub const TOKEN_BYTES_MAX: usize = 256 << 10;
/// Maximum number of certificates in a token, and in a file of authorities.
const CERTIFICATES_MAX: usize = 64;

// Object identifiers, as encoded.
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
const TST_INFO: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 16, 1, 4];
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 3];
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 4];
const SIGNING_CERTIFICATE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 16, 2, 12];
const SIGNING_CERTIFICATE_V2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 16, 2, 47];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
const SHA384: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];
const SHA512: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3];
/// 1.2.840.113549.1.1, the prefix of RSA algorithms.
const PKCS1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];
/// 1.2.840.10045.4.3, the prefix of ECDSA algorithms with SHA-2.
const ECDSA_SHA2: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
/// id-kp-timeStamping, 1.3.6.1.5.5.7.3.8.
const TIME_STAMPING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 8];

// Tags.
const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0]`, `[1]` and `[3]`, constructed.
const CONTEXT_0: u8 = 0xa0;
const CONTEXT_1: u8 = 0xa1;
const CONTEXT_3: u8 = 0xa3;

/// The authorities to which the certificates of timestamps must lead.
#[derive(Clone, Debug, Default)]
pub struct TimestampAuthorities(Vec<CertificateDer<'static>>);

impl TimestampAuthorities {
    /// Reads certificates in PEM.
    ///
    /// # Errors
    /// [`TlogError::Authorities`] if there is no certificate, if there are more than 64, or if one
    /// cannot be used.
    pub fn from_pem(pem: &[u8]) -> Result<TimestampAuthorities, TlogError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let found = found.map_err(|_| TlogError::Authorities)?;
        let is_usable = |der: &CertificateDer<'_>| anchor_from_trusted_cert(der).is_ok();
        match (1..=CERTIFICATES_MAX).contains(&found.len()) && found.iter().all(is_usable) {
            true => Ok(TimestampAuthorities(found)),
            false => Err(TlogError::Authorities),
        }
    }

    /// True if no authority was named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What an authority states in a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamp {
    pub time: DateTime<Utc>,
    /// SHA-256 of the stamped bytes.
    pub imprint: Hash,
    /// The nonce as it was encoded: the bytes of an integer in two's complement.
    nonce: Option<Vec<u8>>,
}

/// Returns a request for a timestamp over a hash. The request asks the authority to include its
/// certificate in the answer.
pub fn query(imprint: &Hash, nonce: u64) -> Vec<u8> {
    // Version 1, AlgorithmIdentifier of SHA-256 with its NULL, the hash, a nonce of eight bytes,
    // certReq TRUE.
    let mut body = vec![
        0x02, 1, 1, 0x30, 0x31, 0x30, 0x0d, 0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 0x05, 0, 0x04, 32,
    ];
    body.extend(imprint.0);
    body.extend([0x02, 8]);
    body.extend(nonce_bytes(nonce));
    body.extend([0x01, 1, 0xff]);
    let mut query = vec![0x30, body.len() as u8];
    query.extend(body);
    query
}

/// Turns a nonce into a positive DER integer of exactly eight bytes.
fn nonce_bytes(nonce: u64) -> [u8; 8] {
    ((nonce & (u64::MAX >> 1)) | (1 << 62)).to_be_bytes()
}

impl Timestamp {
    /// Whether this is the answer to a request with this nonce.
    pub fn has_nonce(&self, nonce: u64) -> bool {
        self.nonce.as_deref() == Some(&nonce_bytes(nonce))
    }
}

/// Returns the token in an authority's answer, or the reason why the answer has none.
pub fn token_of_response(response: &[u8]) -> Result<&[u8], String> {
    let malformed = || "its answer is not a TimeStampResp".to_owned();
    let read = || {
        let mut all = Der(response);
        let mut response = all.inside(SEQUENCE)?;
        let mut status = response.inside(SEQUENCE)?;
        let code = status.content(INTEGER)?;
        all.is_at_end().then_some((code.to_vec(), response.0))
    };
    let (code, token) = read().ok_or_else(malformed)?;
    match (code.as_slice(), token) {
        // The status is `granted` or `grantedWithMods`. In both cases the token is checked before
        // it counts.
        ([0 | 1], token) if !token.is_empty() => Ok(token),
        _ => Err(format!("timestamp not granted (PKIStatus {})", code.first().copied().unwrap_or(0))),
    }
}

/// Checks a token over bytes whose SHA-256 is `imprint`, and returns what the token states. If
/// `authorities` is empty, this does not check who issued the certificate in the token.
pub fn verify(
    token: &[u8],
    imprint: &Hash,
    authorities: &TimestampAuthorities,
) -> Result<Timestamp, TokenError> {
    let malformed = || TokenError::Malformed("not a TimeStampToken in DER".to_owned());
    if token.len() > TOKEN_BYTES_MAX {
        return Err(malformed());
    }
    let signed = SignedToken::parse(token).ok_or_else(malformed)?;
    let timestamp = signed.timestamp().ok_or_else(malformed)?;
    let wrong = |what: &str| TokenError::Signature(what.to_owned());
    let certificate = signed.certificates.iter().find(|certificate| certificate.name == signed.signer);
    let certificate = certificate.ok_or_else(|| wrong("the certificate of its signer is missing"))?;
    let digest = signed.digest.ok_or_else(|| wrong("its digest is not SHA-256, SHA-384 or SHA-512"))?;
    let content = digest::digest(digest, signed.content);
    if signed.attribute(CONTENT_TYPE, OBJECT_ID) != Some(TST_INFO)
        || signed.attribute(MESSAGE_DIGEST, OCTET_STRING) != Some(content.as_ref())
    {
        return Err(wrong("its attributes do not match its content"));
    }
    if !signed.names(certificate.der) {
        return Err(wrong("its attributes do not name the certificate of its signer"));
    }
    let der = CertificateDer::from(certificate.der);
    let usable = EndEntityCert::try_from(&der).map_err(|_| wrong("its certificate cannot be used"))?;
    let holds = |algorithm: &&'static dyn SignatureVerificationAlgorithm| {
        usable.verify_signature(*algorithm, &signed.signed_bytes, signed.signature).is_ok()
    };
    if !signed.algorithms().iter().any(holds) {
        return Err(wrong("the signature is invalid"));
    }
    if !certificate.is_for_time {
        return Err(wrong("its certificate is not for timestamps only"));
    }
    if timestamp.imprint != *imprint {
        return Err(TokenError::Imprint);
    }
    if authorities.is_empty() {
        return Ok(timestamp);
    }
    let anchors: Vec<_> = authorities.0.iter().filter_map(|der| anchor_from_trusted_cert(der).ok()).collect();
    let between: Vec<CertificateDer<'_>> =
        signed.certificates.iter().map(|certificate| CertificateDer::from(certificate.der)).collect();
    let at = u64::try_from(timestamp.time.timestamp()).map_err(|_| malformed())?;
    let chain = usable.verify_for_usage(
        ALL_VERIFICATION_ALGS,
        &anchors,
        &between,
        UnixTime::since_unix_epoch(Duration::from_secs(at)),
        KeyUsage::required_if_present(TIME_STAMPING),
        None,
        None,
    );
    match chain {
        Ok(_) => Ok(timestamp),
        Err(error) => Err(TokenError::Signature(format!(
            "its certificate does not lead to a trusted authority: {error}"
        ))),
    }
}

/// Returns the time stated in the token, unchecked.
pub fn time_of(token: &[u8]) -> Option<DateTime<Utc>> {
    Some(SignedToken::parse(token)?.timestamp()?.time)
}

/// What is wrong with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    Malformed(String),
    /// The token is over other bytes.
    Imprint,
    Signature(String),
}

impl std::fmt::Display for TokenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TokenError::Malformed(what) | TokenError::Signature(what) => f.write_str(what),
            TokenError::Imprint => f.write_str("it is over other bytes"),
        }
    }
}

/// A sequence of values; accepts only DER, with tags of one byte.
#[derive(Clone, Copy)]
struct Der<'d>(&'d [u8]);

impl<'d> Der<'d> {
    fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the tag of the next value, its content, and its whole encoding.
    fn value(&mut self) -> Option<(u8, &'d [u8], &'d [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk()?;
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = bytes.iter().fold(0usize, |length, byte| length << 8 | usize::from(*byte));
                // DER allows only the shortest form.
                if length < 0x80 || bytes.first() == Some(&0) {
                    return None;
                }
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Some((tag, content, whole))
    }

    /// Returns the content of the next value if it has this tag; otherwise reads nothing.
    fn content(&mut self, tag: u8) -> Option<&'d [u8]> {
        let mut ahead = *self;
        let (found, content, _) = ahead.value()?;
        (found == tag).then(|| *self = ahead).map(|()| content)
    }

    fn inside(&mut self, tag: u8) -> Option<Der<'d>> {
        self.content(tag).map(Der)
    }

    /// Returns the algorithm of an AlgorithmIdentifier; its parameters are ignored.
    fn algorithm(&mut self) -> Option<&'d [u8]> {
        self.inside(SEQUENCE)?.content(OBJECT_ID)
    }
}

fn digest_of(oid: &[u8]) -> Option<&'static digest::Algorithm> {
    match oid {
        SHA256 => Some(&digest::SHA256),
        SHA384 => Some(&digest::SHA384),
        SHA512 => Some(&digest::SHA512),
        _ => None,
    }
}

/// The fields of a certificate that this module needs and that `webpki` does not expose.
struct Certificate<'d> {
    der: &'d [u8],
    /// Encoded issuer, and serial number.
    name: (&'d [u8], &'d [u8]),
    /// True if the extended key usage is timestamping only and is marked critical: RFC 3161,
    /// section 2.3.
    is_for_time: bool,
}

impl<'d> Certificate<'d> {
    fn parse(der: &'d [u8]) -> Option<Certificate<'d>> {
        let mut body = Der(der).inside(SEQUENCE)?.inside(SEQUENCE)?;
        // The version, which certificates of X.509 version 1 leave out.
        body.content(CONTEXT_0);
        let serial = body.content(INTEGER)?;
        body.content(SEQUENCE)?;
        let (_, _, issuer) = body.value()?;
        let mut is_for_time = false;
        while !body.is_at_end() {
            let (tag, content, _) = body.value()?;
            if tag == CONTEXT_3 {
                let mut extensions = Der(content).inside(SEQUENCE)?;
                while !extensions.is_at_end() {
                    let mut extension = extensions.inside(SEQUENCE)?;
                    let name = extension.content(OBJECT_ID)?;
                    let is_critical = extension.content(BOOLEAN) == Some(&[0xff]);
                    let mut value = Der(extension.content(OCTET_STRING)?);
                    if name == EXTENDED_KEY_USAGE {
                        let mut purposes = value.inside(SEQUENCE)?;
                        let is_time = purposes.content(OBJECT_ID)? == TIME_STAMPING;
                        is_for_time = is_critical && is_time && purposes.is_at_end();
                    }
                }
            }
        }
        Some(Certificate { der, name: (issuer, serial), is_for_time })
    }
}

/// A parsed ContentInfo with a SignedData over a TSTInfo.
struct SignedToken<'d> {
    content: &'d [u8],
    certificates: Vec<Certificate<'d>>,
    /// Issuer and serial number of the signer's certificate.
    signer: (&'d [u8], &'d [u8]),
    digest: Option<&'static digest::Algorithm>,
    attributes: Vec<(&'d [u8], Der<'d>)>,
    /// The attributes in the encoding that is signed, which has the tag SET instead of the tag that
    /// the attributes have in the token.
    signed_bytes: Vec<u8>,
    algorithm: &'d [u8],
    signature: &'d [u8],
}

impl<'d> SignedToken<'d> {
    fn parse(token: &'d [u8]) -> Option<SignedToken<'d>> {
        let mut all = Der(token);
        let mut info = all.inside(SEQUENCE)?;
        if !all.is_at_end() || info.content(OBJECT_ID)? != SIGNED_DATA {
            return None;
        }
        let mut signed = info.inside(CONTEXT_0)?.inside(SEQUENCE)?;
        signed.content(INTEGER)?;
        signed.content(SET)?;
        let mut encapsulated = signed.inside(SEQUENCE)?;
        if encapsulated.content(OBJECT_ID)? != TST_INFO {
            return None;
        }
        let content = encapsulated.inside(CONTEXT_0)?.content(OCTET_STRING)?;
        let mut certificates = Vec::new();
        if let Some(mut set) = signed.inside(CONTEXT_0) {
            while !set.is_at_end() && certificates.len() < CERTIFICATES_MAX {
                let (tag, _, whole) = set.value()?;
                // Values with other tags, such as attribute certificates, are skipped.
                if tag == SEQUENCE {
                    certificates.push(Certificate::parse(whole)?);
                }
            }
        }
        // Revocation lists.
        signed.content(CONTEXT_1);
        let mut signers = signed.inside(SET)?;
        let mut signer = signers.inside(SEQUENCE)?;
        // A token has only the signature of the authority: RFC 3161, section 2.4.2.
        if !signers.is_at_end() || !signed.is_at_end() {
            return None;
        }
        signer.content(INTEGER)?;
        let mut name = signer.inside(SEQUENCE)?;
        let (_, _, issuer) = name.value()?;
        let serial = name.content(INTEGER)?;
        let digest = digest_of(signer.algorithm()?);
        let (tag, set, whole) = signer.value()?;
        if tag != CONTEXT_0 {
            return None;
        }
        let mut signed_bytes = whole.to_vec();
        *signed_bytes.first_mut()? = SET;
        let (mut rest, mut attributes) = (Der(set), Vec::new());
        while !rest.is_at_end() {
            let mut attribute = rest.inside(SEQUENCE)?;
            let name = attribute.content(OBJECT_ID)?;
            let values = attribute.inside(SET)?;
            let mut more = values;
            more.value()?;
            // A repeated attribute could be read in two ways.
            if !more.is_at_end() || attributes.iter().any(|(known, _)| *known == name) {
                return None;
            }
            attributes.push((name, values));
        }
        let algorithm = signer.algorithm()?;
        let signature = signer.content(OCTET_STRING)?;
        let signer = (issuer, serial);
        Some(SignedToken {
            content,
            certificates,
            signer,
            digest,
            attributes,
            signed_bytes,
            algorithm,
            signature,
        })
    }

    /// Returns the content of an attribute's only value.
    fn attribute(&self, name: &[u8], tag: u8) -> Option<&'d [u8]> {
        let (_, values) = self.attributes.iter().find(|(known, _)| *known == name)?;
        Der(values.0).content(tag)
    }

    /// Returns the parsed TSTInfo.
    fn timestamp(&self) -> Option<Timestamp> {
        let mut all = Der(self.content);
        let mut info = all.inside(SEQUENCE)?;
        if !all.is_at_end() || info.content(INTEGER)? != [1] {
            return None;
        }
        info.content(OBJECT_ID)?;
        let mut imprint = info.inside(SEQUENCE)?;
        if imprint.algorithm()? != SHA256 {
            return None;
        }
        let imprint = Hash(imprint.content(OCTET_STRING)?.try_into().ok()?);
        info.content(INTEGER)?;
        let time = generalized_time(info.content(GENERALIZED_TIME)?)?;
        // Accuracy, ordering, nonce; a name and extensions may follow.
        info.content(SEQUENCE);
        info.content(BOOLEAN);
        let nonce = info.content(INTEGER).map(<[u8]>::to_vec);
        Some(Timestamp { time, imprint, nonce })
    }

    /// Whether the attributes name the certificate by its hash. RFC 5035 defines the attribute, and
    /// RFC 2634 defines the one of older tokens.
    fn names(&self, certificate: &[u8]) -> bool {
        let read = || {
            let (value, is_v2) = match self.attribute(SIGNING_CERTIFICATE_V2, SEQUENCE) {
                Some(value) => (value, true),
                None => (self.attribute(SIGNING_CERTIFICATE, SEQUENCE)?, false),
            };
            let mut first = Der(value).inside(SEQUENCE)?.inside(SEQUENCE)?;
            let algorithm = match is_v2 {
                // The hash algorithm is SHA-256 if the attribute does not name one.
                true => first.algorithm().map_or(Some(&digest::SHA256), digest_of)?,
                false => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            };
            Some(first.content(OCTET_STRING)? == digest::digest(algorithm, certificate).as_ref())
        };
        read() == Some(true)
    }

    /// Returns the signature algorithms of `webpki` that match the algorithm and the digest that
    /// the token names.
    fn algorithms(&self) -> Vec<&'static dyn SignatureVerificationAlgorithm> {
        use algorithms as a;
        let by_digest = |of: [&'static dyn SignatureVerificationAlgorithm; 3]| {
            let digests = [&digest::SHA256, &digest::SHA384, &digest::SHA512];
            let chosen = digests.into_iter().zip(of).filter(|(digest, _)| self.digest == Some(*digest));
            chosen.map(|(_, algorithm)| algorithm).collect()
        };
        let rsa =
            [a::RSA_PKCS1_2048_8192_SHA256, a::RSA_PKCS1_2048_8192_SHA384, a::RSA_PKCS1_2048_8192_SHA512];
        let pss = [
            a::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
            a::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
            a::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
        ];
        match self.algorithm.split_last() {
            // rsaEncryption, RSASSA-PSS, and the names that include a digest.
            Some((1, PKCS1)) => by_digest(rsa),
            Some((10, PKCS1)) => by_digest(pss),
            Some((&kind @ 11..=13, PKCS1)) => vec![rsa[usize::from(kind) - 11]],
            Some((2, ECDSA_SHA2)) => vec![a::ECDSA_P256_SHA256, a::ECDSA_P384_SHA256],
            Some((3, ECDSA_SHA2)) => vec![a::ECDSA_P256_SHA384, a::ECDSA_P384_SHA384],
            _ if self.algorithm == ED25519 => vec![a::ED25519],
            _ => Vec::new(),
        }
    }
}

/// `YYYYMMDDhhmmss[.s…]Z`, as defined in RFC 3161.
fn generalized_time(bytes: &[u8]) -> Option<DateTime<Utc>> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('Z')?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() != 14 || !is_digits(whole) || !is_digits(fraction) || fraction.len() > 9 {
        return None;
    }
    Some(NaiveDateTime::parse_from_str(whole, "%Y%m%d%H%M%S").ok()?.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_rfc() {
        let time = generalized_time(b"19990609001326.34352Z").expect("the example of RFC 3161");
        assert_eq!(time.to_rfc3339(), "1999-06-09T00:13:26+00:00");
        for wrong in [
            "19990609001326",
            "19990609001326.Z",
            "199906090013Z",
            "19991309001326Z",
            "+9990609001326Z",
            "",
            "Z",
        ] {
            assert_eq!(generalized_time(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_query_is_der_and_asks_for_what_it_says() {
        let query = query(&Hash::of(b"a checkpoint"), 7);
        let mut all = Der(&query);
        let mut request = all.inside(SEQUENCE).expect("a sequence");
        assert!(all.is_at_end());
        assert_eq!(request.content(INTEGER), Some(&[1u8][..]));
        let mut imprint = request.inside(SEQUENCE).expect("an imprint");
        assert_eq!(imprint.algorithm(), Some(SHA256));
        assert_eq!(imprint.content(OCTET_STRING), Some(&Hash::of(b"a checkpoint").0[..]));
        assert_eq!(request.content(INTEGER), Some(&nonce_bytes(7)[..]));
        assert_eq!(request.content(BOOLEAN), Some(&[0xff][..]));
        assert!(request.is_at_end());
        for nonce in [0, 1, u64::MAX, 1 << 63] {
            assert!((0x40..0x80).contains(&nonce_bytes(nonce)[0]), "positive, and of eight bytes");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_tolerated(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = verify(&bytes, &Hash::of(b""), &TimestampAuthorities::default());
            let _ = token_of_response(&bytes);
        }
    }
}
