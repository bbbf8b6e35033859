//! The border between our errors and PostgreSQL's: one match gives SQLSTATE, message, detail and hint.

use crate::core::error::Error;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::PgSqlErrorCode as Code;

/// What SQL functions return: errors leave as PostgreSQL reports, never as panics.
pub type Answer<T> = Result<T, ErrorReport>;

impl From<Error> for ErrorReport {
    fn from(error: Error) -> Self {
        let mut report = ErrorReport::new(sqlstate(&error), error.message(), "enrichment_cache");
        if let Some(detail) = error.detail() {
            report = report.set_detail(detail);
        }
        if let Some(hint) = error.hint() {
            report = report.set_hint(hint);
        }
        report
    }
}

/// An error that was raised, as a value.
pub fn of_caught(cause: &CaughtError) -> Error {
    match cause {
        CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. } => Error::Statement {
            sqlstate: format!("{:?}", report.sql_error_code()),
            message: report.message().to_string(),
        },
    }
}

fn sqlstate(error: &Error) -> Code {
    match error {
        Error::UnknownService { .. } => Code::ERRCODE_UNDEFINED_OBJECT,
        Error::KeyNotValid { .. }
        | Error::KeyNotEligible { .. }
        | Error::NegativeTtl { .. }
        | Error::InvalidStatus { .. }
        | Error::StatusWithPayload { .. }
        | Error::PayloadMissing { .. }
        | Error::InvalidArgument { .. }
        | Error::InvalidRules { .. } => Code::ERRCODE_INVALID_PARAMETER_VALUE,
        Error::PayloadTooLarge { .. } => Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        Error::TooManyWaiting { .. } | Error::QueueFull { .. } => Code::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        Error::NoThread { .. } => Code::ERRCODE_INSUFFICIENT_RESOURCES,
        Error::NotPreloaded { .. } | Error::NotServed { .. } | Error::InRecovery { .. } => {
            Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
        }
        Error::NoSuchColumn { .. } => Code::ERRCODE_UNDEFINED_COLUMN,
        Error::NotATable { .. } => Code::ERRCODE_WRONG_OBJECT_TYPE,
        Error::Json { .. } => Code::ERRCODE_INVALID_TEXT_REPRESENTATION,
        Error::NotInstalled => Code::ERRCODE_UNDEFINED_OBJECT,
        Error::Statement { .. } | Error::Other { .. } => Code::ERRCODE_INTERNAL_ERROR,
    }
}
