//! One budget for all sessions and databases that ask with the same secret, across restarts and crashes.

use crate::support::{self, address, create_database, own_cluster, run, wait_served, Base, SOON};
use serde_json::json;
use std::sync::Arc;
use testbed::{wait_until, Cluster, StopMode};

const SPUR: &str = "SELECT count(*) FROM enrichment_cache WHERE service = 'spur' AND response_status = 'success'";

/// A second database that asks the same providers with the same keys.
fn sibling(base: &Base, name: &str) {
    create_database(&base.cluster, name);
    let mut client = base.cluster.client(name);
    run(&mut client, "CREATE EXTENSION enrichment_cache; UPDATE enrichment_service SET limits = '[]'");
    base.sandbox.point_services(&mut client, "public");
    wait_served(&base.cluster, name);
}

fn in_database<T: postgres::types::FromSqlOwned>(cluster: &Cluster, name: &str, sql: &str) -> T {
    support::one(&mut cluster.client(name), sql)
}

/// Has both workers look at what there is to do: an answer of another service says that calls are being started.
fn both_look(base: &Base, other: &str, n: u32) {
    for name in [base.name.as_str(), other] {
        let mut client = base.cluster.client(name);
        let key = address(1000 + n);
        run(&mut client, &format!("SELECT enrich_request('dshield', '{key}')"));
        let sql = format!("SELECT count(*) FROM enrichment_cache WHERE service = 'dshield' AND cache_key = '{key}'");
        wait_until("another service's answer", SOON, || support::same(support::ask::<i64>(&mut client, &sql)?, &1));
    }
}

#[test]
fn databases_with_the_same_secret_share_one_budget_also_after_a_crash() {
    let cluster = Arc::new(own_cluster("shared_budget"));
    let base = Base::in_cluster(&cluster, "here", &["--limits", "none"]);
    sibling(&base, "there");
    base.sandbox.set_limit("spur", 6, "day");
    for name in ["here", "there"] {
        let mut client = cluster.client(name);
        run(
            &mut client,
            r#"UPDATE enrichment_service SET limits = '[{"max": 6, "per": "day"}]', max_in_flight = 8 WHERE name = 'spur'"#,
        );
        let keys: Vec<String> = (1..=6).map(address).collect();
        run(&mut client, &format!("SELECT enrich_request_many('spur', '{{{}}}')", keys.join(",")));
    }
    let answered = || in_database::<i64>(&cluster, "here", SPUR) + in_database::<i64>(&cluster, "there", SPUR);
    let six = |n: u32| {
        wait_until("six answers", SOON, || support::same(answered(), &6));
        both_look(&base, "there", n);
        let stats = base.sandbox.stats()["spur"].clone();
        assert_eq!((stats["requests"].as_i64(), stats["limited"].as_i64()), (Some(6), Some(0)), "{stats}");
        let spent = "SELECT spent || ' of ' || max || ', ' || remaining || ' left' FROM enrichment_quota_status WHERE service = 'spur' AND per = 'day'";
        for name in ["here", "there"] {
            assert_eq!(in_database::<String>(&cluster, name, spent), "6 of 6, 0 left", "{name}");
        }
        let waiting =
            "SELECT count(*) FROM enrichment_queue WHERE service = 'spur' AND state = 'waiting' AND attempts = 0";
        let waiting = ["here", "there"].map(|name| in_database::<i64>(&cluster, name, waiting));
        assert_eq!(waiting.iter().sum::<i64>(), 6);
    };
    six(1);
    for (n, mode) in [(2, StopMode::Fast), (3, StopMode::Immediate)] {
        cluster.stop(mode).expect("a stop");
        cluster.start_again().expect("a start");
        wait_served(&cluster, "here");
        wait_served(&cluster, "there");
        six(n);
    }
}

#[test]
fn calls_of_another_database_that_end_while_this_one_asks_the_quota_endpoint_count_beside_its_numbers() {
    let cluster = Arc::new(own_cluster("shared_quotas"));
    let base = Base::in_cluster(&cluster, "asks", &["--limits", "none"]);
    sibling(&base, "calls");
    base.sandbox.set_limit("virustotal", 6, "day");
    base.sandbox.fault(json!({"service": "virustotal", "key": "status", "count": 1, "kind": "slow", "ms": 3000}));
    let [mut asks, mut calls] = ["asks", "calls"].map(|name| cluster.client(name));
    let configure = |client: &mut postgres::Client, account: &str| {
        run(
            client,
            &format!(
                r#"UPDATE enrichment_service SET limits = '[{{"max": 500, "per": "day"}}]', max_in_flight = 8,
                rules = jsonb_set(jsonb_set(rules, '{{usage,every_seconds}}', '3600'), '{{variables,default,account}}', '{account}')
                WHERE name = 'virustotal'"#
            ),
        );
    };
    configure(&mut asks, r#""me""#);
    configure(&mut calls, r#""""#);
    let request = |client: &mut postgres::Client, keys: std::ops::RangeInclusive<u32>| {
        let keys: Vec<String> = keys.map(address).collect();
        run(client, &format!("SELECT enrich_request_many('virustotal', '{{{}}}')", keys.join(",")));
    };
    let answers = |client: &mut postgres::Client, n: i64| {
        let sql = "SELECT count(*) FROM enrichment_cache WHERE service = 'virustotal' AND response_status IN ('success', 'not_found')";
        wait_until("answers", SOON, || support::same(support::ask::<i64>(client, sql)? >= n, &true));
    };
    // the question goes out with the first of these; three of another database are answered while it is under way
    request(&mut asks, 1..=1);
    answers(&mut asks, 1);
    request(&mut calls, 2..=4);
    answers(&mut calls, 3);
    both_look(&base, "calls", 1);
    let allowed = "SELECT provider_max FROM enrichment_quota_status WHERE service = 'virustotal' AND per = 'day'";
    assert_eq!(support::one::<Option<i64>>(&mut asks, allowed), None, "the quota endpoint was quicker than four calls");
    wait_until("the quotas", SOON, || support::same(support::ask::<Option<i64>>(&mut asks, allowed)?, &Some(6)));
    request(&mut asks, 5..=20);
    answers(&mut asks, 2);
    both_look(&base, "calls", 2);
    let stats = base.sandbox.stats()["virustotal"].clone();
    assert_eq!(stats["limited"].as_i64(), Some(0), "{stats}");
}

#[test]
fn another_secret_is_another_budget() {
    let base = Base::new("limits", "secrets");
    base.run(r#"UPDATE enrichment_service SET limits = '[{"max": 2, "per": "day"}]' WHERE name = 'urlhaus'"#);
    let keys: Vec<String> = (1..=4).map(address).collect();
    base.run(&format!("SELECT enrich_request_many('urlhaus', '{{{}}}')", keys.join(",")));
    let answered = "SELECT count(*) FROM enrichment_cache WHERE service = 'urlhaus'";
    base.wait_for(answered, 2i64);
    support::let_the_worker_look(&base);
    assert_eq!(base.asked("urlhaus"), 2);
    // one that the provider refuses is asked once, and spends from its own
    base.run("SELECT enrich_set_secret('urlhaus', 'another-account')");
    base.wait_for("SELECT cause FROM enrichment_lane WHERE service = 'urlhaus'", "unauthorized".to_string());
    let budgets = "SELECT count(DISTINCT budget) FROM enrichment_quota WHERE service = 'urlhaus'";
    assert_eq!(base.one::<i64>(budgets), 2);
    // back with the first, its day is still used up
    base.run("SELECT enrich_set_secret('urlhaus', 'sandbox-urlhaus-key')");
    base.wait_for("SELECT count(*) FROM enrichment_quota_status WHERE service = 'urlhaus' AND remaining = 0", 1i64);
    support::let_the_worker_look(&base);
    assert_eq!(base.one::<i64>("SELECT max(spent) FROM enrichment_quota WHERE service = 'urlhaus'"), 2);
}

/// One secret, one account: what the provider has told one database holds for all, also after a crash, until it is over.
#[test]
fn a_provider_that_asks_one_database_to_wait_is_left_alone_by_another_with_the_same_secret() {
    let cluster = Arc::new(own_cluster("shared_pause"));
    let base = Base::in_cluster(&cluster, "here", &["--limits", "none"]);
    sibling(&base, "there");
    let request = |name: &str, n: u32| {
        run(&mut cluster.client(name), &format!("SELECT enrich_request('urlhaus', '{}')", address(n)));
    };
    base.sandbox.fault(json!({"service": "urlhaus", "kind": "retry_after_seconds", "n": 3600, "count": 1}));
    request("here", 1);
    base.wait_for("SELECT cause FROM enrichment_lane WHERE service = 'urlhaus'", "rate_limited".to_string());
    request("there", 2);
    let waits = |n: u32| {
        both_look(&base, "there", n);
        let status =
            "SELECT waiting || ' waiting, ' || due || ' due, ' || (next_attempt_at > now() + interval '50 minutes')
            FROM enrichment_queue_status WHERE service = 'urlhaus'";
        for name in ["here", "there"] {
            assert_eq!(in_database::<String>(&cluster, name, status), "1 waiting, 0 due, true", "{name}");
        }
        let why = format!("SELECT string_agg(e::text, ' ') FROM enrich_explain('urlhaus', '{}') e", address(2));
        let why: String = in_database(&cluster, "there", &why);
        assert!(why.contains("because the provider has asked another database of this cluster to wait"), "{why}");
        let attempts = "SELECT sum(attempts)::bigint FROM enrichment_queue WHERE service = 'urlhaus'";
        assert_eq!(in_database::<i64>(&cluster, "there", attempts), 0);
        assert_eq!(base.asked("urlhaus"), 1, "calls");
    };
    waits(1);
    cluster.stop(StopMode::Immediate).expect("a stop");
    cluster.start_again().expect("a start");
    wait_served(&cluster, "here");
    wait_served(&cluster, "there");
    waits(2);
    // it is over there where it was told
    base.run("UPDATE enrichment_lane SET paused_until = now() WHERE service = 'urlhaus'");
    let answered = |name: &str, n: u32| {
        request(name, n);
        let sql =
            format!("SELECT count(*) FROM enrichment_cache WHERE service = 'urlhaus' AND cache_key = '{}'", address(n));
        let mut client = cluster.client(name);
        wait_until("an answer", SOON, || support::same(support::ask::<i64>(&mut client, &sql)?, &1));
    };
    answered("here", 3);
    answered("there", 4);
}
