//! The certificates of the TLS listeners, of HTTP and of Electrum.
//!
//! given by path, or (for Electrum) made at the first start and kept in the data directory
//!
//! # Correctness
//! Files that change are read again without a restart. New connections get the new
//! certificate; if it cannot be read, the old one stays in use and the operator is told.
//!
//! # Security
//! The self-signed certificate proves nothing on its own: Electrum wallets remember it at
//! the first connection and refuse another one later, which is why it is kept. Its key can
//! be read by the owner of the process only.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    crypto::ring::{default_provider, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use x509_parser::parse_x509_certificate;

use crate::metrics;

/// Names of the files in the data directory.
const OWN_CERT: &str = "electrum-tls.pem";
const OWN_KEY: &str = "electrum-tls.key";
/// How often the files are looked at.
const CHECK: Duration = Duration::from_secs(5);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Only one of the two keys of the configuration is given.
    #[error("{section}.tls_cert and {section}.tls_key belong together: give both or none")]
    Half {
        /// Section of the configuration.
        section: &'static str,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {what}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The library could not make one.
    #[error("a certificate could not be made")]
    Make(#[from] rcgen::Error),
    /// Certificate and key do not belong together, or of a kind that is not known.
    #[error("TLS")]
    Tls(#[from] rustls::Error),
}

/// The certificate in use.
#[derive(Debug)]
pub struct Certificates {
    /// Section of the configuration.
    section: &'static str,
    cert: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Reads the certificate that a `section` of the configuration names; `None` if it
    /// names none.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn given(
        section: &'static str,
        cert: Option<&Path>,
        key: Option<&Path>,
    ) -> Result<Option<Arc<Self>>, TlsError> {
        match (cert, key) {
            (Some(cert), Some(key)) => {
                Self::read(section, cert.to_owned(), key.to_owned()).map(Some)
            }
            (None, None) => Ok(None),
            _ => Err(TlsError::Half { section }),
        }
    }

    /// Reads the self-signed certificate in `data_dir`, which is made for `host` if it is not
    /// there.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn made(host: &str, data_dir: &Path) -> Result<Arc<Self>, TlsError> {
        let (cert, key) = (data_dir.join(OWN_CERT), data_dir.join(OWN_KEY));
        if !cert.exists() || !key.exists() {
            make(host, &cert, &key)?;
        }
        Self::read("electrum", cert, key)
    }

    fn read(section: &'static str, cert: PathBuf, key: PathBuf) -> Result<Arc<Self>, TlsError> {
        let current = load(&cert, &key)?;
        tell_expiry(section, &current);
        Ok(Arc::new(Self {
            section,
            cert,
            key,
            current: RwLock::new(current),
        }))
    }

    /// What a TLS listener works with. `protocols` are those that it speaks inside, as named
    /// in ALPN (RFC 7301), best first; with none it takes clients whatever they ask for.
    ///
    /// # Errors
    /// [`TlsError::Tls`].
    pub(crate) fn acceptor(
        self: &Arc<Self>,
        protocols: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// Reads the files again whenever they change, until `stop`.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut known = self.modified();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(CHECK) => {}
            }
            let found = self.modified();
            if found == known {
                continue;
            }
            known = found;
            match load(&self.cert, &self.key) {
                Ok(new) => {
                    tell_expiry(self.section, &new);
                    *self.current.write() = new;
                    info!(path = %self.cert.display(), "certificate read again");
                }
                Err(err) => {
                    let err = &err as &dyn std::error::Error;
                    warn!(err, "certificate not read again; the old one stays in use");
                }
            }
        }
    }

    /// When the files changed last. Two looks at metadata: no reason to leave the thread.
    fn modified(&self) -> [Option<SystemTime>; 2] {
        [&self.cert, &self.key].map(|path| fs::metadata(path).ok()?.modified().ok())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read()))
    }
}

/// Tells monitors until when the certificate of `section` is valid.
fn tell_expiry(section: &'static str, certified: &CertifiedKey) {
    let leaf = certified.cert.first();
    if let Some(Ok((_, leaf))) = leaf.map(|der| parse_x509_certificate(der)) {
        metrics::certificate(section, leaf.validity().not_after.timestamp());
    }
}

fn make(host: &str, cert_path: &Path, key_path: &Path) -> Result<(), TlsError> {
    let name = if host.is_empty() { "localhost" } else { host };
    let made = rcgen::generate_simple_self_signed([name.to_owned()])?;
    let write = |path: &Path, text: &str, mode: u32| {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        let written = options.open(path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(|source| TlsError::Write {
            path: path.to_owned(),
            source,
        })
    };
    write(key_path, &made.signing_key.serialize_pem(), 0o600)?;
    write(cert_path, &made.cert.pem(), 0o644)?;
    info!(path = %cert_path.display(), "self-signed certificate made");
    Ok(())
}

fn load(cert: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let read = |path: &Path, what: String| TlsError::Read {
        path: path.to_owned(),
        what,
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|err| read(cert, err.to_string()))?;
    if chain.is_empty() {
        return Err(read(cert, "holds no certificate".to_owned()));
    }
    let der = PrivateKeyDer::from_pem_file(key).map_err(|err| read(key, err.to_string()))?;
    let signer = any_supported_type(&der)?;
    let certified = CertifiedKey::new(chain, signer);
    certified.keys_match()?;
    Ok(Arc::new(certified))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let first = Certificates::made("", dir.path()).unwrap();
        let again = Certificates::made("", dir.path()).unwrap();
        assert_eq!(first.current.read().cert, again.current.read().cert);
        first.acceptor(&[]).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(dir.path().join(OWN_KEY))
                .unwrap()
                .permissions();
            assert_eq!(mode.mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn what_is_no_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("a.pem"), dir.path().join("b.pem"));
        let half = Certificates::given("http", Some(&cert), None).unwrap_err();
        assert_eq!(
            half.to_string(),
            "http.tls_cert and http.tls_key belong together: give both or none"
        );
        assert!(Certificates::given("http", None, None).unwrap().is_none());
        let error = Certificates::given("http", Some(&cert), Some(&key)).unwrap_err();
        assert!(error.to_string().contains("a.pem: "), "{error}");
    }
}
