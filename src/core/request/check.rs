//! Whether the templates of a service can work, before any key is asked.

use url::Url;

use super::build;
use super::template::{pieces, Piece};
use crate::core::key::{normalise, Key, KeyForm, KeyKind};
use crate::core::secret::Secret;
use crate::core::service::{Method, Service};

/// Headers that belong to the client: they could send a request elsewhere or cut it in two.
const CLIENT_HEADERS: [&str; 7] =
    ["host", "content-length", "transfer-encoding", "connection", "upgrade", "if-none-match", "if-modified-since"];

/// What is wrong with the templates of a service, if anything: the URL is not http(s) with a fixed host, the key or a
/// name is missing or unknown, a header cannot be sent, a GET has a body.
pub fn template_problem(service: &Service) -> Option<String> {
    check(service).err()
}

fn check(service: &Service) -> Result<(), String> {
    check_url(&service.url)?;
    let names = |template: &str| pieces(template).any(|piece| piece == Piece::Name("key"));
    if !names(&service.url) && !service.body.as_deref().is_some_and(names) {
        return Err("neither the url nor the body names {key}".to_owned());
    }
    if service.method == Method::Get && service.body.is_some() {
        return Err("a GET has no body".to_owned());
    }
    if service.method == Method::Post && service.rules.conditional {
        return Err("conditional is for a GET only".to_owned());
    }
    if let Some(key) = &service.rules.test_key {
        normalise(service.key_kind, key).map_err(|problem| format!("test_key {}", problem.why))?;
    }
    for (position, (name, _)) in service.headers.iter().enumerate() {
        check_header(name)?;
        if service.headers[..position].iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(name)) {
            return Err(format!("header {name} is given twice"));
        }
    }
    if let Some(usage) = &service.rules.usage.url {
        check_url(usage).map_err(|why| format!("usage: {why}"))?;
    }
    for form in forms(service.key_kind) {
        let key = Key { text: "a".to_owned(), form: *form };
        let request = build(service, &key, Some(&Secret::new("a")), "a", Some("a@b.example"))
            .map_err(|why| format!("for a key of form {}: {why}", form.as_str()))?;
        check_rendered(&request.url)?;
    }
    Ok(())
}

fn check_url(template: &str) -> Result<(), String> {
    let lower = template.get(..8).map(str::to_ascii_lowercase).unwrap_or_default();
    let Some(rest) =
        ["https://", "http://"].iter().find_map(|scheme| lower.starts_with(scheme).then(|| &template[scheme.len()..]))
    else {
        return Err("the url does not begin with https:// or http://".to_owned());
    };
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    // without one, URL parsers take the first segment of the path, which may be the key
    if authority.is_empty() {
        return Err("the url has no host".to_owned());
    }
    if authority.contains(['{', '}']) {
        return Err("the host of the url must be fixed".to_owned());
    }
    if authority.contains('@') {
        return Err("the url must hold no user or password".to_owned());
    }
    if template.contains('#') {
        return Err("the url must have no fragment".to_owned());
    }
    let path = template.split('?').next().unwrap_or_default();
    if pieces(path).any(|piece| piece == Piece::Name("secret")) {
        return Err("the path of the url must not hold {secret}: paths are shown in messages".to_owned());
    }
    Ok(())
}

/// Host and port of an address or template.
pub fn host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#', '\\']).next().unwrap_or_default().to_ascii_lowercase()
}

fn check_rendered(rendered: &str) -> Result<(), String> {
    if !rendered.bytes().all(|b| (b'!'..=b'~').contains(&b)) {
        return Err("the url holds spaces or characters outside ASCII".to_owned());
    }
    Url::parse(rendered).map_err(|error| format!("the url is malformed: {error}"))?;
    Ok(())
}

fn check_header(name: &str) -> Result<(), String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        return Err("a header has a name that none may have".to_owned());
    }
    if CLIENT_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
        return Err(format!("header {name} is set by the client itself"));
    }
    Ok(())
}

/// The forms that keys of a kind can have.
fn forms(kind: KeyKind) -> &'static [KeyForm] {
    match kind {
        KeyKind::Ip => &[KeyForm::Ip],
        KeyKind::FileHash => &[KeyForm::Sha256, KeyForm::Sha1, KeyForm::Md5],
        KeyKind::FileHashOrIp => &[KeyForm::Sha256, KeyForm::Sha1, KeyForm::Md5, KeyForm::Ip],
        KeyKind::NetworkIndicator => &[KeyForm::Ip, KeyForm::Host, KeyForm::Sha256],
        KeyKind::HashPrefix => &[KeyForm::HashPrefix],
        KeyKind::Host => &[KeyForm::Host],
        KeyKind::Text => &[KeyForm::Text],
    }
}
