//! What has to happen before a utility command. Any may want the cache's table for itself, so look-ups let go of it.
//! And some need a database without its worker: DROP DATABASE, a copy of it, a new name or place. PostgreSQL refuses
//! them while anybody is connected, so the worker leaves first and comes back afterwards.

use super::{shmem, wake};
use pgrx::prelude::*;
use pgrx::{register_xact_callback, PgXactCallbackEvent};
use std::ffi::CStr;

static mut NEXT: pg_sys::ProcessUtility_hook_type = None;

/// Puts our step in front of utility commands, in this process and those that come of it.
pub fn init() {
    // SAFETY: a library is loaded once, by the postmaster before there is any other process, or by a session.
    unsafe {
        NEXT = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(utility);
    }
}

unsafe extern "C-unwind" {
    // The server's own function, not pgrx's guarded one: a guard would rebuild every error of every utility command of
    // the cluster, and lose its cursor position, context and constraint name on the way.
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const core::ffi::c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        params: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        receiver: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

#[allow(clippy::too_many_arguments)] // the server's signature (tcop/utility.h)
unsafe extern "C-unwind" fn utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const core::ffi::c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: passes the arguments on as they came. An error raised in C jumps over this frame, which owns nothing.
    unsafe {
        before(statement);
        match NEXT {
            Some(next) => next(statement, text, read_only_tree, context, params, environment, receiver, completion),
            None => standard_ProcessUtility(
                statement,
                text,
                read_only_tree,
                context,
                params,
                environment,
                receiver,
                completion,
            ),
        }
    }
}

/// Our step in front of a command; what it keeps is given back when the transaction ends, either way.
#[pg_guard]
unsafe extern "C-unwind" fn before(statement: *mut pg_sys::PlannedStmt) {
    super::probe::let_go();
    // SAFETY: the node is the parsed command the server is about to run.
    let (database, drops_extension) =
        unsafe { (needs_alone((*statement).utilityStmt), drops_us((*statement).utilityStmt)) };
    if drops_extension {
        wake::launcher_at_commit();
    }
    if let Some(oid) = database {
        hold(oid);
    }
}

/// The database a command needs for itself, when this user may run the command at all.
unsafe fn needs_alone(node: *mut pg_sys::Node) -> Option<pg_sys::Oid> {
    // SAFETY: each cast follows the node's tag; names are C strings of the parser.
    unsafe {
        let name = match (*node).type_ {
            pg_sys::NodeTag::T_DropdbStmt => (*(node as *mut pg_sys::DropdbStmt)).dbname,
            pg_sys::NodeTag::T_CreatedbStmt => template_of((*(node as *mut pg_sys::CreatedbStmt)).options),
            pg_sys::NodeTag::T_RenameStmt => {
                let rename = node as *mut pg_sys::RenameStmt;
                if (*rename).renameType != pg_sys::ObjectType::OBJECT_DATABASE {
                    return None;
                }
                (*rename).subname
            }
            pg_sys::NodeTag::T_AlterDatabaseStmt => (*(node as *mut pg_sys::AlterDatabaseStmt)).dbname,
            _ => return None,
        };
        if name.is_null() {
            return None;
        }
        let oid = pg_sys::get_database_oid(name, true);
        let is_template = (*node).type_ == pg_sys::NodeTag::T_CreatedbStmt;
        (oid != pg_sys::InvalidOid && (is_template && pg_sys::superuser() || owns(oid))).then_some(oid)
    }
}

#[cfg(feature = "pg15")]
unsafe fn owns(oid: pg_sys::Oid) -> bool {
    // SAFETY: a catalogue look-up.
    unsafe { pg_sys::pg_database_ownercheck(oid, pg_sys::GetUserId()) }
}

#[cfg(not(feature = "pg15"))]
unsafe fn owns(oid: pg_sys::Oid) -> bool {
    // SAFETY: a catalogue look-up.
    unsafe { pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, oid, pg_sys::GetUserId()) }
}

unsafe fn template_of(options: *mut pg_sys::List) -> *mut core::ffi::c_char {
    // SAFETY: a list of DefElem, as the grammar builds it.
    unsafe {
        let list = pgrx::PgList::<pg_sys::DefElem>::from_pg(options);
        let found = list.iter_ptr().find(|option| CStr::from_ptr((**option).defname) == c"template");
        match found {
            Some(option) if !(*option).arg.is_null() => pg_sys::defGetString(option),
            _ => core::ptr::null_mut(),
        }
    }
}

unsafe fn drops_us(node: *mut pg_sys::Node) -> bool {
    // SAFETY: as above; a DROP EXTENSION names its objects by String nodes.
    unsafe {
        if (*node).type_ != pg_sys::NodeTag::T_DropStmt {
            return false;
        }
        let drop = node as *mut pg_sys::DropStmt;
        if (*drop).removeType != pg_sys::ObjectType::OBJECT_EXTENSION {
            return false;
        }
        let names = pgrx::PgList::<pg_sys::Node>::from_pg((*drop).objects);
        let ours = names.iter_ptr().any(|name| {
            let text = (*(name as *mut pg_sys::String)).sval;
            !text.is_null() && CStr::from_ptr(text).to_bytes() == super::store::EXTENSION.as_bytes()
        });
        ours
    }
}

/// Keeps workers out of a database until this transaction ends, and waits, ten seconds at most, until the one there
/// has left. After that the command finds the database in use and says so itself.
fn hold(oid: pg_sys::Oid) {
    let worker = shmem::write(|shared| {
        let place = shared.database_mut(oid.to_u32())?;
        place.held_by = wake::my_pid();
        Some(place.pid)
    });
    let Some(pid) = worker.flatten() else { return };
    register_xact_callback(PgXactCallbackEvent::Commit, move || release(oid));
    register_xact_callback(PgXactCallbackEvent::Abort, move || release(oid));
    if wake::alive(pid) {
        // SAFETY: asks our own worker to end, as the server's pg_terminate_backend() would.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
    for _ in 0..1000 {
        if !wake::alive(pid) {
            break;
        }
        pause_10ms();
        pgrx::check_for_interrupts!();
    }
}

fn release(oid: pg_sys::Oid) {
    let launcher = shmem::write(|shared| {
        if let Some(place) = shared.database_mut(oid.to_u32()) {
            place.held_by = 0;
            place.state = shmem::State::Unknown;
            place.retry_at = 0;
        }
        shared.launcher
    });
    wake::process(launcher.unwrap_or(0));
}

fn pause_10ms() {
    // SAFETY: waits on this process's own latch.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as i32,
            10,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}
