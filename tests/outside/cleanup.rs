//! enrich_cleanup beside other sessions, and on tables where deleting does more than removing a row.

use crate::reads;
use crate::support::{one, run, said};
use postgres::Client;
use std::sync::Arc;
use testbed::Cluster;

struct Cache {
    cluster: Arc<Cluster>,
    name: String,
}

impl Cache {
    /// A database with so many entries of dshield that are past expiry and grace, the first the oldest, and one fresh.
    fn with(name: &str, entries: u32) -> Cache {
        let cache = Cache { cluster: reads::cluster(), name: format!("cleanup_{name}") };
        run(&mut cache.cluster.client("postgres"), &format!("CREATE DATABASE {}", cache.name));
        let mut client = cache.client();
        run(&mut client, "CREATE EXTENSION enrichment_cache; SELECT enrich_store('dshield', '8.8.8.8', '{}')");
        cache.fill(&mut client, entries);
        cache
    }

    fn client(&self) -> Client {
        self.cluster.client(&self.name)
    }

    fn fill(&self, client: &mut Client, entries: u32) {
        run(
            client,
            &format!(
                "INSERT INTO enrichment_cache (service, cache_key, payload, fetched_at, expires_at)
                 SELECT 'dshield', '9.9.' || i / 250 || '.' || i % 250, '{{}}', now() - interval '3 years',
                    now() - interval '2 years' + i * interval '1 s' FROM generate_series(1, {entries}) i"
            ),
        );
    }
}

fn cleanup(client: &mut Client) -> i64 {
    one(client, "SELECT enrich_cleanup()")
}

fn left(client: &mut Client) -> i64 {
    one(client, "SELECT count(*) FROM enrichment_cache")
}

/// A client that gives up instead of waiting for a lock.
fn impatient(cache: &Cache) -> Client {
    let mut client = cache.client();
    run(&mut client, "SET lock_timeout = '2 s'");
    client
}

#[test]
fn what_another_transaction_holds_is_left_and_what_stands_behind_it_goes() {
    for (held, lock) in [(1, "FOR UPDATE"), (3, "FOR KEY SHARE"), (1_200, "FOR UPDATE"), (1_999, "FOR SHARE")] {
        let cache = Cache::with(&format!("held_{held}"), 2_000);
        let mut holder = cache.client();
        run(&mut holder, &format!("BEGIN; SELECT FROM enrichment_cache ORDER BY expires_at LIMIT {held} {lock}"));
        let mut client = impatient(&cache);
        assert_eq!(cleanup(&mut client), 2_000 - held, "{held} rows held {lock}");
        assert_eq!(left(&mut client), held + 1, "{held} rows held {lock}");
        run(&mut holder, "COMMIT");
        assert_eq!(cleanup(&mut client), held, "{held} rows were held {lock}");
        assert_eq!(left(&mut client), 1);
    }
}

#[test]
fn a_cleanup_ends_where_more_than_a_batch_that_expired_at_one_moment_is_held() {
    let cache = Cache::with("one_moment", 1_500);
    let mut holder = cache.client();
    run(&mut holder, "UPDATE enrichment_cache SET expires_at = now() - interval '1 year' WHERE cache_key LIKE '9.%'");
    run(
        &mut holder,
        "BEGIN; SELECT FROM enrichment_cache WHERE cache_key LIKE '9.%' AND cache_key < '9.9.5' FOR UPDATE",
    );
    let held: i64 =
        one(&mut holder, "SELECT count(*) FROM enrichment_cache WHERE cache_key LIKE '9.%' AND cache_key < '9.9.5'");
    assert!((1_000..1_500).contains(&held), "{held}");
    let mut client = impatient(&cache);
    run(&mut client, "SET statement_timeout = '30 s'");
    assert_eq!(cleanup(&mut client), 1_500 - held);
    run(&mut holder, "COMMIT");
    assert_eq!(cleanup(&mut client), held);
}

#[test]
fn an_entry_that_is_being_renewed_stays() {
    let cache = Cache::with("renewed", 700);
    let mut loader = cache.client();
    run(&mut loader, "BEGIN; SELECT enrich_store('dshield', '9.9.1.1', '{\"new\": true}')");
    let mut client = impatient(&cache);
    assert_eq!(cleanup(&mut client), 699);
    run(&mut loader, "COMMIT");
    assert_eq!(cleanup(&mut client), 0);
    assert!(one::<bool>(&mut client, "SELECT enrich_get('dshield', '9.9.1.1') ? 'new'"));
}

#[test]
fn a_cleanup_that_is_rolled_back_has_removed_nothing() {
    let cache = Cache::with("rolled_back", 700);
    let mut client = cache.client();
    run(&mut client, "BEGIN; SAVEPOINT before");
    assert_eq!((cleanup(&mut client), left(&mut client)), (700, 1), "its own transaction sees that they are gone");
    run(&mut client, "ROLLBACK TO before");
    assert_eq!(left(&mut client), 701);
    assert_eq!((cleanup(&mut client), left(&mut client)), (700, 1));
    run(&mut client, "ROLLBACK");
    assert_eq!(left(&mut client), 701);
}

#[test]
fn values_out_of_line_go_with_their_row() {
    let cache = Cache::with("out_of_line", 0);
    let mut client = cache.client();
    run(
        &mut client,
        "INSERT INTO enrichment_cache (service, cache_key, payload, fetched_at, expires_at)
         SELECT 'dshield', '9.9.9.' || i, jsonb_build_object('long', (SELECT string_agg(md5(i || ' ' || j), '') FROM generate_series(1, 600) j)),
            now() - interval '3 years', now() - interval '2 years' FROM generate_series(1, 20) i",
    );
    let pieces = format!(
        "SELECT count(*) FROM {}",
        one::<String>(
            &mut client,
            "SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = 'enrichment_cache'::regclass"
        )
    );
    assert!(one::<i64>(&mut client, &pieces) >= 20);
    assert_eq!(cleanup(&mut client), 20);
    assert_eq!(one::<i64>(&mut client, &pieces), 0);
}

#[test]
fn triggers_on_deleting_fire() {
    let cache = Cache::with("triggers", 700);
    let mut client = cache.client();
    run(
        &mut client,
        "CREATE TABLE gone (cache_key text);
         CREATE FUNCTION note_one() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN INSERT INTO public.gone VALUES (OLD.cache_key); RETURN OLD; END$$;
         CREATE FUNCTION note_all() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN INSERT INTO public.gone SELECT cache_key FROM deleted; RETURN NULL; END$$",
    );
    for kind in [
        "BEFORE DELETE ON enrichment_cache FOR EACH ROW EXECUTE FUNCTION note_one()",
        "AFTER DELETE ON enrichment_cache FOR EACH ROW EXECUTE FUNCTION note_one()",
        "AFTER DELETE ON enrichment_cache REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION note_all()",
    ] {
        run(&mut client, &format!("TRUNCATE gone; CREATE TRIGGER told {kind}"));
        assert_eq!(cleanup(&mut client), 700, "{kind}");
        assert_eq!(one::<i64>(&mut client, "SELECT count(DISTINCT cache_key) FROM gone"), 700, "{kind}");
        run(&mut client, "DROP TRIGGER told ON enrichment_cache");
        cache.fill(&mut client, 700);
    }
}

#[test]
fn a_cleanup_that_may_not_write_is_refused_as_a_delete_is() {
    let cache = Cache::with("refused", 3);
    let mut client = cache.client();
    run(&mut client, "BEGIN READ ONLY");
    let why =
        client.simple_query("SELECT enrich_cleanup()").expect_err("nothing is deleted in a READ ONLY transaction");
    assert_eq!(why.code().map(|code| code.code()), Some("25006"), "{}", said(&why));
    run(&mut client, "ROLLBACK");
    run(
        &mut client,
        "ALTER TABLE enrichment_cache REPLICA IDENTITY NOTHING; CREATE PUBLICATION copied FOR TABLE enrichment_cache",
    );
    let [ours, plain] = ["SELECT enrich_cleanup()", "DELETE FROM enrichment_cache"]
        .map(|sql| said(&client.simple_query(sql).expect_err("the subscriber could not follow")));
    assert_eq!(ours, plain);
    assert!(plain.contains("replica identity"), "{plain}");
    run(&mut client, "DROP PUBLICATION copied");
    assert_eq!(cleanup(&mut client), 3);
}
