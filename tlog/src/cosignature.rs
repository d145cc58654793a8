//! Cosignatures of witnesses: C2SP tlog-cosignature, version 1 with Ed25519.
//!
//! Invariant: a cosignature counts only for the text that it was made over, and for the witness
//! with whose name and key it was checked. The cosignature states that at its time the tree in the
//! text was the largest tree of the log that the witness had seen, and that this tree continued
//! every tree of the log that the witness had seen before.

use std::fmt;

use super::error::TlogError;
use super::note::{KeyId, Note, PrivateKey, PublicKey, line};

/// Signature type of timestamped Ed25519 cosignatures in key ids and key texts.
const COSIGNATURE_TYPE: u8 = 4;
/// The first line of what a witness signs. With it, the signature of a text is never a valid
/// cosignature of the text.
const HEADER: &str = "cosignature/v1";
/// Number of bytes of the time, which precedes the signature.
const TIME_BYTES: usize = 8;

/// The identity of a witness: its name and its public key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WitnessKey {
    name: String,
    key: PublicKey,
}

impl WitnessKey {
    /// Returns the witness that has this private key, with the name of the key. The name was
    /// checked when the key was made or read.
    pub fn of(key: &PrivateKey) -> WitnessKey {
        WitnessKey { name: key.name().to_owned(), key: key.public() }
    }

    /// Reads the vkey of a witness, whose signature type is 4.
    ///
    /// # Errors
    /// [`TlogError::WitnessKey`] for any other text, including the vkey of a log, whose type is 1.
    pub fn parse(text: &str) -> Result<WitnessKey, TlogError> {
        let parsed = PublicKey::parse_vkey(text.trim(), COSIGNATURE_TYPE);
        let (name, key) = parsed.ok_or(TlogError::WitnessKey)?;
        Ok(WitnessKey { name: name.to_owned(), key })
    }

    /// Returns the name of the witness.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Public key of the witness.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// Returns the id of the key in its cosignatures.
    pub fn id(&self) -> KeyId {
        self.key.id_as(&self.name, COSIGNATURE_TYPE)
    }

    /// Returns when the witness cosigned the text of `note`, in seconds since 1970; `None` if it
    /// did not. If there are several cosignatures, the oldest counts.
    ///
    /// # Errors
    /// If a cosignature with the name and the id of this witness is invalid.
    pub fn cosigned(&self, note: &Note<'_>) -> Result<Option<u64>, BadCosignature> {
        let mut oldest = None;
        for signature in note.signatures_of(&self.name, self.id()) {
            let (time, signature) = signature.split_first_chunk::<TIME_BYTES>().ok_or(BadCosignature)?;
            let time = u64::from_be_bytes(*time);
            if i64::try_from(time).is_err() || !self.key.verifies(&message(time, note.text), signature) {
                return Err(BadCosignature);
            }
            oldest = Some(oldest.map_or(time, |known: u64| known.min(time)));
        }
        Ok(oldest)
    }
}

impl fmt::Display for WitnessKey {
    /// The vkey.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key.vkey_as(&self.name, COSIGNATURE_TYPE))
    }
}

/// The error for a cosignature that has the name and the id of a witness, but was not made with the
/// key of that witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCosignature;

fn message(time: u64, text: &str) -> Vec<u8> {
    format!("{HEADER}\ntime {time}\n{text}").into_bytes()
}

/// Cosigns the text of a checkpoint as a witness, at `time` in seconds since 1970. Returns the
/// signature line for the note.
pub fn cosign(key: &PrivateKey, text: &str, time: u64) -> String {
    let mut signature = time.to_be_bytes().to_vec();
    signature.extend(key.sign(&message(time, text)));
    let witness = WitnessKey::of(key);
    line(&witness.name, witness.id(), &signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "example.com/log\n5\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    #[test]
    fn a_cosignature_holds_for_its_witness_its_text_and_its_time() {
        let key = PrivateKey::generate("witness.example/w1").expect("randomness");
        let witness = WitnessKey::of(&key);
        assert_eq!(WitnessKey::parse(&witness.to_string()).expect("its own vkey"), witness);
        assert!(WitnessKey::parse(&key.public().vkey("witness.example/w1")).is_err(), "a log's key");
        assert!(PublicKey::parse(&witness.to_string()).is_err(), "a witness is not a log");

        let line = cosign(&key, TEXT, 1_679_315_147);
        let note = format!("{TEXT}\n{line}");
        let note = Note::parse(note.as_bytes()).expect("a note");
        assert_eq!(witness.cosigned(&note), Ok(Some(1_679_315_147)));

        let other = WitnessKey::of(&PrivateKey::generate("witness.example/w1").expect("randomness"));
        assert_eq!(other.cosigned(&note), Ok(None), "another key has another id");
        let changed = format!("{}\n{line}", TEXT.replace("\n5\n", "\n6\n"));
        let changed = Note::parse(changed.as_bytes()).expect("a note");
        assert_eq!(witness.cosigned(&changed), Err(BadCosignature));

        // A signature of the text alone, as logs make it, is not a cosignature, even if it has the
        // name and the id of a witness.
        let plain = super::line(witness.name(), witness.id(), &key.sign(TEXT.as_bytes()));
        let plain = format!("{TEXT}\n{plain}");
        assert_eq!(witness.cosigned(&Note::parse(plain.as_bytes()).expect("a note")), Err(BadCosignature));
        let mut late = (1u64 << 63).to_be_bytes().to_vec();
        late.extend(key.sign(&message(1 << 63, TEXT)));
        let late = format!("{TEXT}\n{}", super::line(witness.name(), witness.id(), &late));
        assert_eq!(witness.cosigned(&Note::parse(late.as_bytes()).expect("a note")), Err(BadCosignature));
    }

    /// Reads name, key id and time of the example in the specification. The signature is not
    /// checked, because the specification does not give the public key.
    #[test]
    fn the_example_of_the_specification_is_read() {
        let note = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
            \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
            \u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
        let note = Note::parse(note.as_bytes()).expect("a note");
        let (name, id) = note.signers().nth(1).expect("two signatures");
        let signature = note.signatures_of(name, id).next().expect("the second signer has one");
        assert_eq!((name, id.to_string().as_str()), ("witness.example.com/w1", "8d66cf3f"));
        assert_eq!(signature.len(), TIME_BYTES + 64);
        assert_eq!(u64::from_be_bytes(signature[..8].try_into().expect("8 bytes")), 1_679_315_147);
    }
}
