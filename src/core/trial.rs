//! A test call of a service, told in steps: what works, what does not, and what to do about it. For `enrich_test`.

use super::classify::{Outcome, TransportKind};
use super::key::KeyKind;
use super::redact::message_safe;
use super::request::host;
use super::service::Service;

/// One step; `ok` is `None` for one that was not reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub step: String,
    pub ok: Option<bool>,
    pub detail: String,
    pub hint: Option<String>,
}

impl Step {
    pub fn new(step: &str, ok: Option<bool>, detail: impl Into<String>, hint: Option<&str>) -> Step {
        Step { step: step.to_owned(), ok, detail: detail.into(), hint: hint.map(str::to_owned) }
    }
}

/// How the call went.
pub struct Called<'a> {
    pub outcome: &'a Outcome,
    /// Where it failed when it brought no answer.
    pub failed_at: Option<TransportKind>,
    pub status: Option<u16>,
    pub latency_ms: u32,
    pub through_proxy: bool,
    pub with_secret: bool,
}

/// The key that a test asks for: the one of the service's rules, or one that every provider of its kind knows.
pub fn key(service: &Service) -> Option<&str> {
    const EICAR: &str = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f";
    service.rules.test_key.as_deref().or(match service.key_kind {
        KeyKind::Ip | KeyKind::NetworkIndicator => Some("8.8.8.8"),
        KeyKind::FileHash | KeyKind::FileHashOrIp => Some(EICAR),
        KeyKind::HashPrefix => Some("00000"),
        KeyKind::Host => Some("www.example.com"),
        KeyKind::Text => None,
    })
}

/// Where the secret comes from, if there is to be one; `origin` is the place that has it.
pub fn secret(service: &Service, origin: Option<&str>, warning: Option<&str>) -> Step {
    let Some(name) = &service.secret_name else {
        return Step::new("secret", Some(true), "the service takes none", None);
    };
    let warned = warning.map(|warning| format!("; {warning}")).unwrap_or_default();
    match origin {
        Some("stored") => Step::new("secret", Some(true), format!("{name} is kept in the database{warned}"), None),
        Some("file") => {
            Step::new("secret", Some(true), format!("{name} is a file of the secrets directory{warned}"), None)
        }
        Some(_) => Step::new("secret", Some(true), format!("{name} is in the server's environment{warned}"), None),
        None if service.secret_required => {
            let hint = format!(
                "Use enrich_set_secret('{}', ...), a file of that name in enrichment_cache.secrets_dir, or the server's environment.",
                service.name
            );
            Step::new("secret", Some(false), format!("{name} is nowhere to be found{warned}"), Some(&hint))
        }
        None => Step::new("secret", Some(true), format!("{name} is not set, and not required{warned}"), None),
    }
}

/// The steps of a call, from the address to the meaning of the answer.
pub fn call(service: &Service, called: &Called) -> Vec<Step> {
    use TransportKind::*;
    let said = match called.outcome {
        Outcome::Error { message, .. } | Outcome::Invalid { message, .. } | Outcome::Unauthorized { message } => {
            message.as_str()
        }
        _ => "",
    };
    let answered = called.status.is_some();
    let failed = |kinds: &[TransportKind]| called.failed_at.is_some_and(|kind| kinds.contains(&kind));
    // each step is reached when the ones before it did not fail
    let mut reached = true;
    let mut step = |name: &str, kinds: &[TransportKind], works: String, hint: &str| {
        let (ok, detail) = match (reached, failed(kinds)) {
            (true, true) => (Some(false), said.to_owned()),
            (true, false) => (Some(true), works),
            (false, _) => (None, "not reached".to_owned()),
        };
        reached &= ok == Some(true);
        Step::new(name, ok, detail, (ok == Some(false)).then_some(hint))
    };
    let host = host(&service.url);
    let mut steps = vec![step(
        "egress",
        &[Egress],
        format!("{host} may be called"),
        "Use an https url of a public host, or set enrichment_cache.allow_private_hosts for a provider of your own network, which may speak plain http.",
    )];
    let resolved = match called.through_proxy {
        true => "the proxy resolves names".to_owned(),
        false => format!("{host} has an address"),
    };
    steps.push(step("dns", &[Dns], resolved, "Look at the name in the url, and at the server's own name resolution."));
    let way = if called.through_proxy { "through the proxy" } else { "directly" };
    steps.push(step(
        "connection",
        &[Connect],
        format!("connected {way}"),
        "Look at firewalls between server and provider, and at enrichment_cache.http_proxy.",
    ));
    let encrypted = service.url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
    let secure = if encrypted { "the certificate is trusted" } else { "plain http, nothing is encrypted" };
    steps.push(step(
        "tls",
        &[Tls],
        secure.to_owned(),
        "Where a company's proxy or the provider has an authority of its own, name its certificate in enrichment_cache.ca_file.",
    ));
    let status =
        called.status.map_or_else(String::new, |status| format!("HTTP {status} after {} ms", called.latency_ms));
    steps.push(step(
        "answer",
        &[Timeout, Reset, TooLarge, Redirect, Protocol],
        status,
        "Try again; a slow provider needs a larger timeout_ms, a large answer a larger max_bytes.",
    ));
    if answered {
        steps.extend(accepted(called, said));
        steps.push(meaning(called.outcome, said));
    }
    steps
}

fn accepted(called: &Called, said: &str) -> Option<Step> {
    let refused = matches!(called.outcome, Outcome::Unauthorized { .. });
    match (refused, called.with_secret) {
        (true, true) => {
            let hint =
                "Set the right key with enrich_set_secret, or in its file or the environment, where it comes from.";
            Some(Step::new("credential", Some(false), said, Some(hint)))
        }
        (true, false) => Some(Step::new(
            "credential",
            Some(false),
            said,
            Some("The provider wants a key: give the service a secret_name and set it."),
        )),
        (false, true) => Some(Step::new("credential", Some(true), "the provider does not object to it", None)),
        (false, false) => None,
    }
}

fn meaning(outcome: &Outcome, said: &str) -> Step {
    let (ok, detail, hint) = match outcome {
        Outcome::Success { .. } | Outcome::Unchanged => (true, "an answer that would be kept".to_owned(), None),
        Outcome::NotFound => (true, "the provider answers, and knows nothing of this key".to_owned(), None),
        Outcome::RateLimited { used_up: true, .. } => (
            false,
            "the provider says that the balance is used up".to_owned(),
            Some("Wait until it is renewed, or buy more."),
        ),
        Outcome::RateLimited { .. } => (
            false,
            "the provider asks to wait".to_owned(),
            Some("Lower the limits of the service to what the provider allows."),
        ),
        Outcome::Unauthorized { .. } => (false, "refused".to_owned(), None),
        Outcome::Invalid { .. } | Outcome::Error { .. } => (
            false,
            said.to_owned(),
            Some("If the provider answers so on purpose, add a rule for it to the rules of the service."),
        ),
    };
    Step::new("outcome", Some(ok), detail, hint)
}

/// Steps as one text.
pub fn write(steps: &[Step]) -> String {
    let mut out = String::new();
    for step in steps {
        let ok = step.ok.map_or("-", |ok| if ok { "t" } else { "f" });
        let fields = [&step.step, &message_safe(&step.detail, &[]), step.hint.as_deref().unwrap_or_default()];
        out.push_str(&format!("{ok}\t{}\n", fields.join("\t")));
    }
    out
}

/// What [`write`] wrote; a line that was cut off is left out.
pub fn read(text: &str) -> Vec<Step> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(4, '\t');
            let (ok, step, detail, hint) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            let ok = (ok != "-").then_some(ok == "t");
            Some(Step::new(step, ok, detail, (!hint.is_empty()).then_some(hint)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::rules::Rules;
    use crate::core::service::{Method, ResponseFormat};

    fn told(outcome: &Outcome, failed_at: Option<TransportKind>, status: Option<u16>) -> Vec<(String, Option<bool>)> {
        let service = Service {
            name: "sample".into(),
            enabled: true,
            key_kind: KeyKind::Ip,
            method: Method::Get,
            url: "https://api.example.com/{key}".into(),
            headers: vec![],
            body: None,
            secret_name: None,
            secret_required: false,
            response_format: ResponseFormat::Json,
            ttl: 0,
            not_found_ttl: 0,
            stale_ttl: 0,
            limits: vec![],
            max_in_flight: 1,
            timeout_ms: 1,
            max_bytes: 1,
            rules: Rules::default(),
        };
        let called = Called { outcome, failed_at, status, latency_ms: 7, through_proxy: false, with_secret: true };
        let steps = call(&service, &called);
        assert_eq!(read(&write(&steps)), steps);
        for step in &steps {
            assert_eq!(step.hint.is_some(), step.ok == Some(false) && step.detail != "refused", "{step:?}");
        }
        steps.into_iter().map(|step| (step.step, step.ok)).collect()
    }

    #[test]
    fn the_step_that_failed_is_told_from_those_before_and_after() {
        let failure = |words: &str| Outcome::Error { message: words.to_owned(), retry: true };
        let names = ["egress", "dns", "connection", "tls", "answer"];
        let kinds = [
            TransportKind::Egress,
            TransportKind::Dns,
            TransportKind::Connect,
            TransportKind::Tls,
            TransportKind::Timeout,
        ];
        for (at, kind) in kinds.into_iter().enumerate() {
            let expected: Vec<(String, Option<bool>)> =
                names.iter().enumerate().map(|(n, name)| ((*name).to_owned(), (n <= at).then_some(n < at))).collect();
            assert_eq!(told(&failure("why"), Some(kind), None), expected);
        }
        let refused = told(&Outcome::Unauthorized { message: "wrong key (HTTP 401)".into() }, None, Some(401));
        assert_eq!(
            refused[4..],
            [("answer", true), ("credential", false), ("outcome", false)].map(|(s, ok)| (s.to_owned(), Some(ok)))
        );
        let unknown = told(&Outcome::NotFound, None, Some(404));
        assert!(unknown.iter().all(|(_, ok)| *ok == Some(true)));
    }
}
