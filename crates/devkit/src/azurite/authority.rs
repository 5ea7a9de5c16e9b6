//! A certificate authority for one run, for services on loopback that need TLS.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// Files of a service's certificate, and of the authority that issued it.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// The certificate that a client has to trust.
    pub(super) authority: PathBuf,
    /// The certificate of the service.
    pub(super) certificate: PathBuf,
    /// The private key of the service.
    pub(super) key: PathBuf,
}

/// Makes an authority and a certificate for loopback, in `folder`. The authority's key is not stored.
pub(super) fn make(folder: &Path) -> io::Result<Files> {
    let failed = |error: rcgen::Error| io::Error::other(error);
    let mut authority = CertificateParams::new(Vec::new()).map_err(failed)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name.push(DnType::CommonName, "devkit, one run's own authority");
    let authority_key = KeyPair::generate().map_err(failed)?;
    let authority_certificate = authority.self_signed(&authority_key).map_err(failed)?;

    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let service = CertificateParams::new(names.to_vec()).map_err(failed)?;
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = service.signed_by(&key, &Issuer::new(authority, authority_key)).map_err(failed)?;

    let file = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).map(|()| path)
    };
    Ok(Files {
        authority: file("authority.pem", authority_certificate.pem())?,
        certificate: file("service.pem", certificate.pem())?,
        key: file("service.key", key.serialize_pem())?,
    })
}
