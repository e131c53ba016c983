//! Tables, what the role may do with them, and what this build of TimescaleDB lacks.

use super::database::{QueryResult, ServerClient, get};
use super::finding::{Check, Finding};
use crate::store::{self, DatabaseUrl, ErrorClass, Features, PositionsTable, Schema, features};

/// What was found out.
pub(super) struct SchemaFacts {
    schema: Result<Schema, (ErrorClass, String)>,
    features: QueryResult<Features>,
    lacking: QueryResult<Vec<String>>,
    /// Whether the role may drop chunks.
    owner: QueryResult<bool>,
}

pub(super) async fn read(client: &ServerClient, url: &DatabaseUrl) -> SchemaFacts {
    let schema = async { store::schema(url).await.map_err(|error| (error.class, error.source.to_string())) };
    let features = async { features(url).await.map_err(|error| error.source.to_string()) };
    let lacking = async {
        let rows = client.rows(LACKING, &[]).await?;
        rows.iter().map(|row| get(row, 0)).collect()
    };
    let owner = async { get(&client.row(OWNER, &[]).await?, 0) };
    let (schema, features, lacking, owner) = tokio::join!(schema, features, lacking, owner);
    SchemaFacts { schema, features, lacking, owner }
}

/// `drops` says that positions are not kept for ever.
pub(super) fn findings(facts: &SchemaFacts, drops: bool) -> Vec<Finding> {
    vec![schema(&facts.schema), privileges(&facts.lacking, &facts.owner, drops), licence(&facts.features)]
}

impl SchemaFacts {
    /// The version of TimescaleDB, where positions is a hypertable.
    pub(super) fn hypertable(&self) -> bool {
        matches!(&self.features, Ok(Features { positions: PositionsTable::Hypertable { .. }, .. }))
    }
}

fn schema(schema: &Result<Schema, (ErrorClass, String)>) -> Finding {
    let check = Check::Schema;
    match schema {
        Ok(Schema::Current) => check.ok("every migration is applied"),
        Ok(Schema::Outdated) => {
            check.wrong("the database lacks migrations", "run `odograph migrate` with the same DATABASE_URL")
        }
        Ok(Schema::Newer) => check.note(
            "the database has migrations that this version does not know",
            "use the odograph that made it, or a later one",
        ),
        Err((ErrorClass::Refuses, error)) => {
            check.wrong(error, "grant the role what docs/database.md lists under Roles")
        }
        Err((ErrorClass::Unavailable, error)) => check.unknown(error),
    }
}

fn privileges(lacking: &QueryResult<Vec<String>>, owner: &QueryResult<bool>, drops: bool) -> Finding {
    let check = Check::Privileges;
    let remedy = "as the tables' owner, grant what docs/database.md lists under Roles";
    match (lacking, owner) {
        (Err(error), _) | (_, Err(error)) if error.starts_with("42501") => check.wrong(error, remedy),
        (Err(error), _) | (_, Err(error)) => check.unknown(error),
        (Ok(lacking), _) if !lacking.is_empty() => {
            check.wrong(format!("the role lacks {}", lacking.join(", ")), remedy)
        }
        (Ok(_), Ok(false)) if drops => check.wrong(
            "the role does not own positions, and ODOGRAPH_RETENTION has it drop chunks",
            "unset ODOGRAPH_RETENTION and drop old chunks as the owner, or ALTER TABLE positions OWNER TO …",
        ),
        _ => check.ok("the role may do what `serve` does"),
    }
}

fn licence(features: &QueryResult<Features>) -> Finding {
    let check = Check::Licence;
    match features {
        Err(error) => check.wrong(error, "install TimescaleDB 2.13 or later; see docs/database.md, Builds"),
        Ok(features) => match (features.lacks(), &features.positions) {
            (Some(lacks), _) => {
                // One sentence: what is missing and what it costs, and then what helps.
                let (found, remedy) = lacks.rsplit_once("; ").unwrap_or((lacks, "see docs/database.md, Builds"));
                check.note(found, remedy)
            }
            (None, PositionsTable::Hypertable { timescaledb }) => {
                check.ok(format!("TimescaleDB {timescaledb}, with the columnstore"))
            }
            (None, PositionsTable::Plain | PositionsTable::Embedded) => check.ok("none is needed"),
        },
    }
}

const LACKING: &str = "SELECT privilege || ' on ' || name FROM (
        SELECT name, privilege, has_table_privilege(to_regclass(name), privilege) AS has FROM (
            SELECT name, privilege FROM
                unnest(ARRAY['positions', 'latest_positions', 'ingest_checkpoints', 'quarantined_records', 'device_messages',
                    'position_flag_ledger', 'position_flag_windows', 'position_corrections']) AS name,
                unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
            UNION ALL SELECT name, 'SELECT' FROM unnest(ARRAY['_sqlx_migrations', 'devices', 'position_flag_state']) AS name
        ) AS wanted WHERE to_regclass(name) IS NOT NULL
        UNION ALL SELECT 'position_flag_versions', 'USAGE', has_sequence_privilege(to_regclass('position_flag_versions'), 'USAGE')
            WHERE to_regclass('position_flag_versions') IS NOT NULL
        UNION ALL SELECT 'the database', 'TEMPORARY', has_database_privilege(current_database(), 'TEMPORARY')
    ) AS asked WHERE NOT has";
const OWNER: &str =
    "SELECT coalesce((SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('positions')), true)";

#[cfg(test)]
mod tests {
    use super::super::CheckStatus::{Note, Ok as Fine, Unknown, Wrong};
    use super::*;
    use crate::store::Columnstore;

    #[test]
    fn a_schema_is_current_or_has_its_remedy() {
        assert_eq!(schema(&Ok(Schema::Current)).status, Fine);
        assert_eq!(schema(&Ok(Schema::Newer)).status, Note);
        let outdated = schema(&Ok(Schema::Outdated));
        assert!(outdated.status == Wrong && outdated.remedy.unwrap().contains("odograph migrate"));
        assert_eq!(schema(&Err((ErrorClass::Refuses, "42501".into()))).status, Wrong);
        assert_eq!(schema(&Err((ErrorClass::Unavailable, "away".into()))).status, Unknown);
    }

    #[test]
    fn every_privilege_of_serve_is_needed() {
        let none = Ok(Vec::new());
        assert_eq!(privileges(&none, &Ok(true), true).status, Fine);
        assert_eq!(privileges(&none, &Ok(false), false).status, Fine);
        assert_eq!(privileges(&none, &Ok(false), true).status, Wrong);
        let lacking = privileges(&Ok(vec!["DELETE on positions".into()]), &Ok(true), false);
        assert!(lacking.status == Wrong && lacking.found.contains("DELETE on positions"));
        assert_eq!(privileges(&Err("42501: permission denied".into()), &Ok(true), false).status, Wrong);
        assert_eq!(privileges(&Err("slow".into()), &Ok(true), false).status, Unknown);
    }

    #[test]
    fn what_a_build_lacks_is_said_with_what_it_costs() {
        let hypertable = |columnstore| {
            Ok(Features { positions: PositionsTable::Hypertable { timescaledb: "2.19.3".into() }, columnstore })
        };
        assert_eq!(licence(&hypertable(Columnstore::On)).status, Fine);
        let apache = licence(&hypertable(Columnstore::NotInThisBuild));
        assert_eq!(apache.status, Note);
        assert!(apache.found.contains("several times the space") && apache.remedy.unwrap().contains("community build"));
        assert_eq!(licence(&Err("too old".into())).status, Wrong);
    }
}
