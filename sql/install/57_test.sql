-- enrich_test: who may use it, and what it is.

ALTER FUNCTION enrich_test(text, interval) ROWS 10;

INSERT INTO @extschema@.enrichment_privilege (level, action, object)
VALUES ('admin', 'EXECUTE', 'enrich_test(text, interval)');

COMMENT ON FUNCTION @extschema@.enrich_test(text, interval) IS
    'Makes one live call of a service, for a well-known key or test_key of its rules, and tells step by step what works: secret, limit, egress, dns, connection, tls, answer, credential, outcome. The call counts, its answer is not kept.';
