//! Look-ups under a search path, and beside tables, functions and operators, that want to mislead them.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{count, list, run, text};
    use pgrx::prelude::*;

    /// Every way to look up one key, each giving its payload; the functions stand in `public` here.
    const LOOKS: [&str; 7] = [
        "public.enrich_get('dshield', '9.90.0.1')",
        "public.enrich_get('dshield', '9.90.0.1'::pg_catalog.inet)",
        "public.enrich_get('dshield', '9.90.0.1', '1 day')",
        "(SELECT m.payload FROM public.enrich_get_many('dshield', '{9.90.0.1}') m)",
        "(SELECT l.payload FROM public.enrich_lookup('dshield', '9.90.0.1') l)",
        "public.got_plpgsql('9.90.0.1')",
        "public.got_sql('9.90.0.1')",
    ];

    fn stored() {
        run("SELECT public.enrich_store('dshield', '9.90.0.1', '{\"mine\": 1}')");
        run("CREATE FUNCTION public.got_plpgsql(key text) RETURNS jsonb LANGUAGE plpgsql VOLATILE AS
            $$ BEGIN RETURN public.enrich_get('dshield', key); END $$;
            CREATE FUNCTION public.got_sql(key text) RETURNS jsonb LANGUAGE sql VOLATILE SECURITY DEFINER AS
            $$ SELECT public.enrich_get('dshield', key) $$");
    }

    /// The answers are those of the extension's table, and there is none where it has none.
    #[track_caller]
    fn mine(when: &str) {
        for look in LOOKS {
            let answer: Option<String> = Spi::get_one(&format!("SELECT {look} #>> '{{}}'::pg_catalog.text[]"))
                .unwrap_or_else(|error| panic!("{when}: {look}: {error}"));
            assert_eq!(answer.as_deref(), Some("{\"mine\": 1}"), "{when}: {look}");
            let other = look.replace("9.90.0.1", "9.90.0.2");
            let none: Option<bool> = Spi::get_one(&format!("SELECT {other} IS NULL"))
                .unwrap_or_else(|error| panic!("{when}: {other}: {error}"));
            assert_eq!(none, Some(true), "{when}: {other}");
        }
    }

    /// A table of the cache's name that answers for both keys, where `place` is.
    fn impostor(place: &str) {
        run(&format!(
            "CREATE TABLE {place}.enrichment_cache (LIKE public.enrichment_cache INCLUDING ALL);
            INSERT INTO {place}.enrichment_cache (service, cache_key, payload, expires_at)
            SELECT 'dshield', '9.90.0.' || i, '{{\"mine\": 0}}', 'infinity' FROM pg_catalog.generate_series(1, 2) i"
        ));
    }

    #[pg_test]
    fn shadow_a_temporary_table_of_the_name_is_not_looked_up_in() {
        stored();
        mine("before");
        impostor("pg_temp");
        assert_eq!(count("SELECT count(*) FROM enrichment_cache"), 2, "the impostor comes first by name");
        mine("beside a temporary table");
        run("SET search_path = pg_temp, public");
        mine("with its schema named first");
        run("DROP TABLE pg_temp.enrichment_cache");
        mine("when it has gone");
        impostor("pg_temp");
        run("CREATE TEMP TABLE enrichment_service (LIKE public.enrichment_service);
            CREATE TEMP VIEW enrichment_queue AS SELECT 1 AS nothing");
        run("UPDATE public.enrichment_service SET enabled = enabled");
        mine("with the registry read again");
    }

    #[pg_test]
    fn shadow_a_table_earlier_in_the_search_path_is_not_looked_up_in() {
        stored();
        run("CREATE SCHEMA shadow");
        for path in ["public", "shadow, public", "''", "shadow", "public, shadow", "pg_catalog", "\"$user\", public"] {
            run(&format!("SET search_path = {path}"));
            mine(path);
            if path == "public" {
                impostor("shadow");
                mine("with an impostor");
            }
        }
    }

    /// One call site, and another search path each time.
    #[pg_test]
    fn shadow_a_search_path_that_changes_between_look_ups_changes_nothing() {
        stored();
        run("CREATE SCHEMA shadow");
        impostor("shadow");
        impostor("pg_temp");
        run("CREATE FUNCTION public.over_paths(paths text[]) RETURNS jsonb[] LANGUAGE plpgsql AS $$
            DECLARE
                path text;
                seen jsonb[];
            BEGIN
                FOREACH path IN ARRAY paths LOOP
                    PERFORM pg_catalog.set_config('search_path', path, true);
                    seen := seen || public.enrich_get('dshield', '9.90.0.1');
                    seen := seen || public.enrich_get('dshield', '9.90.0.2');
                END LOOP;
                RETURN seen;
            END $$");
        assert_eq!(
            text("SELECT public.over_paths('{public,shadow,\"\",\"pg_temp, shadow\",\"shadow, pg_catalog\",public}')"),
            format!("{{{}}}", ["\"{\\\"mine\\\": 1}\",NULL"; 6].join(","))
        );
    }

    /// Functions, operators and types of the names that look-ups use, found before those of pg_catalog.
    #[pg_test]
    fn shadow_functions_and_operators_of_pg_catalogs_names_are_not_called() {
        stored();
        run("CREATE SCHEMA shadow; CREATE TABLE shadow.called (what text);
            CREATE FUNCTION shadow.trap(what text) RETURNS void LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'an impostor was called: %', what; END $$;
            CREATE FUNCTION shadow.now() RETURNS timestamptz LANGUAGE plpgsql AS
                $$ BEGIN PERFORM shadow.trap('now'); RETURN 'infinity'; END $$;
            CREATE FUNCTION shadow.count(text) RETURNS bigint LANGUAGE plpgsql AS
                $$ BEGIN PERFORM shadow.trap('count'); RETURN 0; END $$;
            CREATE FUNCTION shadow.enrich_key_hash(text, text) RETURNS uuid LANGUAGE plpgsql AS
                $$ BEGIN PERFORM shadow.trap('enrich_key_hash'); END $$;
            CREATE FUNCTION shadow.enrich_get(text, text) RETURNS jsonb LANGUAGE plpgsql AS
                $$ BEGIN PERFORM shadow.trap('enrich_get'); END $$");
        for (name, left, right) in [
            ("=", "text", "text"),
            ("=", "uuid", "uuid"),
            ("=", "name", "text"),
            (">", "timestamptz", "timestamptz"),
            ("+", "timestamptz", "interval"),
            ("->", "jsonb", "text"),
        ] {
            run(&format!(
                "CREATE FUNCTION shadow.op({left}, {right}) RETURNS boolean LANGUAGE plpgsql AS
                    $$ BEGIN PERFORM shadow.trap('operator {name}'); RETURN true; END $$;
                CREATE OPERATOR shadow.{name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = shadow.op)"
            ));
        }
        run("CREATE TYPE shadow.jsonb AS (a int); CREATE DOMAIN shadow.interval AS int; CREATE DOMAIN shadow.uuid AS int");
        impostor("shadow");
        mine("before");
        run("SET search_path = shadow, pg_catalog, public");
        mine("with everything shadowed");
        // plans are made anew
        run("DISCARD PLANS");
        mine("with plans made there");
        run("SET search_path = public");
        mine("after");
        assert_eq!(list("SELECT what FROM shadow.called"), Vec::<String>::new());
    }

    #[pg_test]
    fn shadow_a_temporary_table_does_not_catch_what_is_stored() {
        stored();
        impostor("pg_temp");
        run("SELECT public.enrich_store('dshield', '9.90.0.2', '{\"mine\": 2}')");
        assert_eq!(text("SELECT public.enrich_get('dshield', '9.90.0.2')"), "{\"mine\": 2}");
        assert_eq!(text("SELECT payload FROM public.enrichment_cache WHERE cache_key = '9.90.0.2'"), "{\"mine\": 2}");
        assert_eq!(text("SELECT payload FROM pg_temp.enrichment_cache WHERE cache_key = '9.90.0.2'"), "{\"mine\": 0}");
    }
}
