//! One call: fetched, judged, and what becomes of a fault inside it.

use super::client::Client;
use super::clock;
use super::pool::{Job, Performed};
use crate::core::classify::{judge, judge_failure, retry_after, Cause, Outcome};
use crate::core::redact::message_safe;
use std::any::Any;

/// Fetches and judges.
pub(super) fn perform(job: &Job, client: &Client) -> Performed {
    match client.fetch(&job.request, job.service.timeout_ms, job.service.max_bytes) {
        Ok(answer) => {
            let now = clock::now();
            let (mut outcome, mut reports) = (judge(&job.service, &answer, now), answer.reports(&job.service, now));
            if job.usage {
                match answer.usage(&job.service, now) {
                    Some(said) => reports = said,
                    None => outcome = not_usage(outcome),
                }
            }
            let (status_code, latency_ms) = (Some(answer.status), answer.latency_ms);
            let cause = Cause::of(&answer, &outcome);
            let retry_after = answer.retry_after.as_deref().and_then(|text| retry_after(text, now));
            Performed { outcome, cause, status_code, failed_at: None, latency_ms, retry_after, reports }
        }
        Err(failure) => Performed {
            outcome: judge_failure(&failure),
            cause: Cause::Transport(failure.kind),
            status_code: None,
            failed_at: Some(failure.kind),
            latency_ms: failure.latency_ms,
            retry_after: None,
            reports: Vec::new(),
        },
    }
}

/// An answer without the numbers it was asked for.
fn not_usage(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Success { .. } | Outcome::NotFound => Outcome::Invalid {
            message: "the answer holds none of the numbers in its usage rules".to_owned(),
            retry: true,
        },
        other => other,
    }
}

/// A call that could not be made.
pub(super) fn failed(message: String) -> Performed {
    let outcome = Outcome::Error { message, retry: true };
    let (cause, reports) = (Cause::Internal, Vec::new());
    Performed { outcome, cause, status_code: None, failed_at: None, latency_ms: 0, retry_after: None, reports }
}

pub(super) fn internal_fault(job: &Job, panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().copied();
    let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    let secrets: Vec<&str> = job.request.headers.iter().map(|(_, value)| value.as_str()).collect();
    message_safe(&format!("internal fault in the call: {said}"), &secrets)
}
