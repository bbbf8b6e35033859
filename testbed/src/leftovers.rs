//! What a test program that was killed has left: found and removed by the next one.

use crate::names;
use crate::process;
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Once;
use std::time::Duration;

/// In a cluster's directory: where its socket is.
const SOCKET_FILE: &str = ".testbed-socket";
/// In a cluster's directory: it is wanted, whoever made it.
const KEPT_FILE: &str = ".testbed-keep";
/// A socket's path has at most 107 bytes (unix(7)), and a clone may stand deep in the file system.
const SOCKET_PREFIX: &str = "/tmp/enrichment-";

static SWEPT: Once = Once::new();
static NEXT: AtomicU32 = AtomicU32::new(1);

/// Removes clusters whose test program has gone, with their servers; once in a process.
pub fn sweep_once(clusters: &Path) {
    SWEPT.call_once(|| sweep(clusters));
}

fn sweep(clusters: &Path) {
    for entry in fs::read_dir(clusters).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let abandoned = names::owner(&name.to_string_lossy()).is_some_and(|owner| !process::is_alive(owner));
        if abandoned && !entry.path().join(KEPT_FILE).exists() {
            end_server(&entry.path());
            remove(&entry.path());
        }
    }
}

/// Ends at once every process that works in this directory.
pub fn end_server(data: &Path) {
    let end = |pids: Vec<i32>| {
        pids.iter().for_each(|pid| process::signal(*pid, Signal::KILL));
        pids
    };
    // a second look: a postmaster may have started a child after the first
    let pids = end(process::working_in(data));
    let _ = process::wait_gone("the server's processes", &pids, Duration::from_secs(30));
    let pids = end(process::working_in(data));
    let _ = process::wait_gone("the server's processes", &pids, Duration::from_secs(30));
}

/// The cluster's socket directory: the one it had, or a new name that nobody has.
pub fn socket_directory(base: &Path) -> Result<PathBuf, String> {
    if let Some(known) = known_socket_directory(base) {
        return Ok(known);
    }
    let path = loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("{SOCKET_PREFIX}{}-{number}", std::process::id()));
        match fs::create_dir(&path) {
            Ok(()) => break path,
            Err(why) if why.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(why) => return Err(format!("cannot make {}: {why}", path.display())),
        }
    };
    fs::write(base.join(SOCKET_FILE), path.as_os_str().as_encoded_bytes())
        .map_err(|why| format!("cannot write into {}: {why}", base.display()))?;
    Ok(path)
}

/// Where a cluster that is there already has its socket.
pub fn known_socket_directory(base: &Path) -> Option<PathBuf> {
    let noted = fs::read_to_string(base.join(SOCKET_FILE)).ok()?;
    noted.starts_with(SOCKET_PREFIX).then(|| noted.into())
}

/// Protects a directory from [`sweep_once`].
pub fn mark_kept(base: &Path) -> Result<(), String> {
    fs::write(base.join(KEPT_FILE), "").map_err(|why| format!("cannot write into {}: {why}", base.display()))
}

/// Removes a stopped cluster's files and its socket directory.
pub fn remove(base: &Path) {
    if let Some(socket) = known_socket_directory(base) {
        let _ = fs::remove_dir_all(socket);
    }
    let _ = fs::remove_dir_all(base);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn only_what_a_dead_program_has_left_is_swept() {
        let clusters = std::env::temp_dir().join(names::of_this_run("enrichment-sweep"));
        let mut ended = Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let [dead, kept] = [1, 2].map(|n| clusters.join(format!("a-{}-{n}", ended.id())));
        let [mine, other] = [names::of_this_run("mine"), "demo".into()].map(|name| clusters.join(name));
        for directory in [&dead, &kept, &mine, &other] {
            fs::create_dir_all(directory.join("data")).unwrap();
        }
        mark_kept(&kept).unwrap();
        let socket = socket_directory(&dead).unwrap();
        let mut server = Command::new("sleep").arg("60").current_dir(dead.join("data")).spawn().unwrap();

        sweep(&clusters);
        assert!(!server.wait().unwrap().success(), "the server was ended");
        assert_eq!([&dead, &kept, &mine, &other].map(|path| path.exists()), [false, true, true, true]);
        assert!(!socket.exists());
        fs::remove_dir_all(clusters).unwrap();
    }
}
