//! What the SQL on Directus' collections lets a role do that may only edit flags.

use odograph::store::{MigrateOptions, migrate};
use odograph_testkit::{PostgresFixture, StoreFixture, server_url};
use tokio_postgres::Client;

use crate::flags_directus::{CAR, FLAG, OPTIONS, TRUCK, insert_text, installed, outbox};

/// Functions that run with their owner's rights, and whose search path is open: not pinned, or with a place before
/// `pg_temp` that is not named, so that temporary objects of the caller are found.
const OPEN_DEFINERS: &str = "SELECT p.oid::regprocedure::text FROM pg_proc AS p
    WHERE p.prosecdef AND p.pronamespace <> 'pg_catalog'::regnamespace
        AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = p.oid AND d.deptype = 'e')
        AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS setting
            WHERE setting ~ '^search_path=pg_catalog, .+, pg_temp$' AND setting !~ '\\$user')";

/// A connection as a role with these privileges on `position_flags`, and no others. The role ends with the database.
async fn as_marshal(database: &PostgresFixture) -> (Client, String) {
    let role = format!("marshal_{}", database.name());
    database
        .execute(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD '{role}'; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON position_flags TO {role}; GRANT SELECT ON devices TO {role}"
        ))
        .await;
    let mut config: tokio_postgres::Config = server_url().parse().unwrap();
    config.user(&role).password(&role).dbname(database.name());
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    (client, role)
}

async fn forget(database: &PostgresFixture, role: &str) {
    database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_temporary_table_named_like_ours_gets_no_rights_of_the_owner() {
    let database = installed().await;
    let (marshal, role) = as_marshal(&database).await;
    for (table, flag) in [("flag_outbox", FLAG), ("position_flag_state", CAR), ("devices", TRUCK)] {
        let attack = format!(
            "CREATE TEMP TABLE {table} (id uuid, imei text, flag_id uuid PRIMARY KEY DEFAULT gen_random_uuid(), seq bigint, \
                 op text, old jsonb, new jsonb, ts_from timestamptz, ts_to timestamptz, faulty boolean, deleted boolean, \
                 reason text); \
             CREATE FUNCTION pg_temp.take_over() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 EXECUTE 'ALTER ROLE {role} SUPERUSER'; RETURN NEW; END $$; \
             CREATE TRIGGER take_over BEFORE INSERT ON pg_temp.{table} FOR EACH ROW EXECUTE FUNCTION pg_temp.take_over()"
        );
        marshal.batch_execute(&attack).await.unwrap();
        marshal.batch_execute(&insert_text(flag, CAR, 0, 10)).await.unwrap();
        let is_superuser = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user";
        assert!(!marshal.query_one(is_superuser, &[]).await.unwrap().get::<_, bool>(0), "by a table {table}");
        marshal.batch_execute("DISCARD TEMP").await.unwrap();
    }
    assert_eq!(outbox(&database).await.len(), 3, "each flag was announced");
    drop(marshal);
    forget(&database, &role).await;
}

#[tokio::test]
async fn a_table_of_ones_own_announces_no_flags() {
    let database = installed().await;
    let (marshal, role) = as_marshal(&database).await;
    marshal.batch_execute("CREATE TEMP TABLE forged AS SELECT * FROM position_flags").await.unwrap();
    let trigger = "CREATE TRIGGER forged AFTER INSERT ON forged FOR EACH ROW EXECUTE FUNCTION odograph_flag_changed()";
    let error = marshal.batch_execute(trigger).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42501", "{error:?}");
    // The trigger of a role that had the privilege under an earlier version.
    database.execute(&format!("GRANT EXECUTE ON FUNCTION odograph_flag_changed() TO {role}")).await;
    marshal.batch_execute(trigger).await.unwrap();
    let forged = insert_text(FLAG, CAR, 0, 10).replace("position_flags", "forged");
    let error = marshal.batch_execute(&forged).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42501", "{error:?}");
    assert_eq!(outbox(&database).await.len(), 0);
    drop(marshal);
    forget(&database, &role).await;
}

#[tokio::test]
async fn every_function_with_its_owners_rights_pins_its_search_path() {
    let database = installed().await;
    let open = async || -> Vec<String> {
        let rows = database.client.query(OPEN_DEFINERS, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    assert_eq!(open().await, Vec::<String>::new());
    // The function of an earlier version is replaced.
    database.execute("ALTER FUNCTION odograph_flag_changed() SET search_path = \"$user\", public").await;
    database.execute("GRANT EXECUTE ON FUNCTION odograph_flag_changed() TO public").await;
    assert_eq!(open().await, ["odograph_flag_changed()"]);
    migrate(&database.url, &MigrateOptions { ..OPTIONS }).await.unwrap();
    assert_eq!(open().await, Vec::<String>::new());
    let executable = "SELECT has_function_privilege('public', 'odograph_flag_changed()', 'EXECUTE')";
    assert!(!database.client.query_one(executable, &[]).await.unwrap().get::<_, bool>(0));
}
