//! Everything the extension makes explains itself: `\d+` and `\df+` show no empty description.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::list;
    use pgrx::prelude::*;

    const OURS: &str = "JOIN pg_depend d ON d.objid = o.oid AND d.deptype = 'e'
        JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
        WHERE e.extname = 'enrichment_cache'";

    #[pg_test]
    fn comments_stand_on_every_function() {
        let functions = |more: &str| {
            list(&format!(
                "SELECT o.oid::regprocedure FROM pg_proc o {OURS} AND d.classid = 'pg_proc'::regclass
                AND o.pronamespace = e.extnamespace {more} ORDER BY 1"
            ))
        };
        assert!(functions("").len() >= 40);
        assert_eq!(functions("AND obj_description(o.oid, 'pg_proc') IS NULL"), Vec::<String>::new());
    }

    #[pg_test]
    fn comments_stand_on_every_table_and_view_and_their_columns() {
        let relations = |more: &str| {
            list(&format!(
                "SELECT o.oid::regclass FROM pg_class o {OURS} AND d.classid = 'pg_class'::regclass
                AND o.relkind IN ('r', 'v') {more} ORDER BY 1"
            ))
        };
        assert!(relations("").len() >= 20);
        assert_eq!(relations("AND obj_description(o.oid, 'pg_class') IS NULL"), Vec::<String>::new());
        assert_eq!(
            list(&format!(
                "SELECT o.oid::regclass || '.' || a.attname FROM pg_class o
                JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
                {OURS} AND d.classid = 'pg_class'::regclass AND o.relkind IN ('r', 'v')
                AND col_description(o.oid, a.attnum) IS NULL ORDER BY 1"
            )),
            Vec::<String>::new()
        );
    }
}
