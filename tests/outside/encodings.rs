//! Databases whose encoding is not UTF-8: answers, keys and passwords of any characters, and answers that are nasty.

use crate::http::{json, Server};
use crate::support::{one, one_of, run, shared_cluster, wait_served, Base};
use enrichment_cache::core::json_text::corpus;
use sha1::{Digest, Sha1};

/// A database of this encoding, with a service `nasty` whose answer to a number is the text of that number.
fn base(name: &str, encoding: &str) -> (Base, Server) {
    let server = Server::start(|asked| {
        let n: usize = asked.target.trim_start_matches('/').parse().unwrap_or(0);
        let kept = corpus::kept();
        json(200, kept.get(n).cloned().unwrap_or_else(|| corpus::made(n as u64)))
    });
    let cluster = shared_cluster("encodings");
    let sandbox = testbed::Sandbox::start(&["--limits", "none"]);
    run(
        &mut cluster.client("postgres"),
        &format!("CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"),
    );
    let base = Base { cluster, sandbox, name: name.to_string() };
    base.run("CREATE EXTENSION enrichment_cache; UPDATE enrichment_service SET limits = '[]'");
    base.sandbox.point_services(&mut base.client(), "public");
    base.run(&format!(
        "INSERT INTO enrichment_service (name, key_kind, url, max_in_flight) VALUES ('nasty', 'text', '{}', 16)",
        server.url("/{key}")
    ));
    wait_served(&base.cluster, name);
    (base, server)
}

/// Asks for every text, and waits until each has been answered once.
fn ask_for_all(base: &Base, texts: usize) {
    base.run(&format!(
        "SELECT enrich_request_many('nasty', array_agg(n::text)) FROM generate_series(0, {texts} - 1) n"
    ));
    base.wait_for("SELECT count(*) FROM enrichment_queue WHERE last_outcome IS NULL", 0i64);
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_cache WHERE service = 'nasty'"), texts as i64);
}

#[test]
fn no_answer_stops_a_batch_and_what_was_altered_is_flagged_in_any_encoding() {
    for (name, encoding) in [("utf8", "UTF8"), ("latin1", "LATIN1"), ("euc_jp", "EUC_JP"), ("bytes", "SQL_ASCII")] {
        let (base, _server) = base(name, encoding);
        let texts = corpus::kept().len() + 400;
        ask_for_all(&base, texts);
        let mut client = base.client();
        let statuses =
            "SELECT string_agg(DISTINCT response_status, ' ' ORDER BY response_status) FROM enrichment_cache";
        assert_eq!(one::<String>(&mut client, statuses), "invalid success", "{encoding}");
        // only what is no JSON, and never because the database refused it
        let refused = "SELECT count(*) FROM enrichment_cache WHERE error_message LIKE '%could not be stored%'";
        assert_eq!(one::<i64>(&mut client, refused), 0, "{encoding}");
        assert!(!base.cluster.log().contains("is stored one by one"), "{encoding}");
        // the same texts are answers everywhere, and all can be read, altered ones and others
        let good = "SELECT count(payload::text) FROM enrichment_cache WHERE response_status = 'success'";
        let answers = (0..texts).filter(|n| {
            let kept = corpus::kept();
            let body = kept.get(*n).cloned().unwrap_or_else(|| corpus::made(*n as u64));
            enrichment_cache::core::json_text::make_safe(&body).is_ok()
        });
        assert_eq!(one::<i64>(&mut client, good), answers.count() as i64, "{encoding}");
        let altered = "SELECT count(*) FILTER (WHERE altered) > 50 AND count(*) FILTER (WHERE NOT altered) > 50
            AND bool_and(NOT altered OR payload IS NOT NULL) FROM enrichment_cache";
        assert!(one::<bool>(&mut client, altered), "{encoding}");
    }
}

#[test]
fn characters_that_an_encoding_lacks_stay_readable_and_the_others_are_themselves() {
    let body =
        corpus::kept().iter().position(|body| body.starts_with(br#""\uD83D\uDE00 "#)).expect("the text of characters");
    for (name, encoding, read, altered) in [
        ("read_utf8", "UTF8", "😀 é 中 Œ \\u4e2d", false),
        ("read_latin1", "LATIN1", "\\ud83d\\ude00 é \\u4e2d \\u0152 \\u4e2d", true),
        ("read_euc_jp", "EUC_JP", "\\ud83d\\ude00 é 中 Œ \\u4e2d", true),
    ] {
        let (base, _server) = base(name, encoding);
        base.run(&format!("SELECT enrich_request('nasty', '{body}')"));
        base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
        let mut client = base.client();
        assert_eq!(one::<String>(&mut client, "SELECT payload #>> '{}' FROM enrichment_cache"), read, "{encoding}");
        assert_eq!(one::<String>(&mut client, &format!("SELECT enrich_get_text('nasty', '{body}')")), read);
        assert_eq!(one::<bool>(&mut client, "SELECT altered FROM enrichment_cache"), altered, "{encoding}");
    }
}

#[test]
fn keys_and_passwords_beyond_ascii_work_where_the_encoding_is_not_utf8() {
    for (name, encoding) in [("keys_latin1", "LATIN1"), ("keys_euc_jp", "EUC_JP")] {
        let (base, _server) = base(name, encoding);
        let mut client = base.client();
        let text = "naïve é";
        let get = "SELECT enrich_get('nasty', $1)::text";
        client.execute("SELECT enrich_store('nasty', $1, '{\"known\": true}')", &[&text]).expect("stored");
        assert_eq!(one_of::<String>(&mut client, get, &[&text]), r#"{"known": true}"#);
        let looked = "SELECT cache_key || ' ' || state FROM enrich_lookup('nasty', $1)";
        assert_eq!(one_of::<String>(&mut client, looked, &[&text]), "naïve é hit");
        let many = "SELECT string_agg(cache_key, ',') FROM enrich_get_many('nasty', ARRAY[$1, 'x', 'é'])";
        assert_eq!(one_of::<String>(&mut client, many, &[&text]), text);
        client.execute("SELECT enrich_store_text('nasty', 'é', $1)", &[&text]).expect("stored");
        assert_eq!(one::<String>(&mut client, "SELECT enrich_get_text('nasty', 'é')"), text);
        // dirty data is no reason to fail
        assert!(one::<bool>(&mut client, "SELECT enrich_get('dshield', 'é') IS NULL"));

        run(
            &mut client,
            "CREATE TABLE password_tracking (password_text text, breached bool, breach_prevalence int, last_hibp_check timestamptz);
             SELECT enrich_attach('password_tracking', 'password_text', '{hibp}');
             INSERT INTO password_tracking VALUES ('pässwörd'), ('plain')",
        );
        base.wait_for("SELECT count(*) FROM password_tracking WHERE last_hibp_check IS NOT NULL", 2i64);
        let digest: String = Sha1::digest("pässwörd".as_bytes()).iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(base.asked_for("hibp", &digest[..5]), 1, "{encoding}: its hash is that of its UTF-8 form");
    }
}

#[test]
fn commands_paths_and_expressions_beyond_ascii_work_where_the_encoding_is_not_utf8() {
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmATvvffEaBwZkw4w3GwT+2ZPEoAt5ecKP0HwtFMy4k";
    for (name, encoding) in [("texts_latin1", "LATIN1"), ("texts_euc_jp", "EUC_JP")] {
        let (base, _server) = base(name, encoding);
        let mut client = base.client();
        let command = format!("echo \"{KEY} naïve\" >> /var/é/.ssh/authorized_keys");
        let planted = "SELECT concat_ws(' ', comment, target_path) FROM enrich_ssh_keys($1)";
        assert_eq!(
            one_of::<String>(&mut client, planted, &[&command]),
            "naïve /var/é/.ssh/authorized_keys",
            "{encoding}"
        );
        let event = "SELECT enrich_event_command($1)";
        assert_eq!(one_of::<String>(&mut client, event, &[&r#"{"input": "écho"}"#]), "écho", "{encoding}");
        let reads = "SELECT concat_ws(' ', root, path) FROM enrichment_json_reads($1)";
        assert_eq!(
            one_of::<String>(&mut client, reads, &[&"SELECT payload ->> 'clé' FROM t"]),
            "payload {clé}",
            "{encoding}"
        );
        assert_eq!(one_of::<i64>(&mut client, "SELECT enrich_retry('nasty', $1)", &[&"é"]), 0, "{encoding}");
        // a path that is not there is said to be so, whatever its letters
        for (call, code) in [
            ("CALL enrich_hibp_load('/nowhere/é')", "58P01"),
            ("SELECT * FROM enrich_export_batch('/nowhere/é', NULL, 0, 10)", "58030"),
            ("SELECT enrichment_migration_check('disk', 'é', NULL, 10)", "22023"),
        ] {
            let refusal = client.batch_execute(call).expect_err(call);
            assert_eq!(refusal.code().map(|state| state.code()), Some(code), "{encoding}: {refusal:?}");
        }
        // names of tables and columns, expressions and keys
        run(
            &mut client,
            "CREATE TABLE événements (clé text, capteur_é text);
             INSERT INTO événements VALUES ('mot é', 'été'), ('autre', 'hiver');
             SELECT enrich_attach('événements', NULL, '{nasty}', key_expression => 'lower(clé)', eligible => $$capteur_é = 'été'$$);
             INSERT INTO événements VALUES ('second é', 'été'), ('autre', 'hiver')",
        );
        base.wait_for("SELECT count(*) FROM enrichment_indicator WHERE raw_key IN ('mot é', 'second é')", 2i64);
        let covered = "SELECT concat_ws(' ', source, rows, rows_eligible) FROM enrichment_coverage";
        assert_eq!(one::<String>(&mut client, covered), "événements 4 2", "{encoding}");
        let cost = "SELECT keys FROM enrichment_cost($1, NULL, '{}')";
        assert_eq!(one_of::<i64>(&mut client, cost, &[&"événements"]), 2, "{encoding}");
        let asked = "SELECT array_to_string(enrichment_ask_source($1, 4), ',')";
        assert!(one_of::<String>(&mut client, asked, &[&"événements"]).contains("mot é"), "{encoding}");
    }
}
