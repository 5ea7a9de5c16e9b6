//! Checks the read API: its address and its certificate.

use std::{net::SocketAddr, time::Duration};

use super::{Inspector, LIMIT};
use crate::{
    adapters::credential::one_line,
    config::{Encryption, Serve},
    domain::{
        checks::{Certificate, Checked, Finding, Kind, Served, certificate, served},
        ticks::Ticks,
    },
    http,
    ports::{Clock as _, SystemClock},
    serve::{Tls, tls::Files},
};

/// Time limit for identifying the listener on the configured address.
const ASK_LIMIT: Duration = Duration::from_secs(2);

impl Inspector<'_> {
    /// Runs the checks of this section.
    pub(super) async fn read_api(&self) -> Vec<Checked> {
        let (listen, pair) = match &self.settings.serve {
            None => {
                let skipped =
                    || Finding::Skipped("[serve] lets nobody in: twinsync serve is not set up".to_owned());
                (skipped(), skipped())
            }
            Some(serve) => tokio::join!(self.address(serve), self.certificate(serve)),
        };
        vec![Checked::new(Kind::ServeListen, listen), Checked::new(Kind::ServeCertificate, pair)]
    }

    async fn address(&self, serve: &Serve) -> Finding {
        let (address, tls) = (serve.listen, matches!(serve.encryption, Encryption::Files { .. }));
        let failed = |late: String| {
            Finding::fail(
                http::Error::CODE,
                format!("another process listens on {address} and gives {late}"),
                "stop that process, or set serve.listen to another address",
            )
        };
        match self.within(ASK_LIMIT * 2, failed, inspect(address, tls)).await {
            Ok(found) => served(address, &found, http::Error::CODE),
            Err(finding) => finding,
        }
    }

    async fn certificate(&self, serve: &Serve) -> Finding {
        let Encryption::Files { certificate: file, key } = &serve.encryption else {
            return Finding::Skipped("a proxy in front handles TLS, as serve.tls says".to_owned());
        };
        let unusable = |reason: String| {
            let (text, remedy) = match reason.split_once(": ") {
                Some((text, remedy)) => (text.to_owned(), remedy.to_owned()),
                None => (reason, "check serve.certificate_file and serve.key_file".to_owned()),
            };
            Finding::fail("CERTIFICATE_UNUSABLE", text, remedy)
        };
        let files = Files { certificate: file.clone(), key: key.clone() };
        let late = |late: String| unusable(format!("reading the files of the certificate: {late}"));
        match self.within(LIMIT, late, Tls::load(files)).await {
            Ok(Ok((tls, _))) => {
                let milliseconds = tls.expires_at().unix_timestamp().saturating_mul(1_000);
                let expires = Ticks::from_unix_milliseconds(milliseconds).unwrap_or(Ticks::new(i64::MAX));
                let found = Certificate { expires, names: tls.names() };
                certificate(&found, &serve.hosts, SystemClock.now())
            }
            Ok(Err(error)) => unusable(one_line(&error)),
            Err(finding) => finding,
        }
    }
}

/// Finds out what listens on a configured address.
async fn inspect(address: SocketAddr, tls: bool) -> Served {
    let Err(taken) = http::try_bind_for("serve.listen", address) else {
        return Served::Free;
    };
    match answers_as_we_do(http::reachable(address), tls).await {
        true => Served::ReadApi,
        false => Served::Refused(taken.to_string()),
    }
}

/// Whether it refuses a request without credentials in the same way as IoT Hub. The request contains nothing secret, so the certificate is
/// not verified.
async fn answers_as_we_do(address: SocketAddr, tls: bool) -> bool {
    let client =
        reqwest::Client::builder().timeout(ASK_LIMIT).no_proxy().tls_danger_accept_invalid_certs(true);
    let Ok(client) = client.build() else { return false };
    let scheme = if tls { "https" } else { "http" };
    let answer = client.get(format!("{scheme}://{address}/")).send().await;
    answer.is_ok_and(|answer| answer.headers().contains_key("iothub-errorcode"))
}
