//! `[credential]`: the identity of this process in Azure.

use super::{Check, values::choice};
use crate::config::{
    raw,
    secret::Secret,
    settings::{Credential, Identity},
};

impl Check<'_> {
    pub(super) fn credential(&mut self, raw: &raw::Credential) -> Option<Credential> {
        #[derive(Clone, Copy, PartialEq)]
        enum Kind {
            Auto,
            Workload,
            Managed,
            ClientSecret,
            Cli,
            Emulator,
        }
        let kinds = [
            ("auto", Kind::Auto),
            ("workload", Kind::Workload),
            ("managed", Kind::Managed),
            ("client_secret", Kind::ClientSecret),
            ("cli", Kind::Cli),
            ("emulator", Kind::Emulator),
        ];
        let written = self.parse("credential.kind", &raw.kind, |text| choice(text, &kinds))?;
        let foreign = &self.layers.foreign;
        let or_variable = |text: &str, variable: &str| {
            Some(text.to_owned()).filter(|text| !text.is_empty()).or_else(|| foreign.get(variable).cloned())
        };
        let tenant_id = or_variable(&raw.tenant_id, "AZURE_TENANT_ID");
        let client_id = or_variable(&raw.client_id, "AZURE_CLIENT_ID");
        let client_secret = or_variable(raw.client_secret.expose(), "AZURE_CLIENT_SECRET");
        let token_file = foreign.get("AZURE_FEDERATED_TOKEN_FILE").cloned();
        let kind = match written {
            Kind::Auto if token_file.is_some() => Kind::Workload,
            Kind::Auto if client_secret.is_some() => Kind::ClientSecret,
            Kind::Auto => Kind::Managed,
            kind => kind,
        };
        let missing = |what| format!("is needed for this kind of credential: set it, or {what}");
        let identity = match kind {
            Kind::Auto | Kind::Managed => Identity::Managed { client_id },
            Kind::Workload => {
                let tenant_id = self.present("credential.tenant_id", tenant_id, missing("AZURE_TENANT_ID"));
                let client_id = self.present("credential.client_id", client_id, missing("AZURE_CLIENT_ID"));
                let token_file = self.present(
                    "credential.kind",
                    token_file,
                    "workload identity needs AZURE_FEDERATED_TOKEN_FILE: label the pod with \
                     azure.workload.identity/use: \"true\""
                        .to_owned(),
                );
                Identity::Workload {
                    tenant_id: tenant_id?,
                    client_id: client_id?,
                    token_file: token_file?.into(),
                }
            }
            Kind::ClientSecret => {
                let tenant_id = self.present("credential.tenant_id", tenant_id, missing("AZURE_TENANT_ID"));
                let client_id = self.present("credential.client_id", client_id, missing("AZURE_CLIENT_ID"));
                let client_secret =
                    self.present("credential.client_secret", client_secret, missing("AZURE_CLIENT_SECRET"));
                Identity::ClientSecret {
                    tenant_id: tenant_id?,
                    client_id: client_id?,
                    client_secret: Secret::new(client_secret?),
                }
            }
            Kind::Cli => Identity::Cli { tenant_id },
            Kind::Emulator => {
                let token = Some(raw.token.clone()).filter(|token| !token.is_empty());
                let token = self.present("credential.token", token, "is needed: any text will do".to_owned());
                Identity::Emulator { token: token? }
            }
        };
        Some(Credential { chosen_automatically: written == Kind::Auto, identity })
    }
}
