//! Document ids: every twin has a different one, which can be parsed again, and which Cosmos DB accepts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinsync::domain::id::{DocumentIdScheme, TwinKey};

/// The parts of an id, as any percent-decoder would return them.
fn decoded(id: &str) -> Vec<String> {
    let part = |part: &str| {
        let (mut bytes, mut rest) = (Vec::new(), part.bytes());
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'%' => {
                    let digits = [rest.next().expect("two digits"), rest.next().expect("two digits")];
                    let digits = std::str::from_utf8(&digits).expect("digits");
                    u8::from_str_radix(digits, 16).expect("a hexadecimal number")
                }
                byte => byte,
            });
        }
        String::from_utf8(bytes).expect("UTF-8")
    };
    id.split('|').map(part).collect()
}

fuzz_target!(|data: (String, String, Option<String>)| {
    let (hub, device, module) = data;
    let key = match &module {
        None => TwinKey::device(hub.as_str(), device.clone()),
        Some(module) => TwinKey::module(hub.as_str(), device.clone(), module.clone()),
    };
    for scheme in [DocumentIdScheme::Device, DocumentIdScheme::HubDevice] {
        let id = scheme.document_id(&key);
        assert!(!id.contains(['/', '\\', '?', '#']) && !id.chars().any(char::is_control), "{id:?}");
        assert!(id != "." && id != "..");
        let mut expected = Vec::new();
        if scheme == DocumentIdScheme::HubDevice {
            expected.push(key.hub.as_str().to_owned());
        }
        expected.push(device.clone());
        expected.extend(module.clone());
        assert_eq!(decoded(&id), expected, "{id:?}");
    }
});
