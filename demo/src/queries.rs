//! What an analyst asks: the queries the demo shows and runs, as plain SQL over the user's tables and the views.

/// A question in words, and the query that answers it.
pub struct Question {
    pub title: &'static str,
    pub sql: &'static str,
}

/// The three of an ordinary morning.
pub const QUESTIONS: [Question; 3] = [
    Question {
        title: "Which networks attack most?",
        sql: "\
SELECT d.asn, d.as_name AS network, d.country,
       mode() WITHIN GROUP (ORDER BY p.infrastructure) AS infrastructure,
       count(DISTINCT s.source_ip) AS addresses, count(*) AS sessions, sum(s.login_attempts) AS logins
FROM session_summaries s
JOIN enrichment_dshield d ON d.cache_key = s.source_ip
LEFT JOIN enrichment_spur p ON p.cache_key = s.source_ip
GROUP BY d.asn, d.as_name, d.country
ORDER BY sessions DESC LIMIT 10;",
    },
    Question {
        title: "Which malware was dropped, and how often?",
        sql: "\
SELECT left(v.cache_key, 12) || '…' AS sha256, v.label, v.type_description AS type,
       v.malicious || '/' || v.total AS detections, count(DISTINCT f.session_id) AS sessions
FROM files f
JOIN enrichment_virustotal v ON v.cache_key = f.shasum
WHERE v.malicious > 0
GROUP BY v.cache_key, v.label, v.type_description, v.malicious, v.total
ORDER BY sessions DESC, v.malicious DESC LIMIT 10;",
    },
    Question {
        title: "Which passwords are old acquaintances, which are new?",
        sql: "\
SELECT CASE WHEN breached THEN 'breached' ELSE 'novel' END AS kind, password_text AS password,
       times_seen, unique_sessions AS sessions, breach_prevalence AS seen_in_breaches
FROM (SELECT *, row_number() OVER (PARTITION BY breached ORDER BY times_seen DESC, id) AS place
      FROM password_tracking WHERE last_hibp_check IS NOT NULL) ranked
WHERE place <= 5
ORDER BY breached DESC, place;",
    },
];

/// Every empty value by its cause.
pub const CAUSES: &str = "\
SELECT source, service, total, success, not_found, failed, queued, never_asked, ineligible,
       round(percent, 1) AS percent
FROM enrichment_coverage ORDER BY source, service;";

/// One example of each cause: service and key, for `enrich_explain`.
pub const EXAMPLES: &str = "\
SELECT service, key FROM (VALUES
  (1, 'dshield', (SELECT raw_key FROM enrichment_indicator
                  WHERE raw_key LIKE '10.%' OR raw_key LIKE '192.168.%' ORDER BY raw_key LIMIT 1)),
  (2, 'urlhaus', (SELECT cache_key FROM enrichment_cache
                  WHERE service = 'urlhaus' AND response_status = 'not_found' ORDER BY id LIMIT 1)),
  (3, 'virustotal', (SELECT cache_key FROM enrichment_cache
                     WHERE service = 'virustotal' AND response_status = 'not_found' ORDER BY id LIMIT 1)),
  (4, 'virustotal', (SELECT cache_key FROM enrichment_queue
                     WHERE service = 'virustotal' ORDER BY priority DESC, id LIMIT 1))) example (place, service, key)
WHERE key IS NOT NULL ORDER BY place";

/// A password that HIBP was asked about and does not know: an answer, though `breached` is false.
pub const NOVEL_PASSWORD: &str = "\
SELECT t.password_text, p.* FROM
  (SELECT password_text FROM password_tracking WHERE last_hibp_check IS NOT NULL AND NOT breached
   ORDER BY times_seen DESC, id LIMIT 1) t,
  LATERAL enrich_password(t.password_text) p;";

/// Sessions that cannot be enriched because their address is missing.
pub const WITHOUT_ADDRESS: &str = "SELECT count(*) FROM session_summaries WHERE source_ip IS NULL";
