//! Which tokens are accepted.

use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use time::macros::datetime;

use super::{
    super::Kind,
    testing::{Does, FOREIGN, NEW, OLD, Scripted, TENANT, base64, key_set, unsigned},
    *,
};

const KEYS: &str = "https://login.example/keys";
const NOW: OffsetDateTime = datetime!(2030-03-17 16:46:40 UTC);
const PRINCIPAL: &str = "02223b6b-aa1d-42d4-9ec0-1b2bb9194438";
const CLIENT: &str = "6e74172b-be56-4843-9ff4-e66a39bb12e3";

fn settings() -> Settings {
    Settings {
        keys_url: Some(KEYS.to_owned()),
        roles: BTreeSet::from(["Twins.Read".to_owned()]),
        principals: BTreeSet::from([PRINCIPAL.to_uppercase()]),
        ..Settings::new(TENANT)
    }
}

/// A checker of tokens whose keys are OLD and NEW.
fn tokens(settings: &Settings) -> (Tokens, Arc<Scripted>) {
    let server = Arc::new(Scripted::default());
    server.set(KEYS, Does::Answer(key_set(&[&OLD, &NEW])));
    (Tokens::new(settings, Arc::clone(&server) as _, Arc::new(|_| {})).unwrap(), server)
}

/// Claims of a managed identity, in a token of version 1.
fn claims() -> Value {
    json!({
        "aud": "https://iothubs.azure.net",
        "iss": format!("https://sts.windows.net/{TENANT}/"),
        "iat": NOW.unix_timestamp() - 60,
        "nbf": NOW.unix_timestamp() - 60,
        "exp": NOW.unix_timestamp() + 3600,
        "appid": CLIENT,
        "oid": PRINCIPAL,
        "sub": PRINCIPAL,
        "tid": TENANT,
        "ver": "1.0",
    })
}

fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

async fn verify(settings: &Settings, token: &str) -> Result<(String, Kind), Denied> {
    let (tokens, _) = tokens(settings);
    let caller = tokens.verify(token, NOW).await?;
    Ok((caller.name.to_string(), caller.kind))
}

#[tokio::test(start_paused = true)]
async fn who_is_named_by_role_or_object_id_is_let_in() {
    let application = Ok((CLIENT.to_owned(), Kind::Application));
    for (case, changes, expected) in [
        ("by object id", json!({}), application.clone()),
        ("by role", json!({"oid": CLIENT, "roles": ["Other", "Twins.Read"]}), application.clone()),
        ("audience with a slash", json!({"aud": "https://iothubs.azure.net/"}), application.clone()),
        ("one of several audiences", json!({"aud": ["x", "https://iothubs.azure.net"]}), application.clone()),
        (
            "version 2",
            json!({
                "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
                "appid": null, "azp": CLIENT, "ver": "2.0",
            }),
            application.clone(),
        ),
        ("no tenant, no beginning", json!({"tid": null, "nbf": null}), application),
        ("no application", json!({"appid": null}), Ok((PRINCIPAL.to_owned(), Kind::Application))),
        (
            "a person, by the Azure CLI",
            json!({"scp": "user_impersonation", "upn": "abeli@contoso.example", "name": "Abe Lincoln"}),
            Ok((PRINCIPAL.to_owned(), Kind::User)),
        ),
        ("another role", json!({"oid": CLIENT, "roles": ["twins.read"]}), Err(Denied::NoRole)),
        ("no role", json!({"oid": CLIENT, "roles": []}), Err(Denied::NoRole)),
        ("no id", json!({"oid": null}), Err(Denied::NoRole)),
        ("a name as the id", json!({"appid": "abeli@contoso.example"}), Err(Denied::Malformed)),
        (
            "a person without id",
            json!({"scp": "x", "oid": null, "roles": ["Twins.Read"]}),
            Err(Denied::Malformed),
        ),
    ] {
        assert_eq!(verify(&settings(), &OLD.token(&with(changes))).await, expected, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_way_to_be_wrong_has_its_reason() {
    let other = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    let now = NOW.unix_timestamp();
    for (case, changes, denied) in [
        ("another tenant", json!({"iss": format!("https://sts.windows.net/{other}/")}), Denied::WrongIssuer),
        (
            "another tenant, version 2",
            json!({"iss": format!("https://login.microsoftonline.com/{other}/v2.0")}),
            Denied::WrongIssuer,
        ),
        (
            "issuer without its slash",
            json!({"iss": format!("https://sts.windows.net/{TENANT}")}),
            Denied::WrongIssuer,
        ),
        ("tenant that is not the issuer's", json!({"tid": other}), Denied::WrongIssuer),
        ("another audience", json!({"aud": "https://management.azure.com"}), Denied::WrongAudience),
        ("audience with more", json!({"aud": "https://iothubs.azure.net//"}), Denied::WrongAudience),
        ("no audience among several", json!({"aud": []}), Denied::WrongAudience),
        ("expired", json!({"exp": now - 301}), Denied::Expired),
        ("not yet valid", json!({"nbf": now + 301}), Denied::NotYetValid),
        ("no issuer", json!({"iss": null}), Denied::Malformed),
        ("no audience", json!({"aud": null}), Denied::Malformed),
        ("no expiry", json!({"exp": null}), Denied::Malformed),
        ("expiry as text", json!({"exp": "1900000000"}), Denied::Malformed),
        ("roles as text", json!({"roles": "Twins.Read"}), Denied::Malformed),
    ] {
        assert_eq!(verify(&settings(), &OLD.token(&with(changes))).await, Err(denied), "{case}");
    }
    for at_the_edge in [json!({"exp": now - 300}), json!({"nbf": now + 300})] {
        assert!(verify(&settings(), &OLD.token(&with(at_the_edge))).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn the_algorithm_is_not_the_tokens_choice() {
    let header = |alg: Value| json!({"typ": "JWT", "alg": alg, "kid": "old"});
    let by_hmac = |secret: &[u8]| {
        let text = unsigned(&header("HS256".into()), &claims());
        let mac = Hmac::<Sha256>::new_from_slice(secret).unwrap().chain_update(&text).finalize();
        format!("{text}.{}", base64(mac.into_bytes()))
    };
    let public = OLD.public();
    let none = |alg: &str| format!("{}.", unsigned(&header(alg.into()), &claims()));
    for (case, token, denied) in [
        ("none", none("none"), Denied::WrongAlgorithm),
        ("None", none("None"), Denied::WrongAlgorithm),
        ("none, with something as the signature", format!("{}AAAA", none("none")), Denied::WrongAlgorithm),
        ("RS256 without a signature", none("RS256"), Denied::WrongSignature),
        ("HS256 with the modulus", by_hmac(&public.n), Denied::WrongAlgorithm),
        ("HS256 with the key set", by_hmac(key_set(&[&OLD]).to_string().as_bytes()), Denied::WrongAlgorithm),
        ("RS512", OLD.token_by_rs512(&header("RS512".into()), &claims()), Denied::WrongAlgorithm),
        (
            "RS512 that says RS256",
            OLD.token_by_rs512(&header("RS256".into()), &claims()),
            Denied::WrongSignature,
        ),
        (
            "a number",
            none("RS256").replacen(
                &base64(header("RS256".into()).to_string()),
                &base64(header(1.into()).to_string()),
                1,
            ),
            Denied::Malformed,
        ),
    ] {
        assert_eq!(verify(&settings(), &token).await, Err(denied), "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_issuers_keys_sign() {
    let signed =
        |header: Value| OLD.signed(&unsigned(&header, &claims()), &aws_lc_rs::signature::RSA_PKCS1_SHA256);
    let good = OLD.token(&claims());
    let [head, body, signature] = good.split('.').collect::<Vec<_>>()[..] else { unreachable!() };
    let richer = base64(with(json!({"roles": ["Twins.Read"]})).to_string());
    for (case, token, denied) in [
        ("another key of the same id", FOREIGN.token(&claims()), Denied::WrongSignature),
        ("other claims", format!("{head}.{richer}.{signature}"), Denied::WrongSignature),
        ("another of our keys", signed(json!({"alg": "RS256", "kid": "new"})), Denied::WrongSignature),
        ("unknown id", signed(json!({"alg": "RS256", "kid": "x"})), Denied::UnknownKey),
        ("no id", signed(json!({"alg": "RS256"})), Denied::UnknownKey),
        // A key in the token, or an address to fetch one from, is ignored.
        (
            "a key in the header",
            FOREIGN.signed(
                &unsigned(
                    &json!({"alg": "RS256", "kid": "x", "jwk": FOREIGN.jwk(), "jku": "https://evil.example"}),
                    &claims(),
                ),
                &aws_lc_rs::signature::RSA_PKCS1_SHA256,
            ),
            Denied::UnknownKey,
        ),
        (
            "something that must be understood",
            signed(json!({"alg": "RS256", "kid": "old", "crit": ["x"]})),
            Denied::Malformed,
        ),
        ("four parts", format!("{good}.x"), Denied::Malformed),
        ("two parts", format!("{head}.{body}"), Denied::Malformed),
        ("no base64 in the signature", format!("{head}.{body}.?"), Denied::Malformed),
        ("padding", format!("{head}.{body}=.{signature}"), Denied::Malformed),
        ("no JSON", format!("{}.{body}.{signature}", base64("x")), Denied::Malformed),
        ("nothing", String::new(), Denied::Malformed),
    ] {
        assert_eq!(verify(&settings(), &token).await, Err(denied), "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_let_in_without_roles_and_principals() {
    let settings = Settings { roles: BTreeSet::new(), principals: BTreeSet::new(), ..settings() };
    let token = OLD.token(&with(json!({"roles": ["Twins.Read"]})));
    assert_eq!(verify(&settings, &token).await, Err(Denied::NoRole));
}

#[tokio::test(start_paused = true)]
async fn what_is_for_others_asks_for_no_keys() {
    let (tokens, server) = tokens(&settings());
    for changes in [json!({"aud": "https://graph.microsoft.com"}), json!({"iss": "https://evil.example/"})] {
        assert!(tokens.verify(&OLD.token(&with(changes)), NOW).await.is_err());
    }
    assert_eq!((server.calls(), tokens.keys_age()), (0, None));
    assert!(tokens.verify(&OLD.token(&claims()), NOW).await.is_ok());
    assert_eq!((server.calls(), tokens.keys_age()), (1, Some(Duration::ZERO)));
}

#[tokio::test(start_paused = true)]
async fn a_key_server_that_is_away_is_not_the_callers_fault() {
    let (tokens, server) = tokens(&settings());
    server.set(KEYS, Does::Fail);
    assert_eq!(tokens.verify(&OLD.token(&claims()), NOW).await, Err(Denied::KeysUnavailable));
}

#[tokio::test(start_paused = true)]
async fn without_an_address_the_keys_are_where_the_tenant_says() {
    let server = Arc::new(Scripted::default());
    let settings =
        Settings { keys_url: None, authority: "https://login.microsoftonline.us/".to_owned(), ..settings() };
    let base = format!("https://login.microsoftonline.us/{TENANT}");
    for (path, issuer, key) in
        [("", format!("https://sts.windows.net/{TENANT}/"), &OLD), ("/v2.0", format!("{base}/v2.0"), &NEW)]
    {
        let keys = format!("{base}{path}/keys");
        let document = json!({"issuer": issuer, "jwks_uri": keys});
        server.set(&format!("{base}{path}/.well-known/openid-configuration"), Does::Answer(document));
        server.set(&keys, Does::Answer(key_set(&[key])));
    }
    let tokens = Tokens::new(&settings, server, Arc::new(|_| {})).unwrap();
    let second = with(json!({"iss": format!("{base}/v2.0")}));
    for token in [OLD.token(&claims()), NEW.token(&second)] {
        assert_eq!(tokens.verify(&token, NOW).await.map(|caller| caller.kind), Ok(Kind::Application));
    }
}

#[tokio::test(start_paused = true)]
async fn issuers_of_ones_own_are_asked_where_they_are() {
    let server = Arc::new(Scripted::default());
    let issuer = "https://sts.example/x/";
    let document = json!({"issuer": issuer, "jwks_uri": KEYS});
    server.set("https://sts.example/x/.well-known/openid-configuration", Does::Answer(document));
    server.set(KEYS, Does::Answer(key_set(&[&OLD])));
    let settings = Settings { keys_url: None, issuers: vec![issuer.to_owned()], ..settings() };
    let tokens = Tokens::new(&settings, server, Arc::new(|_| {})).unwrap();
    assert!(tokens.verify(&OLD.token(&with(json!({"iss": issuer}))), NOW).await.is_ok());
    assert_eq!(tokens.verify(&OLD.token(&claims()), NOW).await, Err(Denied::WrongIssuer));
}

#[test]
fn settings_that_cannot_work_are_refused_at_the_start() {
    let of = |settings: Settings| {
        Tokens::new(&settings, Arc::new(Scripted::default()), Arc::new(|_| {})).unwrap_err()
    };
    for tenant in ["contoso.onmicrosoft.com", "", "common", "fa15d692-e9c7-4460-a743-29f2956fd42"] {
        assert_eq!(of(Settings::new(tenant)), SettingsError::Tenant(tenant.to_owned()));
    }
    for url in ["http://login.example", "login.example", "http://127.0.0.1.evil.example"] {
        let error = of(Settings { keys_url: Some(url.to_owned()), ..settings() });
        assert_eq!(error, SettingsError::Address(url.to_owned()));
        let error = of(Settings { issuers: vec![url.to_owned()], ..settings() });
        assert_eq!(error, SettingsError::Address(url.to_owned()));
        let error = of(Settings { authority: url.to_owned(), ..settings() });
        assert_eq!(error, SettingsError::Address(url.to_owned()));
    }
    for audiences in [vec![], vec![String::new()], vec!["/".to_owned()]] {
        assert_eq!(of(Settings { audiences, ..settings() }), SettingsError::Audiences);
    }
    let principals = BTreeSet::from(["my-app".to_owned()]);
    assert_eq!(of(Settings { principals, ..settings() }), SettingsError::Principal("my-app".to_owned()));
}
