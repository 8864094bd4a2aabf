//! Mutual TLS: both sides show a certificate, and both are checked.
//!
//! Peers and clients have a setting of their own each. Give them different authorities: whoever holds a certificate of the
//! peers' authority may speak as a node.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Where certificates and key lie, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The authority that must have signed the other side's certificate.
    pub authority: PathBuf,
    /// This side's certificate, followed by intermediate ones.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The name that the other side's certificate must bear where this side connects; by default the host that it
    /// connects to.
    #[serde(default)]
    pub server_name: Option<String>,
}

/// A file that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct TlsError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Certificates and key, read.
#[derive(Clone)]
pub struct Tls {
    authority: Certificate,
    identity: Identity,
    server_name: Option<String>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// A file that cannot be read. What is in them is looked at when they are used.
    pub fn read(&self) -> Result<Tls, TlsError> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|source| TlsError { path: path.to_owned(), source });
        Ok(Tls {
            authority: Certificate::from_pem(read(&self.authority)?),
            identity: Identity::from_pem(read(&self.certificate)?, read(&self.key)?),
            server_name: self.server_name.clone(),
        })
    }
}

impl Tls {
    /// For whoever listens: nobody without a certificate of the authority gets in.
    pub(crate) fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(self.identity.clone())
            .client_ca_root(self.authority.clone())
            .client_auth_optional(false)
            .timeout(HANDSHAKE)
    }

    /// For whoever connects.
    pub(crate) fn client(&self) -> ClientTlsConfig {
        let config = ClientTlsConfig::new()
            .identity(self.identity.clone())
            .ca_certificate(self.authority.clone())
            .timeout(HANDSHAKE);
        match &self.server_name {
            Some(name) => config.domain_name(name),
            None => config,
        }
    }
}
