//! The lanes of a journal: claimed at the start, made anew when their number changed, forgotten when the journal is.

use super::connection::{Connection, key_of};
use super::sql::{FORGET_LANES, LANES, LOCK_LANES, MAKE_LANES};
use super::transaction::{lane_number, position_number, stored};
use crate::store::StoreError;
use crate::store::model::fence::{Checkpoint, Lane, StoredCheckpoint, starting_checkpoint};

/// Where the lane stands, after its rows were made or made anew where that is needed.
pub(crate) async fn open(connection: &mut Connection, lane: Lane) -> Result<Checkpoint, StoreError> {
    const OPENING: &str = "opening a lane";
    let journal = lane.journal.uuid();
    connection.batch(OPENING, "BEGIN").await?;
    let whole = key_of(Lane { number: u16::MAX, ..lane });
    connection.execute(OPENING, LOCK_LANES, &[&whole]).await?;
    let rows = connection.query(OPENING, LANES, &[&journal]).await?;
    let found: Vec<StoredCheckpoint> = rows.iter().map(|row| stored(row, 1)).collect::<Result<_, _>>()?;
    let (checkpoint, make) = starting_checkpoint(lane, &found);
    if make {
        let (position, latest) = (position_number(checkpoint.mark.position)?, position_number(checkpoint.latest)?);
        let lanes = lane_number(lane.lanes);
        connection.execute(OPENING, FORGET_LANES, &[&journal]).await?;
        connection.execute(OPENING, MAKE_LANES, &[&journal, &lanes, &position, &checkpoint.mark.tag, &latest]).await?;
    }
    connection.batch(OPENING, "COMMIT").await?;
    Ok(checkpoint)
}

/// Deletes the rows of the journal.
pub(crate) async fn forget(connection: &mut Connection, lane: Lane) -> Result<(), StoreError> {
    connection.execute("forgetting a journal", FORGET_LANES, &[&lane.journal.uuid()]).await?;
    Ok(())
}
