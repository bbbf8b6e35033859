-- The provider registry: the built-in services are data. A change by an administrator turns the row into the
-- administrator's own, which pg_dump then carries; restoring it replaces the untouched built-in row.

INSERT INTO enrichment_service
    (name, key_kind, method, url, headers, body, secret_name, secret_required, response_format,
     ttl, not_found_ttl, stale_ttl, limits, max_in_flight, timeout_ms, max_bytes, rules, builtin)
VALUES
    ('virustotal', 'file_hash_or_ip', 'GET', 'https://www.virustotal.com/api/v3/{route}/{key}',
     '{"x-apikey": "{secret}", "accept": "application/json"}', NULL, 'VT_API_KEY', true, 'json',
     '30 days', '12 hours', '365 days',
     '[{"max": 4, "per": "minute"}, {"max": 500, "per": "day"}, {"max": 15500, "per": "month"}]', 4, 60000, 8388608,
     '{
        "variables": {
          "default": {
            "route": "files"
          },
          "ip": {
            "route": "ip_addresses"
          }
        },
        "outcomes": [
          {
            "status": [
              429
            ],
            "path": "error.code",
            "equals": [
              "QuotaExceededError"
            ],
            "outcome": "rate_limited",
            "used_up": true,
            "because": "a quota is used up"
          },
          {
            "status": [
              404
            ],
            "path": "error.code",
            "equals": [
              "NotFoundError"
            ],
            "outcome": "not_found"
          },
          {
            "status": [
              404
            ],
            "outcome": "error",
            "retry": true,
            "because": "a 404 that is not VirusTotal''s own"
          },
          {
            "status": [
              400
            ],
            "path": "error.code",
            "equals": [
              "NotAvailableYet"
            ],
            "outcome": "error",
            "retry": true,
            "because": "not available yet"
          },
          {
            "status": [
              424
            ],
            "outcome": "error",
            "retry": true,
            "because": "a dependency of VirusTotal failed"
          }
        ],
        "require": [
          "data.attributes"
        ],
        "limited_pause_seconds": 60,
        "used_up_pause_seconds": 300,
        "usage": {
          "url": "https://www.virustotal.com/api/v3/users/{account}/overall_quotas",
          "body": [
            {
              "per": "hour",
              "allowed": "data.api_requests_hourly.user.allowed",
              "used": "data.api_requests_hourly.user.used"
            },
            {
              "per": "day",
              "allowed": "data.api_requests_daily.user.allowed",
              "used": "data.api_requests_daily.user.used"
            },
            {
              "per": "month",
              "allowed": "data.api_requests_monthly.user.allowed",
              "used": "data.api_requests_monthly.user.used"
            }
          ],
          "every_seconds": 3600
        }
      }', true),
    ('dshield', 'ip', 'GET', 'https://isc.sans.edu/api/ip/{key}?json',
     '{"user-agent": "{user_agent} ({contact})"}', NULL, NULL, false, 'json',
     '7 days', '7 days', '90 days', '[{"max": 1, "per": "second"}]', 4, 30000, 1048576,
     '{
        "outcomes": [
          {
            "status": [
              200
            ],
            "path": "error",
            "equals": [
              "bad IP address"
            ],
            "outcome": "error",
            "retry": false,
            "because": "DShield refused the address"
          },
          {
            "status": [
              200
            ],
            "path": "error",
            "exists": true,
            "outcome": "error",
            "retry": true,
            "because": "DShield reports an error"
          },
          {
            "status": [
              200
            ],
            "path": "ip",
            "exists": false,
            "outcome": "invalid",
            "because": "the answer lacks \"ip\""
          },
          {
            "status": [
              200
            ],
            "path": "ip",
            "empty_except": [
              "number"
            ],
            "outcome": "not_found"
          }
        ],
        "require": [
          "ip"
        ],
        "limited_pause_seconds": 300
      }', true),
    ('urlhaus', 'network_indicator', 'POST', 'https://urlhaus-api.abuse.ch/v1/{route}/',
     '{"auth-key": "{secret}", "content-type": "application/x-www-form-urlencoded"}', '{field}={key}',
     'URLHAUS_API_KEY', true, 'json',
     '3 days', '3 days', '60 days', '[{"max": 2, "per": "second"}]', 4, 30000, 8388608,
     '{
        "variables": {
          "default": {
            "route": "host",
            "field": "host"
          },
          "sha256": {
            "route": "payload",
            "field": "sha256_hash"
          }
        },
        "outcomes": [
          {
            "path": "query_status",
            "equals": [
              "unknown_auth_key"
            ],
            "outcome": "unauthorized",
            "because": "URLhaus does not know this Auth-Key"
          },
          {
            "status": [
              200
            ],
            "path": "query_status",
            "equals": [
              "no_results"
            ],
            "outcome": "not_found"
          },
          {
            "status": [
              200
            ],
            "path": "query_status",
            "equals": [
              "invalid_host",
              "invalid_url",
              "invalid_md5",
              "invalid_sha256",
              "http_post_expected",
              "http_get_expected"
            ],
            "outcome": "error",
            "retry": false,
            "because": "URLhaus refused the request"
          },
          {
            "status": [
              200
            ],
            "path": "query_status",
            "not_equals": [
              "ok"
            ],
            "outcome": "error",
            "retry": true,
            "because": "an unknown query_status"
          },
          {
            "status": [
              200
            ],
            "path": "query_status",
            "exists": false,
            "outcome": "invalid",
            "because": "the answer lacks \"query_status\""
          },
          {
            "status": [
              200
            ],
            "path": "",
            "empty_except": [
              "query_status",
              "urlhaus_reference",
              "host",
              "firstseen",
              "blacklists"
            ],
            "outcome": "not_found"
          }
        ],
        "require": [
          "query_status"
        ]
      }', true),
    ('spur', 'ip', 'GET', 'https://api.spur.us/v2/context/{key}',
     '{"token": "{secret}", "accept": "application/json"}', NULL, 'SPUR_API_KEY', true, 'json',
     '14 days', '14 days', '90 days', '[{"max": 1, "per": "second"}]', 4, 30000, 1048576,
     '{
        "outcomes": [
          {
            "status": [
              429
            ],
            "outcome": "rate_limited",
            "used_up": true,
            "because": "the query balance is used up"
          },
          {
            "status": [
              200
            ],
            "path": "ip",
            "exists": false,
            "outcome": "invalid",
            "because": "the answer lacks \"ip\""
          },
          {
            "status": [
              200
            ],
            "path": "",
            "empty_except": [
              "ip"
            ],
            "outcome": "not_found"
          }
        ],
        "require": [
          "ip"
        ],
        "used_up_pause_seconds": 3600,
        "usage": {
          "headers": [
            {
              "remaining": "x-balance-remaining"
            }
          ],
          "url": "https://api.spur.us/status",
          "body": [
            {
              "remaining": "queriesRemaining"
            }
          ],
          "every_seconds": 3600
        }
      }', true),
    ('hibp', 'hash_prefix', 'GET', 'https://api.pwnedpasswords.com/range/{key}',
     '{}', NULL, NULL, false, 'hibp_range',
     '60 days', '60 days', '365 days', '[{"max": 10, "per": "second"}]', 8, 30000, 1048576,
     '{
        "outcomes": [
          {
            "status": [
              404
            ],
            "outcome": "error",
            "retry": true,
            "because": "the range is missing at the provider"
          },
          {
            "status": [
              409
            ],
            "outcome": "rate_limited"
          }
        ],
        "limited_pause_seconds": 10,
        "conditional": true
      }', true);
