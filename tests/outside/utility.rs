//! Utility commands of a cluster that has the library preloaded: our step in front of them must not be felt.

use crate::support::shared_cluster;

fn refused(sql: &str) -> postgres::error::DbError {
    let cluster = shared_cluster("utility");
    let mut client = cluster.client("postgres");
    let error = client.batch_execute(sql).expect_err("the command must fail");
    error.as_db_error().unwrap_or_else(|| panic!("the session ended: {error}")).clone()
}

#[test]
fn a_failing_utility_command_ends_with_an_error_and_not_with_the_session() {
    let error = refused("CREATE TABLE twice (a int); CREATE TABLE twice (a int)");
    assert_eq!(error.code().code(), "42P07");
}

#[test]
fn the_error_of_a_utility_command_keeps_its_position() {
    let error = refused("CREATE TABLE nowhere (a no_such_type)");
    assert_eq!(error.code().code(), "42704");
    assert!(error.position().is_some(), "{error:?}");
}

#[test]
fn the_error_of_a_utility_command_keeps_constraint_and_context() {
    let error = refused(
        "DO $$ BEGIN CREATE TEMP TABLE checked (a int CONSTRAINT small CHECK (a < 3)); INSERT INTO checked VALUES (7); END $$",
    );
    assert_eq!(error.constraint(), Some("small"), "{error:?}");
    assert!(error.where_().is_some_and(|context| context.contains("inline_code_block")), "{error:?}");
}

#[test]
fn an_error_inside_a_procedure_reaches_the_caller_with_its_hint() {
    let error = refused("CREATE EXTENSION IF NOT EXISTS enrichment_cache; CALL enrich_refresh()");
    assert_eq!(error.code().code(), "55000");
    assert!(error.hint().is_some_and(|hint| hint.contains("enrich_attach")), "{error:?}");
}

#[test]
fn dropping_a_database_that_does_not_exist_is_the_servers_own_error() {
    let error = refused("DROP DATABASE no_such_database");
    assert_eq!(error.code().code(), "3D000");
}
