//! A table in Markdown (GitHub's), and the usual one: medians, spreads, ratios.

use super::numbers::{number, ratio};
use crate::measure::rounds::Measured;
use serde::{Deserialize, Serialize};

/// Rows of cells under a caption. All columns but the first are figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub caption: String,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(caption: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|column| column.to_string()).collect();
        Self { caption: caption.to_string(), columns, rows: Vec::new() }
    }

    pub fn row(&mut self, cells: &[&str]) -> &mut Self {
        self.rows.push(cells.iter().map(|cell| cell.to_string()).collect());
        self
    }

    /// What was measured in turns; a column of ratios for each of `bases`, which names a variant.
    pub fn of(caption: &str, unit: &str, measured: &Measured, bases: &[(&str, &str)]) -> Self {
        let mut columns = vec!["variant".to_string(), format!("{unit}, median"), "least to most".to_string()];
        columns.extend(bases.iter().map(|(heading, _)| heading.to_string()));
        let rows = measured.0.iter().map(|(name, samples)| {
            let mut row = vec![name.clone()];
            match samples {
                None => row.extend(
                    std::iter::once("not available".to_string())
                        .chain(bases.iter().map(|_| String::new()))
                        .chain([String::new()]),
                ),
                Some(samples) => {
                    row.push(number(samples.median()));
                    row.push(format!("{} to {}", number(samples.least()), number(samples.most())));
                    row.extend(
                        bases.iter().map(|(_, base)| measured.ratio(name, base).map_or("-".into(), |r| ratio(r.value))),
                    );
                }
            }
            row
        });
        Self { caption: caption.to_string(), columns, rows: rows.collect() }
    }

    /// In Markdown, with the columns aligned in the source too.
    pub fn markdown(&self) -> String {
        let escaped = |cell: &String| cell.replace('|', "\\|");
        let rows: Vec<Vec<String>> =
            std::iter::once(&self.columns).chain(&self.rows).map(|row| row.iter().map(escaped).collect()).collect();
        let width = |column: usize| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = widths.iter().enumerate().map(|(column, width)| {
                let cell = row.get(column).map_or("", String::as_str);
                if column == 0 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
            format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
        };
        let rule = widths.iter().enumerate().map(|(column, width)| {
            if column == 0 {
                "-".repeat(*width)
            } else {
                format!("{}:", "-".repeat(width - 1))
            }
        });
        let mut text = if self.caption.is_empty() { String::new() } else { format!("{}\n\n", self.caption) };
        text.push_str(&line(&rows[0]));
        text.push_str(&format!("| {} |\n", rule.collect::<Vec<_>>().join(" | ")));
        rows[1..].iter().for_each(|row| text.push_str(&line(row)));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::samples::Samples;

    #[test]
    fn a_table_is_aligned_and_a_bar_does_not_break_it() {
        let mut table = Table::new("Sizes.", &["name", "bytes"]);
        table.row(&["a|b", "1,234"]).row(&["long name", "5"]);
        let expected = "Sizes.\n\n\
                        | name      | bytes |\n\
                        | --------- | ----: |\n\
                        | a\\|b      | 1,234 |\n\
                        | long name |     5 |\n";
        assert_eq!(table.markdown(), expected);
    }

    #[test]
    fn measures_have_medians_spreads_and_ratios() {
        let measured = Measured(vec![
            ("ours".into(), Some(Samples(vec![1.0, 2.0, 3.0]))),
            ("theirs".into(), Some(Samples(vec![4.0, 4.0, 8.0]))),
            ("missing".into(), None),
        ]);
        let table = Table::of("", "ns", &measured, &[("of theirs", "theirs"), ("of missing", "missing")]);
        assert_eq!(table.columns, ["variant", "ns, median", "least to most", "of theirs", "of missing"]);
        assert_eq!(table.rows[0], ["ours", "2.00", "1.00 to 3.00", "0.50", "-"]);
        assert_eq!(table.rows[1][3], "1.00");
        assert_eq!(table.rows[2], ["missing", "not available", "", "", ""]);
        assert!(table.markdown().starts_with("| variant"));
    }
}
