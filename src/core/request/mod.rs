//! The HTTP request for a key, made from a service's templates.

mod check;
mod template;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{utf8_percent_encode, AsciiSet, NON_ALPHANUMERIC};
use url::form_urlencoded;

use super::condition::{self, Validators};
use super::key::{Key, KeyForm};
use super::limiter::Said;
use super::secret::{Masks, Secret};
use super::service::{Method, Service};
pub use check::{host, template_problem};
use template::{pieces, render, Piece, Value};

/// What is encoded in a URL: everything but the unreserved characters (RFC 3986) and the colon, which paths and
/// queries may hold and IPv6 addresses need to stay readable.
const URL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// A request. Holds the secret, so its `Debug` shows no header value, query or body.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<String>,
    /// Headers of the answer that are wanted, beside those every answer is read for.
    pub wants: Vec<String>,
    /// What the answer must not repeat.
    pub masks: Masks,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (url, mark) = match self.url.split_once('?') {
            Some((url, _)) => (url, "?***"),
            None => (self.url.as_str(), ""),
        };
        write!(f, "{} {url}{mark}", self.method.as_str())?;
        for (name, _) in &self.headers {
            write!(f, " {name}: ***")?;
        }
        match &self.body {
            Some(body) => write!(f, " ({} bytes)", body.len()),
            None => Ok(()),
        }
    }
}

impl Request {
    /// Asks for the answer only if it is another one than that of which the provider said this.
    pub fn only_if_changed(&mut self, since: &Validators) {
        self.headers.extend(since.questions());
    }

    /// Whether an answer may say that nothing has changed. No service has these headers of its own.
    pub fn is_conditional(&self) -> bool {
        self.headers.iter().any(|(name, _)| condition::ASKED_BY.contains(&name.as_str()))
    }
}

/// Makes the request for a key.
///
/// In templates `{key}`, `{secret}`, `{contact}`, `{user_agent}` and the variables of the service's rules are replaced:
/// percent-encoded in the URL; in the body form-encoded, or escaped for JSON when a `Content-Type` header says so; in
/// headers as they are. A header that needs a secret or contact that is not there is left out. A body without a
/// `Content-Type` header gets that of a form.
///
/// # Errors
/// A template is wrong (see [`template_problem`]), the URL or body needs a secret that is not there, or a header value
/// would hold characters that none may. The text never holds the secret.
pub fn build(
    service: &Service,
    key: &Key,
    secret: Option<&Secret>,
    user_agent: &str,
    contact: Option<&str>,
) -> Result<Request, String> {
    if matches!(key.text.as_str(), "." | "..") {
        return Err("a key of dots would change the path".to_owned());
    }
    let value = |name: &str| match name {
        "key" => Value::Data(&key.text),
        "secret" => secret.map_or(Value::Absent, |secret| Value::Data(secret.expose())),
        "contact" => contact.map_or(Value::Absent, Value::Data),
        "user_agent" => Value::Data(user_agent),
        _ => service.rules.variable(key.form, name).map_or(Value::Unknown, Value::Literal),
    };
    let needed = |rendered: Result<Option<String>, String>, place: &str| match rendered {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(format!("the {place} needs a secret or contact that is not configured")),
        Err(name) => Err(format!("the {place} names {{{name}}}, which is not known")),
    };
    let url = needed(render(&service.url, value, |text| utf8_percent_encode(text, URL).into()), "url")?;
    let mut headers = Vec::with_capacity(service.headers.len() + 1);
    for (name, template) in &service.headers {
        match render(template, value, Cow::Borrowed) {
            Ok(None) => {}
            Ok(Some(text)) if !fits_header(&text) => {
                return Err(format!("the value of header {name} would hold characters that no header may"));
            }
            Ok(Some(text)) => headers.push((name.clone(), text)),
            Err(unknown) => return Err(format!("header {name} names {{{unknown}}}, which is not known")),
        }
    }
    let body = match &service.body {
        None => None,
        Some(template) => {
            let kind = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
            let body = match kind {
                Some((_, kind)) if kind.to_ascii_lowercase().contains("json") => render(template, value, json_escape),
                _ => render(template, value, |text| form_urlencoded::byte_serialize(text.as_bytes()).collect()),
            };
            if kind.is_none() {
                headers.push(("Content-Type".to_owned(), "application/x-www-form-urlencoded".to_owned()));
            }
            Some(needed(body, "body")?)
        }
    };
    let versions = condition::NAMED_BY.into_iter().filter(|_| service.rules.conditional);
    let wants = service.rules.usage.headers.iter().flat_map(Said::places).chain(versions).map(str::to_owned).collect();
    Ok(Request { method: service.method, url, headers, body, wants, masks: Masks::of(secret) })
}

/// The request for what a provider says itself of its limits; `None` when it has no such address, or one on another host
/// than its own, or one that names what is not known here (an account).
///
/// # Errors
/// As [`build`].
pub fn build_usage(
    service: &Service,
    secret: Option<&Secret>,
    user_agent: &str,
    contact: Option<&str>,
) -> Result<Option<Request>, String> {
    let Some(url) = &service.rules.usage.url else { return Ok(None) };
    // secrets go where the service's own requests go, and nowhere else
    if host(url) != host(&service.url) {
        return Ok(None);
    }
    let known = |piece| match piece {
        Piece::Name(name) => {
            matches!(name, "secret" | "contact" | "user_agent") || service.rules.variable(KeyForm::Text, name).is_some()
        }
        Piece::Text(_) => true,
    };
    if !pieces(url).all(known) {
        return Ok(None);
    }
    let headers = service.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("content-type"));
    let asked = Service {
        url: url.clone(),
        method: Method::Get,
        body: None,
        headers: headers.cloned().collect(),
        ..service.clone()
    };
    build(&asked, &Key { text: String::new(), form: KeyForm::Text }, secret, user_agent, contact).map(Some)
}

/// Visible ASCII, spaces and tabs (RFC 9110, section 5.5, without the obsolete rest).
fn fits_header(value: &str) -> bool {
    value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b))
}

/// A text as the inside of a JSON string.
fn json_escape(text: &str) -> Cow<'_, str> {
    let quoted = serde_json::Value::from(text).to_string();
    Cow::Owned(quoted[1..quoted.len() - 1].to_owned())
}
