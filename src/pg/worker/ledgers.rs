//! After a start of the server the shared budgets are empty: each worker brings in what its database has spent, and
//! starts no call before the other databases' workers have done the same, or have had the time for it.

use super::{credentials, standing, xact};
use crate::core::error::Error;
use crate::core::hash::budget_key;
use crate::core::request;
use crate::core::secret::Secret;
use crate::core::service::Service;
use crate::core::Micros;
use crate::pg::shmem::{self, State};
use crate::pg::store::{breakers, lanes as ledger, registry};
use crate::pg::{budgets, convert, wake};

const SECOND: Micros = 1_000_000;
/// How long other databases are waited for. One that takes longer may have spent what is not known here.
const PATIENCE: Micros = 30 * SECOND;
/// After this, whoever has a ledger has brought it in; a database made later has none.
const YOUTH: Micros = 60 * SECOND;
const LOOK_AGAIN: Micros = SECOND / 20;

/// How far this worker has come.
#[derive(Default)]
pub enum Ledgers {
    #[default]
    Unread,
    /// These databases are waited for, until then.
    Waiting(Vec<u32>, Micros),
    Read,
}

impl Ledgers {
    /// Brings in this database's ledgers, once; says whether calls may start.
    ///
    /// # Errors
    /// What reading them raises.
    pub fn bring_in(&mut self) -> Result<bool, Error> {
        if let Ledgers::Unread = self {
            xact::run(c"enrichment_cache: reading the ledger", read)?;
            let now = convert::clock();
            let (born, others) = shmem::write(|shared| {
                let mine = wake::my_database();
                if let Some(place) = shared.database_mut(mine) {
                    place.ledger_read = true;
                }
                let others = shared.databases.iter().filter(|place| place.oid != 0 && place.oid != mine);
                (shared.born, others.map(|place| (place.oid, place.pid)).collect::<Vec<_>>())
            })
            .unwrap_or_default();
            // they may wait for this one
            others.iter().for_each(|(_, pid)| wake::process(*pid));
            let until = (born.saturating_add(YOUTH)).min(now + PATIENCE);
            *self = Ledgers::Waiting(others.into_iter().map(|(oid, _)| oid).collect(), until);
        }
        if let Ledgers::Waiting(others, until) = self {
            let missing = missing(others);
            if missing.is_empty() || convert::clock() >= *until {
                if !missing.is_empty() {
                    let names = missing.join(", ");
                    pgrx::log!(
                        "enrichment_cache: calls start without knowing what these databases have spent: {names}"
                    );
                }
                *self = Ledgers::Read;
            }
        }
        Ok(matches!(self, Ledgers::Read))
    }

    /// When to look again.
    pub fn next_try(&self) -> Option<Micros> {
        matches!(self, Ledgers::Waiting(..)).then(|| convert::clock() + LOOK_AGAIN)
    }
}

/// Which budget a service spends from when it asks with this secret.
pub fn budget_of(service: &Service, secret: Option<&Secret>) -> budgets::Key {
    // SAFETY: reads a field of the control file's copy in memory.
    let cluster = unsafe { pgrx::pg_sys::GetSystemIdentifier() };
    budget_key(cluster, &request::host(&service.url), secret.map_or("", Secret::expose))
}

fn read() -> Result<(), Error> {
    let (database, now) = (wake::my_database(), convert::clock());
    for service in registry::all()?.values().filter(|service| service.enabled) {
        let secret = credentials::of(service)?;
        let budget = budget_of(service, secret.as_ref());
        if !budgets::joined(database, &service.name, &budget) {
            let rows = ledger::ledger(&service.name, &budget)?;
            budgets::join(database, &service.name, &budget, &rows, now);
        }
        let pause = breakers::standing(&service.name)?.pause;
        budgets::limit(database, &service.name, &budget, standing::told_to_wait(&pause));
    }
    Ok(())
}

/// Which of these databases may have a ledger that is not in.
fn missing(others: &[u32]) -> Vec<String> {
    let may_have = |place: &&shmem::Database| {
        others.contains(&place.oid) && !place.ledger_read && !matches!(place.state, State::Absent | State::Excluded)
    };
    let names = |shared: &shmem::Shared| {
        shared.databases.iter().filter(may_have).map(|place| place.name.as_str().to_string()).collect()
    };
    shmem::read(names).unwrap_or_default()
}
