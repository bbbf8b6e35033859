//! A service's own rules, held against an answer.

use serde_json::Value;

use super::{invalid, limited, message, passes, Answer, Outcome};
use crate::core::json_path::Document;
use crate::core::rules::{Rule, RuleOutcome};
use crate::core::service::Service;
use crate::core::Micros;

/// Whether all conditions of a rule hold.
///
/// What looks at the body holds for no body that is not JSON. For an error page only such rules hold that keep nothing
/// and accuse nobody: a challenge page with status 403 or 404 says nothing about credential or key.
pub(super) fn holds(rule: &Rule, status: u16, page: bool, document: Option<&Document<'_>>) -> bool {
    if !rule.status.is_empty() && !rule.status.contains(&status) {
        return false;
    }
    if page && matches!(rule.outcome, RuleOutcome::Success | RuleOutcome::NotFound | RuleOutcome::Unauthorized) {
        return false;
    }
    if !rule.needs_body() {
        return true;
    }
    let Some(document) = document else {
        return false;
    };
    let path = rule.path.as_deref().unwrap_or_default();
    let is_one_of = |values: &[Value]| document.get(path).is_some_and(|found| is_one_of(found, values));
    rule.equals.as_ref().is_none_or(|values| is_one_of(values))
        && rule.not_equals.as_ref().is_none_or(|values| document.get(path).is_some() && !is_one_of(values))
        && rule.exists.is_none_or(|exists| document.has(path) == exists)
        && rule.empty_except.as_ref().is_none_or(|names| document.empty_except(path, names))
}

/// Whether a JSON text is one of some values. Numbers are compared by value; what is nested too deep for a tree
/// (128 levels) is none of them.
fn is_one_of(text: &str, values: &[Value]) -> bool {
    let Ok(found) = serde_json::from_str::<Value>(text) else {
        return false;
    };
    values.iter().any(|value| match (value, &found) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => *value == found,
    })
}

/// What follows from a rule that holds; `None` is a success.
pub(super) fn outcome(
    rule: &Rule,
    service: &Service,
    answer: &Answer,
    document: Option<&Document<'_>>,
    now: Micros,
) -> Option<Outcome> {
    let because = |otherwise| message(rule.because.as_deref().unwrap_or(otherwise), answer.status, document);
    Some(match rule.outcome {
        RuleOutcome::Success => return None,
        RuleOutcome::NotFound => Outcome::NotFound,
        RuleOutcome::RateLimited => limited(service, answer, rule.used_up.unwrap_or(false), now),
        RuleOutcome::Unauthorized => {
            Outcome::Unauthorized { message: because("the provider does not accept the credential") }
        }
        RuleOutcome::Invalid => invalid(because("an answer that cannot be trusted")),
        RuleOutcome::Error => Outcome::Error {
            message: because("the provider reports an error"),
            retry: rule.retry.unwrap_or_else(|| passes(answer.status)),
        },
    })
}
