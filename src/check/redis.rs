//! Redis: that it keeps what it is given, and that the stream has the name that its writer uses.

use super::finding::{Check, Finding, span};
use crate::config::Settings;
use crate::flags::{GroupState, RedisState, StreamState};

/// `flags` is how many there are on Directus' side, where that is known.
pub(super) fn findings(settings: &Settings, survey: Option<&Result<RedisState, String>>, flags: i64) -> Vec<Finding> {
    let rest = [Check::RedisMemory, Check::RedisPersistence, Check::FlagStream, Check::FlagGroup, Check::DeadLetters];
    let (Some(url), Some(survey)) = (&settings.redis_url, survey) else {
        let none = Check::Redis.note(
            "none: faulty flags come by reconciliation with Directus' tables, every few minutes",
            "set REDIS_URL, so that they come at once and timing services are told",
        );
        return [none].into_iter().chain(rest.map(|check| check.ok("no Redis"))).collect();
    };
    let found = match survey {
        Ok(found) => found,
        Err(error) => {
            let remedy = "see that it runs and that REDIS_URL is right; meanwhile flags come by reconciliation";
            let away = Check::Redis.wrong(format!("{url}: {error}"), remedy);
            return [away].into_iter().chain(rest.map(|check| check.unknown("Redis does not answer"))).collect();
        }
    };
    vec![
        server(&url.to_string(), found),
        memory(found),
        persistence(found),
        stream(&settings.flags_stream, found, flags),
        group(&settings.flags_group, found.stream.as_ref()),
        dead(&settings.flags_stream, found.dead),
    ]
}

fn server(shown: &str, found: &RedisState) -> Finding {
    let check = Check::Redis;
    let version = format!("Redis {} at {shown}", found.version);
    if found.replica {
        return check.wrong(format!("{version} is a replica and takes no writes"), "name the primary in REDIS_URL");
    }
    if found.disk_failed {
        return check.wrong(format!("{version} cannot write to its disk"), "make room there, and see its log");
    }
    match found.version.split('.').next().and_then(|major| major.parse::<u32>().ok()) {
        Some(..7) => check.wrong(version, "Redis or Valkey 7 or later is needed"),
        _ => check.ok(version),
    }
}

fn memory(found: &RedisState) -> Finding {
    let check = Check::RedisMemory;
    let RedisState { policy, max_memory, .. } = found;
    // Streams have no time to live, so a policy that takes only keys with one leaves them alone.
    if policy == "noeviction" || policy.starts_with("volatile-") {
        return check.ok(format!("maxmemory-policy is {policy}"));
    }
    if policy == "unknown" {
        return check.unknown("the server does not say what it evicts");
    }
    let bound = if *max_memory == 0 { " (there is no maxmemory yet)" } else { "" };
    check.wrong(
        format!("maxmemory-policy is {policy}{bound}: when memory is short Redis gives the stream of flags away"),
        "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf",
    )
}

fn persistence(found: &RedisState) -> Finding {
    let check = Check::RedisPersistence;
    match (found.append_only, found.snapshots) {
        (true, _) => check.ok("an append-only file is kept"),
        (false, None) => check.unknown("no append-only file; whether it makes snapshots may not be asked"),
        (false, Some(snapshots)) => check.note(
            if snapshots { "snapshots only: a crash loses minutes" } else { "none: a restart loses the streams" },
            "appendonly yes in redis.conf. Flags come back by reconciliation; corrections that nobody has read do not",
        ),
    }
}

fn stream(name: &str, found: &RedisState, flags: i64) -> Finding {
    let check = Check::FlagStream;
    let state = match &found.stream {
        Some(stream) if !stream.untouched => return check.ok(format!("{name}: {} entries", stream.length)),
        Some(_) => "never had an entry",
        None => "is not there",
    };
    if let Some(other) = found.elsewhere.first() {
        return check.wrong(
            format!("{name} {state}, and there are flags in {}", found.elsewhere.join(", ")),
            format!("one name for both: ODOGRAPH_FLAGS_STREAM={other}, or the same change where Directus' hook has it"),
        );
    }
    let remedy = "see that Directus' hook runs and writes to this very name (ODOGRAPH_FLAGS_STREAM)";
    if flags > 0 {
        return check.wrong(format!("{name} {state}, though Directus has {flags} flags"), remedy);
    }
    check.note(format!("{name} {state}: it is the name that will be read"), remedy)
}

fn group(name: &str, stream: Option<&StreamState>) -> Finding {
    let check = Check::FlagGroup;
    let make = "`odograph serve` makes it at its start, from the stream's beginning";
    let Some(group) = stream.and_then(|stream| stream.group.as_ref()) else {
        return match stream {
            Some(stream) if stream.length > 0 => {
                check.note(format!("there is no group {name}, so nobody reads the stream"), make)
            }
            _ => check.ok(format!("{name} is not made yet: {make}")),
        };
    };
    let GroupState { consumers, pending, unread, oldest } = group;
    let found = format!("{name}: {consumers} consumers, {unread} entries unread, {pending} read and not applied");
    let Some(oldest) = oldest else { return check.ok(found) };
    let found = format!("{found}, the oldest for {}", span(*oldest));
    let remedy =
        "see that `odograph serve` runs with this group (ODOGRAPH_FLAGS_GROUP) and that the database takes flags";
    match oldest.as_secs() {
        0..=60 => check.ok(found),
        61..=300 => check.note(found, remedy),
        _ => check.wrong(found, remedy),
    }
}

fn dead(stream: &str, dead: u64) -> Finding {
    match dead {
        0 => Check::DeadLetters.ok("none"),
        dead => Check::DeadLetters.note(
            format!("{dead} flags could not be read"),
            format!("XRANGE {stream}:dead - + COUNT 10 shows them with their reason; mend their writer, then XTRIM {stream}:dead MAXLEN 0"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::CheckStatus::{Note, Ok as Fine, Unknown, Wrong};
    use super::*;
    use crate::config::Lookup;

    fn survey() -> RedisState {
        let stream = StreamState { length: 3, untouched: false, group: Some(GroupState::default()) };
        let (version, policy) = ("7.0.15".to_owned(), "noeviction".to_owned());
        RedisState { version, policy, append_only: true, stream: Some(stream), ..RedisState::default() }
    }

    #[test]
    fn a_server_has_to_take_writes_and_keep_streams() {
        assert_eq!(server("r", &survey()).status, Fine);
        assert_eq!(server("r", &RedisState { version: "6.2.1".into(), ..survey() }).status, Wrong);
        assert_eq!(server("r", &RedisState { replica: true, ..survey() }).status, Wrong);
        assert_eq!(server("r", &RedisState { disk_failed: true, ..survey() }).status, Wrong);
        assert_eq!(memory(&survey()).status, Fine);
        let policy = |policy: &str| memory(&RedisState { policy: policy.into(), ..survey() }).status;
        assert_eq!((policy("volatile-lru"), policy("unknown")), (Fine, Unknown));
        let evicts = memory(&RedisState { policy: "allkeys-lru".into(), ..survey() });
        assert!(evicts.status == Wrong && evicts.remedy.unwrap().contains("maxmemory-policy noeviction"));
        let kept = |append_only, snapshots| persistence(&RedisState { append_only, snapshots, ..survey() }).status;
        assert_eq!((kept(true, None), kept(false, Some(true)), kept(false, Some(false))), (Fine, Note, Note));
        assert_eq!(kept(false, None), Unknown);
    }

    #[test]
    fn a_stream_with_another_name_than_its_writers_is_wrong() {
        let untouched =
            RedisState { stream: Some(StreamState { untouched: true, ..StreamState::default() }), ..survey() };
        assert_eq!(stream("a", &survey(), 0).status, Fine);
        assert_eq!(stream("a", &untouched, 0).status, Note);
        assert_eq!(stream("a", &untouched, 5).status, Wrong);
        assert_eq!(stream("a", &RedisState { stream: None, ..survey() }, 0).status, Note);
        let found = stream("a", &RedisState { elsewhere: vec!["b".into()], ..untouched }, 0);
        assert!(found.status == Wrong && found.remedy.unwrap().contains("ODOGRAPH_FLAGS_STREAM=b"));
    }

    #[test]
    fn a_group_has_to_keep_up() {
        let status_of = |oldest: Option<u64>| {
            let group = GroupState { oldest: oldest.map(Duration::from_secs), ..GroupState::default() };
            super::group("g", Some(&StreamState { length: 1, untouched: false, group: Some(group) })).status
        };
        assert_eq!(
            (status_of(None), status_of(Some(5)), status_of(Some(61)), status_of(Some(301))),
            (Fine, Fine, Note, Wrong)
        );
        let unread = StreamState { length: 1, untouched: false, group: None };
        assert_eq!((group("g", Some(&unread)).status, group("g", None).status), (Note, Fine));
        assert_eq!((dead("s", 0).status, dead("s", 2).status), (Fine, Note));
    }

    #[test]
    fn without_redis_it_is_a_note_and_away_it_is_wrong() {
        let settings = |url: &[(&str, &str)]| Settings::load(&Lookup::from_variables(url.iter().copied())).unwrap();
        assert_eq!(findings(&settings(&[]), None, 0)[0].status, Note);
        let found = findings(&settings(&[("REDIS_URL", "redis://:hunter2@h")]), Some(&Err("refused".into())), 0);
        assert!(found[0].status == Wrong && found[0].found == "redis://_@h: refused", "{found:?}");
        assert!(found[1..].iter().all(|finding| finding.status == Unknown));
    }
}
