//! Lines in the server's log about providers: of each kind the first, then at most one a minute with the number of the
//! others. None holds a payload, a key, a secret or what a provider said; that stands in tables, which have rights.

use crate::core::hush::Hush;
use crate::core::{Micros, SECOND};
use crate::io::Done;
use crate::pg::convert;
use std::cell::RefCell;

const EVERY: Micros = 60 * SECOND;

/// Service and what is said of it.
type Kind = (String, String);

thread_local! {
    static HUSH: RefCell<Hush<Kind>> = RefCell::new(Hush::new(EVERY));
}

/// An attempt that brought no answer.
pub fn failed(done: &Done) {
    let (outcome, cause) = (done.outcome.status(), done.cause.as_str());
    let status = done.status_code.map(|code| format!(", HTTP {code}")).unwrap_or_default();
    event(&done.service.name, &format!("an attempt ended with {outcome} ({cause}{status}); see enrichment_queue"));
}

/// Something about a service.
pub fn event(service: &str, what: &str) {
    let kind = (service.to_string(), what.to_string());
    if let Some(unsaid) = HUSH.with_borrow_mut(|hush| hush.admit(&kind, convert::clock())) {
        say(&kind, unsaid);
    }
}

/// Says the numbers that no further line of their kind has said.
pub fn overdue() {
    let overdue = HUSH.with_borrow_mut(|hush| hush.overdue(convert::clock()));
    overdue.iter().for_each(|(kind, unsaid)| say(kind, *unsaid));
}

/// When there is next something to say.
pub fn next() -> Option<Micros> {
    HUSH.with_borrow(Hush::next)
}

fn say((service, what): &Kind, unsaid: u64) {
    match unsaid {
        0 => pgrx::log!("enrichment_cache: {service}: {what}"),
        n => pgrx::log!("enrichment_cache: {service}: {what} ({n} more of these since the last such line)"),
    }
}
