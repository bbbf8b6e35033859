-- What everything is, for \d+ and \df+: units, and what NULL means.

-- Tables ----------------------------------------------------------------------------------------------------

COMMENT ON TABLE @extschema@.enrichment_cache IS
    'What is known now: one row per service and key. A failure never replaces an answer. Age counts from fetched_at.';
COMMENT ON COLUMN @extschema@.enrichment_cache.id IS 'Number of the row; it says nothing of the order in which rows came.';
COMMENT ON COLUMN @extschema@.enrichment_cache.service IS 'Name of the service that was asked (enrichment_service.name).';
COMMENT ON COLUMN @extschema@.enrichment_cache.cache_key IS 'The key in its normal form: canonical address, lower-case hash, upper-case HIBP prefix.';
COMMENT ON COLUMN @extschema@.enrichment_cache.cache_key_hash IS 'First 16 bytes of SHA-256 over service, a zero byte, key.';
COMMENT ON COLUMN @extschema@.enrichment_cache.payload IS 'The answer as received; of a packed HIBP range its summary (suffixes, most_seen). NULL exactly when response_status is not success.';
COMMENT ON COLUMN @extschema@.enrichment_cache.ranges IS 'An HIBP range, 22 bytes a suffix; enrich_hibp_count looks into it, enrich_hibp_range gives it as an object. NULL: the payload is the answer.';
COMMENT ON COLUMN @extschema@.enrichment_cache.response_status IS 'success; not_found (asked, the provider knows nothing); error, rate_limited, unauthorized, invalid (an answer that cannot be parsed or trusted): these four never carry a payload.';
COMMENT ON COLUMN @extschema@.enrichment_cache.created_at IS 'When the key was first stored.';
COMMENT ON COLUMN @extschema@.enrichment_cache.fetched_at IS 'When the provider was observed to say this; freshness counts from here, whatever way the row took.';
COMMENT ON COLUMN @extschema@.enrichment_cache.accessed_at IS 'When it was last read, written in batches. NULL: never, as far as is known.';
COMMENT ON COLUMN @extschema@.enrichment_cache.expires_at IS 'Until when it is fresh. Past this it is stale, and kept for stale_ttl of its service.';
COMMENT ON COLUMN @extschema@.enrichment_cache.api_response_code IS 'HTTP status of the last call; 304: the provider said that nothing has changed. NULL when it came by another way than a call.';
COMMENT ON COLUMN @extschema@.enrichment_cache.api_latency_ms IS 'Milliseconds the last call took. NULL when there was no call.';
COMMENT ON COLUMN @extschema@.enrichment_cache.error_message IS 'Why the last attempt failed, also beside an answer that still stands. NULL: it did not fail.';
COMMENT ON COLUMN @extschema@.enrichment_cache.hit_count IS 'How often it was read, written in batches.';
COMMENT ON COLUMN @extschema@.enrichment_cache.version IS '1 for the first store, 1 more with each later one; for enrich_compare_and_store.';
COMMENT ON COLUMN @extschema@.enrichment_cache.altered IS 'true: the payload does not say all that was sent as it was sent: a character, a number or a repeated name was replaced.';
COMMENT ON COLUMN @extschema@.enrichment_cache.etag IS 'The header ETag of the answer, for a service whose rules say conditional. NULL: none.';
COMMENT ON COLUMN @extschema@.enrichment_cache.last_modified IS 'The header Last-Modified of the answer, likewise. NULL: none.';
COMMENT ON COLUMN @extschema@.enrichment_cache.hollow IS 'The payload holds nothing (enrich_is_empty), or is a hash range of padding only: no answer. Kept by the table itself.';

COMMENT ON TABLE @extschema@.enrichment_service IS
    'The registry of providers: one row per service, data and not code. One INSERT adds a service.';
COMMENT ON COLUMN @extschema@.enrichment_service.name IS 'Name by which the service is called everywhere: lower-case letters, digits, underscore.';
COMMENT ON COLUMN @extschema@.enrichment_service.enabled IS 'false: nothing is asked any more; what is cached is still served.';
COMMENT ON COLUMN @extschema@.enrichment_service.key_kind IS 'What a key is, hence how it is normalised and which keys are eligible; an unknown kind is refused with the list of known ones.';
COMMENT ON COLUMN @extschema@.enrichment_service.method IS 'GET or POST.';
COMMENT ON COLUMN @extschema@.enrichment_service.url IS 'https address with places to fill, {key} above all. Only hosts named here are ever called.';
COMMENT ON COLUMN @extschema@.enrichment_service.headers IS 'Object of header names and values; {secret}, {user_agent} and {contact} are filled in by the worker.';
COMMENT ON COLUMN @extschema@.enrichment_service.body IS 'Body of a POST, with the same places to fill. NULL: none.';
COMMENT ON COLUMN @extschema@.enrichment_service.secret_name IS 'Under which name the secret is kept or found (file, environment). NULL: the service takes none. Never the secret itself.';
COMMENT ON COLUMN @extschema@.enrichment_service.secret_required IS 'true: without its secret the service is not asked.';
COMMENT ON COLUMN @extschema@.enrichment_service.response_format IS 'json, or hibp_range (lines SUFFIX:COUNT, kept packed, given as an object).';
COMMENT ON COLUMN @extschema@.enrichment_service.ttl IS 'How long an answer is fresh; spread by 5 % either way by key.';
COMMENT ON COLUMN @extschema@.enrichment_service.not_found_ttl IS 'How long "the provider knows nothing" is fresh.';
COMMENT ON COLUMN @extschema@.enrichment_service.stale_ttl IS 'How long an expired row is kept to be served when asked for, before cleanup deletes it.';
COMMENT ON COLUMN @extschema@.enrichment_service.limits IS 'List of {"max": n, "per": "second|minute|hour|day|month"}, all in force at once, in UTC. []: no limit.';
COMMENT ON COLUMN @extschema@.enrichment_service.max_in_flight IS 'Most calls at the same time, 1 to 1000.';
COMMENT ON COLUMN @extschema@.enrichment_service.timeout_ms IS 'Milliseconds one call may take, 100 to 600000.';
COMMENT ON COLUMN @extschema@.enrichment_service.max_bytes IS 'Bytes an answer may have after decompression, 1 KiB to 256 MiB; a larger one is refused.';
COMMENT ON COLUMN @extschema@.enrichment_service.rules IS 'How answers are judged: which status or value means not found, limited, unauthorized.';
COMMENT ON COLUMN @extschema@.enrichment_service.builtin IS 'true: as the extension made it, not dumped. A change makes the row the administrator''s own.';

COMMENT ON TABLE @extschema@.enrichment_secret IS
    'Secrets set with enrich_set_secret. Only the worker reads them; nobody is granted anything on this table and it is never dumped.';
COMMENT ON COLUMN @extschema@.enrichment_secret.secret_name IS 'enrichment_service.secret_name.';
COMMENT ON COLUMN @extschema@.enrichment_secret.secret IS 'The secret in clear text.';
COMMENT ON COLUMN @extschema@.enrichment_secret.set_at IS 'When it was set.';

COMMENT ON TABLE @extschema@.enrichment_queue IS
    'Requests that wait or are in flight: durable, one per service and key.';
COMMENT ON COLUMN @extschema@.enrichment_queue.id IS 'Number of the request.';
COMMENT ON COLUMN @extschema@.enrichment_queue.service IS 'The service to ask.';
COMMENT ON COLUMN @extschema@.enrichment_queue.cache_key IS 'The key to ask about, in its normal form.';
COMMENT ON COLUMN @extschema@.enrichment_queue.priority IS 'One point is worth an hour of waiting; 0 is usual. A failed attempt takes what is above 0, and 1,000 of what is below.';
COMMENT ON COLUMN @extschema@.enrichment_queue.state IS 'waiting; in_flight (claimed by a worker); dead (rests after its last attempt until enrich_retry or another request).';
COMMENT ON COLUMN @extschema@.enrichment_queue.attempts IS 'Attempts that failed. A 429, a refused secret and an open breaker are none.';
COMMENT ON COLUMN @extschema@.enrichment_queue.requested_at IS 'When it was first requested.';
COMMENT ON COLUMN @extschema@.enrichment_queue.next_attempt_at IS 'Not to be asked before.';
COMMENT ON COLUMN @extschema@.enrichment_queue.leased_at IS 'When a worker claimed it. NULL: it is not in flight.';
COMMENT ON COLUMN @extschema@.enrichment_queue.leased_by IS 'Process id of that worker. NULL: it is not in flight.';
COMMENT ON COLUMN @extschema@.enrichment_queue.last_outcome IS 'How the last attempt ended. NULL: there was none yet.';
COMMENT ON COLUMN @extschema@.enrichment_queue.last_error IS 'What went wrong then. NULL: nothing is known to have.';

COMMENT ON TABLE @extschema@.enrichment_quota IS
    'The ledger of calls per service and window, written before a call is made.';
COMMENT ON COLUMN @extschema@.enrichment_quota.service IS 'The service that was called.';
COMMENT ON COLUMN @extschema@.enrichment_quota.per IS 'Length of the window: second, minute, hour, day, month.';
COMMENT ON COLUMN @extschema@.enrichment_quota.window_start IS 'When the window began, aligned in UTC.';
COMMENT ON COLUMN @extschema@.enrichment_quota.budget IS
    'Which budget: a digest of the provider''s host, the secret and this cluster. Services of all databases that ask with the same secret share it.';
COMMENT ON COLUMN @extschema@.enrichment_quota.spent IS 'Calls of this database started in it.';
COMMENT ON COLUMN @extschema@.enrichment_quota.spent_by_all IS
    'Calls of all databases started in it, as far as was known at the last one of this.';

COMMENT ON TABLE @extschema@.enrichment_lane IS
    'Why a service is not asked at the moment, and its run of failures.';
COMMENT ON COLUMN @extschema@.enrichment_lane.service IS 'The service.';
COMMENT ON COLUMN @extschema@.enrichment_lane.paused_until IS 'Nothing is asked before. NULL or past: it is not paused.';
COMMENT ON COLUMN @extschema@.enrichment_lane.cause IS 'Kind of the pause in one word, such as unauthorized. NULL: no pause.';
COMMENT ON COLUMN @extschema@.enrichment_lane.reason IS 'The same in words, without secrets. NULL: no pause.';
COMMENT ON COLUMN @extschema@.enrichment_lane.failures IS 'Pauses of this cause in a row (of a refused secret: refusals); 0 after a success.';
COMMENT ON COLUMN @extschema@.enrichment_lane.changed_at IS 'When this row last changed.';

COMMENT ON TABLE @extschema@.enrichment_source IS
    'Which tables of users are enriched, by which column, into what. Made by enrich_attach.';
COMMENT ON COLUMN @extschema@.enrichment_source.name IS 'Name of the source, as enrich_attach returned it.';
COMMENT ON COLUMN @extschema@.enrichment_source.relation IS 'The table.';
COMMENT ON COLUMN @extschema@.enrichment_source.key_column IS 'Its column that holds the keys. NULL: key_expression makes them.';
COMMENT ON COLUMN @extschema@.enrichment_source.key_expression IS 'An SQL expression over a row that makes its key. NULL: key_column holds it.';
COMMENT ON COLUMN @extschema@.enrichment_source.key_type IS 'The type of the column or expression when it was attached.';
COMMENT ON COLUMN @extschema@.enrichment_source.eligible IS 'An SQL condition: which rows are asked about and written. NULL: all.';
COMMENT ON COLUMN @extschema@.enrichment_source.services IS 'The services asked about each key.';
COMMENT ON COLUMN @extschema@.enrichment_source.into_column IS 'The json or jsonb column that takes the answers. NULL: none.';
COMMENT ON COLUMN @extschema@.enrichment_source.shape IS 'How answers are written: raw or cowrieprocessor (into_column), files (the vt_* columns), passwords (breached and its kin), none.';
COMMENT ON COLUMN @extschema@.enrichment_source.flag_columns IS 'Boolean columns and the service each tells of. NULL: those that are there under their usual names, such as dshield_flagged.';
COMMENT ON COLUMN @extschema@.enrichment_source.time_column IS 'When a row came or was last seen: newer rows first. NULL: the table does not tell.';
COMMENT ON COLUMN @extschema@.enrichment_source.weight IS 'An SQL expression: what a row adds to the worth of its key. NULL: 1.';
COMMENT ON COLUMN @extschema@.enrichment_source.usual_weight IS 'true: nobody gave a weight; it follows the columns that are there.';
COMMENT ON COLUMN @extschema@.enrichment_source.commit_interval IS 'Rows written back in one transaction, by the count of their keys'' rows.';
COMMENT ON COLUMN @extschema@.enrichment_source.attached_at IS 'When it was attached.';
COMMENT ON COLUMN @extschema@.enrichment_source.swept_at IS 'When the whole table was last searched for keys. NULL: not yet, or to be searched soon.';
COMMENT ON COLUMN @extschema@.enrichment_source.last_error IS 'What is wrong with the source. NULL: nothing.';
COMMENT ON COLUMN @extschema@.enrichment_source.last_error_at IS 'Since when. NULL: nothing is wrong.';

COMMENT ON TABLE @extschema@.enrichment_arrival IS
    'Keys that triggers and sweeps have seen and the worker has not looked at yet: append only.';
COMMENT ON COLUMN @extschema@.enrichment_arrival.id IS 'Order of arrival.';
COMMENT ON COLUMN @extschema@.enrichment_arrival.source IS 'enrichment_source.name.';
COMMENT ON COLUMN @extschema@.enrichment_arrival.raw_keys IS 'Distinct keys as they stand in the rows; of passwords their HIBP prefixes. Empty: the table is to be searched.';
COMMENT ON COLUMN @extschema@.enrichment_arrival.row_counts IS 'For each key, its new rows.';
COMMENT ON COLUMN @extschema@.enrichment_arrival.weights IS 'For each key, the weight of these rows.';
COMMENT ON COLUMN @extschema@.enrichment_arrival.latest IS 'For each key, the latest time of these rows.';
COMMENT ON COLUMN @extschema@.enrichment_arrival.key_count IS 'How many keys.';
COMMENT ON COLUMN @extschema@.enrichment_arrival.urgent IS 'true: to be asked before others.';
COMMENT ON COLUMN @extschema@.enrichment_arrival.moved IS 'true: these rows had another key before.';

COMMENT ON TABLE @extschema@.enrichment_indicator IS
    'Each key of an attached table once, however many rows hold it.';
COMMENT ON COLUMN @extschema@.enrichment_indicator.source IS 'enrichment_source.name.';
COMMENT ON COLUMN @extschema@.enrichment_indicator.raw_key IS 'The key as it stands in the rows; of a password its HIBP prefix.';
COMMENT ON COLUMN @extschema@.enrichment_indicator.cache_key IS 'Its normal form. NULL: it cannot be asked about, see problem.';
COMMENT ON COLUMN @extschema@.enrichment_indicator.problem IS 'Why it cannot. NULL: it can.';
COMMENT ON COLUMN @extschema@.enrichment_indicator.dirty IS 'true: the rows of this key are to be written again.';
COMMENT ON COLUMN @extschema@.enrichment_indicator.moved IS 'true: some of them had another key before, and may still hold what is known of that. With an empty raw_key also the rows that have none any more.';
COMMENT ON COLUMN @extschema@.enrichment_indicator.row_count IS 'Rows with this key: as the last search counted them, and those that came since.';
COMMENT ON COLUMN @extschema@.enrichment_indicator.weight IS 'Their weight (enrichment_source.weight).';
COMMENT ON COLUMN @extschema@.enrichment_indicator.latest IS 'The latest time of them (enrichment_source.time_column).';
COMMENT ON COLUMN @extschema@.enrichment_indicator.first_seen IS 'When the key was first seen.';
COMMENT ON COLUMN @extschema@.enrichment_indicator.written_at IS 'When its rows were last written. NULL: not yet.';

COMMENT ON TABLE @extschema@.enrichment_history IS
    'Earlier payloads, kept when a refresh brought a different one.';
COMMENT ON COLUMN @extschema@.enrichment_history.id IS 'Number of the row; of one key the later has the higher.';
COMMENT ON COLUMN @extschema@.enrichment_history.service IS 'The service.';
COMMENT ON COLUMN @extschema@.enrichment_history.cache_key IS 'The key.';
COMMENT ON COLUMN @extschema@.enrichment_history.version IS 'enrichment_cache.version the payload had.';
COMMENT ON COLUMN @extschema@.enrichment_history.payload IS 'The earlier answer; of a packed HIBP range its summary.';
COMMENT ON COLUMN @extschema@.enrichment_history.ranges IS 'An earlier HIBP range, as in enrichment_cache.';
COMMENT ON COLUMN @extschema@.enrichment_history.fetched_at IS 'When it was observed.';
COMMENT ON COLUMN @extschema@.enrichment_history.replaced_at IS 'When another took its place.';
COMMENT ON COLUMN @extschema@.enrichment_history.altered IS 'As enrichment_cache.altered.';

COMMENT ON TABLE @extschema@.enrichment_cache_stats IS
    'Figures per service and UTC day.';
COMMENT ON COLUMN @extschema@.enrichment_cache_stats.service IS 'The service.';
COMMENT ON COLUMN @extschema@.enrichment_cache_stats.day IS 'The day, UTC.';
COMMENT ON COLUMN @extschema@.enrichment_cache_stats.cache_hits IS 'Reads that found a fresh answer.';
COMMENT ON COLUMN @extschema@.enrichment_cache_stats.cache_misses IS 'Reads that did not.';
COMMENT ON COLUMN @extschema@.enrichment_cache_stats.cache_stores IS 'Answers stored.';
COMMENT ON COLUMN @extschema@.enrichment_cache_stats.api_calls IS 'Calls made.';
COMMENT ON COLUMN @extschema@.enrichment_cache_stats.api_failures IS 'Calls that brought no answer.';
COMMENT ON COLUMN @extschema@.enrichment_cache_stats.avg_api_latency_ms IS 'Mean milliseconds of a call. NULL: there was none.';
COMMENT ON COLUMN @extschema@.enrichment_cache_stats.max_api_latency_ms IS 'Milliseconds of the slowest call. NULL: there was none.';
COMMENT ON COLUMN @extschema@.enrichment_cache_stats.total_entries IS 'Rows of the cache when last counted that day. NULL: not counted.';
COMMENT ON COLUMN @extschema@.enrichment_cache_stats.expired_entries IS 'Those of them past expiry. NULL: not counted.';
COMMENT ON COLUMN @extschema@.enrichment_cache_stats.touches_dropped IS
    'Look-ups that are in cache_hits but in no hit_count, because too many came at once. They are of the whole database, kept with one of its services.';
COMMENT ON COLUMN @extschema@.enrichment_cache_stats.disk_hits IS
    'Of cache_misses those that a file of the disk cache answered.';
COMMENT ON COLUMN @extschema@.enrichment_cache_stats.disk_adopted IS
    'Answers that the worker took over from files of the disk cache. They are no calls.';
COMMENT ON COLUMN @extschema@.enrichment_cache_stats.disk_written IS
    'Files of the disk cache that the worker wrote (disk_cache_mode = write_through).';

COMMENT ON TABLE @extschema@.enrichment_privilege IS
    'What each level of enrich_grant is given; a level has what the one before it has. monitor is for pg_monitor.';
COMMENT ON COLUMN @extschema@.enrichment_privilege.level IS 'reader, writer, admin, or monitor.';
COMMENT ON COLUMN @extschema@.enrichment_privilege.action IS 'EXECUTE for a function or procedure; SELECT, or INSERT, UPDATE, DELETE, for a table or view.';
COMMENT ON COLUMN @extschema@.enrichment_privilege.object IS 'Name of the relation, or name and argument types of the routine, without the schema.';

-- Typed views -----------------------------------------------------------------------------------------------

COMMENT ON VIEW @extschema@.enrichment_dshield IS
    'DShield on addresses, one row per key of the cache. NULL: the provider did not say, or there is no answer (response_status).';
COMMENT ON COLUMN @extschema@.enrichment_dshield.cache_key IS 'The address.';
COMMENT ON COLUMN @extschema@.enrichment_dshield.asn IS 'Number of the autonomous system; above 2147483647 NULL.';
COMMENT ON COLUMN @extschema@.enrichment_dshield.as_name IS 'Its name.';
COMMENT ON COLUMN @extschema@.enrichment_dshield.country IS 'Its country, two letters.';
COMMENT ON COLUMN @extschema@.enrichment_dshield.network IS 'The network, in CIDR notation.';
COMMENT ON COLUMN @extschema@.enrichment_dshield.abuse_contact IS 'E-mail address for complaints.';
COMMENT ON COLUMN @extschema@.enrichment_dshield.reports IS 'Packets reported (count). NULL also for a listed address without figures.';
COMMENT ON COLUMN @extschema@.enrichment_dshield.attacks IS 'Distinct targets reported.';
COMMENT ON COLUMN @extschema@.enrichment_dshield.first_seen IS 'First day of reports.';
COMMENT ON COLUMN @extschema@.enrichment_dshield.last_seen IS 'Last day of reports.';
COMMENT ON COLUMN @extschema@.enrichment_dshield.threatfeeds IS 'Names of the feeds that list the address. NULL: nothing was said of feeds.';
COMMENT ON COLUMN @extschema@.enrichment_dshield.response_status IS 'As enrichment_cache.response_status: says why the other columns are NULL.';
COMMENT ON COLUMN @extschema@.enrichment_dshield.fetched_at IS 'When the provider was observed to say this.';
COMMENT ON COLUMN @extschema@.enrichment_dshield.expires_at IS 'Until when it is fresh; rows past it are shown too.';

COMMENT ON VIEW @extschema@.enrichment_spur IS
    'Spur on addresses, one row per key of the cache, from its own answers and from cached lists of 18 items in either order.';
COMMENT ON COLUMN @extschema@.enrichment_spur.cache_key IS 'The address.';
COMMENT ON COLUMN @extschema@.enrichment_spur.asn IS 'Number of the autonomous system. NULL also where a cached list did not keep it.';
COMMENT ON COLUMN @extschema@.enrichment_spur.as_organization IS 'Organisation of that system.';
COMMENT ON COLUMN @extschema@.enrichment_spur.organization IS 'Organisation using the address.';
COMMENT ON COLUMN @extschema@.enrichment_spur.infrastructure IS 'DATACENTER, MOBILE, VPN and others. NULL: residential, or not known.';
COMMENT ON COLUMN @extschema@.enrichment_spur.city IS 'City.';
COMMENT ON COLUMN @extschema@.enrichment_spur.state IS 'State or region.';
COMMENT ON COLUMN @extschema@.enrichment_spur.country IS 'Country, two letters.';
COMMENT ON COLUMN @extschema@.enrichment_spur.client_count IS 'Clients seen behind the address.';
COMMENT ON COLUMN @extschema@.enrichment_spur.client_countries IS 'Countries they were seen in.';
COMMENT ON COLUMN @extschema@.enrichment_spur.client_spread IS 'Area they spread over, km².';
COMMENT ON COLUMN @extschema@.enrichment_spur.client_types IS 'Kinds of devices.';
COMMENT ON COLUMN @extschema@.enrichment_spur.behaviors IS 'What the clients do.';
COMMENT ON COLUMN @extschema@.enrichment_spur.proxies IS 'Proxy services that use the address.';
COMMENT ON COLUMN @extschema@.enrichment_spur.risks IS 'Risks named by Spur.';
COMMENT ON COLUMN @extschema@.enrichment_spur.services IS 'Protocols offered.';
COMMENT ON COLUMN @extschema@.enrichment_spur.tunnel_type IS 'VPN, PROXY or TOR, of the first tunnel. NULL: none is known.';
COMMENT ON COLUMN @extschema@.enrichment_spur.tunnel_operator IS 'Who runs it.';
COMMENT ON COLUMN @extschema@.enrichment_spur.anonymous IS 'Whether it hides its users.';
COMMENT ON COLUMN @extschema@.enrichment_spur.flagged IS 'true: a data centre, a VPN or a tunnel. NULL: nothing was learnt.';
COMMENT ON COLUMN @extschema@.enrichment_spur.response_status IS 'As enrichment_cache.response_status: says why the other columns are NULL.';
COMMENT ON COLUMN @extschema@.enrichment_spur.fetched_at IS 'When the provider was observed to say this.';
COMMENT ON COLUMN @extschema@.enrichment_spur.expires_at IS 'Until when it is fresh; rows past it are shown too.';

COMMENT ON VIEW @extschema@.enrichment_urlhaus IS
    'URLhaus on hosts, addresses and payloads, one row per key of the cache.';
COMMENT ON COLUMN @extschema@.enrichment_urlhaus.cache_key IS 'The host, address or SHA-256.';
COMMENT ON COLUMN @extschema@.enrichment_urlhaus.host IS 'The host as URLhaus names it. NULL for payloads and for cached tags alone.';
COMMENT ON COLUMN @extschema@.enrichment_urlhaus.url_count IS 'Malware URLs known, listed or not.';
COMMENT ON COLUMN @extschema@.enrichment_urlhaus.urls_online IS 'Of those listed (at most 100), how many are online. NULL: no list.';
COMMENT ON COLUMN @extschema@.enrichment_urlhaus.tags IS 'Distinct tags of the listed URLs, sorted; {} when they have none. NULL: no list and no tags.';
COMMENT ON COLUMN @extschema@.enrichment_urlhaus.threat IS 'Kind of threat, of the first URL.';
COMMENT ON COLUMN @extschema@.enrichment_urlhaus.first_seen IS 'First seen by URLhaus.';
COMMENT ON COLUMN @extschema@.enrichment_urlhaus.blacklisted IS 'Whether Spamhaus DBL or SURBL lists it, as abused legitimate host too. NULL: not said.';
COMMENT ON COLUMN @extschema@.enrichment_urlhaus.spamhaus_dbl IS 'What Spamhaus DBL says.';
COMMENT ON COLUMN @extschema@.enrichment_urlhaus.surbl IS 'What SURBL says.';
COMMENT ON COLUMN @extschema@.enrichment_urlhaus.reference IS 'Page about it.';
COMMENT ON COLUMN @extschema@.enrichment_urlhaus.response_status IS 'As enrichment_cache.response_status: says why the other columns are NULL.';
COMMENT ON COLUMN @extschema@.enrichment_urlhaus.fetched_at IS 'When the provider was observed to say this.';
COMMENT ON COLUMN @extschema@.enrichment_urlhaus.expires_at IS 'Until when it is fresh; rows past it are shown too.';

COMMENT ON VIEW @extschema@.enrichment_virustotal IS
    'VirusTotal on files and addresses, one row per key of the cache.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.cache_key IS 'The hash or address that was asked about.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.sha256 IS 'SHA-256 of the file. NULL for addresses.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.malicious IS 'Engines that call it malicious.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.suspicious IS 'Engines that call it suspicious.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.undetected IS 'Engines that found nothing.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.harmless IS 'Engines that call it harmless.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.total IS 'Sum of all results, those without a verdict included.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.label IS 'Suggested threat label. NULL: none, as for clean files.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.type_description IS 'Type of the file in words.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.meaningful_name IS 'The most telling of its names.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.names IS 'Names it was submitted under.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.tags IS 'Tags.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.reputation IS 'Votes of the community; may be negative.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.size IS 'Bytes.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.first_seen IS 'First submission.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.last_seen IS 'Last submission.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.last_analysis IS 'Last analysis.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.asn IS 'Number of the autonomous system, of addresses.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.as_owner IS 'Owner of that system.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.country IS 'Country, two letters, of addresses.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.response_status IS 'As enrichment_cache.response_status: says why the other columns are NULL.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.fetched_at IS 'When the provider was observed to say this.';
COMMENT ON COLUMN @extschema@.enrichment_virustotal.expires_at IS 'Until when it is fresh; rows past it are shown too.';

COMMENT ON VIEW @extschema@.enrichment_hibp IS
    'HIBP ranges, one row per prefix of the cache.';
COMMENT ON COLUMN @extschema@.enrichment_hibp.prefix IS 'First five hexadecimal digits of SHA-1.';
COMMENT ON COLUMN @extschema@.enrichment_hibp.suffixes IS 'Breached passwords in the range; padding is not counted.';
COMMENT ON COLUMN @extschema@.enrichment_hibp.most_seen IS 'How often the most frequent of them was seen.';
COMMENT ON COLUMN @extschema@.enrichment_hibp.ranges IS 'The range for enrich_hibp_count. NULL: the payload is a plain object, or there is none.';
COMMENT ON COLUMN @extschema@.enrichment_hibp.response_status IS 'As enrichment_cache.response_status: says why the other columns are NULL.';
COMMENT ON COLUMN @extschema@.enrichment_hibp.fetched_at IS 'When the provider was observed to say this.';
COMMENT ON COLUMN @extschema@.enrichment_hibp.expires_at IS 'Until when it is fresh; rows past it are shown too.';

-- Views of change and for monitoring ------------------------------------------------------------------------

COMMENT ON VIEW @extschema@.enrichment_changes IS
    'What answers said before, beside what replaced it.';
COMMENT ON COLUMN @extschema@.enrichment_changes.service IS 'The service.';
COMMENT ON COLUMN @extschema@.enrichment_changes.cache_key IS 'The key.';
COMMENT ON COLUMN @extschema@.enrichment_changes.changed_at IS 'When the earlier answer was replaced.';
COMMENT ON COLUMN @extschema@.enrichment_changes.from_version IS 'Version the earlier answer had.';
COMMENT ON COLUMN @extschema@.enrichment_changes.old_payload IS 'The earlier answer.';
COMMENT ON COLUMN @extschema@.enrichment_changes.new_payload IS 'What came next. NULL: the provider knows nothing any more, or the row was deleted.';

COMMENT ON VIEW @extschema@.enrichment_queue_status IS
    'The queue per service.';
COMMENT ON COLUMN @extschema@.enrichment_queue_status.service IS 'The service.';
COMMENT ON COLUMN @extschema@.enrichment_queue_status.waiting IS 'Requests that wait.';
COMMENT ON COLUMN @extschema@.enrichment_queue_status.in_flight IS 'Requests a worker has claimed.';
COMMENT ON COLUMN @extschema@.enrichment_queue_status.dead IS 'Requests that rest after their last attempt.';
COMMENT ON COLUMN @extschema@.enrichment_queue_status.next_attempt_at IS 'When the first that waits can be asked: not before it is due, nor before a pause or a limit ends. NULL: none waits.';
COMMENT ON COLUMN @extschema@.enrichment_queue_status.oldest IS 'When the oldest that waits or is in flight was requested. NULL: there is none.';
COMMENT ON COLUMN @extschema@.enrichment_queue_status.due IS 'Of those that wait, how many may be asked now: 0 while a pause or a limit holds the service up.';
COMMENT ON COLUMN @extschema@.enrichment_queue_status.retrying IS 'Of those that wait, how many have failed before.';
COMMENT ON COLUMN @extschema@.enrichment_queue_status.breaker IS 'closed, open or half_open, as in enrichment_breaker. NULL: no such service is registered.';
COMMENT ON COLUMN @extschema@.enrichment_queue_status.paused_until IS 'Until when nothing is asked. NULL: it is not paused.';
COMMENT ON COLUMN @extschema@.enrichment_queue_status.pause_cause IS 'Why, in one word. NULL: it is not paused.';

COMMENT ON VIEW @extschema@.enrichment_quota_status IS
    'What is left of each limit of each service; one row with NULLs for a service without limits.';
COMMENT ON COLUMN @extschema@.enrichment_quota_status.service IS 'The service.';
COMMENT ON COLUMN @extschema@.enrichment_quota_status.per IS
    'Length of the window: second, minute, hour, day, month; balance: one that no window renews. NULL: no limit.';
COMMENT ON COLUMN @extschema@.enrichment_quota_status.max IS 'Calls allowed in a window: the provider''s own limit where it named one, else the service''s.';
COMMENT ON COLUMN @extschema@.enrichment_quota_status.spent IS 'Calls started in the current one by all databases that ask with the same secret.';
COMMENT ON COLUMN @extschema@.enrichment_quota_status.remaining IS 'Calls left in it: as the provider says where it does, else as counted.';
COMMENT ON COLUMN @extschema@.enrichment_quota_status.window_start IS 'When it began (UTC).';
COMMENT ON COLUMN @extschema@.enrichment_quota_status.resets_at IS 'When calls are allowed again, or the next window begins.';
COMMENT ON COLUMN @extschema@.enrichment_quota_status.provider_max IS 'The limit, as the provider says.';
COMMENT ON COLUMN @extschema@.enrichment_quota_status.provider_spent IS 'Calls made, as the provider says.';
COMMENT ON COLUMN @extschema@.enrichment_quota_status.provider_remaining IS 'Calls left, as the provider says.';
COMMENT ON COLUMN @extschema@.enrichment_quota_status.provider_resets_at IS 'When they are renewed, as the provider says.';
COMMENT ON COLUMN @extschema@.enrichment_quota_status.provider_said_at IS 'When it said so last. NULL: never.';
COMMENT ON COLUMN @extschema@.enrichment_quota_status.paused_until IS 'Until when the service is not asked at all. NULL: it is not paused.';
COMMENT ON COLUMN @extschema@.enrichment_quota_status.pause_cause IS 'Kind of the pause.';
COMMENT ON COLUMN @extschema@.enrichment_quota_status.pause_reason IS 'The pause in words.';

COMMENT ON VIEW @extschema@.enrichment_stat IS
    'Totals per service over all days of enrichment_cache_stats.';
COMMENT ON COLUMN @extschema@.enrichment_stat.service IS
    'The service. (other services): those that were first looked up when 1,024 pairs of database and service were counted already. (other databases): databases that found no place at all.';
COMMENT ON COLUMN @extschema@.enrichment_stat.cache_hits IS 'Reads that found a fresh answer.';
COMMENT ON COLUMN @extschema@.enrichment_stat.cache_misses IS 'Reads that did not.';
COMMENT ON COLUMN @extschema@.enrichment_stat.cache_stores IS 'Answers stored.';
COMMENT ON COLUMN @extschema@.enrichment_stat.api_calls IS 'Calls made.';
COMMENT ON COLUMN @extschema@.enrichment_stat.api_failures IS 'Calls that brought no answer.';
COMMENT ON COLUMN @extschema@.enrichment_stat.avg_api_latency_ms IS 'Mean milliseconds of a call. NULL: there was none.';
COMMENT ON COLUMN @extschema@.enrichment_stat.max_api_latency_ms IS 'Milliseconds of the slowest call. NULL: there was none.';
COMMENT ON COLUMN @extschema@.enrichment_stat.total_entries IS 'Rows of the cache when last counted. NULL: not counted yet.';
COMMENT ON COLUMN @extschema@.enrichment_stat.expired_entries IS 'Those of them past expiry. NULL: not counted yet.';
COMMENT ON COLUMN @extschema@.enrichment_stat.touches_dropped IS 'As enrichment_cache_stats.touches_dropped.';
COMMENT ON COLUMN @extschema@.enrichment_stat.disk_hits IS 'Of cache_misses those that a file of the disk cache answered.';
COMMENT ON COLUMN @extschema@.enrichment_stat.disk_adopted IS 'As enrichment_cache_stats.disk_adopted.';
COMMENT ON COLUMN @extschema@.enrichment_stat.disk_written IS 'As enrichment_cache_stats.disk_written.';

COMMENT ON VIEW @extschema@.enrichment_worker IS
    'The workers of the cluster, one row per database.';
COMMENT ON COLUMN @extschema@.enrichment_worker.pid IS 'Process id. NULL: no worker runs.';
COMMENT ON COLUMN @extschema@.enrichment_worker.database IS 'Name of the database.';
COMMENT ON COLUMN @extschema@.enrichment_worker.state IS 'What the worker does, or why there is none.';
COMMENT ON COLUMN @extschema@.enrichment_worker.in_flight IS 'Calls under way.';
COMMENT ON COLUMN @extschema@.enrichment_worker.last_error IS 'The last thing that went wrong. NULL: nothing.';

-- Functions -------------------------------------------------------------------------------------------------
COMMENT ON FUNCTION @extschema@.enrich_get(text, text) IS
    'The payload of a key if it is fresh, else NULL. Only reads. NULL too for a key that cannot be one; an unknown service is an error.';
COMMENT ON FUNCTION @extschema@.enrich_get(text, inet) IS
    'The same for columns of type inet. A network has no answer: NULL.';
COMMENT ON FUNCTION @extschema@.enrich_get(text, text, interval) IS
    'The payload of a key if it is fresh or expired by no more than max_stale, else NULL.';
COMMENT ON FUNCTION @extschema@.enrich_get_many(text, text[]) IS
    'The fresh payloads among many keys, in the order of the normalised keys; a key without one gives no row.';
COMMENT ON FUNCTION @extschema@.enrich_get_text(text, text) IS
    'The raw text stored with enrich_store_text if it is fresh, else NULL; of another payload its JSON text.';
COMMENT ON FUNCTION @extschema@.enrich_lookup(text, text) IS
    'Everything known of a key, in one row. state: hit, stale, not_found, error, queued, miss or ineligible.';
COMMENT ON FUNCTION @extschema@.enrich_store(text, text, jsonb, interval, text, integer, integer, text, timestamptz) IS
    'Stores an answer and returns the row''s version. ttl NULL: the service''s own. An older observation than the one that is kept changes nothing, and a failure never replaces an answer.';
COMMENT ON FUNCTION @extschema@.enrich_store_many(text, text[], jsonb[], interval) IS
    'Stores many answers observed now and returns how many rows were written. ttl NULL: the service''s own.';
COMMENT ON FUNCTION @extschema@.enrich_store_text(text, text, text, interval) IS
    'Stores a raw text, which enrich_get_text returns byte for byte, and returns the row''s version. ttl NULL: the service''s own.';
COMMENT ON FUNCTION @extschema@.enrich_compare_and_store(text, text, bigint, jsonb, interval) IS
    'Stores a payload if the row still has the expected version (0: there is none yet) and returns the new version. NULL: somebody else was faster.';
COMMENT ON FUNCTION @extschema@.enrich_invalidate(text, text, boolean) IS
    'Makes a key (NULL: every key) of a service expire now, or deletes it (hard), with imported answers that wait for it. Returns how many rows changed.';
COMMENT ON FUNCTION @extschema@.enrich_cleanup(bigint) IS
    'Deletes what is past expiry and the stale_ttl of its service, answers of unknown keys included, at most max_rows (NULL: all). Returns how many rows.';
COMMENT ON FUNCTION @extschema@.enrich_request(text, text, integer) IS
    'Asks the worker to fetch a key: queued, already_queued, fresh, ineligible, disabled or no_credential.';
COMMENT ON FUNCTION @extschema@.enrich_request_many(text, text[], integer) IS
    'Asks the worker to fetch many keys; returns how many are new in the queue.';
COMMENT ON FUNCTION @extschema@.enrich_fetch(text, text, interval) IS
    'The payload of a key, fetched now if it is not fresh. When time runs out the stale answer, else NULL. One call goes out however many sessions ask.';
COMMENT ON FUNCTION @extschema@.enrich_password(text) IS
    'Whether a password is known to be breached and how often it was seen; only five digits of its hash go anywhere. breached NULL: not known yet, status says why.';
COMMENT ON FUNCTION @extschema@.enrich_set_secret(text, text) IS
    'Keeps the secret of a service (NULL removes it). Only the worker reads it; it is never shown or dumped.';
COMMENT ON FUNCTION @extschema@.enrich_key_hash(text, text) IS
    'The first 16 bytes of SHA-256 over service, a zero byte, key: enrichment_cache.cache_key_hash.';
COMMENT ON FUNCTION @extschema@.enrich_normalize_key(text, text) IS
    'The normal form of a key of this kind. NULL: it cannot be one.';
COMMENT ON FUNCTION @extschema@.enrich_ineligible(text, text) IS
    'Why a key of this kind is never sent to a provider. NULL: it may be sent.';
COMMENT ON FUNCTION @extschema@.enrich_hibp_prefix(text) IS
    'The first five hexadecimal digits of a password''s SHA-1: all of it that ever leaves.';
COMMENT ON FUNCTION @extschema@.enrich_hibp_count(bytea, text) IS
    'How often HIBP has seen the password of a suffix, from a packed range; 0 when the range does not hold it. Of a stored range only a part is read.';
COMMENT ON FUNCTION @extschema@.enrich_hibp_range(bytea) IS
    'A packed range as an object of suffixes and counts.';
COMMENT ON FUNCTION @extschema@.enrich_hibp_suffix(text) IS
    'The other 35 digits, to be looked for in a cached range.';
COMMENT ON FUNCTION @extschema@.enrich_check_service(text, text, text, text, text, text, text, text, text) IS
    'Checks a row of enrichment_service and raises what is wrong with it; else true. Its CHECK constraint calls this.';
COMMENT ON FUNCTION @extschema@.enrich_preloaded() IS
    'Whether the library was preloaded, so that workers run.';
COMMENT ON FUNCTION @extschema@.enrich_wake() IS
    'Wakes the worker of this database when the transaction commits.';
COMMENT ON FUNCTION @extschema@.enrich_wake_launcher() IS
    'Tells the launcher of this database when the transaction commits.';
COMMENT ON FUNCTION @extschema@.enrich_worker_states() IS
    'What the workers of the cluster do: the base of enrichment_worker.';
COMMENT ON FUNCTION @extschema@.enrich_live_lookups() IS
    'Look-ups of this database that are counted in shared memory and not in enrichment_cache_stats yet; enrichment_stat adds them.';
COMMENT ON FUNCTION @extschema@.enrich_quota_live() IS
    'How full the shared budgets of this database''s services are, and what the providers say of them; the base of enrichment_quota_status.';
COMMENT ON FUNCTION @extschema@.enrich_lane_waits() IS
    'Services of this database that wait for a limit now: which window holds them up (balance: none that ends; pause: one that another database was asked for), and until when.';
COMMENT ON FUNCTION @extschema@.enrich_registry_changed(oid) IS
    'Tells every session that the registry has changed, when the transaction commits. Called by a trigger.';

COMMENT ON FUNCTION @extschema@.enrich_text(jsonb) IS
    'The text of a JSON text, number or truth value. NULL for an empty text and anything else; never raises.';
COMMENT ON FUNCTION @extschema@.enrich_text(jsonb, text[]) IS
    'The same of the value at a path into a payload: enrich_text(payload, ''ip'', ''as''). NULL where the path leads to nothing.';
COMMENT ON FUNCTION @extschema@.enrich_bigint(jsonb) IS
    'A whole number from a JSON number or a text that holds one; fractions are cut off. NULL for anything else and out of range; never raises.';
COMMENT ON FUNCTION @extschema@.enrich_bigint(jsonb, text[]) IS
    'The same of the value at a path into a payload: enrich_bigint(payload, ''ip'', ''as''). NULL where the path leads to nothing.';
COMMENT ON FUNCTION @extschema@.enrich_asn(jsonb) IS
    'The number of an autonomous system, also from "AS123". NULL for 0, above 2147483647 and anything else; never raises.';
COMMENT ON FUNCTION @extschema@.enrich_asn(jsonb, text[]) IS
    'The same of the value at a path into a payload: enrich_asn(payload, ''ip'', ''as''). NULL where the path leads to nothing.';
COMMENT ON FUNCTION @extschema@.enrich_boolean(jsonb) IS
    'A truth value from true, false, 1, 0 or a text that says so (t, yes, on, f, no, off). NULL for anything else; never raises.';
COMMENT ON FUNCTION @extschema@.enrich_boolean(jsonb, text[]) IS
    'The same of the value at a path into a payload: enrich_boolean(payload, ''ip'', ''as''). NULL where the path leads to nothing.';
COMMENT ON FUNCTION @extschema@.enrich_timestamp(jsonb) IS
    'A moment from Unix seconds, or from a date with or without time and offset (UTC without). NULL for anything else, such as 30 February; never raises.';
COMMENT ON FUNCTION @extschema@.enrich_timestamp(jsonb, text[]) IS
    'The same of the value at a path into a payload: enrich_timestamp(payload, ''ip'', ''as''). NULL where the path leads to nothing.';
COMMENT ON FUNCTION @extschema@.enrich_date(jsonb) IS
    'The day, in UTC, of what enrich_timestamp reads. NULL for anything else; never raises.';
COMMENT ON FUNCTION @extschema@.enrich_date(jsonb, text[]) IS
    'The same of the value at a path into a payload: enrich_date(payload, ''ip'', ''as''). NULL where the path leads to nothing.';
COMMENT ON FUNCTION @extschema@.enrich_text_array(jsonb) IS
    'The texts of a JSON array of scalars ({} if it has none), or of a text with commas between. NULL for anything else; never raises.';
COMMENT ON FUNCTION @extschema@.enrich_text_array(jsonb, text[]) IS
    'The same of the value at a path into a payload: enrich_text_array(payload, ''ip'', ''as''). NULL where the path leads to nothing.';
COMMENT ON FUNCTION @extschema@.enrich_names(jsonb, text[]) IS
    'The names of the members of the object at a path, in the order of their bytes; of anything else as enrich_text_array.';
COMMENT ON FUNCTION @extschema@.enrich_sum(jsonb) IS
    'The sum of the members of an object, each read as by enrich_bigint. NULL if none is a number and out of range; never raises.';
COMMENT ON FUNCTION @extschema@.enrich_virustotal_value(jsonb, text[]) IS
    'The value at a path into the attributes of a VirusTotal answer: with its wrapper, without, or some attributes alone.';
COMMENT ON FUNCTION @extschema@.enrich_virustotal_attributes(jsonb) IS
    'The attributes in what was cached of a VirusTotal answer: with its wrapper, without, or some of them alone.';
COMMENT ON FUNCTION @extschema@.enrich_spur_value(jsonb, text[]) IS
    'The value at a path into a Spur answer, also where a list of 18 items was cached. NULL for a list of nothing.';
COMMENT ON FUNCTION @extschema@.enrich_spur_flagged(jsonb) IS
    'Whether a Spur answer tells of a data centre, a VPN or a tunnel. NULL where it is no answer.';
COMMENT ON FUNCTION @extschema@.enrich_spur_answer(jsonb) IS
    'A Spur answer as received; a cached list of 18 items is put into that shape. NULL for a list of nothing.';
COMMENT ON FUNCTION @extschema@.enrich_spur_list(jsonb) IS
    'A cached list of 18 items, in either order, in the shape of Spur''s own answer. NULL for a list of nothing.';
COMMENT ON FUNCTION @extschema@.enrich_urlhaus_tags(jsonb) IS
    'The distinct tags of all URLs of a URLhaus answer, in the order of their bytes; of a cached list of tags these.';
COMMENT ON FUNCTION @extschema@.enrich_urlhaus_online(jsonb) IS
    'How many URLs of a URLhaus answer are online. NULL where it names none.';

COMMENT ON FUNCTION @extschema@.enrich_explain(text, text) IS
    'One sentence: why the value of a key is what it is, and what happens next.';
COMMENT ON FUNCTION @extschema@.enrich_health() IS
    'What is well and what is not, with a hint what to do. severity: ok, warning or error.';
COMMENT ON FUNCTION @extschema@.enrich_grant(regrole, text) IS
    'Gives a role the rights of a level: reader; writer (store, request, fetch too); admin (services, sources, secrets, cleanup too).';
COMMENT ON FUNCTION @extschema@.enrichment_keep_history() IS
    'Trigger of enrichment_cache: a payload that is replaced by another one goes to enrichment_history.';
COMMENT ON FUNCTION @extschema@.enrich_scattered(bigint) IS
    'Part of the cache''s table: the id of a row from the number its sequence gave. Each comes once, neighbours lie far apart.';
COMMENT ON FUNCTION @extschema@.enrich_payload_terms(jsonb, internal, internal) IS
    'Part of the index on payloads: the terms of a payload.';
COMMENT ON FUNCTION @extschema@.enrich_payload_query_terms(jsonb, internal, smallint, internal, internal, internal, internal) IS
    'Part of the index on payloads: the terms a condition asks for.';
COMMENT ON OPERATOR CLASS @extschema@.enrichment_payload_ops USING gin IS
    'For payload @> (and @?, @@): as jsonb_path_ops, with at most 262,144 different terms, so that the index does not grow with each refresh.';
COMMENT ON OPERATOR FAMILY @extschema@.enrichment_payload_ops USING gin IS
    'For payload @> (and @?, @@): see the operator class of the same name.';
COMMENT ON FUNCTION @extschema@.enrichment_registry_changed() IS
    'Trigger of enrichment_service: every session reads the registry again, the worker wakes.';
COMMENT ON FUNCTION @extschema@.enrichment_sources_changed() IS
    'Trigger of enrichment_source: every session learns for which services a table is attached.';
COMMENT ON FUNCTION @extschema@.enrichment_take_over_builtin() IS
    'Trigger of enrichment_service: a changed row is the administrator''s own; one restored from a dump replaces the built-in.';
