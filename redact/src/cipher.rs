//! AES-256-GCM for what cannot be edited. Layout: magic `SRENC1\n\0`? see ENCRYPTED_MAGIC, key id (4), nonce (12), ciphertext, tag (16).
pub const ENCRYPTED_MAGIC: &[u8] = b"strongroom-encrypted-1\n";
pub fn is_encrypted(bytes: &[u8]) -> bool;
/// The key id of encrypted bytes.
pub fn key_id_of(bytes: &[u8]) -> Option<KeyId>;
pub enum CipherError { NotEncrypted, UnknownKey(KeyId), Forged, TooLong }
