//! Until when a certificate is valid, which neither rustls nor webpki tells.

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::parse_x509_certificate;

/// The end of the validity of a certificate; `None`: it is none.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<OffsetDateTime> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    Some(certificate.validity().not_after.to_datetime())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_end_is_what_the_certificate_says() {
        for end in [
            datetime!(2026-03-01 12:34:56 UTC),
            datetime!(2049-12-31 23:59:59 UTC),
            // From 2050 on the date is written in the other form.
            datetime!(2050-01-01 00:00:00 UTC),
            datetime!(9999-12-31 23:59:59 UTC),
        ] {
            let mut params = CertificateParams::new(["twins.contoso.example".to_owned()]).unwrap();
            params.not_after = end;
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            assert_eq!(not_after(certificate.der()), Some(end));
        }
    }

    #[test]
    fn any_part_of_a_certificate_is_none() {
        let params = CertificateParams::new(["twins.contoso.example".to_owned()]).unwrap();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let der = certificate.der();
        for length in 0..der.len() {
            assert_eq!(not_after(&CertificateDer::from_slice(&der[..length])), None, "{length}");
        }
    }
}
