//! What the worker says in the log of answers that the database refuses.

use super::base;

#[test]
fn answers_that_a_users_trigger_refuses_are_one_line_without_what_the_trigger_says() {
    let base = base("log_lines");
    base.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.payload IS NOT NULL THEN RAISE 'poison of %', NEW.cache_key; END IF; RETURN NEW; END $$;
         CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON enrichment_cache FOR EACH ROW EXECUTE FUNCTION refuse();
         UPDATE enrichment_service SET max_in_flight = 1 WHERE name = 'dshield'",
    );
    for (n, key) in (1i64..).zip(base.known("dshield", 4)) {
        base.run(&format!("SELECT enrich_request('dshield', '{key}')"));
        let refused = "SELECT count(*) FROM enrichment_queue WHERE last_error LIKE '%poison of 8.8.%'";
        base.wait_for(refused, n);
    }
    let (log, worker) = (base.cluster.log(), format!("[{}]", base.worker()));
    let said: Vec<&str> = log.lines().filter(|line| line.contains(&worker) && line.contains("one by one")).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    let told = log.lines().find(|line| line.contains(&worker) && line.contains("poison"));
    assert_eq!(told, None);
}
