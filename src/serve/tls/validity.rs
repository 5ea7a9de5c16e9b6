//! The end of a certificate's validity, and its names. Neither rustls nor webpki provides them.

use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

/// The end of a certificate's validity. `None`: it is not a certificate.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<OffsetDateTime> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    Some(certificate.validity().not_after.to_datetime())
}

/// The host names and addresses in a certificate. Clients check no others (RFC 9525, section 6.3).
pub(super) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = parse_x509_certificate(certificate) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    };
    names.value.general_names.iter().filter_map(name).collect()
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
            // From 2050 on, the date is encoded in the other form.
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
    fn the_names_are_those_that_clients_look_at() {
        let of = ["twins.contoso.example", "*.contoso.example", "10.1.2.3", "2001:db8::1"].map(str::to_owned);
        let mut params = CertificateParams::new(of.clone()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "nobody.looks.here.example");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(names(certificate.der()), of);
        let none =
            CertificateParams::new(Vec::new()).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(names(none.der()), Vec::<String>::new());
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
