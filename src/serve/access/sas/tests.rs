//! The signatures of each client, and each kind of error.

use time::macros::datetime;

use super::*;

/// The 32 bytes 7 to 38.
const KEY: &str = "BwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSY=";
const OTHER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const EXPIRY: u64 = 1_900_000_000;
const NOW: OffsetDateTime = datetime!(2030-03-17 16:46:40 UTC);

fn policy(name: &str) -> Policy {
    Policy { name: name.to_owned(), primary_key: Secret::new(KEY), secondary_key: None }
}

fn verify(policies: &[Policy], header: &str, path: &str, now: OffsetDateTime) -> Result<String, Denied> {
    let hosts = Hosts::new(&["twins.contoso.example".to_owned()]).unwrap();
    let token = header.strip_prefix("SharedAccessSignature ").unwrap();
    let caller = Signatures::new(policies, None).unwrap().verify(token, &hosts, path, now)?;
    assert_eq!(caller.kind, Kind::Policy);
    Ok(caller.name.to_string())
}

/// Signs `{sr}\n{se}`. `sr` is as it is sent.
fn sign(resource: &str, expiry: &str, key: &str) -> String {
    let mut keyed = super::key(&Secret::new(key)).unwrap();
    keyed.update(format!("{resource}\n{expiry}").as_bytes());
    STANDARD.encode(keyed.finalize().into_bytes()).replace('+', "%2B").replace('=', "%3D")
}

fn header(resource: &str, expiry: u64, key: &str, policy: &str) -> String {
    let signature = sign(resource, &expiry.to_string(), key);
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={policy}")
}

#[test]
fn what_the_official_clients_send_is_admitted() {
    for (client, name, header) in [
        // Recorded from `Registry.getTwin` and `Registry.createQuery` of npm azure-iothub 1.16.6, with a fixed clock.
        (
            "node",
            "service",
            "SharedAccessSignature sr=twins.contoso.example&sig=B3bIey8VXbfLsvzyHqV%2BQgPOgmhJaYbUMlBKa4O8BDE%3D&skn=service&se=1900000000",
        ),
        (
            "node, host in mixed case",
            "read only",
            "SharedAccessSignature sr=Twins.Contoso.example&sig=Zuq0YXlQdznWVrQJLY%2BP1Qd03T%2Fi6opiBaPSKY8Z3QQ%3D&skn=read%20only&se=1900000000",
        ),
        (
            "node, a name that it encodes",
            "it's(1)+a",
            "SharedAccessSignature sr=twins.contoso.example&sig=B3bIey8VXbfLsvzyHqV%2BQgPOgmhJaYbUMlBKa4O8BDE%3D&skn=it%27s%281%29%2Ba&se=1900000000",
        ),
        // Made by `SasToken` of PyPI azure-iot-hub 2.7.0, with a fixed clock. It does not encode a slash in `sig`, and nothing in `skn`.
        (
            "python",
            "service",
            "SharedAccessSignature sr=twins.contoso.example&sig=B3bIey8VXbfLsvzyHqV%2BQgPOgmhJaYbUMlBKa4O8BDE%3D&se=1900000000&skn=service",
        ),
        (
            "python, host with port",
            "read only",
            "SharedAccessSignature sr=Twins.Contoso.example%3A8443&sig=vCaxBg%2BKOv14fzCEY3WaOTAWAZvdfLzCJSApDB5orHY%3D&se=1900000000&skn=read only",
        ),
        (
            "python, slash in the signature and plus in the name",
            "a+b",
            "SharedAccessSignature sr=twins.contoso.example%3A443&sig=gyzbbTupiKXL2MQfPSPmN40tX/ov1BlvppSuvM7uvts%3D&se=1900000000&skn=a+b",
        ),
        // Made in the same way as by `IotHubServiceSasToken` of com.microsoft.azure.sdk.iot:iot-service-client: `URLEncoder` over the host
        // in lower case, and the name unencoded.
        (
            "java, host with port",
            "read only",
            "SharedAccessSignature sr=twins.contoso.example%3A8443&sig=mT4nm7cknlqby%2FYJ90mUBJd1FfkZ0%2F65sR39278bCd0%3D&se=1900000000&skn=read only",
        ),
        // Made in the same way as by `SharedAccessSignatureBuilder` of Microsoft.Azure.Devices: `WebUtility.UrlEncode` over everything,
        // which turns a space into a plus sign.
        (
            ".net",
            "read only",
            "SharedAccessSignature sr=twins.contoso.example&sig=B3bIey8VXbfLsvzyHqV%2BQgPOgmhJaYbUMlBKa4O8BDE%3D&se=1900000000&skn=read+only",
        ),
    ] {
        for path in ["/twins/d1", "/devices/query"] {
            assert_eq!(
                verify(&[policy("other"), policy(name)], header, path, NOW),
                Ok(name.to_owned()),
                "{client}"
            );
        }
    }
}

#[test]
fn any_way_to_encode_the_resource_is_good_as_long_as_it_is_what_was_signed() {
    for resource in [
        "twins.contoso.example",
        "twins.contoso.example%3A443",
        "twins.contoso.example%3a443",
        "twins.contoso.example%2Ftwins",
        "twins.contoso.example%2ftwins%2fd1",
        "twins.contoso.example/twins/d1",
    ] {
        let header = header(resource, EXPIRY, KEY, "service");
        assert_eq!(
            verify(&[policy("service")], &header, "/twins/d1", NOW),
            Ok("service".to_owned()),
            "{resource}"
        );
    }
    // The same resource, in another encoding than the one that was signed.
    let header = header("twins.contoso.example%3A443", EXPIRY, KEY, "service").replace("%3A", "%3a");
    assert_eq!(verify(&[policy("service")], &header, "/twins/d1", NOW), Err(Denied::WrongSignature));
}

#[test]
fn each_way_to_be_wrong_has_its_reason() {
    let host = "twins.contoso.example";
    let good = header(host, EXPIRY, KEY, "service");
    let signature = sign(host, "1900000000", KEY);
    let long = sign(host, "99999999999999999999", KEY);
    for (header, denied) in [
        (good.replace("skn=service", "skn=Service"), Denied::UnknownPolicy),
        (good.replace("&skn=service", ""), Denied::UnknownPolicy),
        (good.replace("skn=service", "skn="), Denied::UnknownPolicy),
        (good.replace("skn=service", "skn=%ff"), Denied::UnknownPolicy),
        // A name that is encoded twice is another name.
        (good.replace("skn=service", "skn=serv%2569ce"), Denied::UnknownPolicy),
        (header(host, EXPIRY, OTHER_KEY, "service"), Denied::WrongSignature),
        (good.replace("se=1900000000", "se=1900000001"), Denied::WrongSignature),
        (good.replace("sr=twins", "sr=Twins"), Denied::WrongSignature),
        // The key of one policy does not work for another policy.
        (header(host, EXPIRY, KEY, "other"), Denied::WrongSignature),
        (header("contoso.azure-devices.net", EXPIRY, KEY, "service"), Denied::WrongResource),
        (header("twins.contoso.example%2Fdevices", EXPIRY, KEY, "service"), Denied::WrongResource),
        (header("twins.contoso.example%252Ftwins", EXPIRY, KEY, "service"), Denied::WrongResource),
        (header(host, EXPIRY - 3901, KEY, "service"), Denied::Expired),
        (header(host, 0, KEY, "service"), Denied::Expired),
        (
            format!("SharedAccessSignature sr={host}&sig={signature}&se=1900000000&skn=service&x=1"),
            Denied::Malformed,
        ),
        (format!("{good}&skn=service"), Denied::Malformed),
        (format!("{good}&"), Denied::Malformed),
        (good.replace("&se=1900000000", ""), Denied::Malformed),
        (good.replace("&se=1900000000", "&se="), Denied::Malformed),
        (good.replace("&se=1900000000", "&se=+1900000000"), Denied::Malformed),
        (good.replace("&se=1900000000", "&se=1.9e9"), Denied::Malformed),
        (good.replace("sr=", "SR="), Denied::Malformed),
        (good.replace("sig=", "sig=AAAA"), Denied::Malformed),
        (format!("SharedAccessSignature sr={host}&sig=&se=1900000000&skn=service"), Denied::Malformed),
        (
            format!("SharedAccessSignature sr={host}&sig={long}&se=99999999999999999999&skn=service"),
            Denied::Malformed,
        ),
        (header("%ff", EXPIRY, KEY, "service"), Denied::Malformed),
        ("SharedAccessSignature ".to_owned(), Denied::Malformed),
        ("SharedAccessSignature nonsense".to_owned(), Denied::Malformed),
    ] {
        let other = Policy { primary_key: Secret::new(OTHER_KEY), ..policy("other") };
        assert_eq!(verify(&[other, policy("service")], &header, "/twins/d1", NOW), Err(denied), "{header}");
    }
}

#[test]
fn clocks_may_differ_by_five_minutes() {
    let good = header("twins.contoso.example", EXPIRY, KEY, "service");
    let at = |seconds| verify(&[policy("service")], &good, "/twins/d1", NOW + Duration::from_secs(seconds));
    let left = EXPIRY - u64::try_from(NOW.unix_timestamp()).unwrap();
    assert_eq!(at(left + 300), Ok("service".to_owned()));
    assert_eq!(at(left + 301), Err(Denied::Expired));
}

#[test]
fn an_expiry_may_be_bounded() {
    let hosts = Hosts::new(&["twins.contoso.example".to_owned()]).unwrap();
    let now = u64::try_from(NOW.unix_timestamp()).unwrap();
    for (longest, ahead, expected) in [
        (None, 400_000_000, Ok(())),
        (Some(3600), 3900, Ok(())),
        (Some(3600), 3901, Err(Denied::TooLong)),
        (Some(u64::MAX), 400_000_000, Ok(())),
    ] {
        let signatures = Signatures::new(&[policy("service")], longest.map(Duration::from_secs)).unwrap();
        let header = header("twins.contoso.example", now + ahead, KEY, "service");
        let token = header.strip_prefix("SharedAccessSignature ").unwrap();
        let found = signatures.verify(token, &hosts, "/twins/d1", NOW).map(|_| ());
        assert_eq!(found, expected, "{longest:?} {ahead}");
    }
}

#[test]
fn both_keys_of_a_policy_are_good() {
    let both = Policy { secondary_key: Some(Secret::new(OTHER_KEY)), ..policy("service") };
    for key in [KEY, OTHER_KEY] {
        let header = header("twins.contoso.example", EXPIRY, key, "service");
        assert_eq!(verify(std::slice::from_ref(&both), &header, "/twins/d1", NOW), Ok("service".to_owned()));
    }
}

#[test]
fn a_plus_sign_in_a_name_is_told_from_a_space_by_the_key() {
    let plus = policy("a+b");
    let space = Policy { primary_key: Secret::new(OTHER_KEY), ..policy("a b") };
    for (key, name) in [(KEY, "a+b"), (OTHER_KEY, "a b")] {
        let header = header("twins.contoso.example", EXPIRY, key, "a+b");
        let found = verify(&[plus.clone(), space.clone()], &header, "/twins/d1", NOW);
        assert_eq!(found, Ok(name.to_owned()));
    }
}

#[test]
fn what_is_no_policy_is_refused_at_the_start() {
    let of = |policies: &[Policy]| Signatures::new(policies, None).unwrap_err();
    for name in ["", "a&b", "a%b", "a\nb"] {
        assert_eq!(of(&[policy(name)]), PolicyError::Name(name.to_owned()));
    }
    assert_eq!(of(&[policy("a"), policy("a")]), PolicyError::Twice("a".to_owned()));
    for key in ["", "no base64!", "YWJj=", "BwgJCgsMDQ4PEBESExQV"] {
        let error = of(&[Policy { secondary_key: Some(Secret::new(key)), ..policy("a") }]);
        assert_eq!(error, PolicyError::Key("a".to_owned()));
        assert!(key.is_empty() || !error.to_string().contains(key));
    }
}

#[test]
fn nothing_printed_holds_a_key() {
    let signatures = Signatures::new(&[policy("service")], None).unwrap();
    assert_eq!(format!("{signatures:?}"), r#"["service"]"#);
    assert!(!format!("{:?}", policy("service")).contains(KEY));
}
