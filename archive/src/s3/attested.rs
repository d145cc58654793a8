//! What only evidence asks of an object: whether a legal hold is on it.

use super::failure::repeat;
use super::{Condition, S3, StoreFailure};

impl S3 {
    /// The legal hold of an object's version, as the store spells it: `ON` or `OFF`.
    pub(crate) async fn legal_hold_status(
        &self,
        name: &std::path::Path,
        version: Option<&str>,
    ) -> Condition<String> {
        let key = self.key(name);
        let read = repeat(self.timeout(0), || async {
            let get = self.0.client.get_object_legal_hold().bucket(&self.0.bucket).key(&key);
            let got = get.set_version_id(version.map(str::to_owned)).send().await;
            let got = got.map_err(|error| StoreFailure::of(&error))?;
            let status = got.legal_hold().and_then(|hold| hold.status());
            Ok(status.map_or("OFF", |status| status.as_str()).to_owned())
        });
        Condition::of(read.await)
    }
}
