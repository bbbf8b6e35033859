//! Failures of keys: 17, of SSH keys. 14, rows imported under their digest, belongs with the import of a disk cache:
//! `migration::adoption::failure_14_...`.

use crate::sources_support::SMALL;
use crate::support::{one, run, Base};
use testbed::honeypot::{self, Shape};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmATvvffEaBwZkw4w3GwT+2ZPEoAt5ecKP0HwtFMy4k";

#[test]
fn failure_17_a_back_fill_of_ssh_keys_that_runs_twice_doubles_nothing() {
    let base = Base::new("upstream", "f17");
    let mut client = base.client();
    let shape = Shape::default();
    honeypot::create_tables(&mut client, &shape).expect("tables");
    honeypot::load(&mut client, &shape, &SMALL).expect("rows");
    // what the loader linked already, some of it with the same command in the events
    let before: i64 = one(&mut client, "SELECT count(*) FROM session_ssh_keys");
    assert!(before > 0);
    run(
        &mut client,
        "INSERT INTO raw_events (session_id, event_type, event_timestamp, payload)
         SELECT l.session_id, 'cowrie.command.input', l.timestamp, json_build_object('input', l.command_text, 'src_ip', l.source_ip)
         FROM session_ssh_keys l",
    );
    let known: i64 = one(&mut client, "SELECT count(*) FROM ssh_key_intelligence");
    // and a new key: seven attempts, three sessions, two sources; an eighth event repeats one attempt
    run(
        &mut client,
        &format!(
            r#"INSERT INTO raw_events (session_id, event_type, event_timestamp, payload)
            SELECT 'n' || i % 3, 'cowrie.command.input', timestamptz '2026-03-01' + i * interval '1 minute',
                json_build_object('src_ip', '8.8.4.' || i % 2, 'password', 'zero', 'input', 'echo "{KEY} me@x" >> ~/.ssh/authorized_keys')
            FROM unnest('{{1,2,3,4,5,6,7,7}}'::int[]) i"#
        ),
    );
    run(
        &mut client,
        &format!(
            r#"INSERT INTO raw_events (session_id, event_type, event_timestamp, payload) VALUES
            ('zero', 'cowrie.command.input', '2026-03-02', '{{"note": "\u0000", "src_ip": "8.8.4.9", "input": "ls \u0000; echo {KEY} > x"}}'),
            ('login', 'cowrie.login.failed', '2026-03-02', '{{"input": "echo {KEY} > x"}}'),
            ('noise', 'cowrie.command.input', '2026-03-02', '[1, "ssh-rsa"]')"#
        ),
    );
    let shown = "SELECT concat_ws(' ', key_type, key_fingerprint, key_bits, key_comment, total_attempts, unique_sessions, unique_sources,
            to_char(first_seen AT TIME ZONE 'UTC', 'MM-DD HH24:MI'), to_char(last_seen AT TIME ZONE 'UTC', 'MM-DD HH24:MI'))
        FROM ssh_key_intelligence WHERE key_comment = 'me@x'";
    let all = "SELECT md5(string_agg(k::text, ',' ORDER BY k.id)) || (SELECT count(*) FROM session_ssh_keys) FROM ssh_key_intelligence k";
    let mut states = Vec::new();
    for batch in [100_000, 7, 1_000] {
        run(&mut client, &format!("CALL enrich_ssh_backfill(batch_size => {batch})"));
        assert_eq!(
            one::<String>(&mut client, shown),
            "ssh-ed25519 gh8tdxRCjzpUKU08NAU5mt5k/U4CuvnhdBj+ZaxiCik 256 me@x 8 4 3 03-01 00:01 03-02 00:00"
        );
        states.push(one::<String>(&mut client, all));
    }
    assert!(states.iter().all(|state| *state == states[0]), "{states:?}");
    // of what was linked, nothing is linked again, whatever digest the loader gave the key
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM session_ssh_keys"), before + 8);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM ssh_key_intelligence"), known + 1);
    let linked = "SELECT count(*) FROM ssh_key_intelligence k WHERE k.total_attempts IS DISTINCT FROM (
            SELECT count(DISTINCT (l.session_id, l.timestamp)) FROM session_ssh_keys l WHERE l.ssh_key_id = k.id)
        AND EXISTS (SELECT FROM session_ssh_keys l WHERE l.ssh_key_id = k.id AND l.command_text LIKE '%' || k.key_data || '%'
            AND (SELECT count(*) FROM enrich_ssh_keys(l.command_text)) = 1)";
    assert_eq!(one::<i64>(&mut client, linked), 0);
    assert_eq!(
        one::<String>(&mut client, "SELECT command_text FROM session_ssh_keys WHERE session_id = 'zero'"),
        format!("ls ; echo {KEY} > x")
    );
}

/// Each way in which a key is planted, as it is told and as it is linked.
#[test]
fn the_way_a_key_was_planted_is_told_and_linked() {
    let base = Base::new("upstream", "planted_keys");
    let mut client = base.client();
    honeypot::create_tables(&mut client, &Shape::default()).expect("tables");
    let encoded: String =
        one(&mut client, &format!("SELECT replace(encode('{KEY} b64'::bytea, 'base64'), E'\\n', '')"));
    let ways = [
        ("direct", format!("echo \"{KEY} plain\" >> ~/.ssh/authorized_keys"), "~/.ssh/authorized_keys"),
        (
            "heredoc",
            format!("cat << EOF >> /srv/a/.ssh/authorized_keys\n{KEY} here\nEOF"),
            "/srv/a/.ssh/authorized_keys",
        ),
        ("base64", format!("echo {encoded} | base64 -d > /tmp/authorized_keys"), "/tmp/authorized_keys"),
    ];
    for (n, (method, command, target)) in ways.iter().enumerate() {
        let told = "SELECT concat_ws(' ', key_type, bits, method, target_path, fingerprint) FROM enrich_ssh_keys($1)";
        let row = client.query_one(told, &[command]).unwrap_or_else(|why| panic!("{method}: {why}"));
        let expected = format!("ssh-ed25519 256 {method} {target} gh8tdxRCjzpUKU08NAU5mt5k/U4CuvnhdBj+ZaxiCik");
        assert_eq!(row.get::<_, &str>(0), expected);
        let event = "INSERT INTO raw_events (session_id, event_type, event_timestamp, payload)
            VALUES ($1, 'cowrie.command.input', now(), json_build_object('input', $2::text, 'src_ip', '8.8.4.4'))";
        client.execute(event, &[&format!("w{n}"), command]).expect("an event");
    }
    run(&mut client, "CALL enrich_ssh_backfill()");
    let linked =
        "SELECT string_agg(concat_ws(' ', l.session_id, l.injection_method, l.source_ip), ', ' ORDER BY l.session_id)
        FROM session_ssh_keys l JOIN ssh_key_intelligence k ON k.id = l.ssh_key_id WHERE k.key_bits = 256";
    assert_eq!(one::<String>(&mut client, linked), "w0 direct 8.8.4.4, w1 heredoc 8.8.4.4, w2 base64 8.8.4.4");
}
