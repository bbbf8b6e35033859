-- Nothing for PUBLIC, nothing for those whom default privileges of the database favour; monitoring for pg_monitor.
-- enrich_grant (70_privileges.sql) gives the rest.

DO $revoke$
DECLARE
    member record;
BEGIN
    -- every member of the extension, so that none can be forgotten; 0 among the grantees is PUBLIC
    FOR member IN
        SELECT pg_catalog.format('%s %I.%I', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, n.nspname, c.relname) AS named,
            CASE a.grantee WHEN 0::oid THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee
        FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass::oid AND d.refobjid = e.oid
            AND d.deptype = 'e' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass::oid
        JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        CROSS JOIN LATERAL (
            SELECT x.grantee FROM pg_catalog.aclexplode(c.relacl) AS x WHERE x.grantee <> c.relowner
            UNION SELECT 0::oid) a
        WHERE e.extname = 'enrichment_cache'
        UNION ALL
        SELECT pg_catalog.format('ROUTINE %s', p.oid::pg_catalog.regprocedure),
            CASE a.grantee WHEN 0::oid THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END
        FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass::oid AND d.refobjid = e.oid
            AND d.deptype = 'e' AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass::oid
        JOIN pg_catalog.pg_proc p ON p.oid = d.objid
        CROSS JOIN LATERAL (
            SELECT x.grantee FROM pg_catalog.aclexplode(p.proacl) AS x WHERE x.grantee <> p.proowner
            UNION SELECT 0::oid) a
        WHERE e.extname = 'enrichment_cache'
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s', member.named, member.grantee);
    END LOOP;
    IF NOT pg_catalog.has_schema_privilege('pg_monitor', '@extschema@'::pg_catalog.regnamespace::oid, 'USAGE') THEN
        GRANT USAGE ON SCHEMA @extschema@ TO pg_monitor;
    END IF;
END
$revoke$;

DO $monitor$
DECLARE
    allowed record;
BEGIN
    FOR allowed IN SELECT p.action, p.object FROM @extschema@.enrichment_privilege p WHERE p.level = 'monitor' ORDER BY 1, 2 LOOP
        EXECUTE pg_catalog.format('GRANT %s ON %s @extschema@.%s TO pg_monitor', allowed.action,
            CASE allowed.action WHEN 'EXECUTE' THEN 'ROUTINE' ELSE 'TABLE' END, allowed.object);
    END LOOP;
END
$monitor$;
