//! Plans: what EXPLAIN says a statement will do, so that a figure is not taken for something else.

use super::session::Session;
use crate::Result;
use serde_json::Value;

/// The plan of one statement.
pub struct Plan(Value);

impl Plan {
    /// Asks the server, under the session's settings.
    ///
    /// # Errors
    /// The server's error.
    pub fn of(session: &mut Session, sql: &str) -> Result<Self> {
        let said: Value = serde_json::from_str(&session.text(&format!("EXPLAIN (FORMAT JSON) {sql}"))?)?;
        Ok(Self(said[0]["Plan"].clone()))
    }

    /// The nodes from the top down, depth first.
    fn nodes(&self) -> Vec<&Value> {
        fn walk<'a>(node: &'a Value, found: &mut Vec<&'a Value>) {
            found.push(node);
            node["Plans"].as_array().into_iter().flatten().for_each(|child| walk(child, found));
        }
        let mut found = Vec::new();
        walk(&self.0, &mut found);
        found
    }

    /// Whether a node of this type stands in it.
    pub fn has(&self, node_type: &str) -> bool {
        self.nodes().iter().any(|node| node["Node Type"] == node_type)
    }

    /// The join at the top of all others, or what stands there in its place.
    pub fn join(&self) -> String {
        let joins = ["Hash Join", "Merge Join", "Nested Loop"];
        let join = self.nodes().into_iter().find(|node| joins.iter().any(|join| node["Node Type"] == *join));
        match join {
            None => "no join".to_string(),
            Some(node) => {
                let kind = node["Join Type"].as_str().unwrap_or_default();
                let name = node["Node Type"].as_str().unwrap_or_default();
                if kind == "Inner" {
                    name.to_string()
                } else {
                    format!("{name} ({kind})")
                }
            }
        }
    }

    /// How a table is read: the types of the nodes that name it (or, for a bitmap, its heap scan).
    pub fn access(&self, tables: &[&str]) -> Vec<String> {
        let of_table = |node: &&Value| tables.iter().any(|table| node["Relation Name"] == *table);
        let mut found: Vec<String> = Vec::new();
        for node in self.nodes().into_iter().filter(of_table) {
            let name = node["Node Type"].as_str().unwrap_or_default().to_string();
            if !found.contains(&name) {
                found.push(name);
            }
        }
        found
    }

    /// Whether these tables are reached through conditions on `column` alone, in an index.
    pub fn probes(&self, tables: &[&str], column: &str) -> bool {
        let access = self.access(tables);
        let by_index = |name: &String| name.starts_with("Index") || name == "Bitmap Heap Scan";
        let on_column = |node: &Value| node["Index Cond"].as_str().is_some_and(|condition| condition.contains(column));
        !access.is_empty() && access.iter().all(by_index) && self.nodes().into_iter().any(on_column)
    }

    /// Parallel workers the planner asks for.
    pub fn workers(&self) -> u64 {
        self.nodes().iter().filter_map(|node| node["Workers Planned"].as_u64()).sum()
    }
}

/// The plan of a statement, which must be as claimed.
///
/// # Errors
/// When it is not: then the figures would be of something else.
pub fn must(
    session: &mut Session,
    settings: &str,
    sql: &str,
    claim: &str,
    holds: impl Fn(&Plan) -> bool,
) -> Result<()> {
    session.run(&format!("RESET ALL; {settings}"))?;
    let plan = Plan::of(session, sql)?;
    if holds(&plan) {
        return Ok(());
    }
    Err(format!("the plan is not the one to be measured ({claim}): {}\n  of: {sql}", plan.0).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> Plan {
        Plan(json!({"Node Type": "Aggregate", "Plans": [
            {"Node Type": "Nested Loop", "Join Type": "Left", "Plans": [
                {"Node Type": "Seq Scan", "Relation Name": "sessions"},
                {"Node Type": "Index Scan", "Relation Name": "enrichment_cache",
                 "Index Cond": "((service = 'dshield'::text) AND (cache_key = (s.source_ip)::text))"}]}]}))
    }

    #[test]
    fn a_probe_is_an_index_scan_on_the_key() {
        let plan = sample();
        assert!(plan.probes(&["enrichment_cache"], "cache_key"));
        assert!(!plan.probes(&["enrichment_cache"], "expires_at"));
        assert!(!plan.probes(&["sessions"], "cache_key"), "a sequential scan is none");
        assert!(!plan.probes(&["elsewhere"], "cache_key"), "a table that is not read is none");
    }

    #[test]
    fn joins_and_access_are_named() {
        let plan = sample();
        assert_eq!(plan.join(), "Nested Loop (Left)");
        assert_eq!(plan.access(&["enrichment_cache", "sessions"]), ["Seq Scan", "Index Scan"]);
        assert!(plan.has("Aggregate") && !plan.has("Memoize"));
        assert_eq!(plan.workers(), 0);
    }
}
