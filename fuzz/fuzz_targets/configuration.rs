//! Settings from any environment: they give problems, but never a panic, and no problem contains a secret.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinsync::config::Settings;

/// All secrets here contain this text.
const SECRET: &str = "c2VjcmV0LXRleHQ";

const COMPLETE: [(&str, &str); 6] = [
    ("EVENTHUBS__NAMESPACE", "contoso.servicebus.windows.net"),
    ("EVENTHUBS__LIFECYCLE__HUB", "twins"),
    ("EVENTHUBS__TWIN_CHANGES__HUB", "twins"),
    ("COSMOS__ENDPOINT", "https://contoso.documents.azure.com"),
    ("COSMOS__KEY", SECRET),
    ("HTTP__TOKEN", SECRET),
];

fuzz_target!(|lines: Vec<(u8, String)>| {
    let keys: Vec<String> = {
        let settings = Settings::load(&[], environment(&[]));
        let Ok(settings) = settings else { return };
        settings.effective().iter().map(|line| line.key.clone()).collect()
    };
    let written: Vec<_> = lines
        .iter()
        .take(8)
        .map(|(which, value)| {
            let key = &keys[usize::from(*which) % keys.len()];
            (key.to_uppercase().replace('.', "__"), value.clone())
        })
        // A `_FILE` setting could name any file, and a test must not read unknown files.
        .filter(|(key, value)| !key.ends_with("_FILE") && !value.contains('\0'))
        .collect();
    match Settings::load(&[], environment(&written)) {
        Ok(settings) => {
            let listed: String = settings.effective().iter().map(|line| format!("{} = {}\n", line.key, line.value)).collect();
            assert!(!listed.contains(SECRET) && !format!("{settings:?}").contains(SECRET));
        }
        Err(error) => assert!(!error.to_string().contains(SECRET), "{error}"),
    }
});

fn environment(more: &[(String, String)]) -> impl Iterator<Item = (String, String)> {
    let complete = COMPLETE.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let all: std::collections::BTreeMap<_, _> = complete.into_iter().chain(more.iter().cloned()).collect();
    all.into_iter().map(|(name, value)| (format!("TWINSYNC__{name}"), value))
}
