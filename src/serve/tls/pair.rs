//! A certificate and its key, from two files.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{InconsistentKeys, crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tokio::{fs::File, io::AsyncReadExt as _};

use super::validity;

/// Maximum size of a file, in bytes. A chain of five certificates has 10 KB.
const MOST_BYTES: u64 = 1 << 20;

/// How many times the files are read until both are from the same state. They change once in months.
const ATTEMPTS: usize = 3;

/// The files of a certificate and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, followed by the chain to the authority.
    pub certificate: PathBuf,
    /// The private key: `PRIVATE KEY` (PKCS#8), `RSA PRIVATE KEY` (PKCS#1) or `EC PRIVATE KEY` (SEC1).
    pub key: PathBuf,
}

/// Files that cannot be used for TLS. The messages name the file, and say what to do.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// A file cannot be read.
    #[error("cannot read {}: it must exist and this process must be allowed to read it", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// A file is too large.
    #[error("{} is larger than {MOST_BYTES} bytes: it is not the right file", .0.display())]
    TooLarge(PathBuf),
    /// A file is not PEM.
    #[error("{} is not PEM: convert it with `openssl x509` or `openssl pkey`", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// The error.
        #[source]
        source: pem::Error,
    },
    /// There is no certificate.
    #[error("{} has no certificate: write the certificate and its chain there, as `BEGIN CERTIFICATE`", .0.display())]
    NoCertificate(PathBuf),
    /// There is no key.
    #[error(
        "{} has no private key: write it there, as `BEGIN PRIVATE KEY`; an encrypted one must be decrypted before, with \
         `openssl pkey`",
        .0.display()
    )]
    NoKey(PathBuf),
    /// The certificate cannot be parsed.
    #[error("the first certificate in {} cannot be read: it must be the server's, in X.509 version 3", .0.display())]
    BadCertificate(PathBuf),
    /// The key cannot be parsed.
    #[error("the key in {} cannot be used: it must be RSA of 2048 bits or more, P-256, P-384, P-521 or Ed25519", file.display())]
    BadKey {
        /// The file.
        file: PathBuf,
        /// The error.
        #[source]
        source: rustls::Error,
    },
    /// Certificate and key do not belong together.
    #[error(
        "the key in {} does not belong to the first certificate in {}: the server's certificate must come first, and \
         both files must belong together",
        .0.key.display(),
        .0.certificate.display()
    )]
    WrongPair(Files),
}

/// Contents of the two files, both from the same state.
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// Identifies contents without keeping them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

/// A certificate and its key.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) certified: Arc<CertifiedKey>,
    /// When the validity of the server's own certificate ends.
    pub(super) expires_at: OffsetDateTime,
    /// The host names and addresses in the certificate.
    pub(super) names: Vec<String>,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

impl Contents {
    /// Reads both files.
    ///
    /// Kubernetes replaces the directory that contains both, so a replacement may occur between the two reads. Then the certificate has
    /// changed by the time the key is read, and both are read again. If files are written in place, the change is not a single step and
    /// this does not help. But then certificate and key do not match.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) async fn read(files: &Files) -> Result<Self, PairError> {
        let mut certificate = read(&files.certificate).await?;
        let mut key = read(&files.key).await?;
        for _ in 1..ATTEMPTS {
            let again = read(&files.certificate).await?;
            if again == certificate {
                break;
            }
            (certificate, key) = (again, read(&files.key).await?);
        }
        Ok(Self { certificate, key })
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let digests = [&self.certificate, &self.key].map(Sha256::digest);
        Fingerprint(Sha256::digest(digests.concat()).into())
    }

    /// Parses the contents.
    ///
    /// # Errors
    /// They are not a certificate and its key.
    pub(super) fn pair(&self, files: &Files, provider: &CryptoProvider) -> Result<Pair, PairError> {
        let pem = |file: &Path| {
            let file = file.to_owned();
            move |source| PairError::Pem { file, source }
        };
        let chain = CertificateDer::pem_slice_iter(&self.certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(pem(&files.certificate))?;
        let own = chain.first().ok_or_else(|| PairError::NoCertificate(files.certificate.clone()))?;
        let expires_at = validity::not_after(own);
        let expires_at = expires_at.ok_or_else(|| PairError::BadCertificate(files.certificate.clone()))?;
        let names = validity::names(own);
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| match error {
            pem::Error::NoItemsFound => PairError::NoKey(files.key.clone()),
            error => pem(&files.key)(error),
        })?;
        let key = provider.key_provider.load_private_key(key);
        let key = key.map_err(|source| PairError::BadKey { file: files.key.clone(), source })?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            // Unknown: the key does not reveal its public half. All keys of this provider do.
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => return Err(PairError::WrongPair(files.clone())),
            Err(_) => return Err(PairError::BadCertificate(files.certificate.clone())),
        }
        Ok(Pair { certified: Arc::new(certified), expires_at, names })
    }
}

async fn read(file: &Path) -> Result<Vec<u8>, PairError> {
    let mut content = Vec::new();
    let found = async { File::open(file).await?.take(MOST_BYTES + 1).read_to_end(&mut content).await };
    let length = found.await.map_err(|source| PairError::Read { file: file.to_owned(), source })?;
    if length as u64 > MOST_BYTES { Err(PairError::TooLarge(file.to_owned())) } else { Ok(content) }
}
