//! How the services are set up for the demo: the sandbox's addresses and keys, and the limits.

use crate::Result;
use postgres::Client;

/// The four services whose limits are raised, so that the demo ends in about a minute.
pub const FAST: [&str; 4] = ["dshield", "urlhaus", "spur", "hibp"];

/// What the user is shown and may repeat.
pub const RAISE_LIMITS: &str = r#"UPDATE enrichment_service SET limits = '[{"max": 20, "per": "second"}]'
 WHERE name IN ('dshield', 'urlhaus', 'spur', 'hibp');
UPDATE enrichment_service SET limits = '[{"max": 30, "per": "minute"}, {"max": 500, "per": "day"}]'
 WHERE name = 'virustotal';"#;

/// What the user is shown; the three calls of a first hour.
pub const ATTACH: &str = "\
SELECT enrich_attach('session_summaries', 'source_ip', '{dshield,urlhaus,spur}', 'enrichment');
SELECT enrich_attach('files', 'shasum', '{virustotal}');
SELECT enrich_attach('password_tracking', 'password_text', '{hibp}');";

/// The providers' side: above ours for the fast four, so that only our limiter is seen; the same for VirusTotal.
pub const SANDBOX_ARGUMENTS: [&str; 14] = [
    "--limits",
    "real",
    "--limit",
    "dshield=200/second",
    "--limit",
    "urlhaus=200/second",
    "--limit",
    "spur=200/second",
    "--limit",
    "hibp=200/second",
    "--limit",
    "virustotal=30/minute",
    "--limit",
    "virustotal=500/day",
];

/// Keys the sandbox accepts when it is not told others. No secrets: they are worth nothing elsewhere.
const SANDBOX_KEYS: [(&str, &str); 3] =
    [("virustotal", "sandbox-virustotal-key"), ("urlhaus", "sandbox-urlhaus-key"), ("spur", "sandbox-spur-key")];

/// Points every built-in service at the sandbox and sets its key.
///
/// # Errors
/// The server's.
pub fn point_at_sandbox(client: &mut Client, port: u16) -> Result<()> {
    client.execute(
        "UPDATE enrichment_service SET url = regexp_replace(url, '^https?://[^/]+', $1 || '/' || name)",
        &[&format!("http://127.0.0.1:{port}")],
    )?;
    for (service, key) in SANDBOX_KEYS {
        client.execute("SELECT enrich_set_secret($1, $2)", &[&service, &key])?;
    }
    Ok(())
}
