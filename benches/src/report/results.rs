//! What was measured in this run and in earlier ones, in performance.json: a run of some groups leaves the others' results.

use super::findings::{Findings, Target};
use super::table::Table;
use super::{document, machine};
use crate::bed::Bed;
use crate::groups::Group;
use crate::settings::Settings;
use crate::Result;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Under what circumstances something was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub at: String,
    pub scale: f64,
    pub rounds: usize,
    pub revision: Option<String>,
    pub postgres: String,
    pub extension: String,
    pub cores: usize,
    pub memory_mib: u64,
    pub processor: String,
    pub settings: Vec<(String, String)>,
}

impl Run {
    /// The one that begins now.
    ///
    /// # Errors
    /// The server's error.
    pub fn now(settings: &Settings, bed: &mut Bed) -> Result<Self> {
        let mut session = bed.session("postgres")?;
        Ok(Self {
            at: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            scale: settings.scale,
            rounds: settings.rounds,
            revision: settings.revision.clone(),
            postgres: session.one("SELECT split_part(version(), ',', 1)")?,
            extension: session
                .one("SELECT default_version FROM pg_available_extensions WHERE name = 'enrichment_cache'")?,
            cores: machine::cores(),
            memory_mib: machine::memory().unwrap_or_default() >> 20,
            processor: machine::processor().unwrap_or_else(|| "unknown".to_string()),
            settings: bed.server.clone(),
        })
    }
}

/// One group's results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Section {
    pub id: String,
    pub title: String,
    pub run: Run,
    pub text: Vec<String>,
    pub tables: Vec<Table>,
    pub targets: Vec<Target>,
}

/// Everything the document is made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The last one.
    pub run: Run,
    pub sections: Vec<Section>,
}

impl Results {
    /// Those of earlier runs, if there are any.
    ///
    /// # Errors
    /// When the file cannot be read, or is not one that this program wrote.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join("performance.json");
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .map_err(|why| format!("{} is not what this program wrote ({why}): remove it", path.display()).into()),
            Err(why) if why.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(why) => Err(format!("cannot read {}: {why}", path.display()).into()),
        }
    }

    /// From now on it is this run's.
    pub fn begin(&mut self, run: Run) {
        self.run = run;
    }

    /// Replaces what an earlier run found in this group.
    pub fn put(&mut self, group: &Group, findings: Findings) {
        self.sections.retain(|section| section.id != group.id);
        self.sections.push(Section {
            id: group.id.to_string(),
            title: group.title.to_string(),
            run: self.run.clone(),
            text: findings.text,
            tables: findings.tables,
            targets: findings.targets,
        });
        let place = |id: &str| crate::groups::ALL.iter().position(|known| known.id == id).unwrap_or(usize::MAX);
        self.sections.sort_by_key(|section| place(&section.id));
    }

    pub fn section(&self, id: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.id == id)
    }

    /// Writes both files, each as a whole.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let put = |name: &str, text: String| {
            let (path, next) = (directory.join(name), directory.join(format!("{name}.new")));
            fs::write(&next, text)
                .and_then(|()| fs::rename(&next, &path))
                .map_err(|why| format!("cannot write {}: {why}", path.display()))
        };
        fs::create_dir_all(directory)?;
        put("performance.json", serde_json::to_string_pretty(self)? + "\n")?;
        put("performance.md", document::markdown(self))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::ALL;

    #[test]
    fn a_run_of_one_group_leaves_the_others() {
        let mut results = Results::default();
        results.begin(Run { at: "first".into(), ..Run::default() });
        for group in ALL.iter().rev() {
            results.put(group, Findings::default());
        }
        results.begin(Run { at: "second".into(), ..Run::default() });
        results.put(&ALL[1], Findings::default());
        let ids: Vec<&str> = results.sections.iter().map(|section| section.id.as_str()).collect();
        assert_eq!(ids, ALL.iter().map(|group| group.id).collect::<Vec<_>>());
        let of: Vec<&str> = results.sections.iter().map(|section| section.run.at.as_str()).collect();
        assert_eq!(of[..3], ["first", "second", "first"]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let directory = std::env::temp_dir().join(format!("enrichment-bench-results-{}", std::process::id()));
        assert_eq!(Results::read(&directory).unwrap(), Results::default());
        let mut results = Results::default();
        let mut findings = Findings::default();
        findings.target(Target::at_most("a", 1.0, None)).table(Table::new("b", &["c"])).say("d");
        results.put(&ALL[0], findings);
        results.write(&directory).unwrap();
        assert_eq!(Results::read(&directory).unwrap(), results);
        fs::write(directory.join("performance.json"), "{").unwrap();
        assert!(Results::read(&directory).unwrap_err().to_string().contains("remove it"));
        fs::remove_dir_all(directory).unwrap();
    }
}
