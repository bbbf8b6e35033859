//! What the processes of a parallel query remember together: each key is looked up once among them, the table read once, nothing counted
//! twice, and the memory given back.

use super::{builder, Reads};
use crate::support::{ask, one, refused, run, said, SOON};
use postgres::Client;
use serde_json::Value;
use std::sync::Arc;
use testbed::wait_until;

const KEYS: i64 = 20_000;
const ASK: &str = "SELECT count(enrich_get('dshield', key)) FROM events";
const WORKERS: &str = "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0";

/// Sixteen rows of each key, in no order; nine keys of ten have an answer.
fn events(reads: Reads) -> Reads {
    reads.run(&format!(
        "CREATE TABLE events AS SELECT i AS id, ('8.' || 9 + k / 65536 || '.' || k / 256 % 256 || '.' || k % 256)::text AS key
            FROM (SELECT i, i % {KEYS} AS k FROM generate_series(1, {KEYS} * 16) i) q ORDER BY md5(i::text);
        INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
            SELECT 'dshield', key, jsonb_build_object('key', key,
                'fill', (SELECT string_agg(md5(key || i), '') FROM generate_series(1, 10) i)), now() + interval '1 hour'
            FROM (SELECT DISTINCT key FROM events) k WHERE hashtext(key) % 10 <> 0"
    ));
    // places are remembered from here on, so that both plans find them; no page is pruned on the way
    reads.run("VACUUM ANALYZE");
    let mut client = reads.client();
    run(&mut client, "SET enrichment_cache.memo_size = 0");
    one::<i64>(&mut client, ASK);
    reads
}

/// A query's answer to itself: pages it went to, and the least that a worker had of the rows.
struct Ran {
    pages: i64,
    least: f64,
}

fn ran(client: &mut Client, query: &str) -> Ran {
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, VERBOSE, FORMAT JSON) {query}");
    let plan = client.simple_query(&explain).unwrap_or_else(|why| panic!("{explain}: {}", said(&why)));
    let text = plan.iter().find_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let plan: Value = serde_json::from_str(text.expect("a plan")).expect("JSON");
    let gather = find(&plan, &|node| node.get("Workers Launched").is_some()).unwrap_or_else(|| panic!("{plan}"));
    let launched = number(gather, "Workers Launched");
    assert_eq!(launched, number(gather, "Workers Planned"), "not enough workers to be had");
    let scan = find(gather, &|node| node["Relation Name"] == "events").expect("a scan of the events");
    let rows: Vec<i64> =
        scan["Workers"].as_array().into_iter().flatten().map(|worker| number(worker, "Actual Rows")).collect();
    let least = if rows.len() as i64 == launched { *rows.iter().min().expect("a worker") } else { 0 };
    let pages = |node: &Value| number(node, "Shared Hit Blocks") + number(node, "Shared Read Blocks");
    let all: i64 = KEYS * 16;
    Ran { pages: pages(gather) - pages(scan), least: least as f64 / all as f64 }
}

fn number(node: &Value, name: &str) -> i64 {
    node[name].as_i64().unwrap_or_else(|| panic!("{name} is not in {node}"))
}

fn find<'a>(node: &'a Value, wanted: &dyn Fn(&Value) -> bool) -> Option<&'a Value> {
    if wanted(node) {
        return Some(node);
    }
    match node {
        Value::Array(list) => list.iter().find_map(|node| find(node, wanted)),
        Value::Object(fields) => fields.values().find_map(|node| find(node, wanted)),
        _ => None,
    }
}

/// How many pages two workers of one query go to, for each that one worker does. Repeated until both had a part of the rows.
fn against_one(client: &mut Client, query: &str) -> f64 {
    run(client, WORKERS);
    for _ in 0..20 {
        run(client, "SET parallel_leader_participation = on; SET max_parallel_workers_per_gather = 1");
        run(client, &format!("DEALLOCATE ALL; PREPARE alone AS {query}; EXPLAIN EXECUTE alone"));
        run(client, "SET max_parallel_workers_per_gather = 2");
        run(client, &format!("PREPARE two AS {query}; EXPLAIN EXECUTE two; SET parallel_leader_participation = off"));
        let (alone, two) = (ran(client, "EXECUTE alone"), ran(client, "EXECUTE two"));
        if two.least > 0.3 {
            return two.pages as f64 / alone.pages as f64;
        }
    }
    panic!("one of two workers never had a third of the rows");
}

#[test]
fn two_workers_look_each_key_up_once_and_read_the_table_once() {
    let reads = events(Reads::new("together_once"));
    let mut client = reads.client();
    let answers: i64 =
        one(&mut client, "SELECT count(payload) FROM events LEFT JOIN enrichment_cache ON cache_key = key");
    // by one pass over the table, and without any; texts, and addresses, whose form is not that of the key
    for isolation in ["read committed", "serializable"] {
        run(&mut client, &format!("SET default_transaction_isolation = '{isolation}'"));
        for query in [ASK, &ASK.replace("key)", "key::inet)")] {
            let times = against_one(&mut client, query);
            assert!(times < 1.4, "{query}, {isolation}: two workers read {times} times what one reads");
            assert_eq!(one::<i64>(&mut client, query), answers, "{isolation}");
        }
    }
}

#[test]
fn what_there_is_no_room_for_is_looked_up_and_answers_are_right() {
    let reads = events(Reads::new("together_full"));
    let mut client = reads.client();
    run(&mut client, &format!("{WORKERS}; SET max_parallel_workers_per_gather = 2"));
    for (size, leader) in [("64kB", "off"), ("1200kB", "off"), ("3MB", "on"), ("6MB", "off"), ("256MB", "on")] {
        run(
            &mut client,
            &format!("SET enrichment_cache.memo_size = '{size}'; SET parallel_leader_participation = {leader}"),
        );
        // half of the keys come in a form that is not theirs
        let wrong = "SELECT count(*) FILTER (WHERE got IS DISTINCT FROM payload)::int8, count(payload)
            FROM (SELECT key, enrich_get('dshield', CASE WHEN id % 2 = 0 THEN '::ffff:' || key ELSE key END) AS got FROM events) q
            LEFT JOIN enrichment_cache c ON c.service = 'dshield' AND c.cache_key = q.key";

        let row = client.query_one(wrong, &[]).unwrap_or_else(|why| panic!("{size}: {}", said(&why)));
        assert_eq!(row.get::<_, i64>(0), 0, "{size}");
        assert!(row.get::<_, i64>(1) > KEYS * 13, "{size}");
    }
}

#[test]
fn every_look_up_is_counted_once_whoever_remembered_it() {
    let reads = events(Reads::new("together_counted"));
    let mut client = reads.client();
    let counted = "SELECT ARRAY[cache_hits, cache_misses] FROM enrichment_stat WHERE service = 'dshield'";
    run(&mut client, &format!("{WORKERS}; SET max_parallel_workers_per_gather = 2"));
    for leader in ["off", "on"] {
        run(&mut client, &format!("SET parallel_leader_participation = {leader}"));
        let before: Vec<i64> = one(&mut client, counted);
        let hits: i64 = one(&mut client, ASK);
        let after: Vec<i64> = one(&mut client, counted);
        assert_eq!((after[0] - before[0], after[1] - before[1]), (hits, KEYS * 16 - hits), "leader {leader}");
    }
}

/// Many times as many queries as there are places for their memos, of which some fail, some are cancelled and some end with their session.
#[test]
fn the_places_and_the_memory_of_queries_that_end_are_free_again() {
    let reads = events(Reads::new("together_free"));
    let few = "SELECT count(enrich_get('dshield', key)) FROM events WHERE id % 16 = 0";
    let segments = "SELECT count(*) FROM pg_ls_dir('/dev/shm') f WHERE f LIKE 'PostgreSQL.%'";
    let mut client = reads.client();
    let posix: String = one(&mut client, "SHOW dynamic_shared_memory_type");
    assert_eq!(posix, "posix");
    let before: i64 = one(&mut client, segments);
    for at in 0..400 {
        let mut session = reads.client();
        run(&mut session, &format!("{WORKERS}; SET max_parallel_workers_per_gather = 2"));
        match at % 4 {
            0 => {
                // ends in the middle, in the leader or in a worker
                let fails = few.replace("count(", "count(10 / (id - 160000) + length(").replace("))", ")::text))");
                refused(&mut session, &fails, "22012", "");
            }
            1 => {
                run(&mut session, "SET statement_timeout = '20ms'");
                let slow = ASK.replace("FROM events", "FROM events, generate_series(1, 50)");
                refused(&mut session, &slow, "57014", "");
            }
            2 => {
                // with its memo, if the leader looked anything up
                let ends = format!("SELECT pg_terminate_backend(pg_backend_pid()) FROM ({few}) q");
                assert!(session.simple_query(&ends).is_err(), "it went on");
            }
            _ => drop(one::<i64>(&mut session, few)),
        }
    }
    // other tests of the cluster have parallel queries too: theirs come and go
    wait_until("the memory of all queries to be given back", SOON, || {
        let now = ask::<i64>(&mut client, segments)?;
        Ok((now <= before + 8).then_some(()))
    });
    let times = against_one(&mut client, ASK);
    assert!(times < 1.4, "two workers read {times} times what one reads: no place was free");
}

/// Where dynamic shared memory lies in files, workers remember each for itself, and two read what two read.
#[test]
fn without_shared_memory_for_it_each_worker_remembers_for_itself() {
    let cluster = builder("together-mmap").setting("dynamic_shared_memory_type", "mmap").start();
    let cluster = Arc::new(cluster.unwrap_or_else(|why| panic!("{why}")));
    let reads = events(Reads::in_cluster(&cluster, "together_alone"));
    let mut client = reads.client();
    run(&mut client, "SET default_transaction_isolation = 'serializable'");
    let times = against_one(&mut client, ASK);
    assert!(times > 1.6, "two workers read {times} times what one reads");
}
