//! Which certificate authorities a provider's certificate may come from.

use std::io;
use std::path::Path;

use ureq::tls::{parse_pem, Certificate, PemItem};

/// The certificates of `ca_file`, or without one those of the system's store (possibly none).
///
/// # Errors
/// When `ca_file` is not readable, is not PEM or holds no certificate.
pub(super) fn roots(ca_file: Option<&Path>) -> io::Result<Vec<Certificate<'static>>> {
    match ca_file {
        Some(path) => from_file(path),
        None => Ok(from_system()),
    }
}

fn from_file(path: &Path) -> io::Result<Vec<Certificate<'static>>> {
    let named = |kind, why: String| io::Error::new(kind, format!("CA file \"{}\": {why}", path.display()));
    let pem = std::fs::read(path).map_err(|e| named(e.kind(), e.to_string()))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(_) => return Err(named(io::ErrorKind::InvalidData, "not a valid PEM file".into())),
        }
    }
    match found.is_empty() {
        true => Err(named(io::ErrorKind::InvalidData, "holds no certificate".into())),
        false => Ok(found),
    }
}

/// A file of the store that cannot be read leaves the others in force, as in every other program of the system.
fn from_system() -> Vec<Certificate<'static>> {
    let found = rustls_native_certs::load_native_certs();
    found.certs.iter().map(|der| Certificate::from_der(der.as_ref()).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::test_server::ScratchDir;

    #[test]
    fn a_ca_file_without_a_certificate_is_an_error_that_names_it() {
        let scratch = ScratchDir::new("trust");
        let missing = scratch.path().join("missing.pem");
        assert_eq!(roots(Some(&missing)).unwrap_err().kind(), io::ErrorKind::NotFound);
        let empty = scratch.write("empty.pem", b"not a certificate\n");
        let refused = roots(Some(&empty)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        assert!(refused.to_string().contains("empty.pem"), "{refused}");
    }

    #[test]
    fn every_certificate_of_a_ca_file_is_taken() {
        let scratch = ScratchDir::new("trust");
        let pem = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap().cert.pem();
        let file = scratch.write("two.pem", format!("{}\n{}", pem("a.example"), pem("b.example")).as_bytes());
        assert_eq!(roots(Some(&file)).unwrap().len(), 2);
    }
}
