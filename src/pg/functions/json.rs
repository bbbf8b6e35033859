//! What the typed views are made of: a value of a type from a place in a payload. `sql/install/40_views.sql` declares these,
//! because one function here serves two there: `(jsonb)` and `(jsonb, VARIADIC text[])`.

use crate::core::answers::{spur, urlhaus, virustotal};
use crate::core::jsonb::{is_hollow, root, standalone, walk, Value};
use crate::core::text_array;
use crate::core::typed::{self, Item};
use crate::pg::convert::{to_date, to_timestamp};
use crate::pg::json::{arguments, Made};
use pgrx::prelude::*;

use pgrx::pg_sys::FunctionCallInfo as Call;

/// What a column holds, read from the value at the path.
fn at<R>(call: Call, read: impl FnOnce(Value) -> Option<R>) -> Option<R> {
    arguments(call)?.lend(|payload, path| read(walk(root(payload)?, path)?))
}

fn text_array(items: Vec<Item>) -> Made {
    Made::of(&text_array::write(items.iter().map(|item| &**item)))
}

#[pg_extern(sql = false)]
fn enrich_text(call: Call) -> Option<Made> {
    at(call, |value| Some(Made::of(&typed::text(value)?)))
}

#[pg_extern(sql = false)]
fn enrich_bigint(call: Call) -> Option<i64> {
    at(call, typed::bigint)
}

#[pg_extern(sql = false)]
fn enrich_asn(call: Call) -> Option<i32> {
    at(call, typed::asn)
}

#[pg_extern(sql = false)]
fn enrich_boolean(call: Call) -> Option<bool> {
    at(call, typed::boolean)
}

#[pg_extern(sql = false)]
fn enrich_timestamp(call: Call) -> Option<TimestampWithTimeZone> {
    at(call, typed::moment).map(to_timestamp)
}

#[pg_extern(sql = false)]
fn enrich_date(call: Call) -> Option<Date> {
    to_date(at(call, typed::day)?)
}

#[pg_extern(sql = false)]
fn enrich_text_array(call: Call) -> Option<Made> {
    at(call, |value| typed::texts(value).map(text_array))
}

#[pg_extern(sql = false)]
fn enrich_names(call: Call) -> Option<Made> {
    at(call, |value| typed::names(value).map(text_array))
}

#[pg_extern(sql = false)]
fn enrich_sum(call: Call) -> Option<i64> {
    at(call, typed::sum)
}

#[pg_extern(sql = false)]
fn enrich_virustotal_value(call: Call) -> Option<Made> {
    arguments(call)?.lend(|payload, path| {
        let value = walk(virustotal::attributes(root(payload)?), path)?;
        Some(Made::of(&standalone(&value)))
    })
}

#[pg_extern(sql = false)]
fn enrich_spur_value(call: Call) -> Option<Made> {
    arguments(call)?.lend(|payload, path| {
        let value = spur::answer(root(payload)?)?.value(path)?;
        Some(Made::of(&standalone(&value)))
    })
}

#[pg_extern(sql = false)]
fn enrich_spur_flagged(call: Call) -> Option<bool> {
    at(call, |payload| spur::answer(payload)?.flagged())
}

#[pg_extern(sql = false)]
fn enrich_urlhaus_tags(call: Call) -> Option<Made> {
    at(call, |payload| urlhaus::tags(payload).map(text_array))
}

#[pg_extern(sql = false)]
fn enrich_urlhaus_online(call: Call) -> Option<i64> {
    at(call, urlhaus::online)
}

/// `enrich_is_empty`: of what cannot be read nobody says that it holds nothing.
#[pg_extern(sql = false)]
fn enrich_is_empty(call: Call) -> Option<bool> {
    arguments(call)?.lend(|payload, _| Some(root(payload).is_some_and(is_hollow)))
}
