//! Secrets of services, resolved by the worker only: file, then database, then the server's environment.

use crate::core::error::Error;
use crate::core::secret::Secret;
use crate::core::service::Service;
use crate::io::secrets::{Origin, SecretSource};
use crate::pg::gucs;
use crate::pg::store::registry;

/// The secret of a service, if it has one and it can be found.
pub fn of(service: &Service) -> Result<Option<Secret>, Error> {
    let Some(name) = &service.secret_name else { return Ok(None) };
    let stored = registry::stored_secret(name)?;
    let source = SecretSource { dir: gucs::secrets_dir() };
    Ok(source.resolve(name, stored.as_deref()))
}

/// What was found of a service's secret.
#[derive(Default)]
pub struct Credential {
    pub secret: Option<Secret>,
    /// The place that has it.
    pub origin: Option<Origin>,
    /// What is wrong with its file.
    pub warning: Option<String>,
}

/// The secret of a service with the place it comes from.
pub fn found(service: &Service) -> Result<Credential, Error> {
    let Some(name) = &service.secret_name else { return Ok(Credential::default()) };
    let stored = registry::stored_secret(name)?;
    let found = SecretSource { dir: gucs::secrets_dir() }.find(name, stored.as_deref());
    let (secret, origin) = found.secret.unzip();
    Ok(Credential { secret, origin, warning: found.warning })
}

/// Which secret a service was refused with, in words: its name and where it came from.
///
/// # Errors
/// What reading the stored one raises.
pub fn origin(service: &Service) -> Result<String, Error> {
    let Some(name) = &service.secret_name else {
        return Ok("no secret is sent to it, so it refuses this server's address, User-Agent or contact".to_string());
    };
    let place = match found(service)?.origin {
        Some(Origin::File) => "comes from its file in enrichment_cache.secrets_dir",
        Some(Origin::Stored) => "comes from the database (enrich_set_secret)",
        Some(Origin::Environment) => "comes from the server's environment",
        None => "was not found",
    };
    Ok(format!("the secret {name} {place}"))
}

/// What is missing, in words, when a service needs a secret and has none.
pub fn missing(service: &Service) -> String {
    let name = service.secret_name.as_deref().unwrap_or("its secret");
    format!(
        "no secret named {name}: use enrich_set_secret('{}', ...), a file of that name in enrichment_cache.secrets_dir, or the server's environment",
        service.name
    )
}
