//! The providers by name, and what each of them says in the common cases.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Expected};
use crate::app::App;
use crate::{abuseipdb, dshield, greynoise, hibp, internetdb, spur, urlhaus, virustotal};

/// One of the services that are imitated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// VirusTotal API v3
    VirusTotal,
    /// DShield of the SANS Internet Storm Center
    Dshield,
    /// URLhaus of abuse.ch
    Urlhaus,
    /// Spur Context API v2
    Spur,
    /// Pwned Passwords range API of Have I Been Pwned
    Hibp,
    /// GreyNoise Community API v3
    GreyNoise,
    /// AbuseIPDB API v2
    AbuseIpdb,
    /// InternetDB of Shodan
    InternetDb,
}

impl Provider {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Provider; 8] = [
        Provider::VirusTotal,
        Provider::Dshield,
        Provider::Urlhaus,
        Provider::Spur,
        Provider::Hibp,
        Provider::GreyNoise,
        Provider::AbuseIpdb,
        Provider::InternetDb,
    ];

    /// The name used in paths, switches and the control API.
    pub fn name(self) -> &'static str {
        match self {
            Provider::VirusTotal => "virustotal",
            Provider::Dshield => "dshield",
            Provider::Urlhaus => "urlhaus",
            Provider::Spur => "spur",
            Provider::Hibp => "hibp",
            Provider::GreyNoise => "greynoise",
            Provider::AbuseIpdb => "abuseipdb",
            Provider::InternetDb => "internetdb",
        }
    }

    /// The provider of that name.
    ///
    /// # Errors
    /// A sentence that lists the names, if there is none.
    pub fn parse(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|provider| provider.name() == name)
            .ok_or_else(|| format!("no service {name:?}; there are {}", Self::ALL.map(Provider::name).join(", ")))
    }

    /// The providers a name of the control API means: one, or all for `*`.
    ///
    /// # Errors
    /// As [`Provider::parse`].
    pub fn parse_many(name: &str) -> Result<Vec<Self>, String> {
        match name {
            "*" => Ok(Self::ALL.to_vec()),
            _ => Ok(vec![Self::parse(name)?]),
        }
    }

    /// What a client with a wrong key (or, where there is no key, a blocked agent) is told.
    pub fn wrong_key(self) -> Answer {
        match self {
            Provider::VirusTotal => virustotal::wrong_key(),
            Provider::Dshield => dshield::blocked_agent(),
            Provider::Urlhaus => urlhaus::wrong_key(),
            Provider::Spur => spur::wrong_key(),
            Provider::Hibp => hibp::blocked_agent(),
            Provider::GreyNoise => greynoise::wrong_key(),
            Provider::AbuseIpdb => abuseipdb::wrong_key(),
            Provider::InternetDb => Answer::html(403, "403 Forbidden"),
        }
    }

    /// What a client over the limit is told; `wait` is the time until a call fits again.
    pub fn over_limit(self, wait: Duration) -> Answer {
        match self {
            Provider::VirusTotal => virustotal::over_limit(),
            Provider::Dshield => dshield::over_limit(),
            Provider::Urlhaus => urlhaus::over_limit(wait),
            Provider::Spur => spur::over_limit(wait),
            Provider::Hibp => hibp::over_limit(wait),
            Provider::GreyNoise => greynoise::over_limit(),
            Provider::AbuseIpdb => abuseipdb::over_limit(wait),
            Provider::InternetDb => internetdb::over_limit(),
        }
    }

    /// What a good request for this key brings, without asking for it.
    pub fn expect(self, app: &App, key: &str) -> Expected {
        match self {
            Provider::VirusTotal => virustotal::expect(key),
            Provider::Dshield => dshield::expect(key),
            Provider::Urlhaus => urlhaus::expect(key, app.settings.urlhaus_found),
            Provider::Spur => spur::expect(key),
            Provider::Hibp => hibp::expect(key),
            Provider::GreyNoise => greynoise::expect(key),
            Provider::AbuseIpdb => abuseipdb::expect(key),
            Provider::InternetDb => internetdb::expect(key),
        }
    }
}
