//! What becomes of a claim: a call to make, or the reason why none can be made.

use crate::core::classify::{Cause, Outcome};
use crate::core::key::{self, Key, KeyForm};
use crate::core::request;
use crate::core::secret::Secret;
use crate::core::service::Service;
use crate::io::{Done, Heard, Job};
use crate::pg::store::queue;
use crate::pg::{convert, gucs};
use std::sync::Arc;

/// The job of a claim, or its outcome when no request can be made of it.
pub fn job(service: &Arc<Service>, secret: Option<&Secret>, claim: &queue::Claim) -> Result<Job, Done> {
    let built = key::normalise(service.key_kind, &claim.key).map_err(|problem| problem.why).and_then(|key| {
        let mut request = request::build(service, &key, secret, &gucs::user_agent(), gucs::contact().as_deref())?;
        if let Some(kept) = &claim.kept {
            request.only_if_changed(kept);
        }
        Ok((key, request))
    });
    match built {
        Ok((key, request)) => Ok(Job { id: claim.id, service: service.clone(), key, request, usage: false }),
        Err(why) => Err(Done {
            id: claim.id,
            service: service.clone(),
            key: Key { text: claim.key.clone(), form: KeyForm::Text },
            outcome: Outcome::Error { message: format!("no request can be built: {why}"), retry: false },
            cause: Cause::NoRequest,
            status_code: None,
            failed_at: None,
            latency_ms: 0,
            retry_after: None,
            finished_at: convert::clock(),
            usage: false,
            stops: false,
            heard: Heard::default(),
            reports: Vec::new(),
        }),
    }
}
