//! Certificates that change while connections are open, and files that cannot be used.

use std::{fs, path::Path};

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tempfile::TempDir;
use time::macros::datetime;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::mpsc,
    task::JoinHandle,
    time::Instant,
};
use tokio_rustls::{TlsConnector, client};

use super::*;

const NAME: &str = "twins.contoso.example";
/// Made by `openssl genrsa -traditional`, `openssl ecparam -genkey`, which writes the curve before the key, and `openssl
/// genpkey`; the last is encrypted. They protect nothing.
const PKCS1: &str = include_str!("tests/pkcs1.pem");
const SEC1: &str = include_str!("tests/sec1.pem");
const PKCS8: &str = include_str!("tests/pkcs8.pem");
const ENCRYPTED: &str = include_str!("tests/encrypted.pem");

/// A certificate and its key, in PEM.
struct Made {
    certificate: String,
    key: String,
    der: CertificateDer<'static>,
}

fn made_with(key: &KeyPair, pem: String, expires_at: OffsetDateTime) -> Made {
    let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
    params.not_after = expires_at;
    let certificate = params.self_signed(key).unwrap();
    Made { certificate: certificate.pem(), key: pem, der: certificate.der().clone() }
}

fn made(expires_at: OffsetDateTime) -> Made {
    let key = KeyPair::generate().unwrap();
    made_with(&key, key.serialize_pem(), expires_at)
}

const FIRST: OffsetDateTime = datetime!(2100-01-01 00:00 UTC);
const SECOND: OffsetDateTime = datetime!(2101-01-01 00:00 UTC);

fn files(directory: &Path) -> Files {
    Files { certificate: directory.join("tls.crt"), key: directory.join("tls.key") }
}

fn write(files: &Files, certificate: &str, key: &str) {
    fs::write(&files.certificate, certificate).unwrap();
    fs::write(&files.key, key).unwrap();
}

async fn loaded(made: &Made) -> (TempDir, Files, Tls, Rotation) {
    let directory = TempDir::new().unwrap();
    let files = files(directory.path());
    write(&files, &made.certificate, &made.key);
    let (tls, rotation) = Tls::load(files.clone()).await.unwrap();
    (directory, files, tls, rotation)
}

/// A connection of a client that trusts only `trusted`. The server sends back what it receives.
async fn connect(
    tls: &Tls,
    trusted: &Made,
    version: &'static SupportedProtocolVersion,
) -> io::Result<(client::TlsStream<DuplexStream>, JoinHandle<()>)> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der.clone()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let (near, far) = duplex(1 << 16);
    let tls = tls.clone();
    let server = tokio::spawn(async move {
        let Ok(mut stream) = tls.accept(far).await else { return };
        let mut byte = [0];
        while stream.read_exact(&mut byte).await.is_ok() {
            stream.write_all(&byte).await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(ServerName::try_from(NAME).unwrap(), near).await?;
    Ok((stream, server))
}

/// The end of the certificate in the event, if the event reports a new one.
fn changed(event: Option<&CertificateEvent>) -> Option<OffsetDateTime> {
    match event {
        Some(CertificateEvent::Changed { expires_at }) => Some(*expires_at),
        Some(CertificateEvent::Kept { .. }) | None => None,
    }
}

async fn is_alive(stream: &mut client::TlsStream<DuplexStream>) -> bool {
    stream.write_all(b"x").await.unwrap();
    stream.flush().await.unwrap();
    stream.read_u8().await.unwrap() == b'x'
}

#[tokio::test]
async fn both_versions_are_spoken_and_http_1_1_is_agreed_on() {
    let made = made(FIRST);
    let (_directory, _, tls, _) = loaded(&made).await;
    assert_eq!(tls.expires_at(), FIRST);
    for (version, expected) in
        [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        let (mut stream, _) = connect(&tls, &made, version).await.unwrap();
        assert!(is_alive(&mut stream).await);
        let (_, session) = stream.get_ref();
        assert_eq!(session.protocol_version(), Some(expected));
        assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
}

#[tokio::test]
async fn keys_of_all_forms_are_read() {
    for (form, pem) in [("PKCS#1", PKCS1), ("SEC1", SEC1), ("PKCS#8", PKCS8)] {
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        let made = made_with(&KeyPair::try_from(&key).unwrap(), pem.to_owned(), FIRST);
        let (_directory, _, tls, _) = loaded(&made).await;
        let (mut stream, _) = connect(&tls, &made, &version::TLS13).await.unwrap();
        assert!(is_alive(&mut stream).await, "{form}");
    }
}

#[tokio::test]
async fn connections_go_on_while_the_certificate_changes() {
    let (first, second) = (made(FIRST), made(SECOND));
    let (_directory, files, tls, mut rotation) = loaded(&first).await;
    let (mut old, _) = connect(&tls, &first, &version::TLS13).await.unwrap();
    assert!(rotation.check().await.is_none());
    write(&files, &second.certificate, &second.key);
    let event = rotation.check().await;
    assert_eq!(changed(event.as_ref()), Some(SECOND), "{event:?}");
    assert!(rotation.check().await.is_none());
    assert_eq!(tls.expires_at(), SECOND);
    assert!(is_alive(&mut old).await);
    let (mut new, _) = connect(&tls, &second, &version::TLS13).await.unwrap();
    assert!(is_alive(&mut new).await);
    assert!(connect(&tls, &first, &version::TLS13).await.is_err());
}

#[tokio::test]
async fn a_directory_that_kubernetes_swaps_is_followed() {
    let (first, second) = (made(FIRST), made(SECOND));
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    let put = |name: &str, made: &Made| {
        fs::create_dir(at(name)).unwrap();
        write(&files(&at(name)), &made.certificate, &made.key);
        std::os::unix::fs::symlink(name, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    };
    put("..2026_1", &first);
    for name in ["tls.crt", "tls.key"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), at(name)).unwrap();
    }
    let (tls, mut rotation) = Tls::load(files(directory.path())).await.unwrap();
    assert_eq!(tls.expires_at(), FIRST);
    put("..2026_2", &second);
    let event = rotation.check().await;
    assert_eq!(changed(event.as_ref()), Some(SECOND), "{event:?}");
}

#[tokio::test]
async fn what_is_no_pair_keeps_the_old_one_and_is_told_once() {
    let (first, second) = (made(FIRST), made(SECOND));
    let (_directory, files, tls, mut rotation) = loaded(&first).await;
    // The certificate is written first, the key later.
    fs::write(&files.certificate, &second.certificate).unwrap();
    let event = rotation.check().await;
    let Some(CertificateEvent::Kept { error: PairError::WrongPair(told), expires_at }) = event else {
        panic!("{event:?}")
    };
    assert_eq!((told, expires_at), (files.clone(), FIRST));
    assert!(rotation.check().await.is_none());
    connect(&tls, &first, &version::TLS13).await.unwrap();
    // Another error is reported as well, and so is the end of the error.
    fs::remove_file(&files.key).unwrap();
    let event = rotation.check().await;
    assert!(matches!(event, Some(CertificateEvent::Kept { error: PairError::Read { .. }, .. })), "{event:?}");
    assert!(rotation.check().await.is_none());
    fs::write(&files.key, &second.key).unwrap();
    let event = rotation.check().await;
    assert_eq!(changed(event.as_ref()), Some(SECOND), "{event:?}");
    connect(&tls, &second, &version::TLS13).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_files_are_looked_at_every_period() {
    let (first, second) = (made(FIRST), made(SECOND));
    let (_directory, files, tls, rotation) = loaded(&first).await;
    let (told, mut events) = mpsc::unbounded_channel();
    let task = tokio::spawn(rotation.run(PERIOD, move |event| told.send(event).unwrap()));
    for (made, expected) in [(&second, SECOND), (&first, FIRST)] {
        write(&files, &made.certificate, &made.key);
        let event = events.recv().await.unwrap();
        assert_eq!(changed(Some(&event)), Some(expected), "{event:?}");
        assert_eq!(tls.expires_at(), expected);
    }
    task.abort();
}

#[tokio::test]
async fn errors_at_the_start_say_which_file_and_what_to_do() {
    let (good, other) = (made(FIRST), made(SECOND));
    let chain = format!("{}{}", other.certificate, good.certificate);
    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    for (certificate, key, file, says) in [
        ("", good.key.as_str(), "tls.crt", "has no certificate"),
        ("nonsense", &good.key, "tls.crt", "has no certificate"),
        (&good.key, &good.key, "tls.crt", "has no certificate"),
        ("-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n", &good.key, "tls.crt", "is not PEM"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &good.key,
            "tls.crt",
            "the first certificate in",
        ),
        (&good.certificate, "", "tls.key", "has no private key"),
        (&good.certificate, &good.certificate, "tls.key", "has no private key"),
        (&good.certificate, ENCRYPTED, "tls.key", "an encrypted one must be decrypted"),
        (&good.certificate, "-----BEGIN PRIVATE KEY-----\n?\n", "tls.key", "is not PEM"),
        (
            &good.certificate,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "tls.key",
            "cannot be used",
        ),
        (&good.certificate, &other.key, "tls.key", "does not belong"),
        (&good.certificate, &ed25519.serialize_pem(), "tls.key", "does not belong"),
        (&chain, &good.key, "tls.crt", "must come first"),
        (&" ".repeat((1 << 20) + 1), &good.key, "tls.crt", "larger than"),
    ] {
        let directory = TempDir::new().unwrap();
        write(&files(directory.path()), certificate, key);
        let error = Tls::load(files(directory.path())).await.unwrap_err().to_string();
        assert!(error.contains(file) && error.contains(says), "{error}");
        assert!(!error.contains("AAAA"), "{error}");
    }
    let directory = TempDir::new().unwrap();
    let error = Tls::load(files(directory.path())).await.unwrap_err().to_string();
    assert!(error.contains("tls.crt") && error.contains("must exist"), "{error}");
    fs::create_dir(directory.path().join("tls.crt")).unwrap();
    let error = Tls::load(files(directory.path())).await.unwrap_err().to_string();
    assert!(error.contains("cannot read") && error.contains("tls.crt"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_never_comes_is_given_up() {
    let (_directory, _, tls, _) = loaded(&made(FIRST)).await;
    for sent in [&b""[..], &[0x16, 3, 1, 2, 0]] {
        let (mut near, far) = duplex(1 << 10);
        near.write_all(sent).await.unwrap();
        let began = Instant::now();
        let found = tls.accept(far).await;
        assert!(matches!(found, Err(HandshakeError::TimedOut(HANDSHAKE_TIMEOUT))), "{found:?}");
        assert_eq!(began.elapsed(), HANDSHAKE_TIMEOUT);
    }
}

#[tokio::test]
async fn what_is_no_handshake_fails_at_once() {
    let (_directory, _, tls, _) = loaded(&made(FIRST)).await;
    let (mut near, far) = duplex(1 << 10);
    near.write_all(b"GET /twins/d1 HTTP/1.1\r\n\r\n").await.unwrap();
    let found = tls.accept(far).await;
    assert!(matches!(found, Err(HandshakeError::Failed(_))), "{found:?}");
    let (near, far) = duplex(1 << 10);
    drop(near);
    assert!(matches!(tls.accept(far).await, Err(HandshakeError::Failed(_))));
}

#[tokio::test]
async fn nothing_printed_holds_a_key() {
    let (_directory, _, tls, rotation) = loaded(&made(FIRST)).await;
    let printed = format!("{tls:?} {rotation:?}");
    assert!(!printed.contains("PRIVATE") && printed.contains("expires_at"), "{printed}");
}
