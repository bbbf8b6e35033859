//! What attached tables need from Rust: the trigger that notes keys, the check of expressions, reading a table's keys.

use crate::core::error::Error;
use crate::core::hash;
use crate::core::worth;
use crate::pg::convert;
use crate::pg::encoding::{decode, RawText, Utf8};
use crate::pg::error::Answer;
use crate::pg::store::arrivals::{self, Seen, Why};
use crate::pg::store::identity::as_extension_owner;
use crate::pg::store::sources::{self, Source};
use crate::pg::store::user_tables::{
    self,
    keys::{self, Rows},
    pairs::{self, Pairs},
};
use crate::pg::store::{cache, expressions, registry};
use crate::pg::{subxact, wake};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::HashSet;
use std::ffi::CStr;

/// What a key is worth, as the priority of its request: -1000 to -1.
#[pg_extern(stable, parallel_safe)]
fn enrichment_worth(weight: Option<f64>, latest: Option<TimestampWithTimeZone>) -> i32 {
    worth::priority(weight.unwrap_or(0.0), latest.map(convert::to_micros), convert::transaction_start())
}

/// Checks an expression over the rows of a table, as its owner: `key` gives a key, `condition` true or false, `weight`
/// a number. Returns the type of a key.
///
/// # Errors
/// 22023 when it is not one expression, 42804 when its type does not fit, whatever the server says of it otherwise.
#[pg_extern(volatile)]
fn enrichment_check_expression(relation: pg_sys::Oid, expression: Utf8, kind: &str) -> Answer<pg_sys::Oid> {
    Ok(expressions::check(relation, &expression, kind)?)
}

/// Puts the keys of a source on the list, all of them or those of its newest rows, to be asked before others. Returns
/// the latter, NULL for all.
///
/// # Errors
/// 42704 when no such source stands.
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrichment_ask_source(source: Utf8, newest: Option<i32>) -> Answer<Option<Vec<RawText>>> {
    let source = standing(&source)?;
    let mut asked = newest.map(|_| Vec::new());
    each_key(&source, newest, |seen| {
        if let Some(asked) = &mut asked {
            asked.extend(seen.iter().map(|key| RawText::of_utf8(&key.raw_key)));
        }
        arrivals::note(&source.name, seen, Why::Urgent)
    })?;
    wake::worker_at_commit();
    Ok(asked)
}

/// What asking for the keys of a source would take: per service the eligible keys, how many have no fresh answer, how many of these
/// are none of `counted`, and the keys, as `counted` takes them (eight bytes of a hash each).
///
/// # Errors
/// As `enrichment_ask_source`.
#[allow(clippy::type_complexity)] // the columns of its result
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrichment_cost(
    source: Utf8,
    newest: Option<i32>,
    counted: Vec<i64>,
) -> Result<
    TableIterator<
        'static,
        (name!(service, String), name!(keys, i64), name!(calls, i64), name!(further_calls, i64), name!(met, Vec<i64>)),
    >,
    ErrorReport,
> {
    let source = standing(&source)?;
    let counted: HashSet<i64> = counted.into_iter().collect();
    let mut costs = Vec::new();
    for name in &source.services {
        let service = registry::service(name)?;
        // two spellings of one key are one call
        costs.push((service, HashSet::<i64>::new(), 0i64, 0i64));
    }
    each_key(&source, newest, |seen| {
        for (service, met, calls, further) in &mut costs {
            let short = |key: &str| hash::short(&format!("{} {key}", service.name)).cast_signed();
            let wanted = seen.iter().filter_map(|key| service.takes(&key.raw_key).ok());
            let new: Vec<String> = wanted.filter(|key| met.insert(short(key))).collect();
            let others: Vec<String> = new.iter().filter(|key| !counted.contains(&short(key))).cloned().collect();
            let (all, other) = (new.len() as i64, others.len() as i64);
            let needed = all - cache::fresh(&service.name, new)?;
            *calls += needed;
            *further += if other == all { needed } else { other - cache::fresh(&service.name, others)? };
        }
        Ok(())
    })?;
    Ok(TableIterator::new(costs.into_iter().map(|(service, met, calls, further)| {
        (service.name.clone(), met.len() as i64, calls, further, met.into_iter().collect())
    })))
}

fn standing(name: &str) -> Result<Source, Error> {
    let sources::Attached { standing, broken } = sources::all()?;
    if let Some((_, why)) = broken.into_iter().find(|(broken, _)| broken == name) {
        return Err(Error::InvalidArgument {
            message: why,
            hint: "Mend the table, or detach the source with enrich_detach().".to_string(),
        });
    }
    standing.into_iter().find(|source| source.name == name).ok_or_else(|| Error::InvalidArgument {
        message: format!("no source \"{name}\" is attached"),
        hint: "The table enrichment_source lists those that are.".to_string(),
    })
}

fn each_key(
    source: &Source,
    newest: Option<i32>,
    each: impl FnMut(Vec<Seen>) -> Result<(), Error>,
) -> Result<(), Error> {
    match newest {
        Some(n) => keys::read(source, &Rows::Newest(i64::from(n)), each),
        None => keys::read(source, &Rows::All { unfilled: "false" }, each),
    }
}

/// The trigger of attached tables. Its arguments: the source's name, the number of its key column (0: an expression).
#[pg_guard]
#[no_mangle]
pub unsafe extern "C-unwind" fn enrichment_note_rows_wrapper(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: fcinfo is what the server called this function with.
    let data = unsafe {
        if !pgrx::trigger_support::called_as_trigger(fcinfo) {
            ErrorReport::from(Error::other("enrichment_note_rows can only be called as a trigger"))
                .report(PgLogLevel::ERROR);
        }
        (*fcinfo).context.cast::<pg_sys::TriggerData>()
    };
    if let Err(error) = note_rows(data) {
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("new keys are found by the next sweep: {error}"),
            "trigger",
        )
        .report(PgLogLevel::WARNING);
    }
    pg_sys::Datum::null()
}

#[no_mangle]
pub extern "C" fn pg_finfo_enrichment_note_rows_wrapper() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

fn note_rows(data: *mut pg_sys::TriggerData) -> Result<(), Error> {
    // SAFETY: the server fills the data of a trigger before it calls it.
    let (event, arguments) = unsafe {
        let trigger = (*data).tg_trigger;
        let arguments: Vec<String> = (0..usize::try_from((*trigger).tgnargs).unwrap_or(0))
            .map(|n| decode(CStr::from_ptr(*(*trigger).tgargs.add(n)).to_bytes()))
            .collect();
        ((*data).tg_event & pg_sys::TRIGGER_EVENT_OPMASK, arguments)
    };
    // what the worker updates is answers, never a key
    if event == pg_sys::TRIGGER_EVENT_UPDATE && user_tables::writing() {
        return Ok(());
    }
    let Some(name) = arguments.first() else { return Ok(()) };
    let number = arguments.get(1).and_then(|number| number.parse().ok()).unwrap_or(0);
    let Some(source) = as_extension_owner(|| sources::watched(name, number))? else { return Ok(()) };
    let (rows, why) = match event {
        pg_sys::TRIGGER_EVENT_INSERT => (Rows::Inserted(data), Why::New),
        pg_sys::TRIGGER_EVENT_UPDATE => {
            // most statements leave the key alone, which a look at the column alone tells
            let column = (source.key_expression.is_none() && source.eligible.is_none()).then_some(number);
            // SAFETY: the data of an UPDATE trigger that enrich_attach made, with both transition tables.
            match unsafe { pairs::compare(data, column) } {
                Pairs::Same => return Ok(()),
                Pairs::Differ => (Rows::Changed(data), Why::Moved),
                Pairs::Unknown => (Rows::Touched(data), Why::Moved),
            }
        }
        _ => return as_extension_owner(|| sweep_soon(&source)),
    };
    let mut any = false;
    let mut read = || {
        keys::read(&source, &rows, |seen| {
            any = true;
            as_extension_owner(|| arrivals::note(&source.name, seen, why))
        })
    };
    if !source.has_expressions() {
        read()?;
    } else if let Err(error) = subxact::run(read) {
        // what the user's expression cannot do must not stop the statement: the sweep meets it too and reports it
        pgrx::debug1!("enrichment_cache: source {}: {error}", source.name);
        return as_extension_owner(|| sweep_soon(&source));
    }
    if any {
        wake::worker_at_commit();
    }
    Ok(())
}

fn sweep_soon(source: &Source) -> Result<(), Error> {
    arrivals::note(&source.name, Vec::new(), Why::New)?;
    wake::worker_at_commit();
    Ok(())
}
