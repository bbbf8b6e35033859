//! Many sessions that store the same keys at the same moment.

use crate::support::{one, run, shared_cluster};
use std::sync::{Arc, Barrier};

const SESSIONS: usize = 8;
const KEYS: usize = 250;

#[test]
fn concurrent_stores_of_the_same_new_keys_all_succeed() {
    let cluster = shared_cluster("contention");
    let mut client = cluster.client("postgres");
    run(&mut client, "CREATE EXTENSION enrichment_cache");
    let together = Arc::new(Barrier::new(SESSIONS));
    let sessions: Vec<_> = (0..SESSIONS)
        .map(|_| {
            let (mut client, together) = (cluster.client("postgres"), together.clone());
            std::thread::spawn(move || {
                let store = client.prepare("SELECT enrich_store('dshield', $1, '{}')").expect("the statement is valid");
                let mut refused = Vec::new();
                for n in 0..KEYS {
                    together.wait();
                    let key = format!("8.8.{}.{}", n / 200, n % 200 + 1);
                    refused.extend(client.execute(&store, &[&key]).err().map(|error| format!("{key}: {error:?}")));
                }
                refused
            })
        })
        .collect();
    let refused: Vec<String> = sessions.into_iter().flat_map(|one| one.join().expect("a session panicked")).collect();
    assert!(refused.is_empty(), "{} of {} stores failed, the first: {}", refused.len(), SESSIONS * KEYS, refused[0]);
    let stored: i64 = one(&mut client, "SELECT count(*) FROM enrichment_cache");
    assert_eq!(stored, KEYS as i64);
    let odd: i64 = one(&mut client, "SELECT count(*) FROM enrichment_cache WHERE version NOT BETWEEN 1 AND 8");
    assert_eq!(odd, 0, "a store counts at most once");
}
