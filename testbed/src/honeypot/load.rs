//! Writes a plan into the tables by COPY, one pass per table.

use super::copy::Rows;
use super::keys::{self, Key};
use super::passwords::sha256_hex;
use super::session::{Plan, Prior, Session};
use super::tables::{drop_index_statements, index_statements};
use super::{Loaded, Result, Shape, Size, COMMON_PASSWORDS};
use serde_json::json;
use std::time::Instant;

/// `raw_events` holds the first sessions only: their payloads would be most of a large load.
const SESSIONS_WITH_EVENTS: usize = 50_000;
/// One session in so many plants a key; one key for so many sessions that plant one.
const SESSIONS_PER_PLANTED_KEY: usize = 25;
const PLANTINGS_PER_KEY: usize = 10;
/// A few keys make most of the plantings, however many sessions there are.
const MOST_PLANTINGS: usize = 5_000;

/// Fills the tables of [`super::create_tables`], in one transaction.
///
/// The tables must be empty. Triggers fire as for a user's rows, so that a table may be attached before or after.
///
/// # Errors
/// The server's error; nothing is loaded then.
pub fn load(client: &mut postgres::Client, shape: &Shape, size: &Size) -> Result<Loaded> {
    let start = Instant::now();
    let hour: i64 = client.query_one("SELECT extract(epoch FROM date_trunc('hour', now()))::bigint", &[])?.get(0);
    let plan = Plan::new(size, hour);
    client.batch_execute("BEGIN")?;
    let result = fill(client, shape, &plan);
    client.batch_execute(if result.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    let counts = result?;
    let tables = ["session_summaries", "files", "password_tracking", "password_session_usage", "raw_events"];
    for table in tables {
        client.batch_execute(&format!("VACUUM (ANALYZE) {}", shape.table(table)))?;
    }
    Ok(Loaded {
        addresses: plan.addresses.len() as u64,
        public_addresses: plan.addresses.iter().filter(|a| a.public).count() as u64,
        hashes: plan.hashes.len() as u64,
        common_passwords: plan.passwords.len().min(COMMON_PASSWORDS.len()) as u64,
        took: start.elapsed(),
        ..counts
    })
}

fn fill(client: &mut postgres::Client, shape: &Shape, plan: &Plan) -> Result<Loaded> {
    client.batch_execute(&drop_index_statements(shape))?;
    let (sessions, uses) = write_sessions(client, shape, plan)?;
    let counts = Loaded {
        sessions,
        files: write_files(client, shape, plan)?,
        passwords: write_passwords(client, shape, plan, &uses)?,
        password_uses: write_uses(client, shape, plan)?,
        ssh_keys: write_keys(client, shape, plan)?,
        raw_events: write_events(client, shape, plan)?,
        ..Loaded::default()
    };
    client.batch_execute(&index_statements(shape))?;
    Ok(counts)
}

/// What `password_tracking` counts about one password.
#[derive(Clone, Copy, Default)]
struct Uses {
    times: u64,
    sessions: u64,
    first: i64,
    last: i64,
    /// The session counted last, plus one.
    latest: usize,
}

fn write_sessions(client: &mut postgres::Client, shape: &Shape, plan: &Plan) -> Result<(u64, Vec<Uses>)> {
    let mut uses = vec![Uses::default(); plan.passwords.len()];
    let mut rows = Rows::open(
        client,
        &shape.table("session_summaries"),
        "session_id, source_ip, first_event_at, last_event_at, event_count, command_count, file_downloads, \
         login_attempts, risk_score, enrichment, created_at, updated_at",
    )?;
    for n in 0..plan.size.sessions {
        let session = plan.session(n);
        for login in &session.logins {
            let use_ = &mut uses[login.password];
            use_.first = if use_.times == 0 { login.at } else { use_.first.min(login.at) };
            use_.last = use_.last.max(login.at);
            use_.times += 1;
            use_.sessions += u64::from(use_.latest != n + 1);
            use_.latest = n + 1;
        }
        let events = 2 + session.logins.len() + session.commands.len() + session.downloads.len();
        rows.text(&session.id)
            .optional(session.address.map(|a| plan.addresses[a].text.as_str()))
            .time(session.first)
            .time(session.last)
            .plain(events)
            .plain(session.commands.len())
            .plain(session.downloads.len())
            .plain(session.logins.len())
            .plain(session.risk)
            .optional(prior(plan, &session).as_deref())
            .time(session.last)
            .time(session.last)
            .end()?;
    }
    Ok((rows.finish()?, uses))
}

/// The JSON another module, or a failed enrichment, left in the row.
fn prior(plan: &Plan, session: &Session) -> Option<String> {
    match session.prior {
        Prior::Nothing => None,
        Prior::EmptyObject => Some("{}".into()),
        Prior::NullMember => Some(r#"{"dshield": null}"#.into()),
        Prior::PasswordStats => {
            let details: Vec<_> = session
                .logins
                .iter()
                .map(|login| {
                    json!({"username": login.user, "password_sha256": sha256_hex(&plan.passwords[login.password]),
                           "breached": login.password < COMMON_PASSWORDS.len(), "prevalence": 0,
                           "success": login.success, "timestamp": login.at})
                })
                .collect();
            let novel: Vec<String> = session
                .logins
                .iter()
                .filter(|login| login.password >= COMMON_PASSWORDS.len())
                .map(|login| sha256_hex(&plan.passwords[login.password]))
                .collect();
            let stats = json!({"total_attempts": details.len(), "unique_passwords": details.len(),
                "breached_passwords": details.len() - novel.len(), "breach_prevalence_max": 0,
                "novel_password_hashes": novel, "password_details": details});
            Some(json!({ "password_stats": stats }).to_string())
        }
    }
}

fn write_files(client: &mut postgres::Client, shape: &Shape, plan: &Plan) -> Result<u64> {
    let columns = "session_id, shasum, filename, file_size, download_url, first_seen, last_updated";
    let mut rows = Rows::open(client, &shape.table("files"), columns)?;
    for session in (0..plan.size.sessions).map(|n| plan.session(n)) {
        for &file in &session.downloads {
            rows.text(&session.id)
                .text(&plan.hashes[file])
                .plain(format_args!("bin{file}.sh"))
                .plain(1_000 + file * 37)
                .plain(format_args!("http://malware.invalid/bin{file}.sh"))
                .time(session.first)
                .time(session.last)
                .end()?;
        }
    }
    rows.finish()
}

fn write_passwords(client: &mut postgres::Client, shape: &Shape, plan: &Plan, uses: &[Uses]) -> Result<u64> {
    let columns = "id, password_hash, password_text, first_seen, last_seen, times_seen, unique_sessions, updated_at";
    let mut rows = Rows::open(client, &shape.table("password_tracking"), columns)?;
    for (n, (password, used)) in plan.passwords.iter().zip(uses).enumerate() {
        rows.plain(n + 1)
            .text(&sha256_hex(password))
            .text(password)
            .time(used.first)
            .time(used.last)
            .plain(used.times)
            .plain(used.sessions)
            .time(used.last)
            .end()?;
    }
    let written = rows.finish()?;
    restart_identity(client, shape, "password_tracking")?;
    Ok(written)
}

/// Rows with given ids leave the sequence behind; the user's next INSERT must not collide.
fn restart_identity(client: &mut postgres::Client, shape: &Shape, table: &str) -> Result<()> {
    client.execute(
        &format!(
            "SELECT setval(pg_get_serial_sequence($1, 'id'), (SELECT coalesce(max(id), 0) + 1 FROM {}), false)",
            shape.table(table)
        ),
        &[&shape.table(table)],
    )?;
    Ok(())
}

fn write_uses(client: &mut postgres::Client, shape: &Shape, plan: &Plan) -> Result<u64> {
    let columns = "password_id, session_id, username, success, \"timestamp\"";
    let mut rows = Rows::open(client, &shape.table("password_session_usage"), columns)?;
    for session in (0..plan.size.sessions).map(|n| plan.session(n)) {
        for login in &session.logins {
            rows.plain(login.password + 1)
                .text(&session.id)
                .text(login.user)
                .plain(login.success)
                .time(login.at)
                .end()?;
        }
    }
    rows.finish()
}

fn write_keys(client: &mut postgres::Client, shape: &Shape, plan: &Plan) -> Result<u64> {
    let plantings = (plan.size.sessions / SESSIONS_PER_PLANTED_KEY).min(MOST_PLANTINGS);
    let keys = keys::generate(plantings.div_ceil(PLANTINGS_PER_KEY), plan.size.seed);
    let planted: Vec<(usize, Session)> =
        (0..plantings).map(|n| (n % keys.len(), plan.session(n * SESSIONS_PER_PLANTED_KEY))).collect();
    let columns = "id, key_type, key_data, key_fingerprint, key_hash, key_bits, key_comment, key_full, first_seen, \
                   last_seen, total_attempts, unique_sources, unique_sessions";
    let mut rows = Rows::open(client, &shape.table("ssh_key_intelligence"), columns)?;
    for (n, key) in keys.iter().enumerate() {
        let seen: Vec<&Session> = planted.iter().filter(|(k, _)| *k == n).map(|(_, s)| s).collect();
        let mut sources: Vec<usize> = seen.iter().filter_map(|s| s.address).collect();
        sources.sort_unstable();
        sources.dedup();
        rows.plain(n + 1)
            .text(key.kind)
            .text(&key.data)
            .plain(format_args!("SHA256:{}", &key.hash()[..43]))
            .text(&key.hash())
            .plain(key.bits)
            .text(&key.comment)
            .text(&key.full())
            .time(seen.iter().map(|s| s.first).min().unwrap_or_default())
            .time(seen.iter().map(|s| s.last).max().unwrap_or_default())
            .plain(seen.len())
            .plain(sources.len())
            .plain(seen.len())
            .end()?;
    }
    let written = rows.finish()?;
    restart_identity(client, shape, "ssh_key_intelligence")?;
    write_plantings(client, shape, plan, &keys, &planted)?;
    Ok(written)
}

fn write_plantings(
    client: &mut postgres::Client,
    shape: &Shape,
    plan: &Plan,
    keys: &[Key],
    planted: &[(usize, Session)],
) -> Result<()> {
    let columns = "session_id, ssh_key_id, command_text, injection_method, source_ip, \"timestamp\"";
    let mut rows = Rows::open(client, &shape.table("session_ssh_keys"), columns)?;
    for (key, session) in planted {
        rows.text(&session.id)
            .plain(key + 1)
            .text(&format!("echo \"{}\" >> ~/.ssh/authorized_keys", keys[*key].full()))
            .text("direct")
            .optional(session.address.map(|a| plan.addresses[a].text.as_str()))
            .time(session.last)
            .end()?;
    }
    rows.finish()?;
    Ok(())
}

fn write_events(client: &mut postgres::Client, shape: &Shape, plan: &Plan) -> Result<u64> {
    let columns = "session_id, event_type, event_timestamp, payload";
    let mut rows = Rows::open(client, &shape.table("raw_events"), columns)?;
    for session in (0..plan.size.sessions.min(SESSIONS_WITH_EVENTS)).map(|n| plan.session(n)) {
        let source = session.address.map(|a| plan.addresses[a].text.as_str());
        for login in &session.logins {
            let outcome = if login.success { "success" } else { "failed" };
            let payload = json!({"src_ip": source, "username": login.user,
                                 "password": plan.passwords[login.password]});
            rows.text(&session.id)
                .plain(format_args!("cowrie.login.{outcome}"))
                .time(login.at)
                .text(&payload.to_string())
                .end()?;
        }
        for (at, command) in &session.commands {
            let payload = json!({"src_ip": source, "input": command});
            rows.text(&session.id).text("cowrie.command.input").time(*at).text(&payload.to_string()).end()?;
        }
    }
    rows.finish()
}
