//! Pointing the built-in services of a database at the sandbox providers.

use crate::sandbox::Sandbox;
use postgres::Client;

/// Service and where its provider really is.
const PROVIDERS: &[(&str, &str)] = &[
    ("virustotal", "https://www.virustotal.com"),
    ("dshield", "https://isc.sans.edu"),
    ("urlhaus", "https://urlhaus-api.abuse.ch"),
    ("spur", "https://api.spur.us"),
    ("hibp", "https://api.pwnedpasswords.com"),
];

/// The keys the sandbox accepts.
const SECRETS: &[(&str, &str)] =
    &[("virustotal", "sandbox-virustotal-key"), ("urlhaus", "sandbox-urlhaus-key"), ("spur", "sandbox-spur-key")];

impl Sandbox {
    /// Makes every built-in service of the extension in `schema` ask here, with the keys that are
    /// accepted here. Also when they were pointed at another sandbox before.
    ///
    /// # Panics
    /// When a service is missing or does not ask its provider, or the server refuses.
    #[track_caller]
    pub fn point_services(&self, client: &mut Client, schema: &str) {
        if let Err(why) = self.try_point_services(client, schema) {
            panic!("{why}");
        }
    }

    /// As [`Sandbox::point_services`].
    ///
    /// # Errors
    /// When a service is missing or does not ask its provider, or the server refuses.
    pub fn try_point_services(&self, client: &mut Client, schema: &str) -> Result<(), String> {
        let schema = format!("\"{}\"", schema.replace('"', "\"\""));
        let mut transaction = client.transaction().map_err(|why| why.to_string())?;
        let update = format!(
            "UPDATE {schema}.enrichment_service SET url = regexp_replace(url, $2, $3),
                 rules = CASE WHEN rules #>> '{{usage,url}}' ~ $2 THEN jsonb_set(rules, '{{usage,url}}',
                     to_jsonb(regexp_replace(rules #>> '{{usage,url}}', $2, $3))) ELSE rules END
             WHERE name = $1 AND url ~ $2"
        );
        for (service, host) in PROVIDERS {
            let now = format!(r"^({}|http://127\.0\.0\.1:[0-9]+/{service})(?=[/:?]|$)", host.replace('.', r"\."));
            let here = format!("{}/{service}", self.base_url());
            match transaction.execute(&update, &[service, &now, &here]) {
                Ok(1) => {}
                Ok(_) => return Err(format!("{schema} has no service {service} that asks {host}")),
                Err(why) => return Err(format!("cannot point {service} at the sandbox: {why}")),
            }
        }
        let set_secret = format!("SELECT {schema}.enrich_set_secret($1, $2)");
        for (service, secret) in SECRETS {
            transaction
                .execute(&set_secret, &[service, secret])
                .map_err(|why| format!("cannot set the secret of {service}: {why}"))?;
        }
        transaction.commit().map_err(|why| why.to_string())
    }
}
