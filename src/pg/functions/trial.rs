//! enrich_test: one live call of a service, told in words.

use crate::core::error::Error;
use crate::core::trial::{self, Step};
use crate::core::Micros;
use crate::pg::convert::{clock, positive_length};
use crate::pg::encoding::RawText;
use crate::pg::store::registry;
use crate::pg::trials::Trial;
use crate::pg::{gucs, wake};
use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Asks the provider of a service once, for a well-known key, and says step by step what works: the secret and where it comes
/// from, the limit, egress, name, connection, certificate, answer. The call counts as one; its answer is not kept.
///
/// # Errors
/// 42704 unknown service; 22023 for a negative timeout; 55000 when the library is not preloaded or no worker serves the
/// database; 53400 when too many sessions test.
#[allow(clippy::type_complexity)] // the columns of the result
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrich_test(
    service: &str,
    timeout: default!(Interval, "'30 s'"),
) -> Result<
    TableIterator<
        'static,
        (name!(step, String), name!(ok, Option<bool>), name!(detail, RawText), name!(hint, Option<RawText>)),
    >,
    ErrorReport,
> {
    let service = registry::service(service)?;
    let deadline = clock().saturating_add(positive_length(&timeout)?);
    if !gucs::preloaded() {
        return Err(Error::NotPreloaded { what: "enrich_test" }.into());
    }
    let steps = if trial::key(&service).is_none() {
        let hint = "Name a key that the provider knows as test_key in the rules of the service.";
        vec![Step::new("key", Some(false), "there is no well-known key of this kind", Some(hint))]
    } else {
        super::fetch::served()?;
        wait(&service.name, deadline)?
    };
    let text = |text: &str| RawText::of_utf8(text);
    let rows: Vec<_> = steps
        .into_iter()
        .map(|step| (step.step, step.ok, text(&step.detail), step.hint.as_deref().map(text)))
        .collect();
    Ok(TableIterator::new(rows))
}

/// Waits on this process's latch until the worker has told.
fn wait(service: &str, deadline: Micros) -> Result<Vec<Step>, Error> {
    let trial = Trial::ask(service).ok_or(Error::TooManyWaiting { places: crate::pg::trials::PLACES })?;
    wake::worker();
    loop {
        if let Some(report) = trial.report() {
            return Ok(trial::read(&report));
        }
        let left = deadline.saturating_sub(clock());
        if left <= 0 {
            let hint = "Give a longer timeout, and look at timeout_ms of the service and at enrichment_worker.";
            let detail = "the worker has not told within the time given; its call may still be under way";
            return Ok(vec![Step::new("timeout", Some(false), detail, Some(hint))]);
        }
        super::fetch::doze(left);
        pgrx::check_for_interrupts!();
    }
}
