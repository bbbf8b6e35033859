//! Functions of administrators and of the extension's own triggers: secrets, wake-ups, what the workers do.

use crate::core::error::Error;
use crate::core::service::Service;
use crate::io::secrets::SecretSource;
use crate::pg::convert::{self, to_timestamp};
use crate::pg::error::Answer;
use crate::pg::store::{lanes, queue, registry};
use crate::pg::{budgets, gucs, shmem, tally, wake};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Keeps the secret of a service in the database (NULL removes it); the service starts again at commit. Only the
/// worker reads it; it is never dumped.
///
/// # Errors
/// 42704 unknown service; 22023 when the service has no secret_name, or the secret is empty.
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrich_set_secret(service: Option<&str>, secret: Option<&str>) -> Answer<()> {
    let service = registry::service(super::given(service, "service")?)?;
    let Some(name) = &service.secret_name else {
        return Err(Error::InvalidArgument {
            message: format!("service \"{}\" takes no secret", service.name),
            hint: "Give the service a secret_name in enrichment_service first.".to_string(),
        }
        .into());
    };
    if secret.is_some_and(|secret| secret.trim().is_empty()) {
        return Err(Error::InvalidArgument {
            message: format!("the secret of service \"{}\" is empty", service.name),
            hint: "Give the provider's key, or NULL to remove the one that is kept.".to_string(),
        }
        .into());
    }
    registry::set_secret(name, secret.map(str::trim))?;
    lanes::forget_want_of_secret(&service.name)?;
    queue::retry_refused(&service.name)?;
    wake::worker_at_commit();
    Ok(())
}

/// Whether a secret of this service can be found, without looking at it for longer than that.
pub fn has_secret(service: &Service) -> Answer<bool> {
    let Some(name) = &service.secret_name else { return Ok(false) };
    Ok(registry::secret_is_stored(name)? || SecretSource { dir: gucs::secrets_dir() }.resolve(name, None).is_some())
}

/// Wakes the worker of this database once the transaction has committed.
#[pg_extern(volatile)]
fn enrich_wake() {
    wake::worker_at_commit();
}

/// Called at the end of CREATE EXTENSION: the launcher learns of this database at commit.
#[pg_extern(volatile)]
fn enrich_wake_launcher() {
    wake::launcher_at_commit();
}

/// Whether the library was preloaded, so that workers run.
#[pg_extern(stable, parallel_safe)]
fn enrich_preloaded() -> bool {
    gucs::preloaded()
}

/// Called by the trigger of enrichment_service: every session reads the registry again, the worker wakes.
#[pg_extern(volatile, strict)]
fn enrich_registry_changed(registry_table: pg_sys::Oid) {
    registry::announce_change(registry_table);
    wake::worker_at_commit();
}

/// Look-ups of this database that were counted and are not in enrichment_cache_stats yet: part of enrichment_stat.
#[allow(clippy::type_complexity)] // the columns of the view
#[pg_extern(volatile)]
fn enrich_live_lookups() -> TableIterator<
    'static,
    (
        name!(service, String),
        name!(cache_hits, i64),
        name!(cache_misses, i64),
        name!(touches_dropped, i64),
        name!(disk_hits, i64),
    ),
> {
    let rows = tally::unfolded().into_iter().chain(tally::of_other_databases());
    TableIterator::new(
        rows.map(|one| (one.service, one.hits as i64, one.misses as i64, one.dropped as i64, one.files as i64)),
    )
}

/// What the workers of the cluster do: the base of the view enrichment_worker.
#[allow(clippy::type_complexity)] // the columns of the view
#[pg_extern(volatile)]
fn enrich_worker_states() -> TableIterator<
    'static,
    (
        name!(pid, Option<i32>),
        name!(database, String),
        name!(state, String),
        name!(in_flight, i32),
        name!(last_error, Option<String>),
    ),
> {
    let rows = shmem::read(|shared| {
        shared
            .databases
            .iter()
            .filter(|place| place.oid != 0)
            .map(|place| {
                let pid = (place.pid != 0 && wake::alive(place.pid)).then_some(place.pid);
                let error = place.error.as_str();
                (
                    pid,
                    place.name.as_str().to_string(),
                    place.state.as_str().to_string(),
                    place.in_flight as i32,
                    (!error.is_empty()).then(|| error.to_string()),
                )
            })
            .collect::<Vec<_>>()
    });
    TableIterator::new(rows.unwrap_or_default())
}

/// The services of this database that wait for a limit: until when, and which window holds them up.
#[allow(clippy::type_complexity)] // the columns of the contract
#[pg_extern(volatile)]
fn enrich_lane_waits() -> TableIterator<
    'static,
    (name!(service, String), name!(per, String), name!(next_call_at, pgrx::datum::TimestampWithTimeZone)),
> {
    let rows = shmem::read(|shared| {
        let lanes = shared.lanes.iter().filter(|lane| lane.database == wake::my_database());
        lanes
            .map(|lane| (lane.service.as_str().to_string(), lane.per.as_str().to_string(), lane.until))
            .collect::<Vec<_>>()
    });
    let rows = rows.unwrap_or_default().into_iter();
    TableIterator::new(rows.map(|(service, per, until)| (service, per, crate::pg::convert::to_timestamp(until))))
}

/// How full the budgets of this database's services are, of all databases together, and what the providers say of them
/// themselves: the base of enrichment_quota_status.
///
/// # Errors
/// What reading the registry raises.
#[allow(clippy::type_complexity)] // the columns of the view
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrich_quota_live() -> Result<
    TableIterator<
        'static,
        (
            name!(service, String),
            name!(per, String),
            name!(max, Option<i64>),
            name!(spent, Option<i64>),
            name!(window_start, Option<TimestampWithTimeZone>),
            name!(resets_at, Option<TimestampWithTimeZone>),
            name!(provider_max, Option<i64>),
            name!(provider_spent, Option<i64>),
            name!(provider_remaining, Option<i64>),
            name!(provider_resets_at, Option<TimestampWithTimeZone>),
            name!(provider_said_at, Option<TimestampWithTimeZone>),
        ),
    >,
    ErrorReport,
> {
    let now = convert::clock();
    let mut rows = Vec::new();
    for service in registry::all()?.values() {
        let Some((_, spending)) = budgets::of_service(wake::my_database(), &service.name) else { continue };
        let windows = spending.status(&service.limits, now);
        let balance = spending.reported(None);
        let lines = windows.into_iter().map(|window| (Some(window), spending.reported(Some(window.per))));
        for (window, said) in lines.chain(balance.map(|said| (None, Some(said)))) {
            rows.push((
                service.name.clone(),
                window.map_or("balance", |window| window.per.as_str()).to_string(),
                window.and_then(|window| window.max),
                window.map(|window| window.spent),
                window.map(|window| to_timestamp(window.window_start)),
                window.map(|window| to_timestamp(window.resets_at)),
                said.and_then(|said| said.allowed),
                said.and_then(|said| said.made()),
                said.and_then(|said| said.left()),
                said.and_then(|said| said.resets_at).map(to_timestamp),
                said.map(|said| to_timestamp(said.at)),
            ));
        }
    }
    Ok(TableIterator::new(rows))
}
