//! Until when a certificate is valid.
//!
//! Neither rustls nor webpki tells it, and a library for all of X.509 is much for two dates of a file that the operator
//! chose. So this reads just that far into the certificate (RFC 5280, 4.1): down to `validity`, past what comes before.

use rustls_pki_types::CertificateDer;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`: the version, which a certificate of version 1 lacks.
const VERSION: u8 = 0xa0;

/// The end of the validity of a certificate; `None`: it is none.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<OffsetDateTime> {
    let (tag, whole, _) = element(certificate)?;
    let (SEQUENCE, to_be_signed, _) = element((tag == SEQUENCE).then_some(whole)?)? else {
        return None;
    };
    let (first, _, after_first) = element(to_be_signed)?;
    // Version, serial number, algorithm, issuer: without a version the first is the serial number already.
    let mut rest = if first == VERSION { element(after_first)?.2 } else { after_first };
    for _ in 0..2 {
        rest = element(rest)?.2;
    }
    let (SEQUENCE, validity, _) = element(rest)? else {
        return None;
    };
    let (_, _, after_begin) = element(validity)?;
    let (tag, end, _) = element(after_begin)?;
    instant(tag, end)
}

/// The tag and the content of the first element, and what follows it (X.690, 8.1).
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        // 0x80 would be a length that is not known yet, which DER does not have.
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (digits.iter().fold(0, |length, digit| (length << 8) | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDhhmmssZ`, where years from 50 on are of the last century, or `YYYYMMDDhhmmssZ` (RFC 5280, 4.1.2.5).
fn instant(tag: u8, text: &[u8]) -> Option<OffsetDateTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = text.split_at_checked(match tag {
        UTC_TIME => 2,
        GENERALIZED_TIME => 4,
        _ => return None,
    })?;
    let year = match (tag, number(year)?) {
        (UTC_TIME, year @ 50..) => 1900 + year,
        (UTC_TIME, year) => 2000 + year,
        (_, year) => year,
    };
    if rest.len() != 10 {
        return None;
    }
    let part = |place: usize| u8::try_from(number(rest.get(place..place + 2)?)?).ok();
    let date = Date::from_calendar_date(i32::from(year), Month::try_from(part(0)?).ok()?, part(2)?).ok()?;
    let time = Time::from_hms(part(4)?, part(6)?, part(8)?).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_utc())
}

fn number(digits: &str) -> Option<u16> {
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
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
    fn years_of_two_digits_are_of_two_centuries() {
        assert_eq!(instant(UTC_TIME, b"491231235959Z"), Some(datetime!(2049-12-31 23:59:59 UTC)));
        assert_eq!(instant(UTC_TIME, b"500101000000Z"), Some(datetime!(1950-01-01 00:00:00 UTC)));
        for (tag, text) in [
            (UTC_TIME, "491231235959"),
            (UTC_TIME, "4912312359Z"),
            (UTC_TIME, "491331235959Z"),
            (UTC_TIME, "49123123595+Z"),
            (GENERALIZED_TIME, "491231235959Z"),
            (SEQUENCE, "491231235959Z"),
            (UTC_TIME, ""),
        ] {
            assert_eq!(instant(tag, text.as_bytes()), None, "{text}");
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
        for byte in 0..=u8::MAX {
            let _ = not_after(&CertificateDer::from_slice(&[SEQUENCE, 0x84, byte, byte, byte, byte]));
        }
    }
}
