//! Keys of a policy: where they come from, and what they can do.

/// Where a key is: `file:PATH`, `env:NAME` or `command:PROGRAM ARGUMENTS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource { File(PathBuf), Environment(String), Command(Vec<String>) }
impl KeySource { pub fn parse(text: &str) -> Result<KeySource, KeyError>; pub fn load(&self) -> Result<Key, KeyError> }

/// First 4 bytes of a hash of the key; 8 hex digits in tokens and in encrypted bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 4]); // Display: 8 hex digits

pub struct Key; // Debug shows the id alone
impl Key {
    /// A new random key.
    pub fn generate() -> Result<Key, KeyError>;
    /// Parses 64 hex digits, perhaps with white space around them.
    pub fn parse(text: &str) -> Result<Key, KeyError>;
    /// The text of a key file: 64 hex digits and a newline. Only for writing a new key file.
    pub fn to_text(&self) -> Secret;
    pub fn id(&self) -> KeyId;
}

/// The current key, and older ones for reveal and decrypt alone.
pub struct Keys;
impl Keys {
    pub fn new(current: Key, old: Vec<Key>) -> Keys;
    /// Loads the keys that a policy names. All failures at once.
    pub fn load(policy: &Policy) -> Result<Keys, Vec<KeyError>>;
    pub fn current(&self) -> &Key;
    pub fn find(&self, id: KeyId) -> Option<&Key>;
    pub fn ids(&self) -> impl Iterator<Item = KeyId>;
    pub fn encrypt/decrypt as in Redactor
}
