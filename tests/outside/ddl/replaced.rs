//! Another relation under the name of the cache, or one beneath it: look-ups answer from what plain SQL reads.

use crate::reads::{agree, agree_in, comparison, Reads};
use crate::support::{one, run, said};
use postgres::{Client, Statement};

struct Looker {
    client: Client,
    prepared: Statement,
}

impl Looker {
    fn new(reads: &Reads) -> Looker {
        let mut client = reads.client();
        let prepared = client.prepare(&comparison("by_name")).unwrap_or_else(|why| panic!("{}", said(&why)));
        Looker { client, prepared }
    }

    /// How many answers there were, all of them right.
    #[track_caller]
    fn look(&mut self, what: &str) -> i64 {
        match self.client.query_one(&self.prepared, &[]) {
            Ok(row) => assert_eq!(row.get::<_, &str>(1), "", "{what}"),
            Err(why) => panic!("{what}: {}", said(&why)),
        }
        agree_in(&mut self.client, "by_name")
    }
}

const COLUMNS: &str = "id bigint, service text, cache_key text, cache_key_hash uuid, payload jsonb, response_status text,
    created_at timestamptz, fetched_at timestamptz, accessed_at timestamptz, expires_at timestamptz, api_response_code int,
    api_latency_ms int, error_message text, hit_count bigint, version bigint, ranges bytea";
const NAMES: &str =
    "id, service, cache_key, cache_key_hash, payload, response_status, created_at, fetched_at, accessed_at,
    expires_at, api_response_code, api_latency_ms, error_message, hit_count, version, ranges";

/// Statements that put another relation in the cache's place, filled from the original, which is called `original`.
fn replacements(reads: &Reads) -> Vec<(&'static str, String)> {
    let (host, port, database) = (reads.cluster.host(), reads.cluster.port(), &reads.name);
    let fill = format!("INSERT INTO enrichment_cache ({NAMES}) SELECT {NAMES} FROM original WHERE id % 4 <> 0");
    let reversed: Vec<&str> = COLUMNS.split(',').rev().map(str::trim).collect();
    vec![
        ("a copy", format!("CREATE TABLE enrichment_cache (LIKE original INCLUDING ALL); ALTER TABLE enrichment_cache
            ALTER COLUMN cache_key_hash DROP EXPRESSION; {fill}")),
        ("other order", format!("CREATE TABLE enrichment_cache ({}); CREATE UNIQUE INDEX ON enrichment_cache (service, cache_key);
            {fill}", reversed.join(", "))),
        ("another access method", format!("CREATE ACCESS METHOD heap_of_another_name TYPE TABLE HANDLER heap_tableam_handler;
            CREATE TABLE enrichment_cache ({COLUMNS}) USING heap_of_another_name; CREATE UNIQUE INDEX ON enrichment_cache (service, cache_key);
            {fill}")),
        ("no index", format!("CREATE TABLE enrichment_cache ({COLUMNS}); {fill}")),
        ("dropped columns", format!("CREATE TABLE enrichment_cache (a int, {COLUMNS}, b int); ALTER TABLE enrichment_cache DROP COLUMN a;
            ALTER TABLE enrichment_cache DROP COLUMN b; CREATE UNIQUE INDEX ON enrichment_cache (cache_key, service); {fill}")),
        ("other collation", format!("CREATE TABLE enrichment_cache ({}); CREATE UNIQUE INDEX ON enrichment_cache (service, cache_key);
            CREATE UNIQUE INDEX ON enrichment_cache (cache_key, service); {fill}",
            COLUMNS.replace(" text", " text COLLATE \"und-x-icu\""))),
        ("partitioned by hash", format!("CREATE TABLE enrichment_cache ({COLUMNS}) PARTITION BY HASH (cache_key);
            CREATE TABLE part_0 PARTITION OF enrichment_cache FOR VALUES WITH (MODULUS 2, REMAINDER 0);
            CREATE TABLE part_1 PARTITION OF enrichment_cache FOR VALUES WITH (MODULUS 2, REMAINDER 1);
            CREATE UNIQUE INDEX ON enrichment_cache (service, cache_key); {fill}")),
        ("partitioned by service", format!("CREATE TABLE enrichment_cache ({COLUMNS}) PARTITION BY LIST (service);
            CREATE TABLE part_0 PARTITION OF enrichment_cache FOR VALUES IN ('dshield', 'urlhaus');
            CREATE TABLE part_1 PARTITION OF enrichment_cache DEFAULT; {fill}")),
        ("a view", "CREATE VIEW enrichment_cache AS SELECT * FROM original WHERE id % 3 <> 0".to_string()),
        ("a materialized view", "CREATE MATERIALIZED VIEW enrichment_cache AS SELECT * FROM original WHERE id % 3 <> 0;
            CREATE UNIQUE INDEX ON enrichment_cache (service, cache_key)".to_string()),
        ("a foreign table", format!("CREATE EXTENSION IF NOT EXISTS postgres_fdw;
            CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{host}', port '{port}', dbname '{database}');
            CREATE USER MAPPING FOR CURRENT_USER SERVER here OPTIONS (user 'postgres', password_required 'false');
            CREATE FOREIGN TABLE enrichment_cache ({COLUMNS}) SERVER here OPTIONS (table_name 'original')")),
    ]
}

const AWAY: &str = "ALTER TABLE enrichment_cache RENAME TO original";

/// Takes a replacement away again, whatever it is.
const BACK: &str = "DO $$
DECLARE
    kind text := (SELECT CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END
        FROM pg_class WHERE oid = to_regclass('public.enrichment_cache'));
BEGIN
    IF kind IS NOT NULL THEN
        EXECUTE format('DROP %s public.enrichment_cache CASCADE', kind);
    END IF;
    DROP SERVER IF EXISTS here CASCADE;
    ALTER TABLE original RENAME TO enrichment_cache;
END $$";

#[test]
fn another_relation_in_the_caches_place_is_looked_up_in_as_plain_sql_does() {
    let reads = Reads::filled("ddl_replaced");
    let (mut mine, mut other) = (Looker::new(&reads), Looker::new(&reads));
    let whole = mine.look("the cache");
    for (what, sql) in replacements(&reads) {
        other.look("the cache");
        run(&mut mine.client, &format!("{AWAY}; {sql}"));
        let seen = mine.look(what);
        assert!(seen > 50 && seen <= whole, "{what}: {seen} answers of {whole}");
        assert_eq!(other.look(what), seen, "{what}, another session");
        run(&mut mine.client, "UPDATE original SET expires_at = now() - interval '30 minutes' WHERE id % 5 = 1");
        mine.look(what);
        run(&mut mine.client, "UPDATE original SET expires_at = now() + interval '1 hour' WHERE id % 5 = 1");
        run(&mut mine.client, BACK);
        assert_eq!(mine.look("the cache again"), whole);
        assert_eq!(other.look("the cache again"), whole);
    }
    agree(&mut mine.client);
}

#[test]
fn another_relation_in_the_caches_place_may_come_and_go_in_a_transaction() {
    let reads = Reads::filled("ddl_replaced_transaction");
    let mut mine = Looker::new(&reads);
    let whole = mine.look("the cache");
    for (what, sql) in replacements(&reads) {
        // the other server's session would wait for ours
        if what == "a foreign table" {
            continue;
        }
        run(&mut mine.client, "BEGIN");
        mine.look("the cache");
        run(&mut mine.client, &format!("{AWAY}; {sql}"));
        let seen = mine.look(what);
        assert!(seen > 50 && seen <= whole, "{what}: {seen} answers of {whole}");
        run(&mut mine.client, "SAVEPOINT s");
        run(&mut mine.client, BACK);
        assert_eq!(mine.look("the cache"), whole);
        run(&mut mine.client, "ROLLBACK TO SAVEPOINT s");
        assert_eq!(mine.look(what), seen);
        run(&mut mine.client, "ROLLBACK");
        assert_eq!(mine.look("the cache again"), whole);
    }
}

#[test]
fn a_cache_that_is_not_there_is_said_to_be_missing() {
    let reads = Reads::filled("ddl_missing");
    let mut mine = Looker::new(&reads);
    let whole = mine.look("the cache");
    let looks = [
        "SELECT enrich_get('dshield', '8.8.0.1')",
        "SELECT enrich_get('dshield', '8.8.0.1'::inet)",
        "SELECT enrich_get('dshield', '8.8.0.1', '1 hour')",
        "SELECT * FROM enrich_get_many('dshield', '{8.8.0.1}')",
        "SELECT * FROM enrich_lookup('dshield', '8.8.0.1')",
        "SELECT payload FROM enrichment_cache",
    ];
    for in_transaction in [false, true] {
        if in_transaction {
            run(&mut mine.client, "BEGIN; SAVEPOINT s");
        }
        run(&mut mine.client, AWAY);
        for look in looks {
            if in_transaction {
                run(&mut mine.client, "SAVEPOINT look");
            }
            let error = mine.client.simple_query(look).expect_err("there is no cache");
            assert_eq!(error.code().map(|code| code.code()), Some("42P01"), "{look}: {}", said(&error));
            if in_transaction {
                run(&mut mine.client, "ROLLBACK TO SAVEPOINT look");
            }
        }
        run(&mut mine.client, if in_transaction { "ROLLBACK" } else { BACK });
        assert_eq!(mine.look("the cache again"), whole);
    }
}

#[test]
fn rows_of_a_child_table_are_seen_as_long_as_plain_sql_sees_them() {
    let reads = Reads::filled("ddl_child");
    let (mut mine, mut other) = (Looker::new(&reads), Looker::new(&reads));
    run(&mut mine.client, "DELETE FROM enrichment_cache WHERE id % 2 = 0");
    let whole = mine.look("the cache");
    other.look("the cache");
    run(
        &mut mine.client,
        "CREATE TABLE child (LIKE enrichment_cache INCLUDING ALL EXCLUDING IDENTITY EXCLUDING INDEXES);
        INSERT INTO child (id, service, cache_key, payload, expires_at)
            SELECT -min(n), service, cache_key, made(3), now() + interval '1 hour' FROM universe u
            WHERE cache_key IS NOT NULL AND NOT EXISTS (SELECT FROM enrichment_cache c
                WHERE c.service = u.service AND c.cache_key = u.cache_key) GROUP BY service, cache_key",
    );
    assert_eq!(mine.look("a table beside"), whole);
    for round in 0..2 {
        run(&mut mine.client, "BEGIN; ALTER TABLE child INHERIT enrichment_cache");
        let more = mine.look("a child");
        assert!(more > whole + 50, "{more} of {whole}");
        run(&mut mine.client, if round == 0 { "ROLLBACK" } else { "COMMIT" });
        assert_eq!(mine.look("a child, afterwards"), if round == 0 { whole } else { more });
        assert_eq!(other.look("a child, afterwards"), if round == 0 { whole } else { more });
    }
    run(&mut other.client, "UPDATE child SET payload = made(4) WHERE id % 2 = 0");
    mine.look("a child that changes");
    agree(&mut mine.client);
    run(&mut other.client, "ALTER TABLE child NO INHERIT enrichment_cache");
    assert_eq!(mine.look("no child any more"), whole);
    run(&mut other.client, "CREATE TABLE second () INHERITS (enrichment_cache); DROP TABLE second");
    assert_eq!(mine.look("a child that was"), whole);
}

/// Types that plain SQL compares and returns just as well.
#[test]
fn keys_and_times_of_kindred_types_are_compared_as_plain_sql_does() {
    let reads = Reads::filled("ddl_kindred");
    reads.run("CREATE DOMAIN document AS jsonb; CREATE DOMAIN word AS text COLLATE \"C\" CHECK (length(VALUE) < 1000)");
    let mut mine = Looker::new(&reads);
    let whole = mine.look("the cache");
    for (column, kind) in [
        ("service", "varchar(100)"),
        ("cache_key", "varchar"),
        ("cache_key", "word"),
        ("service", "name"),
        ("expires_at", "timestamp"),
        ("payload", "document"),
    ] {
        let columns: Vec<&str> = NAMES.split(',').map(str::trim).collect();
        let typed: Vec<String> = columns
            .iter()
            .map(|name| if *name == column { format!("{name}::{kind} AS {name}") } else { name.to_string() })
            .collect();
        run(
            &mut mine.client,
            &format!(
                "{AWAY}; CREATE TABLE enrichment_cache AS SELECT {} FROM original WHERE id % 3 <> 0;
                CREATE UNIQUE INDEX ON enrichment_cache (service, cache_key);
                CREATE UNIQUE INDEX ON enrichment_cache (cache_key, service)",
                typed.join(", ")
            ),
        );
        let what = format!("{column} {kind}");
        let seen = mine.look(&what);
        assert!(seen > 50 && seen < whole, "{what}: {seen} answers of {whole}");
        run(&mut mine.client, BACK);
        assert_eq!(mine.look("the cache again"), whole);
    }
}

/// In a cluster of its own, which a crash would take down.
#[test]
fn a_payload_of_another_type_is_an_error_and_no_crash() {
    let reads = Reads::apart("ddl_types");
    let mut client = reads.client();
    let looks = [
        "SELECT enrich_get('dshield', '8.8.0.1')::text",
        "SELECT enrich_get('dshield', '8.8.0.1'::inet)::text",
        "SELECT enrich_get('dshield', '8.8.0.1', '1 hour')::text",
        "SELECT payload::text FROM enrich_get_many('dshield', '{8.8.0.1}')",
        "SELECT payload::text FROM enrich_lookup('dshield', '8.8.0.1')",
    ];
    let expected: Vec<String> = looks.iter().map(|look| one(&mut client, look)).collect();
    for kind in ["text", "json", "bytea", "int", "bigint"] {
        let value = match kind {
            "int" | "bigint" => "7",
            "bytea" => "payload::text::bytea",
            _ => "payload",
        };
        let names = NAMES.replace("payload", &format!("({value})::{kind} AS payload"));
        run(
            &mut client,
            &format!(
                "{AWAY}; CREATE TABLE enrichment_cache AS SELECT {names} FROM original;
                CREATE UNIQUE INDEX ON enrichment_cache (service, cache_key);
                CREATE UNIQUE INDEX ON enrichment_cache (cache_key, service)"
            ),
        );
        for (look, expected) in looks.iter().zip(&expected) {
            match client.query_one(*look, &[]) {
                Ok(row) => assert_eq!(row.get::<_, Option<&str>>(0), Some(expected.as_str()), "payload {kind}: {look}"),
                // one that says what is wrong, not what was made of the bytes
                Err(error) => assert!(
                    error.code().is_some_and(|code| !code.code().starts_with("XX")),
                    "payload {kind}: {look}: {}",
                    said(&error)
                ),
            }
        }
        run(&mut client, BACK);
        agree(&mut client);
    }
}

/// Citus lists its tables in pg_dist_partition, and its planner hook finds the rows that are elsewhere: so each look-up has to
/// be planned, which shows here by the sequential scan that a plan takes when indexes are not allowed.
#[test]
fn a_distributed_cache_and_one_of_another_access_method_are_looked_up_in_by_a_plan() {
    let reads = Reads::filled("ddl_distributed");
    let (mut mine, mut other) = (Looker::new(&reads), Looker::new(&reads));
    let whole = mine.look("the cache");
    let planned = |client: &mut Client| -> bool {
        run(client, "BEGIN; SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_indexonlyscan = off");
        let looks = [
            "SELECT count(enrich_get('dshield', raw)) FROM universe WHERE n IN (2, 3)",
            "SELECT count(enrich_get('dshield', address)) FROM universe WHERE n IN (2, 3)",
            "SELECT count(*) FROM enrich_get_many('dshield', '{8.8.0.1,8.8.0.2}')",
            "SELECT count(*) FROM enrich_lookup('dshield', '8.8.0.1')",
        ];
        // what earlier statements did is in it until it has been reported
        let scanned = "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relid = 'enrichment_cache'::regclass";
        let mut scans = vec![one::<i64>(client, scanned)];
        for look in looks {
            assert!(one::<i64>(client, look) > 0, "{look}");
            scans.push(one(client, scanned));
        }
        run(client, "COMMIT");
        let planned = scans[1] > scans[0];
        assert!(scans.windows(2).all(|two| (two[1] > two[0]) == planned), "some are planned, some are not: {scans:?}");
        planned
    };
    assert!(!planned(&mut mine.client) && !planned(&mut other.client));
    run(
        &mut mine.client,
        "SET allow_system_table_mods = on;
        CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass NOT NULL, partmethod \"char\" NOT NULL, partkey text,
            colocationid int NOT NULL DEFAULT 0, repmodel \"char\" NOT NULL DEFAULT 's');
        INSERT INTO pg_catalog.pg_dist_partition (logicalrelid, partmethod) VALUES ('enrichment_cache', 'h');
        ALTER TABLE enrichment_cache SET (autovacuum_enabled = off)",
    );
    assert!(planned(&mut mine.client) && planned(&mut other.client));
    assert_eq!((mine.look("distributed"), other.look("distributed")), (whole, whole));
    run(
        &mut mine.client,
        "DROP TABLE pg_catalog.pg_dist_partition; ALTER TABLE enrichment_cache RESET (autovacuum_enabled)",
    );
    assert!(!planned(&mut mine.client) && !planned(&mut other.client));
    assert_eq!((mine.look("the cache again"), other.look("the cache again")), (whole, whole));
    run(
        &mut mine.client,
        "CREATE ACCESS METHOD another_heap TYPE TABLE HANDLER heap_tableam_handler;
        ALTER TABLE enrichment_cache SET ACCESS METHOD another_heap",
    );
    assert!(planned(&mut mine.client) && planned(&mut other.client));
    assert_eq!((mine.look("another access method"), other.look("another access method")), (whole, whole));
    run(&mut mine.client, "ALTER TABLE enrichment_cache SET ACCESS METHOD heap; DROP ACCESS METHOD another_heap");
    assert!(!planned(&mut mine.client) && !planned(&mut other.client));
}
