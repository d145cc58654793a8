//! The credentials for the store, which are looked up again while the process runs.
//!
//! Invariant: a change by the operator (rotated keys in a file, a renewed token) takes effect
//! without a restart: when the credentials in use expire or, if they have no expiry time, within
//! [`AGE_MAX`]. The SDK's own chain of providers reads files once and keeps the result for the life
//! of the client; [`Lookup`] builds a new chain whenever credentials are requested, and keeps no
//! credentials itself.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_s3::config::SharedHttpClient;

/// Age at which credentials without an expiry time are looked up again.
const AGE_MAX: Duration = Duration::from_secs(30);

/// Looks credentials up in the places where AWS tools look, in the same order.
pub(super) struct Lookup {
    http: SharedHttpClient,
}

impl Lookup {
    pub(super) fn new(http: SharedHttpClient) -> Lookup {
        Lookup { http }
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup")
    }
}

impl ProvideCredentials for Lookup {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let config = ProviderConfig::default().with_http_client(self.http.clone());
            let chain = DefaultCredentialsChain::builder().configure(config).build().await;
            let mut found = chain.provide_credentials().await?;
            // The SDK's cache would keep these for a quarter of an hour.
            found.expiry_mut().get_or_insert_with(|| SystemTime::now() + AGE_MAX);
            Ok(found)
        })
    }
}
