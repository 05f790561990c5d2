//! By whom the other server's certificate may be signed.

use std::path::Path;

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::FallbackError;

/// The authorities that the system trusts, and those in the PEM file `ca`.
///
/// # Errors
/// [`FallbackError::Authority`]; [`FallbackError::NoRoots`] if there is none at all.
pub(super) fn roots(ca: Option<&Path>) -> Result<RootCertStore, FallbackError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        let wrong = |what: String| FallbackError::Authority {
            path: path.to_owned(),
            what,
        };
        let known = roots.len();
        let read = CertificateDer::pem_file_iter(path).map_err(|err| wrong(err.to_string()))?;
        for certificate in read {
            let certificate = certificate.map_err(|err| wrong(err.to_string()))?;
            let added = roots.add(certificate);
            added.map_err(|err| wrong(err.to_string()))?;
        }
        if roots.len() == known {
            return Err(wrong("holds no certificate".to_owned()));
        }
    }
    match roots.is_empty() {
        true => Err(FallbackError::NoRoots),
        false => Ok(roots),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_authorities_must_hold_some() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let refused = |text: Option<&str>| {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            roots(Some(&path)).unwrap_err().to_string()
        };
        let name = path.display().to_string();
        assert!(refused(None).starts_with(&name));
        assert_eq!(refused(Some("")), format!("{name}: holds no certificate"));
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(refused(Some(garbage)).starts_with(&name));
        let made = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap();
        let two = made.cert.pem() + &made.cert.pem();
        std::fs::write(&path, two).unwrap();
        assert!(roots(Some(&path)).unwrap().len() >= 2);
    }
}
