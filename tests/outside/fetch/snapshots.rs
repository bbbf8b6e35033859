//! What a fetch gives to a transaction whose snapshot holds an older answer.

use super::{base, store_stale};
use crate::support::{one, run};

#[test]
fn a_fetch_returns_the_new_answer_where_the_snapshot_has_shown_the_stale_one() {
    let base = base("snapshots");
    let kinds =
        ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE", "REPEATABLE READ READ ONLY", "SERIALIZABLE READ ONLY"];
    for (kind, key) in kinds.iter().zip(base.known("dshield", kinds.len())) {
        store_stale(&base, &key);
        let mut client = base.client();
        run(&mut client, &format!("BEGIN ISOLATION LEVEL {kind}"));
        let stale = format!("SELECT enrich_get('dshield', '{key}', interval '1 year') -> 'ip' ->> 'stored'");
        assert_eq!(one::<Option<String>>(&mut client, &stale).as_deref(), Some("1"), "{kind}");
        let fetch = format!("SELECT enrich_fetch('dshield', '{key}') -> 'ip' ->> 'number'");
        for time in 1..=2 {
            let fetched = one::<Option<String>>(&mut client, &fetch);
            assert_eq!(fetched.as_deref(), Some(key.as_str()), "{kind}, the {time}. time");
        }
        // a plain read stays in its snapshot
        let read = one::<Option<String>>(&mut client, &stale);
        assert_eq!(read.is_none(), kind == &"READ COMMITTED", "{kind}: {read:?}");
        run(&mut client, "COMMIT");
        assert_eq!(base.asked_for("dshield", &key), 1, "{kind}");
    }
}
