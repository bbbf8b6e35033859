//! How a provider's answers are read, as data: the column `enrichment_service.rules`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ahead;
use super::breaker::Policy;
use super::key::KeyForm;
use super::limiter::Said;

/// Names that templates know already.
pub const RESERVED: [&str; 4] = ["key", "secret", "contact", "user_agent"];

/// The longest pauses that rules may ask for, in seconds: a day, and the longest month.
const MAX_PAUSE: u32 = 86_400;
const MAX_USED_UP_PAUSE: u32 = 31 * 86_400;
/// Times between questions about usage, in seconds.
const MAX_EVERY: u32 = 31 * 86_400;

/// The rules of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Names for the templates, by the form of the key (`ip`, `sha256`, ...); `default` holds for every form that does
    /// not have the name itself.
    pub variables: BTreeMap<String, BTreeMap<String, String>>,
    /// The first rule whose conditions all hold decides; where none does, the status decides.
    pub outcomes: Vec<Rule>,
    /// Paths of which a success must have a value other than null.
    pub require: Vec<String>,
    /// Seconds without calls after a "rate limited" that names no time itself.
    pub limited_pause_seconds: u32,
    /// The same when a balance is used up.
    pub used_up_pause_seconds: u32,
    /// Where the provider itself says how much of its limits is left.
    #[serde(skip_serializing_if = "Usage::is_silent")]
    pub usage: Usage,
    /// When the service is left alone because its calls fail.
    pub breaker: Policy,
    /// The last part of its life (0 to 0.9) in which an answer that is read is asked for again; 0 = none.
    pub refresh_ahead: f64,
    /// How much of a day's calls (0 to 1) that may take.
    pub refresh_ahead_share: f64,
    /// Whether an expired answer that is read is asked for again.
    pub refresh_stale: bool,
    /// The provider says by what it knows the version of an answer and is asked, at a refresh, whether it has changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub conditional: bool,
    /// A key that every test of the service asks for, in place of a well-known one of its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_key: Option<String>,
}

/// A provider's own numbers, which win over the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    /// Headers of every answer.
    pub headers: Vec<Said>,
    /// Template of an address of its own on the same host, asked with the service's headers; one that names something
    /// unknown is not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Paths into the answer of that address.
    pub body: Vec<Said>,
    pub every_seconds: u32,
}

impl Default for Usage {
    fn default() -> Self {
        Usage { headers: Vec::new(), url: None, body: Vec::new(), every_seconds: 3_600 }
    }
}

impl Usage {
    fn is_silent(&self) -> bool {
        *self == Usage::default()
    }

    fn check(&self) -> Result<(), String> {
        for said in self.headers.iter().chain(&self.body) {
            said.check()?;
        }
        if self.url.is_some() == self.body.is_empty() {
            return Err("url and body come together".to_owned());
        }
        match (1..=MAX_EVERY).contains(&self.every_seconds) {
            true => Ok(()),
            false => Err(format!("every_seconds: {} is not between 1 and {MAX_EVERY}", self.every_seconds)),
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            variables: BTreeMap::new(),
            outcomes: Vec::new(),
            require: Vec::new(),
            limited_pause_seconds: 60,
            used_up_pause_seconds: 3_600,
            usage: Usage::default(),
            breaker: Policy::default(),
            refresh_ahead: 0.1,
            refresh_ahead_share: 0.25,
            refresh_stale: true,
            conditional: false,
            test_key: None,
        }
    }
}

/// One rule: conditions and what follows from them.
///
/// A path is dotted (`error.code`), numbers count into arrays, the empty path is the whole body. A rule that looks at
/// the body never holds for one that is not JSON; for an HTML page only rules hold that keep nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// HTTP statuses; none = any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<u16>,
    /// Where the conditions on the body look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The value there is one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals: Option<Vec<Value>>,
    /// There is a value, and it is none of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_equals: Option<Vec<Value>>,
    /// There is (or is not) a value other than null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
    /// The value is no object, or its members other than these are all null, `""`, `[]` or `{}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_except: Option<Vec<String>>,
    pub outcome: RuleOutcome,
    /// For `error`: whether it may pass; by default as the HTTP status says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<bool>,
    /// For `rate_limited`: a balance is used up, not a short window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_up: Option<bool>,
    /// A few words for the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// What a rule can decide; the words are those of `enrichment_cache.response_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleOutcome {
    Success,
    NotFound,
    RateLimited,
    Unauthorized,
    Invalid,
    Error,
}

impl Rules {
    /// Reads and checks rules; `{}` is the rules of a provider that follows HTTP.
    ///
    /// # Errors
    /// The text is not such an object, has a member of another name, or says something that cannot be meant.
    pub fn parse(json: &str) -> Result<Rules, String> {
        // serde would also read the members from an array, in order
        if !json.trim_start().starts_with('{') {
            return Err("rules are a JSON object".to_owned());
        }
        let rules: Rules = serde_json::from_str(json).map_err(|error| error.to_string())?;
        rules.check()?;
        Ok(rules)
    }

    /// The value of a template's name for a form of key.
    pub fn variable(&self, form: KeyForm, name: &str) -> Option<&str> {
        [form.as_str(), "default"].into_iter().find_map(|form| self.variables.get(form)?.get(name)).map(String::as_str)
    }

    fn check(&self) -> Result<(), String> {
        for (form, names) in &self.variables {
            if form != "default" && !KeyForm::ALL.iter().any(|known| known.as_str() == form) {
                let known = KeyForm::ALL.map(KeyForm::as_str).join(", ");
                return Err(format!("variables: unknown key form \"{form}\", expected default, {known}"));
            }
            for (name, value) in names {
                check_variable(name, value)?;
            }
        }
        for (number, rule) in self.outcomes.iter().enumerate() {
            rule.check().map_err(|why| format!("outcomes: rule {}: {why}", number + 1))?;
        }
        self.usage.check().map_err(|why| format!("usage: {why}"))?;
        self.breaker.check().map_err(|why| format!("breaker: {why}"))?;
        ahead::check(self.refresh_ahead, self.refresh_ahead_share)?;
        if self.require.iter().any(String::is_empty) {
            return Err("require: an empty path".to_owned());
        }
        check_pause("limited_pause_seconds", self.limited_pause_seconds, MAX_PAUSE)?;
        check_pause("used_up_pause_seconds", self.used_up_pause_seconds, MAX_USED_UP_PAUSE)
    }
}

impl Rule {
    /// Whether the rule looks at the body.
    pub fn needs_body(&self) -> bool {
        self.equals.is_some() || self.not_equals.is_some() || self.exists.is_some() || self.empty_except.is_some()
    }

    fn check(&self) -> Result<(), String> {
        if self.status.is_empty() && !self.needs_body() {
            return Err("no condition; it would hold for every answer".to_owned());
        }
        if self.path.is_some() && !self.needs_body() {
            return Err("a path without equals, not_equals, exists or empty_except".to_owned());
        }
        if let Some(status) = self.status.iter().find(|status| !(100..=599).contains(*status)) {
            return Err(format!("status {status} is not between 100 and 599"));
        }
        for (name, values) in [("equals", &self.equals), ("not_equals", &self.not_equals)] {
            if values.as_ref().is_some_and(Vec::is_empty) {
                return Err(format!("{name} is an empty list"));
            }
        }
        if self.retry.is_some() && self.outcome != RuleOutcome::Error {
            return Err("retry is for the outcome error only".to_owned());
        }
        if self.used_up.is_some() && self.outcome != RuleOutcome::RateLimited {
            return Err("used_up is for the outcome rate_limited only".to_owned());
        }
        Ok(())
    }
}

fn check_variable(name: &str, value: &str) -> Result<(), String> {
    let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.bytes().all(letters) {
        return Err(format!("variables: \"{name}\" is not a name of lower-case letters, digits and _"));
    }
    if RESERVED.contains(&name) {
        return Err(format!("variables: \"{name}\" has a meaning of its own"));
    }
    // it becomes part of a URL as it is
    if !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/,:".contains(&b)) {
        return Err(format!(
            "variables: the value of \"{name}\" holds other characters than letters, digits and -._~/,:"
        ));
    }
    Ok(())
}

fn check_pause(name: &str, seconds: u32, max: u32) -> Result<(), String> {
    match (1..=max).contains(&seconds) {
        true => Ok(()),
        false => Err(format!("{name}: {seconds} is not between 1 and {max}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rules_are_the_rules_of_http() {
        let rules = Rules::parse("{}").unwrap();
        assert_eq!(rules, Rules::default());
        assert_eq!((rules.limited_pause_seconds, rules.used_up_pause_seconds), (60, 3600));
    }

    #[test]
    fn a_variable_of_the_form_goes_before_the_default() {
        let rules = Rules::parse(r#"{"variables":{"default":{"a":"1","b":"2"},"ip":{"a":"3"}}}"#).unwrap();
        assert_eq!(rules.variable(KeyForm::Ip, "a"), Some("3"));
        assert_eq!(rules.variable(KeyForm::Ip, "b"), Some("2"));
        assert_eq!(rules.variable(KeyForm::Md5, "a"), Some("1"));
        assert_eq!(rules.variable(KeyForm::Md5, "c"), None);
    }

    #[test]
    fn a_mistake_is_refused_and_named() {
        for (json, why) in [
            (r#"{"outcme":[]}"#, "outcme"),
            (r#"{"outcomes":[{"stats":[404],"outcome":"not_found"}]}"#, "stats"),
            (r#"{"outcomes":[{"status":[404],"outcome":"notfound"}]}"#, "notfound"),
            (r#"{"outcomes":[{"status":[404]}]}"#, "outcome"),
            (r#"{"outcomes":[{"outcome":"not_found"}]}"#, "rule 1: no condition"),
            (r#"{"outcomes":[{"status":[1],"outcome":"error"}]}"#, "status 1"),
            (r#"{"outcomes":[{"status":[200],"path":"a","outcome":"error"}]}"#, "a path without"),
            (r#"{"outcomes":[{"path":"a","equals":[],"outcome":"error"}]}"#, "empty list"),
            (r#"{"outcomes":[{"status":[404],"outcome":"not_found","retry":true}]}"#, "retry"),
            (r#"{"outcomes":[{"status":[404],"outcome":"not_found","used_up":true}]}"#, "used_up"),
            (r#"{"variables":{"ipv4":{}}}"#, "ipv4"),
            (r#"{"variables":{"ip":{"key":"x"}}}"#, "meaning of its own"),
            (r#"{"variables":{"ip":{"Route":"x"}}}"#, "Route"),
            (r#"{"variables":{"ip":{"route":"a b"}}}"#, "route"),
            (r#"{"require":[""]}"#, "empty path"),
            (r#"{"limited_pause_seconds":0}"#, "between 1 and 86400"),
            (r#"{"used_up_pause_seconds":99999999}"#, "used_up_pause_seconds"),
            (r#"{"usage":{"url":"https://a.example/u"}}"#, "usage: url and body"),
            (r#"{"usage":{"headers":[{"used":"x"}]}}"#, "usage: neither"),
            (r#"{"usage":{"every_seconds":0}}"#, "usage: every_seconds"),
            (r#"{"breaker":{"open_seconds":0}}"#, "breaker: open_seconds"),
            (r#"{"breaker":{"fails":3}}"#, "fails"),
            (r#"{"refresh_ahead":2}"#, "refresh_ahead: 2"),
            (r#"{"refresh_ahead_share":-1}"#, "refresh_ahead_share"),
            ("[]", "object"),
            ("", "object"),
            ("{", "EOF"),
        ] {
            let given = Rules::parse(json).expect_err(json);
            assert!(given.contains(why), "{json}: {given}");
        }
    }

    #[test]
    fn the_rules_of_the_built_in_services_are_valid_and_read_back() {
        let all: BTreeMap<String, Value> = serde_json::from_str(include_str!("builtin_rules.json")).unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["dshield", "hibp", "spur", "urlhaus", "virustotal"]);
        for (name, value) in all {
            let rules = Rules::parse(&value.to_string()).unwrap_or_else(|why| panic!("{name}: {why}"));
            assert_eq!(Rules::parse(&serde_json::to_string(&rules).unwrap()), Ok(rules));
        }
    }
}
