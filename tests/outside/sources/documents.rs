//! Large documents: made and compressed once for all rows of a key, and kept as their column keeps its values.

use crate::sources_support::wait_quiet;
use crate::support::Base;

#[test]
fn a_large_document_is_compressed_as_its_column_compresses() {
    let base = Base::new("sources", "large_documents");
    let key = &base.known("dshield", 1)[0];
    base.run(&format!(
        "SELECT enrich_store('dshield', '{key}', jsonb_build_object('text', repeat('honey pot \"é\" \\ ', 400), 'n', 1e3))"
    ));
    let kinds = [
        ("json", "", Some("pglz")),
        ("jsonb", "COMPRESSION lz4", Some("lz4")),
        ("json", "STORAGE EXTERNAL", None),
        ("jsonb", "STORAGE MAIN", Some("pglz")),
    ];
    for (n, (kind, how, _)) in kinds.iter().enumerate() {
        base.run(&format!(
            "CREATE TABLE visits_{n} (id int, ip text, answers {kind});
             {alter}
             INSERT INTO visits_{n} SELECT n, '{key}' FROM generate_series(1, 3) n;
             -- other members stay, and what is merged is compressed row by row
             INSERT INTO visits_{n} VALUES (4, '{key}', '{{\"mine\": [1]}}');
             SELECT enrich_attach('visits_{n}', 'ip', '{{dshield}}', 'answers')",
            alter = match how.is_empty() {
                true => String::new(),
                false => format!("ALTER TABLE visits_{n} ALTER COLUMN answers SET {how};"),
            },
        ));
    }
    for (n, (kind, how, method)) in kinds.iter().enumerate() {
        let filled = format!("SELECT count(*) FROM visits_{n} WHERE answers::jsonb ? 'dshield'");
        base.wait_for(&filled, 4i64);
        wait_quiet(&base);
        let same = format!(
            "SELECT bool_and(v.answers::jsonb -> 'dshield' = c.payload
                AND v.answers::jsonb #>> '{{_meta,dshield,status}}' = 'success'
                AND (v.id = 4) = (v.answers::jsonb ? 'mine'))
             FROM visits_{n} v JOIN enrichment_cache c ON c.cache_key = v.ip AND c.service = 'dshield'"
        );
        assert!(base.one::<bool>(&same), "{kind} {how}");
        let methods = format!(
            "SELECT coalesce(string_agg(DISTINCT coalesce(pg_column_compression(answers), 'none'), ','), '') FROM visits_{n}"
        );
        assert_eq!(base.one::<String>(&methods), method.unwrap_or("none"), "{kind} {how}");
        // as the server makes it of the same value
        let text = format!("SELECT bool_and(answers::text = answers::jsonb::text) FROM visits_{n}");
        assert!(base.one::<bool>(&text), "{kind} {how}");
    }
}
