//! Guarantees of loading, over all layers at once.

use std::{io::Write as _, time::Duration};

use tempfile::NamedTempFile;

use super::*;
use crate::domain::{lane::Linger, quota::Tier};

/// A minimal complete configuration for Azure.
const COMPLETE: [(&str, &str); 4] = [
    ("TWINSYNC__EVENTHUBS__NAMESPACE", "contoso.servicebus.windows.net"),
    ("TWINSYNC__EVENTHUBS__LIFECYCLE__HUB", "twins"),
    ("TWINSYNC__EVENTHUBS__TWIN_CHANGES__HUB", "Twins"),
    ("TWINSYNC__COSMOS__ENDPOINT", "https://contoso.documents.azure.com"),
];

fn load_with(files: &[PathBuf], extra: &[(&str, &str)]) -> Result<Settings, Error> {
    // Later entries of the same name win, as in a map.
    let environment = COMPLETE.iter().chain(extra);
    Settings::load(files, environment.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn refused(extra: &[(&str, &str)]) -> String {
    load_with(&[], extra).expect_err("must be refused").to_string()
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn repository_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

#[test]
fn defaults_and_raw_agree_on_every_key() {
    // `Raw` has no serde defaults and refuses unknown keys, so this fails if a key is missing on either side.
    let layers = load::Layers::read(&[], std::iter::empty());
    assert_eq!(layers.problems, []);
    layers.raw().expect("default.toml has exactly the keys of Raw");
}

#[test]
fn the_list_of_secrets_is_the_list_of_secret_fields() {
    let mut layers = load::Layers::read(&[], std::iter::empty());
    for value in layers.values.values_mut() {
        value.text = "visible".to_owned();
    }
    let printed = serde_json::to_value(layers.raw().unwrap()).unwrap();
    for key in layers.values.keys() {
        let value = printed.pointer(&format!("/{}", key.replace('.', "/"))).unwrap();
        assert_eq!(raw::SECRETS.contains(&key.as_str()), value == REDACTED, "{key}");
    }
}

#[test]
fn a_minimal_configuration_has_the_documented_defaults() {
    let settings = load_with(&[], &[]).unwrap();
    assert_eq!(settings.eventhubs.hubs(), ["twins"], "names that differ only in case are one Event Hub");
    assert_eq!(settings.eventhubs.prefetch.get(), 2000);
    assert_eq!(settings.eventhubs.start, Start::Earliest);
    assert_eq!(settings.credential.identity, Identity::Managed { client_id: None });
    assert!(settings.credential.chosen_automatically);
    assert!(settings.cosmos.binary_encoding);
    assert_eq!(settings.cosmos.request_timeout, Duration::from_secs(5));
    assert_eq!(settings.document.tombstone_ttl, Duration::from_secs(8 * 86_400));
    let linger = Linger { always: Duration::ZERO, behind: Duration::from_millis(250) };
    assert_eq!(settings.router.linger, linger);
    assert_eq!(settings.router.max_in_flight_bytes, 128 << 20);
    assert_eq!(settings.checkpoint.on_invalid, OnInvalid::Stop);
    assert_eq!(settings.lease.duration, Duration::from_secs(30));
    assert_eq!(settings.lease.renew_interval, Duration::from_secs(5));
    assert_eq!(settings.http.listen, Some("127.0.0.1:8080".parse().unwrap()));
    assert_eq!(settings.http.idle_timeout, Duration::from_secs(5));
    assert!(!settings.iothub.is_configured());
    assert_eq!((settings.iothub.tier, settings.iothub.units.get()), (Tier::S1, 1));
    assert_eq!(settings.iothub.share, 0.5);
    assert_eq!(settings.iothub.request_timeout, Duration::from_secs(10));
    assert_eq!(settings.repair.concurrency.get(), 8);
    assert_eq!(settings.repair.scan_interval, Duration::from_secs(600));
    assert_eq!(settings.backfill.on_start, BackfillOnStart::Never);
    assert_eq!(settings.backfill.concurrency.get(), 16);
    assert_eq!(settings.audit.interval, Some(Duration::from_secs(86_400)));
    assert_eq!(settings.audit.tolerance, Duration::from_secs(1800));
    assert_eq!(settings.audit.recent_checks.get(), 10_000);
    assert!(settings.audit.repair);
}

#[test]
fn the_shipped_files_load() {
    let load = |name: &str| Settings::load(&[repository_file(name)], std::iter::empty());
    let local = load("local.toml").unwrap();
    assert!(matches!(local.credential.identity, Identity::Emulator { .. }));
    assert!(!local.cosmos.binary_encoding, "`auto` is off for loopback");
    let production = load("production.example.toml").unwrap();
    assert_eq!(production.telemetry.log_format, LogFormat::Json);
    let DeadLetters::Blob(blob) = production.dead_letters else {
        panic!("the example must keep checkpoints in blobs")
    };
    assert_eq!(production.checkpoint.store, CheckpointStore::Blob(blob));
    assert_eq!(production.iothub.hubs[0].name.as_str(), "contoso");
}

#[test]
fn later_layers_win_and_every_value_knows_its_origin() {
    let first = file(
        "[cosmos]\ndatabase = \"one\"\ncontainer = \"one\"\nkey = \"c2VjcmV0\"\n[eventhubs]\nprefetch = 1000\n",
    );
    let second = file("[cosmos]\ncontainer = \"two\"\n");
    let files = [first.path().to_owned(), second.path().to_owned()];
    let settings = load_with(&files, &[("TWINSYNC__EVENTHUBS__PREFETCH", "3000")]).unwrap();
    assert_eq!(settings.cosmos.database, "one");
    assert_eq!(settings.cosmos.container, "two");
    assert_eq!(settings.eventhubs.prefetch.get(), 3000);

    let line = |key: &str| settings.effective().iter().find(|line| line.key == key).unwrap();
    assert_eq!(line("cosmos.database").origin, Origin::File(files[0].clone()));
    assert_eq!(line("cosmos.container").origin, Origin::File(files[1].clone()));
    assert_eq!(
        line("eventhubs.prefetch").origin,
        Origin::Environment("TWINSYNC__EVENTHUBS__PREFETCH".into())
    );
    assert_eq!(line("router.linger").origin, Origin::Default);
    assert_eq!(line("cosmos.key").value, REDACTED);
    assert_eq!(line("credential.token").value, "", "an unset secret must be shown as unset");
    assert!(!format!("{settings:?}").contains("c2VjcmV0"));
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_key_and_the_place() {
    let file = file("[cosmos]\nendpont = \"x\"\n[rooter]\nlinger = \"1s\"\n[empty]\n");
    let error = load_with(&[file.path().to_owned()], &[("TWINSYNC__CHECKPOINTS__PATH", "/x")])
        .expect_err("unknown keys")
        .to_string();
    let place = file.path().display().to_string();
    for expected in [
        format!("cosmos.endpont (file {place}): unknown key: did you mean cosmos.endpoint?"),
        format!("rooter.linger (file {place}): unknown key: did you mean router.linger?"),
        format!("empty (file {place}): unknown key"),
        "checkpoints.path (environment variable TWINSYNC__CHECKPOINTS__PATH): unknown key: did you mean \
         checkpoint.path?"
            .to_owned(),
    ] {
        assert!(error.contains(&expected), "{expected}\nnot in\n{error}");
    }
}

#[test]
fn counts_are_a_list_that_the_last_file_decides_and_the_environment_changes() {
    let first = file("[[counts]]\nname = \"gone\"\n[[counts]]\nname = \"gone_too\"\n");
    let second = file(
        "[[counts]]\nname = \"by_site\"\nwhere = \"tags.site != 'lab'\"\ngroup_by = [\"tags.site\", \"tags.[[a, b]]\"]\n\
         [[counts]]\nname = \"modules\"\nfrom = \"devices.modules\"\ngroup_by = \"tags.site\"\n",
    );
    let files = [first.path().to_owned(), second.path().to_owned()];
    let settings = load_with(
        &files,
        &[
            ("TWINSYNC__COUNTS__1__NAME", "edge_modules"),
            ("TWINSYNC__COUNTS__10__NAME", "last"),
            ("TWINSYNC__COUNTS__2__NAME", "third"),
        ],
    )
    .unwrap();
    let queries: Vec<_> =
        settings.counting.declared.iter().map(|count| (count.name(), count.query().to_string())).collect();
    assert_eq!(
        queries,
        [
            (
                "by_site",
                "SELECT tags.site AS tags_site, tags.[[a, b]] AS tags_a__b, COUNT() AS twins FROM devices \
                 WHERE tags.site != 'lab' GROUP BY tags.site, tags.[[a, b]]"
                    .to_owned()
            ),
            (
                "edge_modules",
                "SELECT tags.site AS tags_site, COUNT() AS twins FROM devices.modules GROUP BY tags.site"
                    .to_owned()
            ),
            ("third", "SELECT COUNT() AS twins FROM devices".to_owned()),
            ("last", "SELECT COUNT() AS twins FROM devices".to_owned()),
        ]
    );
    let listed = settings.effective().iter().find(|line| line.key == "counts.1.name").expect("is listed");
    assert_eq!(
        (listed.value.as_str(), listed.origin.to_string()),
        ("edge_modules", "environment variable TWINSYNC__COUNTS__1__NAME".to_owned())
    );
    assert_eq!(load_with(&[], &[]).unwrap().counting.declared, []);
}

#[test]
fn what_is_wrong_with_a_count_is_told_with_its_place() {
    for (text, expected) in [
        (
            "[[counts]]\nnmae = \"a\"\n",
            "counts.0.nmae (file PLACE): unknown key: did you mean counts.0.name?",
        ),
        ("[[counts]]\nwhere = \"tags.a = 1\"\n", "counts.0.name (file PLACE): is required and not set"),
        ("[counts]\nname = \"a\"\n", "counts.name (file PLACE): is a list: write [[counts]]"),
        ("counts = 3\n", "counts (file PLACE): is a list: write [[counts]]"),
        ("counts = [3]\n", "counts (file PLACE): is a list: write [[counts]]"),
        ("[[counts]]\nname = \"A b\"\n", "counts.0.name (file PLACE): \"A b\" cannot be the name of a count"),
        (
            "[[counts]]\nname = \"a\"\nfrom = \"jobs\"\n",
            "counts.0.from (file PLACE): \"jobs\" is not one of the choices",
        ),
        ("[[counts]]\nname = \"a\"\nwhere = \"tags.a =\"\n", "counts.0.where (file PLACE): at character 8"),
        (
            "[[counts]]\nname = \"a\"\nwhere = \"status = 'enabled'\"\n",
            "counts.0.where (file PLACE): status is not in any event",
        ),
        (
            "[[counts]]\nname = \"a\"\ngroup_by = \"deviceId\"\n",
            "counts.0.group_by (file PLACE): deviceId is different for every twin",
        ),
        ("[[counts]]\nname = \"a\"\ngroup_by = [3]\n", "counts.0.group_by (file PLACE): must be a path"),
        (
            "[[counts]]\nname = \"a\"\n[[counts]]\nname = \"a\"\n",
            "counts.1.name (file PLACE): \"a\" is the name of another count",
        ),
    ] {
        let file = file(text);
        let error = load_with(&[file.path().to_owned()], &[]).expect_err(text).to_string();
        let expected = expected.replace("PLACE", &file.path().display().to_string());
        assert!(error.contains(&expected), "{expected}\nnot in\n{error}");
        assert_eq!(
            error.matches("counts").count() - error.matches("[[counts]]").count(),
            1 + usize::from(expected.contains("did you mean")),
            "one line for each problem: {error}"
        );
    }
    for (key, value, expected) in [
        ("TWINSYNC__COUNTING__INTERVAL", "10ms", "too short"),
        ("TWINSYNC__COUNTING__INTERVAL", "2h", "too long"),
        ("TWINSYNC__COUNTING__RECOUNT_INTERVAL", "1s", "too short"),
        ("TWINSYNC__COUNTS__0__WEHRE", "x", "did you mean counts.0.where?"),
    ] {
        let error = refused(&[(key, value)]);
        assert!(error.contains(expected), "{error}");
    }
    let off = load_with(&[], &[("TWINSYNC__COUNTING__RECOUNT_INTERVAL", "off")]).unwrap();
    assert_eq!(off.counting.recount_interval, None);
}

#[test]
fn all_problems_come_at_once_one_line_each() {
    let error = Settings::load(
        &[PathBuf::from("/does/not/exist.toml")],
        [("TWINSYNC__ROUTER__LINGER", "5"), ("TWINSYNC__EVENTHUBS__PREFETCH", "0"), ("TWINSYNC__NOPE", "1")]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    )
    .expect_err("several problems");
    let keys: Vec<_> = error.problems.iter().map(|problem| problem.key.as_deref()).collect();
    for key in [
        None, // the file
        Some("nope"),
        Some("router.linger"),
        Some("eventhubs.prefetch"),
        Some("eventhubs.namespace"),
        Some("eventhubs.lifecycle.hub"),
        Some("eventhubs.twin_changes.hub"),
        Some("cosmos.endpoint"),
    ] {
        assert!(keys.contains(&key), "{key:?} not in {keys:?}");
    }
    assert_eq!(error.to_string().lines().count(), 1 + error.problems.len());
}

#[test]
fn a_section_or_list_in_the_place_of_a_value_is_explained() {
    let file = file("cosmos = \"x\"\n[eventhubs]\nnamespace = [\"a\"]\n[router.linger]\nx = 1\n");
    let error = load_with(&[file.path().to_owned()], &[]).expect_err("wrong shapes").to_string();
    assert!(error.contains("cosmos (file") && error.contains("is a section"), "{error}");
    assert!(error.contains("must be a single value"), "{error}");
    assert!(error.contains("router.linger.x"), "{error}");
}

#[test]
fn values_that_are_commonly_mistaken_say_what_to_write() {
    for (name, value, hint) in [
        (
            "EVENTHUBS__NAMESPACE",
            "Endpoint=sb://c.servicebus.windows.net/;SharedAccessKeyName=a;SharedAccessKey=c2VjcmV0",
            "connection string",
        ),
        ("EVENTHUBS__NAMESPACE", "sb://contoso.servicebus.windows.net", "write only the host name"),
        ("EVENTHUBS__NAMESPACE", "contoso", "\"contoso.servicebus.windows.net\""),
        ("EVENTHUBS__NAMESPACE", "con toso.net", "not a host name"),
        ("EVENTHUBS__ENDPOINT", "127.0.0.1:5672", "amqp://127.0.0.1:5672"),
        ("EVENTHUBS__ENDPOINT", "amqp://u:p@127.0.0.1:5672", "user name or password"),
        ("EVENTHUBS__PREFETCH", "0", "from 1 to 50000"),
        ("EVENTHUBS__START", "oldest", "\"earliest\", \"latest\""),
        ("EVENTHUBS__CONSUMER_GROUP", "a/b", "is not a name"),
        ("COSMOS__ENDPOINT", "http://contoso.documents.azure.com", "is not https"),
        ("COSMOS__ENDPOINT", "AccountEndpoint=https://c;AccountKey=c2VjcmV0;", "connection string"),
        ("COSMOS__KEY", "not base64!", "is not base64"),
        ("COSMOS__REQUEST_TIMEOUT", "200ms", "too short"),
        ("COSMOS__CONCURRENCY_MAX", "many", "whole number"),
        ("DOCUMENT__TOMBSTONE_TTL", "1500ms", "whole seconds"),
        ("ROUTER__MAX_IN_FLIGHT_BYTES", "1KiB", "raise it"),
        ("CHECKPOINT__STORE", "blob", "https://contoso.blob.core.windows.net/twinsync"),
        ("DEAD_LETTERS__STORE", "blob", "is needed for dead_letters.store"),
        ("DEAD_LETTERS__STORE", "queue", "blob"),
        ("BLOB__CONTAINER_URL", "https://c.blob.core.windows.net/", "name of a container"),
        ("BLOB__CONTAINER_URL", "https://c.blob.core.windows.net/Twins", "lower-case"),
        ("BLOB__CONTAINER_URL", "c.blob.core.windows.net/twins", "is not a URL"),
        ("BLOB__CONTAINER_URL", "ftp://c/twins?sig=c2VjcmV0", "is not an https address"),
        ("BLOB__CONTAINER_URL", "https://u:c2VjcmV0@c/twins", "user name or password"),
        ("BLOB__CONTAINER_URL", "https://c/twins?sp=rl&se=c2VjcmV0", "sig= is missing"),
        ("BLOB__CONTAINER_URL", "https://c/twins/x?sr=b&sig=c2VjcmV0", "name of a container"),
        ("BLOB__CONTAINER_URL", "https://c/twins?sr=b&sig=c2VjcmV0", "single blob"),
        ("BLOB__CONTAINER_URL", "http://storage/a/twins?sig=c2VjcmV0", "signature to the network"),
        ("BLOB__CONTAINER_URL", "http://127.0.0.1/a/twins", "append a SAS"),
        ("BLOB__CONTAINER_URL", "AccountName=c;AccountKey=c2VjcmV0", "connection string"),
        ("BLOB__API_VERSION", "latest", "2025-11-05"),
        ("LEASE__DURATION", "14s", "3 times lease.renew_interval"),
        ("LEASE__RENEW_INTERVAL", "11s", "3 times"),
        ("LEASE__RENEW_INTERVAL", "0s", "longer than 0"),
        ("CHECKPOINT__INTERVAL", "0s", "longer than 0"),
        ("HTTP__LISTEN", "8080", "IP address with a port"),
        ("HTTP__IDLE_TIMEOUT", "soon", "duration"),
        ("HTTP__IDLE_TIMEOUT", "30", "has no unit"),
        ("HTTP__IDLE_TIMEOUT", "0s", "\"1s\" to \"10m\""),
        ("HTTP__IDLE_TIMEOUT", "999ms", "\"1s\" to \"10m\""),
        ("HTTP__IDLE_TIMEOUT", "601s", "\"1s\" to \"10m\""),
        ("TELEMETRY__LOG_FILTER", "twinsync=loud", "not a log filter"),
        ("CHECKPOINT__ON_INVALID", "earliest_and_audit", "needs a hub to compare with"),
        ("IOTHUB__HOSTS", "contoso", "\"contoso.azure-devices.net\""),
        ("IOTHUB__HOSTS", "https://contoso.azure-devices.net", "is a URL"),
        ("IOTHUB__HOSTS", "contoso..net", "not a host name"),
        ("IOTHUB__HOSTS", "a.azure-devices.net A.azure-devices.net", "\"a\" twice"),
        (
            "IOTHUB__HOSTS",
            "HostName=a.b;SharedAccessKeyName=p;SharedAccessKey=c2VjcmV0",
            "use iothub.connection_strings",
        ),
        ("IOTHUB__CONNECTION_STRINGS", "a.azure-devices.net", "without \"=\""),
        (
            "IOTHUB__CONNECTION_STRINGS",
            "HostName=a.b;SharedAccessKey=c2VjcmV0",
            "without SharedAccessKeyName",
        ),
        ("IOTHUB__CONNECTION_STRINGS", "HostName=a.b;SharedAccessKeyName=p", "without SharedAccessKey:"),
        ("IOTHUB__CONNECTION_STRINGS", "HostName=a.b;DeviceId=d;SharedAccessKey=c2VjcmV0", "ServiceConnect"),
        (
            "IOTHUB__CONNECTION_STRINGS",
            "Endpoint=sb://c.servicebus.windows.net/;SharedAccessKeyName=a;SharedAccessKey=c2VjcmV0",
            "of Event Hubs",
        ),
        (
            "IOTHUB__CONNECTION_STRINGS",
            "HostName=a.b;SharedAccessKeyName=p;SharedAccessKey=c2VjcmV0;HostName=c.d",
            "part appears twice",
        ),
        (
            "IOTHUB__CONNECTION_STRINGS",
            "HostName=a.b;SharedAccessKeyName=p;SharedAccessKey=c2VjcmV0!",
            "not base64",
        ),
        ("IOTHUB__CONNECTION_STRINGS", "HostName=a.b;SharedAccessSignature=c2VjcmV0", "would expire"),
        (
            "IOTHUB__CONNECTION_STRINGS",
            "HostName=a.b;Key=c2VjcmV0",
            "does not belong in a connection string of an IoT hub",
        ),
        ("IOTHUB__ENDPOINT", "127.0.0.1:8090", "http://127.0.0.1:8090"),
        ("IOTHUB__ENDPOINT", "http://u:c2VjcmV0@127.0.0.1", "user name or password"),
        ("IOTHUB__ENDPOINT", "http://devkit:8090", "to the network"),
        ("IOTHUB__ENDPOINT", "amqp://127.0.0.1", "is not an http address"),
        ("IOTHUB__ENDPOINT", "https://127.0.0.1/?x=1", "more than an address"),
        ("IOTHUB__ENDPOINT", "nobody=http://127.0.0.1:8090", "\"nobody\", which is not a configured hub"),
        ("IOTHUB__ENDPOINT", "a=http://127.0.0.1:1,A=http://127.0.0.1:2", "two addresses for the hub \"a\""),
        ("IOTHUB__ENDPOINT", "http://127.0.0.1:1,http://127.0.0.1:2", "without the names of their hubs"),
        ("IOTHUB__ENDPOINT", "http://127.0.0.1:1,a=http://127.0.0.1:2", "without the names of their hubs"),
        ("IOTHUB__ENDPOINT", "a=127.0.0.1:8090", "http://127.0.0.1:8090"),
        ("IOTHUB__TIER", "b1", "\"s1\""),
        ("IOTHUB__UNITS", "201", "from 1 to 200"),
        ("IOTHUB__SHARE", "0", "above 0 and up to 1"),
        ("IOTHUB__SHARE", "1.01", "above 0 and up to 1"),
        ("IOTHUB__SHARE", "NaN", "above 0 and up to 1"),
        ("IOTHUB__SHARE", "50%", "above 0 and up to 1"),
        ("EVENTHUBS__PARTITION_DISCOVERY_INTERVAL", "500ms", "\"1s\" to \"30m\""),
        ("EVENTHUBS__PARTITION_DISCOVERY_INTERVAL", "1h", "\"1s\" to \"30m\""),
        ("IOTHUB__REQUEST_TIMEOUT", "0s", "longer than 0"),
        ("REPAIR__CONCURRENCY", "65", "from 1 to 64"),
        ("REPAIR__SCAN_INTERVAL", "0s", "longer than 0"),
        ("BACKFILL__ON_START", "if_empty", "needs a hub to copy from"),
        ("BACKFILL__ON_START", "always", "\"never\", \"if_empty\""),
        ("BACKFILL__CONCURRENCY", "0", "from 1 to 256"),
        ("AUDIT__INTERVAL", "59s", "\"1m\" or more, or \"off\""),
        ("AUDIT__TOLERANCE", "soon", "duration"),
        ("AUDIT__REPAIR", "yes", "\"on\", \"off\""),
        ("CREDENTIAL__KIND", "emulator", "credential.token"),
        ("CREDENTIAL__KIND", "client_secret", "AZURE_CLIENT_SECRET"),
        ("CREDENTIAL__KIND", "workload", "AZURE_FEDERATED_TOKEN_FILE"),
    ] {
        let error = refused(&[(&format!("TWINSYNC__{name}"), value)]);
        assert!(error.contains(hint), "{name} = {value}: {hint:?} not in\n{error}");
        assert!(!error.contains("c2VjcmV0"), "a secret in\n{error}");
    }
}

#[test]
fn auto_is_decided_by_the_environment_and_our_own_keys_win() {
    let identity = |extra: &[(&str, &str)]| load_with(&[], extra).unwrap().credential.identity;
    let federated = [
        ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token"),
        ("AZURE_CLIENT_SECRET", "s"),
        ("AZURE_TENANT_ID", "t"),
        ("AZURE_CLIENT_ID", "c"),
    ];
    assert!(matches!(identity(&federated), Identity::Workload { tenant_id, .. } if tenant_id == "t"));
    let own = [&federated[1..], &[("TWINSYNC__CREDENTIAL__CLIENT_ID", "ours")]].concat();
    assert!(matches!(
        identity(&own),
        Identity::ClientSecret { client_id, client_secret, .. } if client_id == "ours" && client_secret.expose() == "s"
    ));
    assert_eq!(identity(&federated[3..]), Identity::Managed { client_id: Some("c".into()) });
    assert_eq!(
        identity(&[("AZURE_FEDERATED_TOKEN_FILE", "")]),
        Identity::Managed { client_id: None },
        "an empty variable is not set"
    );
}

#[test]
fn real_tokens_never_travel_in_the_clear_and_emulator_tokens_never_to_azure() {
    let error = refused(&[("TWINSYNC__EVENTHUBS__ENDPOINT", "amqp://broker:5672")]);
    assert!(error.contains("plain text"), "{error}");
    let error = refused(&[("TWINSYNC__COSMOS__ENDPOINT", "http://127.0.0.1:8081")]);
    assert!(error.contains("http would show"), "{error}");
    let emulator = [("TWINSYNC__CREDENTIAL__KIND", "emulator"), ("TWINSYNC__CREDENTIAL__TOKEN", "t")];
    let error = refused(&emulator);
    assert!(error.contains("needs eventhubs.endpoint"), "{error}");
    assert!(error.contains("this account does not accept"), "{error}");
    let complete = [
        emulator[0],
        emulator[1],
        ("TWINSYNC__EVENTHUBS__ENDPOINT", "amqp://broker:5672"),
        ("TWINSYNC__COSMOS__ENDPOINT", "http://cosmos:8081"),
        ("AZURE_COSMOS_EMULATOR_HOST", "cosmos"),
    ];
    let settings = load_with(&[], &complete).unwrap();
    assert!(!settings.cosmos.binary_encoding, "auto is off for an emulator's host");
}

#[test]
fn a_container_is_named_with_or_without_signature_and_shown_without() {
    let with = |url: &str, extra: &[(&str, &str)]| {
        let own = [("TWINSYNC__BLOB__CONTAINER_URL", url), ("TWINSYNC__CHECKPOINT__STORE", "blob")];
        load_with(&[], &[&own[..], extra].concat()).unwrap()
    };
    let shown = |settings: &Settings| {
        let line = settings.effective().iter().find(|line| line.key == "blob.container_url").unwrap();
        line.value.clone()
    };
    let url = |settings: &Settings| match &settings.checkpoint.store {
        CheckpointStore::Blob(blob) => blob.container_url.expose().to_owned(),
        other => panic!("{other:?}"),
    };
    let settings =
        with("https://c.blob.core.windows.net/twins/", &[("TWINSYNC__BLOB__API_VERSION", "2025-11-05")]);
    assert_eq!(url(&settings), "https://c.blob.core.windows.net/twins", "no slash at the end");
    assert_eq!(shown(&settings), "https://c.blob.core.windows.net/twins/");
    let settings = with("https://c.blob.core.windows.net/twins/?sv=1&sig=c2VjcmV0%3D", &[]);
    assert_eq!(url(&settings), "https://c.blob.core.windows.net/twins?sv=1&sig=c2VjcmV0%3D");
    assert_eq!(shown(&settings), "https://c.blob.core.windows.net/twins/?[redacted]");
    assert!(!format!("{settings:?}").contains("c2VjcmV0"));
    // An emulator in another container of a compose file.
    let emulated = [
        ("TWINSYNC__CREDENTIAL__KIND", "emulator"),
        ("TWINSYNC__CREDENTIAL__TOKEN", "t"),
        ("TWINSYNC__EVENTHUBS__ENDPOINT", "amqp://broker:5672"),
        ("TWINSYNC__COSMOS__KEY", "c2VjcmV0"),
    ];
    with("http://storage:10000/devstoreaccount1/twins?sig=x", &emulated);
    let error = refused(&[&emulated[..], &[("TWINSYNC__BLOB__CONTAINER_URL", "https://c/twins")]].concat());
    assert!(error.contains("this account does not accept"), "{error}");
}

#[test]
fn hubs_are_named_by_host_or_by_connection_string() {
    let strings = "HostName=Fabrikam.azure-devices.net;SharedAccessKeyName=service;SharedAccessKey=c2VjcmV0,\
                   HostName=tailspin.azure-devices.net;SharedAccessKeyName=own;SharedAccessKey=c2VjcmV0;";
    let settings = load_with(
        &[],
        &[
            ("TWINSYNC__IOTHUB__HOSTS", " Contoso.azure-devices.net,  wingtip.azure-devices.net "),
            ("TWINSYNC__IOTHUB__CONNECTION_STRINGS", strings),
            ("TWINSYNC__CHECKPOINT__ON_INVALID", "earliest_and_audit"),
            ("TWINSYNC__BACKFILL__ON_START", "if_empty"),
            ("TWINSYNC__AUDIT__INTERVAL", "off"),
            ("TWINSYNC__AUDIT__TOLERANCE", "0s"),
            ("TWINSYNC__AUDIT__REPAIR", "off"),
        ],
    )
    .unwrap();
    let hubs: Vec<_> =
        settings.iothub.hubs.iter().map(|hub| (hub.name.as_str(), hub.host.as_str())).collect();
    assert_eq!(
        hubs,
        [
            ("contoso", "contoso.azure-devices.net"),
            ("wingtip", "wingtip.azure-devices.net"),
            ("fabrikam", "fabrikam.azure-devices.net"),
            ("tailspin", "tailspin.azure-devices.net"),
        ],
        "names of hubs must have one spelling"
    );
    assert_eq!(settings.iothub.hubs[1].access, HubAccess::Credential);
    let HubAccess::Policy { name, key } = &settings.iothub.hubs[3].access else {
        panic!("the hub has no policy")
    };
    assert_eq!((name.as_str(), key.expose()), ("own", "c2VjcmV0"));
    assert_eq!(settings.checkpoint.on_invalid, OnInvalid::EarliestAndAudit);
    assert_eq!(settings.backfill.on_start, BackfillOnStart::IfEmpty);
    assert_eq!((settings.audit.interval, settings.audit.tolerance), (None, Duration::ZERO));
    assert!(!settings.audit.repair);
    let shown = format!("{settings:?}");
    assert!(!shown.contains("c2VjcmV0"), "{shown}");
    let line = settings.effective().iter().find(|line| line.key == "iothub.connection_strings").unwrap();
    assert_eq!(line.value, REDACTED);
}

#[test]
fn a_hub_named_both_ways_is_refused_and_its_key_not_shown() {
    let error = refused(&[
        ("TWINSYNC__IOTHUB__HOSTS", "contoso.azure-devices.net"),
        (
            "TWINSYNC__IOTHUB__CONNECTION_STRINGS",
            "HostName=Contoso.azure-devices.net;SharedAccessKeyName=p;SharedAccessKey=c2VjcmV0",
        ),
    ]);
    assert!(error.contains("\"contoso\", which iothub.hosts names too"), "{error}");
    assert!(!error.contains("c2VjcmV0"), "{error}");
}

#[test]
fn emulators_stand_for_all_hubs_or_each_for_its_own() {
    let hosts = ("TWINSYNC__IOTHUB__HOSTS", "Contoso.azure-devices.net, fabrikam.azure-devices.net");
    let emulator = ("TWINSYNC__CREDENTIAL__KIND", "emulator");
    let rest = [
        ("TWINSYNC__CREDENTIAL__TOKEN", "t"),
        ("TWINSYNC__EVENTHUBS__ENDPOINT", "amqp://broker:5672"),
        ("TWINSYNC__COSMOS__KEY", "c2VjcmV0"),
    ];
    let with = |endpoint| [&[hosts, emulator, ("TWINSYNC__IOTHUB__ENDPOINT", endpoint)][..], &rest].concat();
    let dialled = |endpoint| {
        let hubs = load_with(&[], &with(endpoint)).unwrap().iothub.hubs;
        let urls = hubs.into_iter().map(|hub| hub.endpoint.map(String::from).unwrap_or_default());
        urls.collect::<Vec<_>>()
    };
    let (one, other) = ("http://devkit:8091/", "http://devkit:8092/");
    assert_eq!(dialled(one), [one, one]);
    assert_eq!(
        dialled("Fabrikam=http://devkit:8092 CONTOSO.azure-devices.net=http://devkit:8091"),
        [one, other]
    );
    let error = refused(&with("contoso=http://devkit:8091"));
    assert!(error.contains("Azure does not accept"), "{error}");
}

#[test]
fn a_hub_never_sees_an_emulators_token_nor_the_network_a_real_one() {
    let hosts = ("TWINSYNC__IOTHUB__HOSTS", "contoso.azure-devices.net");
    let endpoint = |url| ("TWINSYNC__IOTHUB__ENDPOINT", url);
    let error = refused(&[hosts, endpoint("http://127.0.0.1:8090")]);
    assert!(error.contains("real token of [credential]"), "{error}");
    load_with(&[], &[hosts, endpoint("https://127.0.0.1:8090")]).unwrap();
    let strings = (
        "TWINSYNC__IOTHUB__CONNECTION_STRINGS",
        "HostName=contoso.azure-devices.net;SharedAccessKeyName=p;SharedAccessKey=c2VjcmV0",
    );
    load_with(&[], &[strings, endpoint("http://127.0.0.1:8090")]).unwrap();
    let emulated = [
        ("TWINSYNC__CREDENTIAL__KIND", "emulator"),
        ("TWINSYNC__CREDENTIAL__TOKEN", "t"),
        ("TWINSYNC__EVENTHUBS__ENDPOINT", "amqp://broker:5672"),
        ("TWINSYNC__COSMOS__KEY", "c2VjcmV0"),
        hosts,
    ];
    let error = refused(&emulated);
    assert!(error.contains("Azure does not accept"), "{error}");
    load_with(&[], &[&emulated[..], &[endpoint("http://devkit:8090")]].concat()).unwrap();
}

#[test]
fn port_of_the_platform_decides_unless_somebody_said_otherwise() {
    let listen = |extra: &[(&str, &str)]| load_with(&[], extra).unwrap().http.listen;
    assert_eq!(listen(&[("PORT", "9000")]), Some("0.0.0.0:9000".parse().unwrap()));
    let explicit = ("TWINSYNC__HTTP__LISTEN", "[::1]:1234");
    assert_eq!(listen(&[explicit]), Some("[::1]:1234".parse().unwrap()));
    assert_eq!(
        listen(&[explicit, ("PORT", "9000")]),
        Some("[::1]:1234".parse().unwrap()),
        "PORT must not open more addresses"
    );
    assert_eq!(listen(&[("TWINSYNC__HTTP__LISTEN", "off"), ("PORT", "9000")]), None);
    let error = refused(&[("PORT", "http")]);
    assert!(error.contains("http.listen (environment variable PORT)"), "{error}");
}

#[test]
fn the_token_comes_from_one_place_as_it_is_and_is_never_shown() {
    const TOKEN: &str = "c2VjcmV0-0123456789abcdef01234567";
    assert_eq!(load_with(&[], &[]).unwrap().http.token, None, "off by default");
    let (written, kept) = (file(&format!("[http]\ntoken = \"{TOKEN}\"\n")), file(&format!("{TOKEN}\n")));
    let path = kept.path().to_str().unwrap();
    for settings in [
        load_with(&[written.path().to_owned()], &[]),
        load_with(&[], &[("TWINSYNC__HTTP__TOKEN", TOKEN)]),
        load_with(&[], &[("TWINSYNC__HTTP__TOKEN_FILE", path)]),
    ] {
        let settings = settings.unwrap();
        assert_eq!(settings.http.token, Some(Secret::new(TOKEN)));
        assert!(!format!("{settings:?}").contains("c2VjcmV0"), "{settings:?}");
    }
    let padded = format!("{TOKEN} ");
    for (extra, hint) in [
        (vec![("TWINSYNC__HTTP__TOKEN", padded.as_str())], "begins or ends with white space"),
        (vec![("TWINSYNC__HTTP__TOKEN", "c2VjcmV0")], "openssl rand -hex 32"),
        (
            vec![("TWINSYNC__HTTP__TOKEN", TOKEN), ("TWINSYNC__HTTP__TOKEN_FILE", path)],
            "http.token_file (environment variable TWINSYNC__HTTP__TOKEN_FILE): is set together with http.token",
        ),
        (vec![("TWINSYNC__HTTP__TOKEN_FILE", "/nowhere")], "cannot be read"),
    ] {
        let error = refused(&extra);
        assert!(error.contains(hint) && !error.contains("c2VjcmV0"), "{error}");
    }
}

#[test]
fn an_account_endpoint_holds_nothing_that_must_not_be_shown() {
    for text in [
        "https://user:hunter2@contoso.documents.azure.com",
        "https://contoso.documents.azure.com/?sig=hunter2",
        "https://contoso.documents.azure.com/#hunter2",
        "https://contoso.documents.azure.com/dbs/hunter2",
        "https//contoso/hunter2",
    ] {
        let error = refused(&[("TWINSYNC__COSMOS__ENDPOINT", text)]);
        assert!(error.contains("cosmos.endpoint") && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn what_can_only_be_a_slip_of_the_finger_is_refused() {
    for (name, text, says) in [
        ("TWINSYNC__LEASE__DURATION", "99999d", "at most \"1h\""),
        ("TWINSYNC__LEASE__RENEW_INTERVAL", "2h", "at most \"1h\""),
        ("TWINSYNC__SHUTDOWN__DRAIN_TIMEOUT", "10d", "at most \"1h\""),
        ("TWINSYNC__SHUTDOWN__DRAIN_TIMEOUT", "0s", "longer than 0"),
        ("TWINSYNC__DOCUMENT__TOMBSTONE_TTL", "1s", "at least \"1d\""),
        ("TWINSYNC__TELEMETRY__LOG_FILTER", " ", "is empty"),
        ("TWINSYNC__HTTP__BLOCKED_AFTER", "0s", "longer than 0"),
    ] {
        let error = refused(&[(name, text)]);
        assert!(error.contains(says), "{name}={text}: {error}");
    }
    load_with(&[], &[("TWINSYNC__DOCUMENT__TOMBSTONE_TTL", "1d"), ("TWINSYNC__EVENTHUBS__RETENTION", "23h")])
        .unwrap();
    for (text, repair) in [("true", true), ("on", true), ("false", false), ("off", false)] {
        assert_eq!(load_with(&[], &[("TWINSYNC__AUDIT__REPAIR", text)]).unwrap().audit.repair, repair);
        let file = file(&format!(
            "[audit]\nrepair = {}\n",
            if text.starts_with(['t', 'f']) { text.to_owned() } else { format!("\"{text}\"") }
        ));
        assert_eq!(load_with(&[file.path().to_owned()], &[]).unwrap().audit.repair, repair);
    }
}

#[test]
fn single_underscores_are_caught_and_other_names_left_alone() {
    let error = refused(&[("TWINSYNC_COSMOS_DATABASE", "x")]);
    assert!(error.contains("use TWINSYNC__COSMOS__DATABASE"), "{error}");
    // The variables that Kubernetes sets for a service named twinsync.
    load_with(&[], &[("TWINSYNC_PORT", "tcp://10.0.0.1:80"), ("TWINSYNC_SERVICE_HOST", "10.0.0.1")]).unwrap();
}

#[test]
fn the_error_code_has_a_page() {
    let page = format!("{}/docs/errors/{}.md", env!("CARGO_MANIFEST_DIR"), Error::CODE);
    assert!(std::path::Path::new(&page).exists(), "{page}");
}

#[test]
fn what_is_not_utf8_is_refused_where_it_is_ours() {
    let error = refused(&[("TWINSYNC__COSMOS__KEY", "a\u{FFFD}")]);
    assert!(error.contains("not valid UTF-8"), "{error}");
    load_with(&[], &[("SOMETHING_ELSE", "a\u{FFFD}")]).unwrap();
}

#[test]
fn retention_is_one_that_event_hubs_knows_and_shorter_than_tombstones_last() {
    for wrong in ["30m", "91d", "", "soon"] {
        assert!(
            refused(&[("TWINSYNC__EVENTHUBS__RETENTION", wrong)]).contains("eventhubs.retention"),
            "{wrong}"
        );
    }
    let message = refused(&[("TWINSYNC__EVENTHUBS__RETENTION", "8d")]);
    assert!(
        message.contains("document.tombstone_ttl") && message.contains("eventhubs.retention"),
        "{message}"
    );
    let longer = [("TWINSYNC__EVENTHUBS__RETENTION", "8d"), ("TWINSYNC__DOCUMENT__TOMBSTONE_TTL", "9d")];
    let settings = load_with(&[], &longer).expect("fits");
    assert_eq!(settings.eventhubs.retention, Duration::from_secs(8 * 86_400));
}

#[test]
fn where_a_daemon_listens_is_found_without_the_rest_of_its_configuration() {
    let listen = |environment: &[(&str, &str)]| {
        let pairs = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        listen_address(&[], pairs.collect::<Vec<_>>().into_iter())
    };
    // As in the image: the required keys are in a file that the health check does not receive.
    let found =
        listen(&[("TWINSYNC__HTTP__LISTEN", "0.0.0.0:8080"), ("TWINSYNC__COSMOS__ENDPOINT", "nonsense")]);
    assert_eq!(found.unwrap(), Some("0.0.0.0:8080".parse().unwrap()));
    assert_eq!(listen(&[("TWINSYNC__HTTP__LISTEN", "off")]).unwrap(), None);
    assert_eq!(listen(&[("PORT", "9000")]).unwrap(), Some("0.0.0.0:9000".parse().unwrap()));
    let error = listen(&[("TWINSYNC__HTTP__LISTEN", "everywhere")]).unwrap_err().to_string();
    assert!(error.contains("http.listen"), "{error}");
    let missing = [PathBuf::from("/nowhere/twinsync.toml")];
    assert!(listen_address(&missing, std::iter::empty()).unwrap_err().to_string().contains("/nowhere"));
}

#[test]
fn the_end_of_a_signature_is_read_from_the_url() {
    use crate::domain::ticks::Ticks;
    let ends = |query: &str| {
        let url = format!("https://a.blob.core.windows.net/twins{query}");
        Blob { container_url: Secret::new(&url), api_version: None }.signature_ends()
    };
    let end = Ticks::parse("2031-05-04T10:00:00Z");
    assert_eq!(ends("?sp=rwdlc&se=2031-05-04T10%3A00%3A00Z&sig=x"), end);
    assert_eq!(ends("?se=2031-05-04T10:00Z&sig=x"), end);
    assert_eq!(ends("?se=2031-05-04&sig=x"), Ticks::parse("2031-05-04T00:00:00Z"));
    assert_eq!(ends("?si=policy&sig=x"), None);
    assert_eq!(ends("?se=soon&sig=x"), None);
    assert_eq!(ends(""), None);
}

#[test]
fn traces_are_off_until_an_endpoint_is_given_and_get_the_path_of_the_protocol() {
    assert!(load_with(&[], &[]).unwrap().otlp.is_none());
    for (written, url) in [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("https://otlp.example/tenant/", "https://otlp.example/tenant/v1/traces"),
    ] {
        let otlp = load_with(&[], &[("TWINSYNC__OTLP__ENDPOINT", written)]).unwrap().otlp.expect("on");
        assert_eq!(otlp.endpoint.as_str(), url);
        assert_eq!(otlp.sample_ratio.get(), 0.01);
        assert_eq!((otlp.device_ids, otlp.slow_after), (false, Some(Duration::from_secs(10))));
    }
    for (key, value) in [
        ("TWINSYNC__OTLP__ENDPOINT", "127.0.0.1:4318"),
        ("TWINSYNC__OTLP__ENDPOINT", "grpc://collector:4317"),
        ("TWINSYNC__OTLP__ENDPOINT", "https://me:hush@otlp.example"),
        ("TWINSYNC__OTLP__SAMPLE_RATIO", "1.5"),
        ("TWINSYNC__OTLP__SAMPLE_RATIO", "10%"),
        ("TWINSYNC__OTLP__HEADERS", "Authorization"),
        ("TWINSYNC__OTLP__HEADERS", "a b=hush"),
        ("TWINSYNC__OTLP__HEADERS", "a=hush%0Ax"),
        ("TWINSYNC__OTLP__MAX_QUEUED_SPANS", "0"),
        ("TWINSYNC__OTLP__SERVICE_NAME", ""),
    ] {
        let error = load_with(&[], &[(key, value)]).expect_err(value).to_string();
        assert!(error.contains("otlp.") && !error.contains("hush"), "{error}");
    }
}

#[test]
fn the_variables_of_opentelemetry_count_where_ours_are_not_set() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://agent:4318");
    let others = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=a%2Cb, x-tenant=7"),
        ("OTEL_SERVICE_NAME", "copy"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod"),
    ];
    let given: Vec<_> = others.into_iter().chain([endpoint]).collect();
    let settings = load_with(&[], &given).unwrap();
    let otlp = settings.otlp.as_ref().expect("on");
    assert_eq!(otlp.endpoint.as_str(), "http://agent:4318/v1/traces");
    assert_eq!(otlp.service_name, "copy");
    let headers: Vec<_> = otlp.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(headers, [("x-token", "a,b"), ("x-tenant", "7")]);
    let shown = |key: &str| settings.effective().iter().find(|line| line.key == key).expect("a key").clone();
    assert!(shown("otlp.endpoint").origin.to_string().contains("OTEL_EXPORTER_OTLP_ENDPOINT"));
    assert_eq!(shown("otlp.headers").value, REDACTED);

    let ours = [endpoint, ("TWINSYNC__OTLP__ENDPOINT", "http://own:4318")];
    assert_eq!(load_with(&[], &ours).unwrap().otlp.expect("on").endpoint.host_str(), Some("own"));
    for other in [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_SDK_DISABLED", "true")] {
        assert!(load_with(&[], &[endpoint, other]).unwrap().otlp.is_none(), "{other:?}");
        assert!(
            load_with(&[], &[ours[1], other]).unwrap().otlp.is_some(),
            "our own settings do not depend on the SDK's variables"
        );
    }
    assert!(
        load_with(&[], &[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]).unwrap().otlp.is_some()
    );
}
